"""Which encoders the app offers, by name: bundled, released, the folders it was started with or given later, and the
finished runs of a folder. Thread-safe; loads nothing.

    offer = Offer(["auto"], Path("runs"))
    offer.add("runs/dog/model")                      # -> "dog"
    offer.add_private("runs/cat/model", "visitor")   # -> "cat~5f0c1e...", for this visitor alone

What a visitor's run has made is not for everybody: it has a name nobody can guess, which only they are told.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demos.backend.owners import owner_of
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import CHECKPOINT, ModelError, ModelInfo, available, fetch, find

LOCAL = ("folder", "run")
PRIVATE = "~"  # before the part of a private encoder's name that nobody can guess


def shown_name(info: ModelInfo) -> str:
    """An encoder's name for pictures and files that somebody may pass on: without what only they should know."""
    return info.name.partition(PRIVATE)[0]


class Offer:
    """names: those to open with, first comes first. runs: see `Settings.runs`. Raises ModelError on an unknown name."""

    def __init__(self, names: Sequence[str], runs: Path | None = None):
        self.runs = runs.resolve() if runs else None
        self._lock = threading.Lock()
        self._scanned: set[str] = set()  # names in the folder of runs, but for those to open with
        self._infos: dict[str, ModelInfo] = {known.name: known for known in available()}
        self._private: dict[str, ModelInfo] = {}
        self._private_names: dict[str, set[str]] = {}  # visitor -> names of private ones
        self.opening = tuple(dict.fromkeys(self._take(find(name)) for name in names))

    def infos(self, visitor: str | None = None) -> list[ModelInfo]:
        """Everything on offer now, to all and to this visitor; runs that have finished since are added, those that
        were deleted are left out.
        """
        self._scan()
        with self._lock:
            own = self._private_names.get(visitor, ()) if visitor else ()
            return [*self._infos.values(), *(info for name, info in self._private.items() if name in own)]

    def info(self, name: str) -> ModelInfo:
        """name: of an encoder on offer, with or without "google/" before a released one, or "run@step" for one of its
        checkpoints. Raises ModelError on any other.
        """
        name = bundled.current_name(name)
        run, at, step = name.rpartition("@")
        if at and step.isdecimal() and int(step) in self.checkpoints(run):
            place = self.checkpoints(run)[int(step)]
            return replace(find(place), name=name, title=name)
        with self._lock:
            info = self._infos.get(name) or self._private.get(name) or self._infos.get(name.removeprefix("google/"))
        if info is None:
            info = next((new for new in self.infos() if new.name == name), None)  # a run that has just finished
        if info is None:
            names = ", ".join(offered.name for offered in self.infos())
            raise ModelError(f"The model '{str(name)[:80]}' is not on offer here: choose one of {names}.")
        return info

    def checkpoints(self, run: str) -> dict[int, Path]:
        """The steps of a finished run that can be looked at besides its model, in order; none for other encoders."""
        with self._lock:
            info = self._infos.get(run) or self._private.get(run)
        if info is None or info.source != "run":
            return {}
        checkpoints = Path(info.location).parent.glob(f"checkpoints/step-*/{CHECKPOINT}")
        return {int(file.parent.name.rpartition("-")[2]): file.parent for file in sorted(checkpoints)}

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

    def add_private(self, folder: str | Path, visitor: str) -> str:
        """Offer an encoder's folder to one visitor. Returns its name, whoever knows which may use it. Raises ModelError
        if it cannot be an encoder.
        """
        info = find(Path(folder))
        fetch(info)
        info = replace(info, location=str(Path(info.location).resolve()))
        called = self._called(info)
        with self._lock:
            known = (private.name for private in self._private.values() if private.location == info.location)
            name = next(known, f"{called}{PRIVATE}{secrets.token_hex(16)}")
            self._private[name] = replace(info, name=name, title=called)
            self._private_names.setdefault(visitor, set()).add(name)
        return name

    def forget(self, visitor: str) -> None:
        """A visitor leaves: their menus are gone. What they know the name of stays until its folder is deleted."""
        with self._lock:
            self._private_names.pop(visitor, None)

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

    def _is_private(self, place: str) -> bool:
        """Was the run this encoder lies in started by somebody who does not sit at this machine?"""
        return not owner_of(self.runs / Path(place).relative_to(self.runs).parts[0]).machine

    def _called(self, info: ModelInfo) -> str:
        """A run within a run (the generations of a chain) also has the outer one's name."""
        place = Path(info.location)
        if info.source == "run" and self.runs and place.is_relative_to(self.runs):
            return "-".join(place.relative_to(self.runs).parts[:-1]) or info.name
        return info.name

    def _scan(self) -> None:
        if self.runs is None:
            return
        configs = [*self.runs.glob("*/model/config.json"), *self.runs.glob("*/generation-*/model/config.json")]
        there = {str(config.parent) for config in configs}
        with self._lock:
            known = {info.location for info in self._infos.values()}
            for name in [scanned for scanned in self._scanned if scanned in self._infos]:
                if not (Path(self._infos[name].location) / "config.json").is_file():
                    del self._infos[name]
            self._scanned &= set(self._infos)
            for name, info in list(self._private.items()):
                if not (Path(info.location) / "config.json").is_file():
                    del self._private[name]
        for place in sorted(place for place in there - known if not self._is_private(place)):
            try:
                info = find(place)
            except ModelError:  # deleted, or not yet written to its end
                continue
            if info.source == "run":
                name = self._take(info)
                with self._lock:
                    self._scanned.add(name)
