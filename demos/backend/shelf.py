"""Loaded models, encoders and DPT heads alike, under one budget of bytes: the least recently used goes first, and one
that cannot fit is refused in a sentence before a byte of it is read. Thread-safe.

    shelf = Shelf("auto", budget=6_000_000_000)
    encoder = shelf.get(info)
    heads = shelf.get(find("tipsv2-b14-dpt"), kind=HEADS)
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
    from tipsv2.analysis.depth import Dpt
    from tipsv2.network.encoder import Encoder

ENCODER, HEADS = "encoder", "heads"  # kinds of models; a folder of heads may carry the name of an encoder
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


def weight_bytes(info: ModelInfo, device: str = "auto", kind: str = ENCODER) -> int:
    """What a model's weights take once loaded, in bytes; 0 if that cannot be told before the download."""
    from tipsv2.network.encoder import native_bf16, pick_device

    folder = cached_folder(info) if info.source == "hub" else fetch(info)
    parameters = num_parameters(folder) if folder else int(info.download_mb * 1e6 / 4)  # downloads are float32
    return parameters * (2 if kind == ENCODER and native_bf16(pick_device(device)) else 4)  # heads stay in float32


class Shelf:
    """budget: bytes for weights, None for SHARE of what is free, those loaded included. device: as in `tipsv2.load`."""

    def __init__(self, device: str = "auto", budget: int | None = None):
        self.device = device
        self.budget = budget
        self._loaded: OrderedDict[tuple[str, str], tuple[tuple, Encoder | Dpt]] = OrderedDict()
        # (kind, name) -> (stamp, model), the least recent use first
        self._lock = threading.RLock()  # held for a moment
        self._loading = threading.Lock()  # held while one loads, so that the others answer meanwhile

    def loaded(self, name: str, kind: str = ENCODER) -> Encoder | Dpt | None:
        """The model of this name if it is in memory; does not count as a use."""
        entry = self._loaded.get((kind, name))
        return entry[1] if entry else None

    def current(self, info: ModelInfo, kind: str = ENCODER) -> bool:
        """Is it in memory, as it is on the disk? A run that went on has written other weights into the same place."""
        entry, stamp = self._loaded.get((kind, info.name)), _stamp(info)
        return entry is not None and (not stamp or entry[0] == stamp)

    def get(
        self, info: ModelInfo, keep: Collection[str] = (), others: Sequence[ModelInfo] = (), kind: str = ENCODER
    ) -> Encoder | Dpt:
        """The model, loaded if it is not. keep: names of its kind that are needed beside it and may not go. others:
        what to name instead of one that does not fit. Raises ModelError.
        """
        model = self._use(info, kind)
        if model is None:
            with self._loading:
                model = self._use(info, kind)  # somebody else may have loaded it while we waited
                if model is None:
                    self.drop(info.name, kind)
                    with self._lock:
                        for key in self.would_evict(info, keep, others, kind):
                            del self._loaded[key]
                    stamp, model = _stamp(info), self._load(info) if kind == ENCODER else self._load_heads(info)
                    with self._lock:
                        self._loaded[kind, info.name] = stamp, model
        return model

    def _use(self, info: ModelInfo, kind: str) -> Encoder | Dpt | None:
        """The model if it is in memory as it is on the disk; counts as a use."""
        with self._lock:
            if not self.current(info, kind):
                return None
            self._loaded.move_to_end((kind, info.name))
            return self._loaded[kind, info.name][1]

    def drop(self, name: str, kind: str = ENCODER) -> None:
        """Let go of a model."""
        with self._lock:
            self._loaded.pop((kind, name), None)

    def would_evict(
        self, info: ModelInfo, keep: Collection[str] = (), others: Sequence[ModelInfo] = (), kind: str = ENCODER
    ) -> list[tuple[str, str]]:
        """(kind, name) of those that would go for this model, the least recently used first. Raises ModelError if it
        does not fit beside those in `keep` whatever goes.
        """
        with self._lock:
            need = weight_bytes(info, self.device, kind)
            held = {key: model.nbytes for key, (_, model) in self._loaded.items()}
            limit = (
                self.budget if self.budget is not None else int(SHARE * (free_bytes(self.device) + sum(held.values())))
            )
            kept = [key for key in held if key[0] == kind and key[1] in keep]
            room = limit - sum(held[key] for key in kept)
            if need > room:
                raise ModelError(self._too_large(info, need, room, [name for _, name in kept], others, kind))
            going = []
            for key in [key for key in held if key not in kept]:
                if sum(held.values()) + need <= limit:
                    break
                going.append(key)
                del held[key]
            return going

    def _too_large(
        self, info, need: int, room: int, beside: list[str], others: Sequence[ModelInfo], kind: str = ENCODER
    ) -> str:
        sizes = {other.name: weight_bytes(other, self.device, kind) for other in others if other.name != info.name}
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

    def _load_heads(self, info: ModelInfo) -> Dpt:
        from tipsv2.analysis.depth import load_dpt

        if info.source == "hub" and not is_cached(info):
            raise ModelError(f"{info.location} is not on this machine: load it in the Depth tab, or call /load_heads.")
        heads = load_dpt(info.location, device=self.device, progress=False)
        lent = space.lend(heads, info.name, space.DPT, (load_dpt, info.location, self.device))
        return turns.share(lent, space.DPT)


def amount(size: float) -> str:
    """Bytes as "780 MB" or "4.4 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 995e6 else f"{max(1, round(size / 1e6)) if size else 0} MB"


def _stamp(info: ModelInfo) -> tuple:
    """Tells two states of a local folder's weights apart; () where they cannot change or are gone."""
    if info.source not in (*LOCAL, "checkpoint"):
        return ()
    try:
        return tuple((path.name, path.stat().st_mtime_ns) for path in sorted(Path(info.location).glob("*.safetensors")))
    except OSError:  # deleted while we look
        return ()
