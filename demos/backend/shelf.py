"""Loaded encoders under a budget of bytes: the least recently used goes first, and one that cannot fit is refused in a
sentence before a byte of it is read. Thread-safe.

    shelf = Shelf("auto", budget=6_000_000_000)
    encoder = shelf.get(info)
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend import space, turns
from demos.backend.offer import LOCAL
from tipsv2.checkpoints.catalogue import ModelError, ModelInfo, cached_folder, fetch, is_cached, num_parameters

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

SHARE = 0.8  # of the free memory, where no budget is given; the rest is for images on their way through
CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: str = "auto") -> int:
    """Memory that weights could still take on the device, in bytes."""
    import torch

    from tipsv2.network.encoder import pick_device

    where = pick_device(device)
    if where.type == "cuda" and not space.zero_gpu():  # there no GPU is held until there is work
        free, _ = torch.cuda.mem_get_info(where)
        return free + torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
    import psutil  # accelerate needs it, so it is there

    free = psutil.virtual_memory().available
    try:  # a container sees the whole machine's memory and is stopped at its own limit
        limit, used = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        cached = int(stat["inactive_file"]) + int(stat["active_file"])  # counted as used, given back when needed
        free = min(free, max(0, int(limit) - int(used) + cached))
    except (OSError, ValueError, KeyError):
        pass
    return free


def weight_bytes(info: ModelInfo, device: str = "auto") -> int:
    """What an encoder's weights take once loaded, in bytes; 0 if that cannot be told before the download."""
    from tipsv2.network.encoder import native_bf16, pick_device

    folder = cached_folder(info) if info.source == "hub" else fetch(info)
    parameters = num_parameters(folder) if folder else int(info.download_mb * 1e6 / 4)  # downloads are float32
    return parameters * (2 if native_bf16(pick_device(device)) else 4)


class Shelf:
    """budget: bytes for weights, None for SHARE of what is free, those loaded included. device: as in `tipsv2.load`."""

    def __init__(self, device: str = "auto", budget: int | None = None):
        self.device = device
        self.budget = budget
        self._loaded: OrderedDict[str, tuple[tuple, Encoder]] = OrderedDict()  # with the stamp; least recent use first
        self._lock = threading.RLock()  # held for a moment
        self._loading = threading.Lock()  # held while one loads, so that the others answer meanwhile

    def loaded(self, name: str) -> Encoder | None:
        """The encoder of this name if it is in memory; does not count as a use."""
        found = self._loaded.get(name)
        return found[1] if found else None

    def current(self, info: ModelInfo) -> bool:
        """Is it in memory, as it is on the disk? A run that went on has written other weights into the same place."""
        found, stamp = self._loaded.get(info.name), _stamp(info)
        return found is not None and (not stamp or found[0] == stamp)

    def get(self, info: ModelInfo, keep: Collection[str] = (), others: Sequence[ModelInfo] = ()) -> Encoder:
        """The encoder, loaded if it is not. keep: names that are needed beside it and may not go. others: what to name
        instead of one that does not fit. Raises ModelError.
        """
        found = self._use(info)
        if found is None:
            with self._loading:
                found = self._use(info)  # somebody else may have loaded it while we waited
                if found is None:
                    self.drop(info.name)
                    self.make_room(info, keep, others)
                    stamp, found = _stamp(info), self._load(info)
                    with self._lock:
                        self._loaded[info.name] = stamp, found
        return found

    def _use(self, info: ModelInfo) -> Encoder | None:
        """The encoder if it is in memory as it is on the disk; counts as a use."""
        with self._lock:
            if not self.current(info):
                return None
            self._loaded.move_to_end(info.name)
            return self._loaded[info.name][1]

    def drop(self, name: str) -> None:
        """Let go of an encoder."""
        with self._lock:
            self._loaded.pop(name, None)

    def make_room(self, info: ModelInfo, keep: Collection[str] = (), others: Sequence[ModelInfo] = ()) -> None:
        """Let go of what was not used longest until the encoder fits beside those in `keep`. Raises ModelError, with
        nothing let go, if it does not.
        """
        with self._lock:
            for name in self.would_evict(info, keep, others):
                del self._loaded[name]

    def would_evict(self, info: ModelInfo, keep: Collection[str] = (), others: Sequence[ModelInfo] = ()) -> list[str]:
        """The names that `make_room` would evict. Raises ModelError if the encoder does not fit whoever goes."""
        with self._lock:
            need = weight_bytes(info, self.device)
            held = {name: _held(encoder) for name, (_, encoder) in self._loaded.items()}
            limit = (
                self.budget if self.budget is not None else int(SHARE * (free_bytes(self.device) + sum(held.values())))
            )
            kept = sum(held.get(name, 0) for name in keep)
            if need > limit - kept:
                raise ModelError(
                    self._too_large(info, need, limit - kept, [name for name in keep if name in held], others)
                )
            going = []
            for name in [each for each in held if each not in keep]:
                if sum(held.values()) + need <= limit:
                    break
                going.append(name)
                del held[name]
            return going

    def _too_large(self, info, need: int, room: int, beside: list[str], others: Sequence[ModelInfo]) -> str:
        sizes = {each.name: weight_bytes(each, self.device) for each in others if each.name != info.name}
        fitting = [name for name, size in sizes.items() if 0 < size <= room]
        instead = f"choose {max(fitting, key=sizes.get)}, or " if fitting else ""
        where = f" beside {', '.join(beside)}" if beside else ""
        return (
            f"{info.title} needs {amount(need)} of memory, {amount(max(room, 0))} are free for it{where}: {instead}"
            "start the app with a larger --memory."
        )

    def _load(self, info: ModelInfo) -> Encoder:
        from tipsv2.network.encoder import load

        if info.source == "hub" and not is_cached(info):
            size = f" ({amount(info.download_mb * 10**6)})" if info.download_mb else ""
            raise ModelError(
                f"{info.title} is not on this machine yet{size}: choose it in the Encoder menu, or have a program call "
                "/load first."
            )
        encoder = load(info.location, device=self.device)
        encoder.info = replace(info, width=encoder.info.width, resolution=encoder.info.resolution)
        lent = space.lend(encoder, info.name, space.ENCODER, (load, info.location, self.device))
        return turns.share(lent, space.PASSES, texts=space.TEXTS)


def amount(size: float) -> str:
    """Bytes as "780 MB" or "4.4 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 995e6 else f"{max(1, round(size / 1e6)) if size else 0} MB"


def _held(encoder: Encoder) -> int:
    return encoder.nbytes


def _stamp(info: ModelInfo) -> tuple:
    """Tells two states of a local folder's weights apart; () where they cannot change or are gone."""
    if info.source not in (*LOCAL, "checkpoint"):
        return ()
    try:
        return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(info.location).glob("*.safetensors")))
    except OSError:  # deleted while we look
        return ()
