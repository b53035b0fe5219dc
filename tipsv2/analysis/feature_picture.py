"""What is inside an image's patches as one picture: principal components, clusters, norms; the features command.

python -m tipsv2 features dog.jpg --model opentips-nano --out features.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import numpy as np

LONGEST = 720  # pixels of a panel's longer side; larger images are shown smaller
TITLES = {
    "pca": "principal components 1 to 3 as red, green, blue",
    "clusters": "clusters of patches",
    "norms": "norms of patches, outliers red",
}


def shown_at(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map over patches [h, w, ...] at the pixels of size (H, W), every patch as a block: [H, W, ...]."""
    import numpy as np

    rows, cols = (np.arange(side) * cells // side for side, cells in zip(size, values.shape[:2], strict=True))
    return values[rows[:, None], cols[None, :]]


def panels(
    image: np.ndarray, patches, clusters: int = 6, seed: int = 0, opacity: float = 0.6
) -> tuple[dict[str, np.ndarray], list[str], dict[str, np.ndarray]]:
    """image uint8 [H, W, 3] and its patches [h, w, D] -> pictures uint8 [H, W, 3], a line about each, the numbers.

    Pictures: "pca" (the first three components as red, green and blue), "clusters" (over the image, by `opacity`) and
    "norms" (the shortest to the longest patch, outliers red). Numbers: "patches" [h, w, D], "scores" [h, w, 3] along
    the components and "explained" [3], "labels" [h, w] and "shares" of the clusters, "norms" and "outliers" [h, w].
    """
    import numpy as np

    from tipsv2.analysis.projection import components_as_rgb, kmeans, patch_norms, pca, project
    from tipsv2.analysis.render import colorize, paint_labels

    size = image.shape[:2]
    basis = pca([patches])
    scores = project(patches, basis)
    (colors,) = components_as_rgb([scores])
    groups = kmeans(patches, clusters, seed)
    lengths = patch_norms(patches)
    lit = np.where(lengths.outliers[..., None], np.uint8([255, 0, 0]), colorize(lengths.norms))
    made = {
        "pca": shown_at((colors * 255 + 0.5).astype(np.uint8), size),
        "clusters": paint_labels(image, shown_at(groups.labels, size), opacity=opacity),
        "norms": shown_at(lit, size),
    }
    median, count = np.median(lengths.norms), int(lengths.outliers.sum())
    words = [
        f"pca       {', '.join(f'{100 * part:.1f} %' for part in basis.explained)} of the variance in red, green, blue",
        f"clusters  {', '.join(f'{100 * part:.1f} %' for part in groups.shares)} of the patches",
        f"norms     median {median:.2f}, from {lengths.norms.min():.2f} to {lengths.norms.max():.2f}; "
        f"{count} of {lengths.norms.size} patches are outliers, above {lengths.limit:.2f}",
    ]
    numbers = {"patches": np.asarray(patches), "scores": scores, "explained": basis.explained}
    numbers |= {"labels": groups.labels, "shares": groups.shares, "norms": lengths.norms, "outliers": lengths.outliers}
    return made, words, numbers


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `features` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "features",
        run,
        "Show an image's patches as principal components, clusters and norms, side by side.",
        "features dog.jpg --model opentips-nano --out features.png",
    )
    parser.add_argument("image", help="a picture")
    parser.add_argument("--out", default="features.png", metavar="FILE", help="picture to write (default: %(default)s)")
    parser.add_argument("--arrays", metavar="FILE", help="also write the numbers behind it to this .npz")
    parser.add_argument("--layer", type=int, help="from 1 to the encoder's last (default: the last)")
    parser.add_argument("--clusters", type=int, default=6, help="how many at the most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the clusters (default: %(default)s)")
    parser.add_argument("--features", choices=("values", "final"), default="final", help="(default: %(default)s)")
    parser.add_argument("--resolution", type=int, help="short side that the network sees (default: as trained)")
    parser.add_argument("--opacity", type=float, default=0.6, help="of the clusters' colours (default: %(default)s)")
    parser.add_argument("--model", default="auto", help="auto, opentips-nano, google/tipsv2-b14, a folder, ...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto)")


def run(options: argparse.Namespace) -> None:
    """The features command. Raises ValueError or OSError with one sentence for whoever typed it."""
    import numpy as np
    from PIL import Image

    from tipsv2.analysis.render import beside, headed
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.images import open_image

    out = Path(options.out)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--out is a picture to write: call it something like features.png, not '{options.out}'.")
    image = open_image(options.image)  # before torch and the model: a wrong path should not cost their loading
    find(options.model)

    from tipsv2.analysis.heatmap import pick_features
    from tipsv2.network.encoder import load
    from tipsv2.network.view import View

    encoder = load(options.model, options.device, options.dtype)
    print(encoder, file=sys.stderr)
    layer = encoder.num_layers if options.layer is None else options.layer
    patches = pick_features(encoder.look(image, View(options.resolution), layer), options.features)
    image.thumbnail((LONGEST, LONGEST))
    made, words, numbers = panels(np.asarray(image), patches, options.clusters, options.seed, options.opacity)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(beside([headed(picture, TITLES[name]) for name, picture in made.items()])).save(out)
    print("\n".join(words))
    if options.arrays:
        Path(options.arrays).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(options.arrays, **numbers)
    print(f"written to {out}" + (f" and {options.arrays}" if options.arrays else ""))
