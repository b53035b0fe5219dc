"""Images to start with: photographs and drawn scenes, each for the encoders that know such pictures.

They lie in assets/examples with a sidecar, examples.json: [{"file", "for", "queries", "absent", "classes", ...}], for:
"photographs" or "drawings". Their licences are in LICENSES.md beside it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tipsv2.checkpoints.bundled import DRAWINGS, PHOTOGRAPHS

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "examples"
MAX_EXAMPLES = 12


@dataclass(frozen=True)
class Example:
    """One image to start with. queries: for the heatmap; classes: for the segmentation."""

    path: Path
    queries: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # those of the queries that the image does not show
    classes: tuple[str, ...] = ()
    kind: str = DRAWINGS  # or PHOTOGRAPHS
    seed: int | None = None  # of a scene, which with its styles tells its labels: tipsv2.scenes.draw
    styles: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """The queries for what the image shows."""
        return tuple(query for query in self.queries if query not in self.absent)


def examples(knows: Collection[str], folder: Path = FOLDER) -> list[Example]:
    """The examples that suit an encoder which knows these kinds of pictures (`ModelInfo.knows`), MAX_EXAMPLES at most:
    photographs first. One of which nobody has said what it knows gets some of both, scenes first, since those are
    what encoders are trained on here; one whose kind is not there gets what there is.
    """
    available = every_example(folder)
    photographs, scenes = (
        [example for example in available if example.kind == kind] for kind in (PHOTOGRAPHS, DRAWINGS)
    )
    if not knows:
        chosen = scenes[: max(MAX_EXAMPLES // 2, MAX_EXAMPLES - len(photographs))] + photographs
    else:
        chosen = [example for example in photographs + scenes if example.kind in knows] or available
    return chosen[:MAX_EXAMPLES]


def every_example(folder: Path = FOLDER) -> list[Example]:
    """Every PNG and JPEG of the folder, those named by the sidecar first and with its words."""
    files = {path.name: path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".png", ".jpg", ".jpeg")}
    examples = []
    for entry in _sidecar(folder / "examples.json"):
        path = files.pop(str(entry.get("file")), None)
        if path is not None:
            words = {
                name: tuple(map(str, entry.get(name) or ())) for name in ("queries", "absent", "classes", "styles")
            }
            seed = entry["seed"] if isinstance(entry.get("seed"), int) else None
            kind = PHOTOGRAPHS if entry.get("for") == PHOTOGRAPHS else DRAWINGS
            examples.append(Example(path, **words, kind=kind, seed=seed))
    return examples + [Example(path) for path in files.values()]


def _sidecar(path: Path) -> list[dict]:
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
