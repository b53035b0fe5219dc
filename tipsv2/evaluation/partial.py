"""What an interrupted evaluation already knows: a few arrays per sample, kept in chunks of safetensors.

    partial = Partial(out / "partial", {"model": ..., "data": ..., "resolution": 448})
    for sample in split.samples:
        if sample.name not in partial:
            partial.add(sample.name, confusion=table)
    partial.flush()
    partial["val/0001.jpg"]["confusion"]

Killed at any moment, at most one chunk is lost. A folder made with other settings is refused, not mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

CHUNK = 64  # samples a file


class Partial:
    """Sample name -> its arrays; in memory alone where there is no folder."""

    def __init__(self, folder: Path | None, settings: Mapping, chunk: int = CHUNK):
        """settings: JSON-able, everything the arrays depend on. Raises ValueError where the folder's are others."""
        self._folder, self._chunk = folder, chunk
        self._done: dict[str, dict[str, np.ndarray]] = {}
        self._waiting: dict[str, dict[str, np.ndarray]] = {}
        self._files = 0
        if folder is None:
            return
        wanted = json.loads(json.dumps(dict(settings)))
        record = folder / "settings.json"
        if record.exists():
            before = json.loads(record.read_text("utf-8"))
            if before != wanted:
                other = ", ".join(key for key in {**before, **wanted} if before.get(key) != wanted.get(key))
                raise ValueError(f"{folder} holds an evaluation with another {other}: choose another --out.")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(record, json.dumps(wanted, indent=2).encode())
        from safetensors.numpy import load_file

        for file in sorted(folder.glob("*.safetensors")):
            for key, value in load_file(file).items():
                name, _, kind = key.rpartition("#")
                self._done.setdefault(name, {})[kind] = value
            self._files = int(file.stem) + 1

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        return self._done[name]

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[str]:
        return iter(self._done)

    def add(self, name: str, **arrays: np.ndarray) -> None:
        """What is known of a sample; written with its chunk."""
        self._done[name] = self._waiting[name] = {kind: np.asarray(value) for kind, value in arrays.items()}
        if len(self._waiting) >= self._chunk:
            self.flush()

    def flush(self) -> None:
        """Write what is not on the disk yet. Raises OSError where it cannot be."""
        if self._folder is None or not self._waiting:
            return
        from safetensors.numpy import save

        rows = {f"{name}#{kind}": np.ascontiguousarray(v) for name, a in self._waiting.items() for kind, v in a.items()}
        _replace(self._folder / f"{self._files:06d}.safetensors", save(rows))
        self._files += 1
        self._waiting = {}


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
