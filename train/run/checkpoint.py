"""Checkpoints for exact resume (safetensors + JSON, nothing pickled) and the model folder plain transformers opens.

A checkpoint is a folder written beside its place and renamed, so that one is either whole or not there. The newest
two of a run can be resumed; of older ones a few keep their encoder alone, which the explorer shows through time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tipsv2.checkpoints.weights import quiet
from tipsv2.files import whole_folder
from tipsv2.images import preprocessor_settings
from train.network.inherited_words import folded
from train.network.tuning import plain_state
from train.parallel import distributed

WEIGHTS, RESUMABLE = "state.safetensors", "trainer.json"
KEEP = 2  # checkpoints of a run that stay whole


def save(
    run: Path,
    step: int,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    main: bool = True,
    milestones: int = 0,
    scaler: torch.amp.GradScaler | None = None,
) -> Path | None:
    """Write checkpoints/step-<step>: the state of objective, optimiser, random numbers and fp16's loss scaling after
    `step` steps.

    `objective.fixed` names what is left out: parts of a fine-tuned base that stay as they are.
    Of checkpoints before the last two, `milestones` stay, spread over the steps, as encoders without the rest.
    A divided objective (sharding=full) gives the same file: every process calls this, and the one with `main` writes.
    """
    tensors = {}
    for name, value in _entries(objective, optimizer):
        value = distributed.whole(value)
        if main:
            tensors[name] = value.contiguous()
    if not main:
        return None
    tensors["rng"] = torch.get_rng_state()
    place = run / "checkpoints" / f"step-{step:07d}"
    with whole_folder(place) as folder:
        try:
            save_file({k: v.clone() for k, v in tensors.items()}, folder / WEIGHTS)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(
                f"{place} could not be written ({error}). Make room on that disk; the checkpoint before it is whole, "
                "go on from there with --resume."
            ) from None
        scaling = {"scaler": scaler.state_dict()} if scaler else {}
        (folder / RESUMABLE).write_text(json.dumps({"step": step} | scaling) + "\n")
    _thin(place.parent, milestones)
    return place


def _thin(folder: Path, milestones: int) -> None:
    """Take from older checkpoints what only resuming needs, and drop those whose neighbours are nearest."""
    places = sorted(folder.glob("step-*"))
    for place in places[:-KEEP] if milestones else []:
        (place / RESUMABLE).unlink(missing_ok=True)  # first: a half of a checkpoint must not look like one
        with safe_open(place / WEIGHTS, "pt") as file:
            kept = list(file.keys())
            encoder = [k for k in kept if k.startswith("objective.model.")]
            encoder = {k: file.get_tensor(k) for k in encoder} if len(encoder) < len(kept) else {}
        if encoder:
            try:
                save_file(encoder, place / "part")
                os.replace(place / "part", place / WEIGHTS)
            except (OSError, SafetensorError):  # no room for it: what matters, the newest, is written
                shutil.rmtree(place)
                places.remove(place)
    while len(places) > KEEP + milestones:
        steps = [0, *(int(place.name[5:]) for place in places)]
        spans = [steps[k + 2] - steps[k] for k in range(len(places) - KEEP)]
        shutil.rmtree(places.pop(spans.index(min(spans))))


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run that can be resumed, or None."""
    return max((record.parent for record in run.glob(f"checkpoints/step-*/{RESUMABLE}")), default=None)


def load(
    place: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Restore everything `save` wrote, in place; returns the number of steps done.

    Raises ValueError if the checkpoint is damaged, or of another recipe (keys or shapes differ).
    """
    try:
        rest = json.loads((place / RESUMABLE).read_text())
        file = safe_open(place / WEIGHTS, "pt")
    except (ValueError, SafetensorError, FileNotFoundError) as error:
        raise ValueError(
            f"{place} is damaged ({error}): delete that folder, and --resume goes on from the checkpoint before it."
        ) from error
    with file:
        kept = list(file.keys())
        own = objective.state_dict()
        state = {k: v for k, v in own.items() if k in objective.fixed}
        for key in (k.removeprefix("objective.") for k in kept if k.startswith("objective.")):
            value = file.get_tensor(f"objective.{key}")
            state[key] = distributed.part(value, own[key]) if key in own else value
        try:
            objective.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{place} belongs to another recipe: {str(error).splitlines()[-1].strip()}") from error
        for name, parameter in objective.named_parameters():
            prefix = f"optimizer.{name}."
            entries = {k.removeprefix(prefix): file.get_tensor(k) for k in kept if k.startswith(prefix)}
            if entries:
                optimizer.state[parameter] = {k: distributed.part(v, parameter).clone() for k, v in entries.items()}
        torch.set_rng_state(file.get_tensor("rng"))
    if scaler and "scaler" in rest:
        scaler.load_state_dict(rest["scaler"])
    return rest["step"]


def _entries(objective: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """What a checkpoint holds of both, by name."""
    state = objective.state_dict()  # before the names: it takes apart again what FSDP had put together for a step
    for name, value in state.items():
        if name not in objective.fixed:
            yield f"objective.{name}", value.detach()
    names = {parameter: name for name, parameter in objective.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            yield f"optimizer.{names[parameter]}.{key}", torch.as_tensor(value)


def export(folder: Path, model, tokenizer, side: int = 0) -> Path:
    """Write `model` as a plain transformers folder: config, safetensors, tokenizer, preprocessor settings.

    side: the pixels it is to be shown images at, those it was last trained at; 0: those of its position table.
    LoRA's updates are added to the weights, inherited words folded into a plain token embedding.
    """
    side = side or model.config.vision_config.image_size
    with whole_folder(folder) as part, folded(model), quiet():
        model.save_pretrained(part, state_dict=plain_state(model))
        tokenizer.save_pretrained(part)
        settings = preprocessor_settings(side)
        (part / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder
