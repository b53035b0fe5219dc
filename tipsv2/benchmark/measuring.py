"""Seconds in turns, the machine's own matrix rate, bytes held during a call: what `tipsv2.benchmark.inference`
measures with.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder


def in_turns(ours: Callable, plain: Callable, turns: int) -> dict[str, float]:
    """Median seconds of both, and how many times faster ours is."""
    took: dict[str, list[float]] = {"ours": [], "straightforward": []}
    for turn in range(turns + 1):
        for name, call in (("ours", ours), ("straightforward", plain)):
            seconds = timed(call)
            if turn:  # the first warms up
                took[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    return medians | {"ratio": medians["straightforward"] / medians["ours"]}


def timed(call: Callable) -> float:
    """Seconds of one call, the device's work included."""
    import torch

    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matrix_rate(encoder: Encoder, size: int) -> float:
    """Operations a second of the linear layers' products alone, their weights cold as in a model; the faster of torch's
    own product and, on a CPU, of packed weights.
    """
    import torch
    from torch import nn

    from tipsv2.network.cpu import PackedLinear

    config = encoder.model.config.vision_config
    width, hidden = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    tokens = (size // encoder.patch_size) ** 2 + 1 + config.num_register_tokens
    place: dict[str, Any] = {"device": encoder.device, "dtype": encoder.dtype}
    shapes = [(width, width)] * 4 + [(width, hidden), (hidden, width)]
    seconds = []
    with torch.no_grad():
        inputs = {side: torch.randn(tokens, side, **place) for side in (width, hidden)}
        layers = [nn.Linear(*shape, **place) for _ in range(config.num_hidden_layers) for shape in shapes]
        kinds: list[list[Any]] = [layers]
        if encoder.device.type == "cpu":
            kinds.append([PackedLinear(layer) for layer in layers])
        sides = [layer.in_features for layer in layers]
        for kind in kinds:
            call = lambda kind=kind: [f(inputs[side]) for f, side in zip(kind, sides, strict=True)]  # noqa: E731
            seconds.append(statistics.median(timed(call) for _ in range(4)))
    work = 2 * tokens * sum(a * b for a, b in shapes) * config.num_hidden_layers
    return work / min(seconds)


def resident(call: Callable) -> int:
    """The most bytes of main memory that the process holds during a call, beyond those before it."""
    import psutil

    process, done, seen = psutil.Process(), threading.Event(), []

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    before, watcher = process.memory_info().rss, threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(seen, default=before) - before
