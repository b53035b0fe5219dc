"""Images to start with: drawn scenes for encoders trained on them, photographs for everything else.

Scenes lie in assets/examples with a sidecar, examples.json: [{"file", "queries", "classes", "for"}], for: "scenes" or
"photos".
Photographs are those inside the scikit-image wheel (skimage/data, public domain or CC0, see its README); they are read
from the installed package without importing it and nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "examples"
MAX_EXAMPLES = 8

# File in skimage/data, what to look for, classes to tell apart.
_PHOTOS = (
    ("chelsea.png", ("a cat's eye", "nose", "whiskers", "ear"), ("cat", "blanket", "wall")),
    (
        "astronaut.png",
        ("a smiling woman", "orange space suit", "space shuttle", "American flag"),
        ("woman's face", "hair", "orange space suit", "helmet", "space shuttle", "American flag", "wall"),
    ),
    (
        "coffee.png",
        ("espresso", "spoon", "red saucer", "wooden table"),
        ("coffee", "cup", "spoon", "saucer", "wooden table"),
    ),
    (
        "motorcycle_left.png",
        ("motorcycle", "wheel", "wooden bench", "cardboard box"),
        ("motorcycle", "bench", "shelf", "cardboard box", "floor", "door"),
    ),
    (
        "rocket.jpg",
        ("rocket", "lattice tower", "night sky", "bright lights"),
        ("rocket", "tower", "sky", "light", "ground"),
    ),
    (
        "camera.png",
        ("a man", "camera", "tripod", "tall building"),
        ("man", "camera", "tripod", "building", "grass", "sky"),
    ),
)


@dataclass(frozen=True)
class Example:
    """One image to start with. queries: for the heatmap; classes: for the segmentation."""

    path: Path
    queries: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    kind: str = "scenes"  # "scenes" | "photos"
    seed: int | None = None  # of a scene, which with its styles tells its labels: tipsv2.scenes.draw
    styles: tuple[str, ...] = ()


def examples(source: str, folder: Path = FOLDER) -> list[Example]:
    """The examples that suit a model from this source (`ModelInfo.source`), at most MAX_EXAMPLES.

    "bundled" has seen drawn scenes only, "hub" photographs; a local folder may be either and gets some of both.
    """
    scenes, photos = [], _photos()
    for example in _from_folder(folder):
        (scenes if example.kind == "scenes" else photos).append(example)
    if source == "bundled":
        chosen = scenes or photos
    elif source == "hub":
        chosen = photos or scenes
    else:
        chosen = scenes[: max(MAX_EXAMPLES // 2, MAX_EXAMPLES - len(photos))] + photos
    return chosen[:MAX_EXAMPLES]


def _from_folder(folder: Path) -> list[Example]:
    """Every PNG and JPEG of the folder, those named by the sidecar first and with its words."""
    files = {path.name: path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".png", ".jpg", ".jpeg")}
    found = []
    for entry in _sidecar(folder / "examples.json"):
        path = files.pop(str(entry.get("file")), None)
        if path is not None:
            words = {name: tuple(map(str, entry.get(name) or ())) for name in ("queries", "classes", "styles")}
            seed = entry["seed"] if isinstance(entry.get("seed"), int) else None
            kind = "photos" if entry.get("for") == "photos" else "scenes"
            found.append(Example(path, **words, kind=kind, seed=seed))
    return found + [Example(path) for path in files.values()]


def _sidecar(path: Path) -> list[dict]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _photos() -> list[Example]:
    package = importlib.util.find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        return []
    folder = Path(package.submodule_search_locations[0]) / "data"
    return [
        Example(folder / name, queries, classes, "photos")
        for name, queries, classes in _PHOTOS
        if (folder / name).is_file()
    ]
