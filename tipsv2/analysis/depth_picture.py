"""What a DPT model predicted as one picture, panel by panel, and the command that makes it.

python -m tipsv2 depth room.jpg --model google/tipsv2-b14-dpt --out room_depth.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tipsv2.analysis.render import (
    WIDE_PALETTE,
    beside,
    color_bar,
    colorize,
    label_colors,
    legend,
    paint_labels,
    paint_normals,
)

if TYPE_CHECKING:
    from tipsv2.analysis.depth import DptResult

LONGEST = 720  # pixels of a panel's longer side; larger images are shown smaller
LEAST_SHARE = 0.005  # of the pixels, for a class to be in the legend


def panels(
    image: np.ndarray,
    result: DptResult,
    colormap: str = "turbo",
    opacity: float = 0.6,
    near: float | None = None,
    far: float | None = None,
) -> dict[str, np.ndarray]:
    """A picture for the image and for each thing that was predicted, uint8 [h, w, 3], each with its scale or legend.

    image: uint8 [H, W, 3], the one that `result` is about.   opacity: of the labels' colours over the image.
    near, far: metres at the ends of the depth's colours, by default its own least and greatest.
    Keys: "image", "depth" (with its bar in metres), "normals" (x, y, z as red, green, blue) and "labels" (with the
    classes of at least half a percent of the pixels), where the checkpoint has them.
    Raises ValueError unless near < far.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def shown(picture: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))

    made = {"image": shown(image)}
    if result.depth is not None:
        low = float(result.depth.min()) if near is None else near
        high = float(result.depth.max()) if far is None else far
        if high < low or (high == low and (near, far) != (None, None)):
            raise ValueError(f"The colours of depth cannot go from {low:.2f} m to {high:.2f} m: give near below far.")
        bar = color_bar(low, high, size[1], colormap, unit="m")
        made["depth"] = beside([shown(colorize(result.depth, colormap, low, high)), bar])
    if result.normals is not None:
        made["normals"] = shown(paint_normals(result.normals))
    if result.labels is not None:
        colors = label_colors(result.labels, WIDE_PALETTE)
        shares = {name: share for name, share in result.shares().items() if share >= LEAST_SHARE}
        own = [colors[result.classes.index(name)] for name in shares]
        painted = shown(paint_labels(image, result.labels, colors, opacity))
        made["labels"] = beside([painted, legend(list(shares), own, list(shares.values()))])
    return made


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `depth` to python -m tipsv2. command: (name, run, summary, example) -> the parser to fill."""
    parser = command(
        "depth",
        run,
        "Show depth in metres, surface normals and ADE20K's classes, whichever the model has heads for.",
        "depth room.jpg --model google/tipsv2-b14-dpt --out room_depth.png",
    )
    parser.add_argument("image", help="a picture; depth was learnt indoors, up to ten metres")
    parser.add_argument(
        "--model", default="tipsv2-b14-dpt", help="google/tipsv2-b14-dpt, a folder, ... (default: %(default)s)"
    )
    parser.add_argument("--out", default="depth.png", metavar="FILE", help="picture to write (default: %(default)s)")
    parser.add_argument("--arrays", metavar="FILE.npz", help="also write depth, normals, labels and classes as arrays")
    parser.add_argument("--resolution", type=int, help="short side in pixels that the network sees (default: 448)")
    parser.add_argument("--colormap", default="turbo", help="of depth, any of matplotlib's (default: %(default)s)")
    parser.add_argument("--near", type=float, help="metres at the colours' first end (default: the picture's nearest)")
    parser.add_argument("--far", type=float, help="metres at their other end (default: the picture's farthest)")
    parser.add_argument("--opacity", type=float, default=0.6, help="of the labels, 0 to 1 (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="float32 or bfloat16 (default: float32)")


def run(options: argparse.Namespace) -> None:
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.images import open_image

    image = open_image(options.image)  # before torch and the model: a wrong path should not cost their loading
    find(options.model)

    from tipsv2.analysis.depth import load_dpt

    model = load_dpt(options.model, options.device, options.dtype)
    print(model, file=sys.stderr)
    seen = model.predict(image, options.resolution)
    pictures = panels(np.asarray(image), seen, options.colormap, options.opacity, options.near, options.far)
    _write(options.out, lambda path: Image.fromarray(beside(list(pictures.values()))).save(path))
    if options.arrays:
        predicted = {"depth": seen.depth, "normals": seen.normals, "labels": seen.labels}
        arrays: dict[str, Any] = {name: array for name, array in predicted.items() if array is not None}
        _write(options.arrays, lambda path: np.savez_compressed(path, classes=np.array(seen.classes), **arrays))
    if seen.depth is not None:
        low, middle, high = (float(value) for value in np.quantile(seen.depth, (0, 0.5, 1)))
        print(f"depth  {low:.2f} m to {high:.2f} m, half of the pixels within {middle:.2f} m")
    for name, share in list(seen.shares().items())[:10]:
        print(f"{100 * share:5.1f} %  {name}")
    print(f"written to {options.out}" + (f" and {options.arrays}" if options.arrays else ""))


def _write(name: str, save: Callable[[Path], object]) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path)
