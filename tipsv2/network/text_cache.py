"""Text embeddings of class lists on the disk: 150 classes in nine templates are read once, not once a process.

A file holds the rows of one list; its name depends on the model's files (place, size and time, as make looks at them),
the precision, the templates and the texts. The folder is TIPSV2_CACHE, or tipsv2 in the user's cache; the oldest
files go first. Where it cannot be written nothing is kept, and nothing else happens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelInfo, cached_folder
from tipsv2.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

MOST_FILES = 256
FORMAT = 1  # raised where the same text would give other rows


def folder() -> Path:
    """Where the files are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TIPSV2_CACHE") or Path(base) / "tipsv2") / "text"


def key_of(info: ModelInfo, precision: str, templates: Sequence[str], texts: Sequence[str]) -> str:
    """A name for the rows of these texts from this model; "" where the model has no files to tell it by."""
    place = cached_folder(info) if info.source == "hub" else Path(info.location)
    if place is None or not place.is_dir():
        return ""
    if info.source == "checkpoint":  # its run's text tower lies there
        places = [place, place.resolve().parent.parent / "model"]
    else:
        places = [place]
    files = sorted(file for folder in places for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    parts = [FORMAT, stamps, precision, list(templates), list(texts)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def read(key: str) -> Tensor | None:
    """The rows [N, D] float32 kept under a key, or None."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder() / f"{key}.safetensors"
    try:
        rows = load_file(path)["rows"]
        os.utime(path)  # used today
        return rows
    except (OSError, SafetensorError, KeyError):  # none, or damaged: it is made anew
        return None


def write(key: str, rows: Tensor) -> None:
    """Keep rows [N, D] under a key, whole or not at all, and let the oldest files go."""
    from safetensors.torch import save

    try:
        where = folder()
        with whole_file(where / f"{key}.safetensors") as part:
            part.write_bytes(save({"rows": rows.contiguous()}))
        kept = sorted(where.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        for file in kept[:-MOST_FILES]:
            file.unlink(missing_ok=True)
    except OSError as error:
        logging.getLogger(__name__).info("text embeddings are not kept: %s", error)
