"""Pictures that tests look at."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise(path: Path, seed: int = 0, size: tuple[int, int] = (60, 90)) -> str:
    """Write noise of size (H, W), in which no two patches are alike, and return its path."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return str(path)
