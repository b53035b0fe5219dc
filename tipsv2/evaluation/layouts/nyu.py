"""NYU Depth v2 (Silberman et al., ECCV 2012): depth in the tree of BTS, normals in that of DSINE.

Depth: what cleinc/bts (utils/extract_official_train_test_set_from_mat.py) makes of nyu_depth_v2_labeled.mat, 795
pictures to train on and Eigen's 654 to test on, or the larger training set that goes with it. If the lists
nyu_train.txt and nyu_test.txt of the Monocular-Depth-Estimation-Toolbox are there, they say what belongs to a part.
Depth is 16-bit, in millimetres, 0 unknown; only Eigen's crop is judged (rows 45 to 470, columns 41 to 600).

Normals: dsine_eval/nyuv2 of baegwangbin/DSINE, the ground truth of GeoNet (CVPR 2018) as pictures. There x points to
the left (data/d2n/cross.py); here it points to the right.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from tipsv2.analysis.label_maps import open_labels
from tipsv2.evaluation.layouts import Layout, Sample, Split

SIZE = (480, 640)
CROP = np.s_[45:471, 41:601]  # of a picture of SIZE
PARTS = ("train", "test")
AXES = np.array((-1, 1, 1), np.float32)  # from a file's axes to those of `Split`

DEPTH_TREE = """\
  test/SCENE/rgb_00000.jpg
  test/SCENE/sync_depth_00000.png     16 bits, millimetres, 0 unknown
  train/SCENE/rgb_00000.jpg
  train/SCENE/sync_depth_00000.png
  nyu_test.txt, nyu_train.txt         if there: "SCENE/rgb_00000.jpg SCENE/sync_depth_00000.png FOCAL" a line,
                                      from here or from the part's folder
"""
NORMALS_TREE = """\
  test/000000_img.png
  test/000000_normal.png              8 bits, (n + 1) / 2 * 255, black unknown
  train/000002_img.png
  train/000002_normal.png
"""


def open_depth(task: str, root: Path, part: str) -> Split:
    """By the part's list, or all pictures of the part's folder."""
    listed = root / f"nyu_{_known(part)}.txt"
    if listed.is_file():
        pairs = _listed(listed, part)
    else:
        pairs = [
            (picture, picture.with_name(picture.name.replace("rgb_", "sync_depth_")).with_suffix(".png"))
            for picture in sorted((root / part).glob("*/rgb_*"))
        ]
    return Split(
        "nyu",
        part,
        [Sample(p.relative_to(root).as_posix(), p, partial(read_depth, depth)) for p, depth in pairs],
    )


def _listed(file: Path, part: str) -> list[tuple[Path, Path]]:
    pairs = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise ValueError(f"'{file}' line {number} is '{line[:80]}', not \"picture depth focal\".")
        if words[1] == "None":  # pictures without depth, as the toolbox writes them
            continue
        names = [word.lstrip("/") for word in words[:2]]
        here = next((place for place in (file.parent, file.parent / part) if (place / names[0]).is_file()), None)
        if here is None:
            raise ValueError(f"'{file}' line {number} names {names[0]}, which is not in '{file.parent}'.")
        pairs.append((here / names[0], here / names[1]))
    return pairs


def read_depth(file: Path) -> np.ndarray:
    """A picture of millimetres -> float32 [480, 640], metres, nan where unknown or outside Eigen's crop."""
    numbers = _opened(file)[0]
    if numbers is None:
        raise ValueError(f"'{file}' is a picture in colours, not 16-bit depth in millimetres.")
    if numbers.shape != SIZE:
        raise ValueError(f"'{file}' is {numbers.shape[1]} x {numbers.shape[0]} pixels, where NYU's depth is 640 x 480.")
    depth = np.full(SIZE, np.nan, np.float32)
    depth[CROP] = np.where(numbers > 0, numbers / 1000, np.nan)[CROP]
    return depth


def open_normals(task: str, root: Path, part: str) -> Split:
    """Every picture of the part's folder."""
    return Split(
        "nyu-normals",
        part,
        [
            Sample(p.relative_to(root).as_posix(), p, partial(read_normals, p.with_name(f"{p.stem[:-4]}_normal.png")))
            for p in sorted((root / _known(part)).glob("*_img.*"))
        ],
    )


def read_normals(file: Path) -> np.ndarray:
    """A picture of normals -> float32 [H, W, 3], unit vectors as `Split` has them, nan where black."""
    colors = _opened(file)[1]
    normals = colors / np.float32(127.5) - 1
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
    normals[(colors == 0).all(axis=2)] = np.nan
    return normals * AXES


def _opened(file: Path) -> tuple[np.ndarray | None, np.ndarray]:
    if not file.is_file():
        raise ValueError(f"'{file}' is missing: every picture needs one.")
    try:
        return open_labels(file)
    except ValueError as error:
        raise ValueError(f"'{file}' cannot be used: {error}") from error


def _known(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"NYU Depth v2 has no part '{part}': choose {' or '.join(PARTS)}.")
    return part


LAYOUTS = (
    Layout(
        name="nyu",
        title="NYU Depth v2",
        tasks=("depth",),
        part="test",
        tree=DEPTH_TREE,
        source="https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html, unpacked as github.com/cleinc/bts says",
        marks=("test",),
        open=open_depth,
    ),
    Layout(
        name="nyu-normals",
        title="NYU Depth v2, normals",
        tasks=("normals",),
        part="test",
        tree=NORMALS_TREE,
        source="the archive dsine_eval that github.com/baegwangbin/DSINE links to, its folder nyuv2",
        marks=("test",),
        open=open_normals,
    ),
)
