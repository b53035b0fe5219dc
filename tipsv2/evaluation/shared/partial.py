"""What an interrupted evaluation already knows: a few arrays per sample, kept in chunks of safetensors.

    with Partial(out / PARTIAL, {"model": ..., "data": ..., "resolution": 448}) as partial:
        for sample in split.samples:
            if sample.name not in partial:
                partial.add(sample.name, confusion=table)
    partial["val/0001.jpg"]["confusion"]

Leaving the block writes the rest, also on Ctrl-C or an error; killed at any moment, a chunk or half a minute is lost.
A folder made with other settings is refused, not mixed. `keep=False` leaves on the disk what is there and reads it when
it is asked for: the features of more images than the memory holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.files import whole_file

if TYPE_CHECKING:
    from safetensors import safe_open

PARTIAL = "partial"  # its folder below an evaluation's --out
CHUNK = 64  # samples a file, at most
SECONDS = 30.0  # that are lost at most, where samples take long


class Partial:
    """Sample name -> its arrays; in memory alone where there is no folder."""

    def __init__(self, folder: Path | None, settings: Mapping, chunk: int = CHUNK, keep: bool = True):
        """settings: JSON-able, everything the arrays depend on. Raises ValueError where the folder's are others."""
        self._folder, self._chunk, self._keep = folder, chunk, keep
        self._done: dict[str, dict[str, np.ndarray] | _OnDisk] = {}
        self._waiting: dict[str, dict[str, np.ndarray]] = {}
        self._files = 0
        self._written = time.monotonic()
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
            with whole_file(record) as part:
                part.write_text(json.dumps(wanted, indent=2), "utf-8")
        for file in sorted(folder.glob("*.safetensors")):
            self._read(file)
            self._files = int(file.stem) + 1

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None or not issubclass(kind, OSError):  # the disk that is full now is still full
            self.flush()

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def __getitem__(self, name: str) -> Mapping[str, np.ndarray]:
        return self._done[name]

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[str]:
        return iter(self._done)

    def add(self, name: str, **arrays: np.ndarray) -> None:
        """What is known of a sample; written with its chunk."""
        self._done[name] = self._waiting[name] = {kind: np.asarray(value) for kind, value in arrays.items()}
        if len(self._waiting) >= self._chunk or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on the disk yet. Raises OSError, in one sentence, where it cannot be."""
        if self._folder is None or not self._waiting:
            return
        from safetensors.numpy import save

        # not ascontiguousarray, which makes a number an array of one
        rows = {f"{n}#{kind}": np.asarray(v, order="C") for n, a in self._waiting.items() for kind, v in a.items()}
        file = self._folder / f"{self._files:06d}.safetensors"
        try:
            with whole_file(file) as part:
                part.write_bytes(save(rows))
        except OSError as error:
            kept = len(self._done) - len(self._waiting)
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            raise OSError(
                f"{file} could not be written ({reason}): make room and give the same command "
                f"again; {kept} samples are kept."
            ) from error
        self._files += 1
        if not self._keep:
            for name in self._waiting:
                del self._done[name]
            self._read(file)
        self._waiting = {}
        self._written = time.monotonic()

    def _read(self, file: Path) -> None:
        from safetensors import safe_open

        opened = safe_open(file, "np")
        for key in opened.keys():  # noqa: SIM118 (not a dict)
            name, _, kind = key.rpartition("#")
            arrays = self._done.setdefault(name, {} if self._keep else _OnDisk(opened, name))
            if isinstance(arrays, _OnDisk):
                arrays.kinds.append(kind)
            else:
                arrays[kind] = opened.get_tensor(key)


class _OnDisk(Mapping[str, np.ndarray]):
    """A sample's arrays in an open file, read when they are asked for."""

    def __init__(self, opened: safe_open, name: str):
        self._opened, self._name = opened, name
        self.kinds: list[str] = []

    def __getitem__(self, kind: str) -> np.ndarray:
        if kind not in self.kinds:
            raise KeyError(kind)
        return self._opened.get_tensor(f"{self._name}#{kind}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)
