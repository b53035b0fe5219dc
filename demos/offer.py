"""Which encoders the app offers, by name: bundled, released, the folders it was started with or given later, and the
finished runs of a folder. Thread-safe; loads nothing.

    offer = Offer(["auto"], Path("runs"))
    offer.add("runs/dog/model")    # -> "dog"
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tipsv2 import bundled
from tipsv2.catalogue import CHECKPOINT, ModelError, ModelInfo, available, fetch, find

LOCAL = ("folder", "run")


class Offer:
    """names: those to open with, first comes first. runs: see `Settings.runs`. Raises ModelError on an unknown name."""

    def __init__(self, names: Sequence[str], runs: Path | None = None):
        self.runs = runs.resolve() if runs else None
        self._lock = threading.Lock()
        self._scanned: set[str] = set()  # names in the folder of runs, but for those to open with
        self._infos: dict[str, ModelInfo] = {known.name: known for known in available()}
        self.opening = tuple(dict.fromkeys(self._take(find(name)) for name in names))

    def infos(self) -> list[ModelInfo]:
        """Everything on offer now; runs that have finished since are added, those that were deleted are left out."""
        self._scan()
        with self._lock:
            return list(self._infos.values())

    def info(self, name: str) -> ModelInfo:
        """name: of an encoder on offer, or "run@step" for one of its checkpoints. Raises ModelError on any other."""
        name = bundled.current_name(name)
        run, at, step = name.rpartition("@")
        if at and step.isdecimal() and int(step) in self.checkpoints(run):
            place = self.checkpoints(run)[int(step)]
            return replace(find(place), name=name, title=name)
        with self._lock:
            found = self._infos.get(name)
        if found is None:
            found = next((each for each in self.infos() if each.name == name), None)  # a run that has just finished
        if found is None:
            names = ", ".join(each.name for each in self.infos())
            raise ModelError(f"The model '{str(name)[:80]}' is not on offer here: choose one of {names}.")
        return found

    def checkpoints(self, run: str) -> dict[int, Path]:
        """The steps of a finished run that can be looked at besides its model, in order; none for other encoders."""
        with self._lock:
            info = self._infos.get(run)
        if info is None or info.source != "run":
            return {}
        found = Path(info.location).parent.glob(f"checkpoints/step-*/{CHECKPOINT}")
        return {int(file.parent.name.rpartition("-")[2]): file.parent for file in sorted(found)}

    def add(self, folder: str | Path, name: str | None = None) -> str:
        """Offer an encoder's folder; a run's model/ is called after its run. Returns its name, the one it has already
        if the folder is on offer. Raises ModelError if it cannot be an encoder.
        """
        info = find(Path(folder))
        fetch(info)
        name = self._take(info, name)
        with self._lock:
            place = self._infos[name].location if name in self._infos else ""
            if self.runs and Path(place).is_relative_to(self.runs) and name not in self.opening:
                self._scanned.add(name)
        return name

    def remove(self, name: str) -> None:
        """No longer offer a folder; nothing on the disk is touched."""
        with self._lock:
            if name in self._infos and self._infos[name].source in LOCAL:
                del self._infos[name]

    def _take(self, info: ModelInfo, name: str | None = None) -> str:
        if info.source not in LOCAL:
            with self._lock:
                self._infos.setdefault(info.name, info)
            return info.name
        info = replace(info, location=str(Path(info.location).resolve()))
        wanted = name or self._called(info)
        with self._lock:
            for known in self._infos.values():
                if known.location == info.location:
                    return known.name
            unique, count = wanted, 1
            while unique in self._infos:
                count += 1
                unique = f"{wanted}-{count}"
            self._infos[unique] = replace(info, name=unique, title=unique)
            return unique

    def _called(self, info: ModelInfo) -> str:
        """A run within a run (the generations of a chain) also has the outer one's name."""
        place = Path(info.location)
        if info.source == "run" and self.runs and place.is_relative_to(self.runs):
            return "-".join(place.relative_to(self.runs).parts[:-1]) or info.name
        return info.name

    def _scan(self) -> None:
        if self.runs is None:
            return
        found = [*self.runs.glob("*/model/config.json"), *self.runs.glob("*/generation-*/model/config.json")]
        there = {str(config.parent) for config in found}
        with self._lock:
            known = {info.location for info in self._infos.values()}
            for name in [each for each in self._scanned if each in self._infos]:
                if not (Path(self._infos[name].location) / "config.json").is_file():
                    del self._infos[name]
            self._scanned &= set(self._infos)
        for place in sorted(there - known):
            try:
                info = find(place)
            except ModelError:  # deleted, or not yet written to its end
                continue
            if info.source == "run":
                name = self._take(info)
                with self._lock:
                    self._scanned.add(name)
