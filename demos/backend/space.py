"""As a Hugging Face Space: on ZeroGPU a model's work runs in a worker that has a GPU for some seconds; elsewhere
nothing here does anything.

The worker is a fork: what goes in and comes out is pickled, and what it changes is lost. So not whole handlers go
there, only the forward passes; images, features and texts stay remembered in the app, which passes tensors. Of an error
only its sentence comes back. https://huggingface.co/docs/hub/spaces-zerogpu

    prepare()                                                        first of all, before torch is imported
    encoder = lend(load(place, "cuda"), "dog", ENCODER, (load, place, "cuda"))
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from typing import Any

PASSES, TEXTS = ("encode_pixels", "encode_layers"), "embed_prompts"
ENCODER = (*PASSES, TEXTS)  # where an Encoder touches its device
DPT = ("predict_pixels",)
SECONDS = {"embed_prompts": 10, "encode_pixels": 20}  # asked of the GPU's queue: few seconds are given sooner
MOST_SECONDS = 60

_models: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()  # the app's budget decides what stays
_read_again: dict[str, Any] = {}  # in a worker: models that came to the app after it was forked; one at a time


def zero_gpu() -> bool:
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def prepare() -> None:
    """On ZeroGPU: import spaces, which has to come before torch, and tell it that there is work for a GPU."""
    if zero_gpu():
        _worker()


def lend(model, name: str, methods: tuple[str, ...], again: tuple):
    """The model, whose methods run in a GPU worker on ZeroGPU and give tensors on the CPU. again: (function,
    *arguments) that loads it, for a worker that does not know it.
    """
    if zero_gpu():
        key = f"{type(model).__name__} {name}"
        _models[key] = model
        for method in methods:
            setattr(model, method, functools.partial(_ask, key, again, method))
    return model


def _ask(key: str, again: tuple, method: str, *args, **kwargs):
    refused, answer = _worker()(key, again, method, args, kwargs)
    if refused:
        raise ValueError(refused)
    return answer


@functools.cache
def _worker() -> Callable:
    import spaces

    return spaces.GPU(duration=_seconds)(_work)


def _seconds(key: str, again: tuple, method: str, args: tuple, kwargs: dict) -> int:
    return SECONDS.get(method, MOST_SECONDS)


def _work(key: str, again: tuple, method: str, args: tuple, kwargs: dict) -> tuple[str, Any]:
    """In the worker. -> (what was refused, what came out)."""
    try:
        model = _models.get(key) or _read_again.get(key)
        if model is None:
            _read_again.clear()
            load, *given = again
            model = _read_again[key] = load(*given)
        return "", _on_cpu(getattr(type(model), method)(model, *args, **kwargs))
    except ValueError as error:
        return str(error), None


def _on_cpu(answer):
    import torch

    if isinstance(answer, torch.Tensor):
        return answer.cpu()
    if isinstance(answer, dict):
        return {key: _on_cpu(value) for key, value in answer.items()}
    return answer
