"""NAVI (Jampani et al., NeurIPS 2023): objects photographed many times, with the depth of their scans; v1.0 and v1.5.

The tree, the coding of depth and the camera are those of google/navi (README, data_util.py); the parts those of Probe3D
(mbanani/probe3d, evals/datasets/navi.py), which TIPS follows: trained on the multiview collections, tested on the wild
sets. Probe3D also takes every fourth picture only and cuts it to the object; here all are taken, whole. Normals follow
from depth and focal length over the same distances as there, where the depth has been made smaller first. Even so
the steps of 16-bit depth turn normals half a metre away by a few degrees.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tipsv2.analysis.label_maps import open_labels
from tipsv2.evaluation.layouts import Layout, Sample, Split

PARTS = {"train": "*/multiview*", "test": "*/wild_set"}
LARGEST = 65535 * 10  # an inverse depth of 1, in a file's steps (data_util.py, decode_depth)
SHORT_SIDE = 512  # pixels of Probe3D's pictures, whose neighbours normals are told from

TREE = """\
  3d_dollhouse_sink/                  and the other objects
      multiview_00_pixel_5/           the part "train": every multiview*
          annotations.json            a list: "filename", "camera": {"focal_length": pixels}, "image_size": [H, W], ...
          images/000.jpg
          depth/000.png               16 bits, 655350 / millimetres, 0 unknown
      wild_set/                       the part "test"
          annotations.json, images/, depth/
"""


def open_navi(task: str, root: Path, part: str) -> Split:
    """task: "depth" or "normals"."""
    if part not in PARTS:
        raise ValueError(f"NAVI has no part '{part}': choose {' or '.join(PARTS)}.")
    samples = []
    for scene in sorted(root.glob(PARTS[part])):
        for name, focal in _annotations(scene / "annotations.json"):
            image, depth = scene / "images" / name, (scene / "depth" / name).with_suffix(".png")

            def truth(depth: Path = depth, focal: float = focal) -> np.ndarray:
                metres = read_depth(depth)
                return metres if task == "depth" else normals_from_depth(metres, focal)

            samples.append(Sample(image.relative_to(root).as_posix(), image, truth))
    return Split("navi", part, samples)


def _annotations(file: Path) -> list[tuple[str, float]]:
    """File names with focal lengths in pixels."""
    if not file.is_file():
        raise ValueError(f"'{file}' is missing: every collection of NAVI has one.")
    try:
        return [(str(row["filename"]), float(row["camera"]["focal_length"])) for row in json.loads(file.read_bytes())]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{file}' is no list of NAVI's annotations: {error!r}.") from error


def read_depth(file: Path) -> np.ndarray:
    """A picture of inverse depth -> float32 [H, W], metres, nan where unknown."""
    if not file.is_file():
        raise ValueError(f"'{file}' is missing: every picture needs one.")
    try:
        numbers = open_labels(file)[0]
    except ValueError as error:
        raise ValueError(f"'{file}' cannot be used: {error}") from error
    if numbers is None:
        raise ValueError(f"'{file}' is a picture in colours, not NAVI's 16-bit inverse depth.")
    with np.errstate(divide="ignore"):
        return np.where(numbers > 0, LARGEST / numbers / 1000, np.nan).astype(np.float32)


def normals_from_depth(depth: np.ndarray, focal: float) -> np.ndarray:
    """depth [H, W] along the camera's axis and its focal length in pixels -> float32 [H, W, 3], unit vectors (x right,
    y up, z towards the camera), by the differences between a pixel's neighbours; nan where one of the four is unknown.

    The axis goes through the middle of the picture. Probe3D's compute_normal averages four one-sided products, which
    are these differences. Neighbours are as far apart as in a picture with a short side of 512, which Probe3D makes by
    taking the nearest pixels: those side by side in a photograph mostly have the same number in the file.
    """
    height, width = depth.shape
    away = max(1, round(min(height, width) / SHORT_SIDE))
    inner, before, after = slice(away, -away), slice(None, -2 * away), slice(2 * away, None)
    rows, columns = np.mgrid[:height, :width] + 0.5
    depth = np.asarray(depth, np.float64)
    points = np.stack([(columns - width / 2) / focal, (height / 2 - rows) / focal, -np.ones_like(depth)], 2)
    points *= depth[..., None]
    normals = np.full(points.shape, np.nan)
    across = points[inner, after] - points[inner, before]
    upwards = points[before, inner] - points[after, inner]
    normals[inner, inner] = np.cross(across, upwards)
    normals[np.isnan(depth)] = np.nan
    with np.errstate(invalid="ignore"):
        return (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32)


LAYOUTS = (
    Layout(
        name="navi",
        title="NAVI",
        tasks=("depth", "normals"),
        part="test",
        tree=TREE,
        source="https://storage.googleapis.com/gresearch/navi-dataset/navi_v1.0.tar.gz (github.com/google/navi)",
        marks=("3d_dollhouse_sink",),
        open=open_navi,
    ),
)
