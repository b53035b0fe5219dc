"""Checkpoints for exact resume (safetensors + JSON, nothing pickled) and the model folder plain transformers opens.

A checkpoint is a folder written beside its place and renamed, so that one is either whole or not there.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tipsv2.weights import quiet
from train.tuning import plain_state
from train.words import folded

KEEP = 2  # checkpoints of a run that stay on disk


def save(run: Path, step: int, objective: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write checkpoints/step-<step>: the state of objective, optimiser and random numbers after `step` steps.

    `objective.fixed` names what is left out: parts of a fine-tuned base that stay as they are.
    """
    names = {parameter: name for name, parameter in objective.named_parameters()}
    state = {k: v for k, v in objective.state_dict().items() if k not in objective.fixed}
    tensors = {f"objective.{k}": v.detach().contiguous() for k, v in state.items()}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            tensors[f"optimizer.{names[parameter]}.{key}"] = torch.as_tensor(value).contiguous()
    tensors["rng"] = torch.get_rng_state()
    place = run / "checkpoints" / f"step-{step:07d}"
    with _whole(place) as folder:
        try:
            save_file({k: v.clone() for k, v in tensors.items()}, folder / "state.safetensors")
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(
                f"{place} could not be written ({error}). Make room on that disk; the checkpoint before it is whole, "
                "go on from there with --resume."
            ) from None
        (folder / "trainer.json").write_text(json.dumps({"step": step}) + "\n")
    for old in sorted(place.parent.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return place


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return max(run.glob("checkpoints/step-*"), default=None)


def load(place: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore everything `save` wrote, in place; returns the number of steps done.

    Raises ValueError if the checkpoint is of another recipe (keys or shapes differ).
    """
    tensors = load_file(place / "state.safetensors")
    state = {k: v for k, v in objective.state_dict().items() if k in objective.fixed}
    state |= {k.removeprefix("objective."): v for k, v in tensors.items() if k.startswith("objective.")}
    try:
        objective.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{place} belongs to another recipe: {str(error).splitlines()[-1].strip()}") from error
    for name, parameter in objective.named_parameters():
        prefix = f"optimizer.{name}."
        entries = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if entries:
            optimizer.state[parameter] = {k: v.clone() for k, v in entries.items()}
    torch.set_rng_state(tensors["rng"])
    return json.loads((place / "trainer.json").read_text())["step"]


def export(folder: Path, model, tokenizer) -> Path:
    """Write `model` as a plain transformers folder: config, safetensors, tokenizer, preprocessor settings.

    LoRA's updates are added to the weights, inherited words folded into a plain token embedding.
    """
    side = model.config.vision_config.image_size
    with _whole(folder) as part, folded(model), quiet():
        model.save_pretrained(part, state_dict=plain_state(model))
        tokenizer.save_pretrained(part)
        settings = {
            "image_processor_type": "Tipsv2ImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 2,
            "size": {"height": side, "width": side}, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": False,
        }  # fmt: skip
        (part / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return folder


class _whole:
    """Write into a folder beside `place`, then put it there in one rename; leave nothing behind after an error."""

    def __init__(self, place: Path):
        self.place, self.part = place, place.with_name(f".{place.name}.part")

    def __enter__(self) -> Path:
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True)
        return self.part

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            shutil.rmtree(self.place, ignore_errors=True)
            os.replace(self.part, self.place)
        else:
            shutil.rmtree(self.part, ignore_errors=True)
