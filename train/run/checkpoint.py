"""Checkpoints for exact resume (safetensors + JSON, nothing pickled) and the model folder plain transformers opens.

A checkpoint is a folder written beside its place and renamed, so that one is either whole or not there. The newest
two of a run can be resumed, of one at its end the newest; of older ones a few keep their encoder alone, which the
explorer shows through time. With
sharding=full every process writes its own parts (train/run/sharded_checkpoint.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tipsv2.checkpoints.weights import quiet
from tipsv2.files import part_of, whole_folder
from tipsv2.images import preprocessor_settings
from train.network.inherited_words import folded
from train.network.tuning import plain_state
from train.parallel import distributed

WEIGHTS, RESUMABLE = "state.safetensors", "trainer.json"
RANDOM = "rng.safetensors"  # beside a checkpoint in parts, the random state
KEEP = 2  # checkpoints of a run that stay whole


def save(
    run: Path,
    step: int,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    main: bool = True,
    milestones: int = 0,
    scaler: torch.amp.GradScaler | None = None,
    best: int | None = None,
) -> Path | None:
    """Write checkpoints/step-<step>: the state of objective, optimiser, random numbers and fp16's loss scaling after
    `step` steps.

    `objective.fixed` names what is left out: parts of a fine-tuned base that stay as they are.
    Of checkpoints before the last two, `milestones` stay, spread over the steps, as encoders without the rest,
    and that of step `best`.
    Of a divided objective (sharding=full) every process calls this and writes its parts, and the one with `main` the
    rest; otherwise only that one does anything.
    """
    place = run / "checkpoints" / f"step-{step:07d}"
    tensors = dict(_entries(objective, optimizer))
    about = {"step": step} | ({"scaler": scaler.state_dict()} if scaler else {})
    if any(map(distributed.is_part, tensors.values())):
        _save_parts(place, tensors, about, main)
    elif main:
        tensors = {k: v.contiguous() for k, v in tensors.items()} | {"rng": torch.get_rng_state()}
        with whole_folder(place) as folder:
            try:
                save_file({k: v.clone() for k, v in tensors.items()}, folder / WEIGHTS)
            except SafetensorError as error:  # how safetensors reports a full disk
                raise _no_room(place, error) from None
            (folder / RESUMABLE).write_text(json.dumps(about) + "\n")
    if not main:
        return None
    thin(run, milestones, best)
    return place


def _save_parts(place: Path, tensors: dict[str, Tensor], about: dict, main: bool) -> None:
    from train.run import sharded_checkpoint  # not in every build of torch

    with whole_folder(place) if main else nullcontext(part_of(place)) as folder:
        torch.distributed.barrier()  # the folder is there
        try:
            sharded_checkpoint.write(folder, tensors)
        except Exception as error:  # torch's own, which holds those of every process
            raise _no_room(place, error) from error
        if main:
            save_file({"rng": torch.get_rng_state()}, folder / RANDOM)
            record = about | {"files": sharded_checkpoint.files(folder)}
            (folder / RESUMABLE).write_text(json.dumps(record) + "\n")


def _no_room(place: Path, error: Exception) -> OSError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return OSError(
        f"{place} could not be written ({reason[-1]}). Make room on that disk; the checkpoint before it is whole, "
        "go on from there with --resume."
    )


def steps(run: Path) -> list[int]:
    """Those that a run has a checkpoint of, whole or its encoder alone, in order."""
    return [_step(place) for place in sorted(run.glob("checkpoints/step-*"))]


def _step(place: Path) -> int:
    return int(place.name[5:])


def thin(run: Path, milestones: int, best: int | None = None, whole: int = KEEP) -> None:
    """Take from checkpoints older than the newest `whole` what only resuming needs, and drop of them all but
    `milestones`, those whose neighbours are nearest; never that of step `best`.
    """
    places = sorted(run.glob("checkpoints/step-*"))
    for place in [place for place in places[:-whole] if milestones or _step(place) == best]:
        (place / RESUMABLE).unlink(missing_ok=True)  # first: a half of a checkpoint must not look like one
        try:
            _keep_encoder(place)
        except (OSError, SafetensorError):  # no room for it: what matters, the newest, is written
            shutil.rmtree(place)
            places.remove(place)
    while len(places) > whole + milestones:
        ends = [0, *map(_step, places)]
        spans = {k: ends[k + 2] - ends[k] for k in range(len(places) - whole) if ends[k + 1] != best}
        if not spans:
            break
        shutil.rmtree(places.pop(min(spans, key=lambda k: spans[k])))


def _keep_encoder(place: Path) -> None:
    """Leave of a checkpoint, whole or in parts, its encoder. Raises OSError or SafetensorError for a full disk."""
    in_parts = not (place / WEIGHTS).exists()
    if in_parts:
        from train.run import sharded_checkpoint

        shapes = sharded_checkpoint.shapes(place)
        encoder = {
            k: torch.empty(size, dtype=dtype) for k, (size, dtype) in shapes.items() if k.startswith("objective.model.")
        }
        sharded_checkpoint.read(place, encoder, alone=True)
        encoder |= {k: v.view(()) for k, v in encoder.items() if k.endswith(".temperature")}  # a number again
    else:
        with safe_open(place / WEIGHTS, "pt") as file:
            kept = list(file.keys())
            encoder = [k for k in kept if k.startswith("objective.model.")]
            encoder = {k: file.get_tensor(k) for k in encoder} if len(encoder) < len(kept) else {}
    if encoder:
        save_file(encoder, place / "part")
        os.replace(place / "part", place / WEIGHTS)
    for path in place.iterdir():  # parts, and what a kill left
        if path.name != WEIGHTS:
            path.unlink()


def latest(run: Path) -> Path | None:
    """The newest checkpoint of a run that can be resumed, or None."""
    return max((record.parent for record in run.glob(f"checkpoints/step-*/{RESUMABLE}")), default=None)


def load(
    place: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Restore everything `save` wrote, in place, whatever the number of processes then and now; returns the number of
    steps done. Every process calls it.

    Raises ValueError if the checkpoint is damaged, or of another recipe (keys or shapes differ).
    """
    try:
        rest = json.loads((place / RESUMABLE).read_text())
        file = None if "files" in rest else safe_open(place / WEIGHTS, "pt")
    except (ValueError, SafetensorError, FileNotFoundError) as error:
        raise _damaged(place, error) from error
    if file is None:
        _load_parts(place, rest["files"], objective, optimizer)
    else:
        _load_whole(place, file, objective, optimizer)
    if scaler and "scaler" in rest:
        scaler.load_state_dict(rest["scaler"])
    return rest["step"]


def _load_whole(place: Path, file: safe_open, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
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


def _load_parts(place: Path, files: dict, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    from train.run import sharded_checkpoint

    if (there := sharded_checkpoint.files(place)) != files:
        odd = sorted(set(files.items()) ^ set(there.items()))[0][0]
        raise _damaged(place, f"{odd} is not there or has another size")
    try:
        shapes = sharded_checkpoint.shapes(place)
        random = torch.empty(shapes["rng"][0], dtype=torch.uint8)  # of RANDOM, whole in one file
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise _damaged(place, error) from error
    wanted = {f"objective.{k}": v for k, v in objective.state_dict().items() if k not in objective.fixed}
    wanted["rng"] = random
    moments: dict[nn.Parameter, dict[str, Tensor]] = {}
    for name, parameter in objective.named_parameters():
        for key in (k for k in shapes if k.rpartition(".")[0] == f"optimizer.{name}"):
            size, dtype = shapes[key]
            alike = size == parameter.shape or (parameter.ndim == 0 and not key.endswith(".step"))
            value = torch.zeros_like(parameter) if alike else torch.zeros((), dtype=dtype, device=parameter.device)
            moments.setdefault(parameter, {})[key.rpartition(".")[2]] = wanted[key] = value.detach()
    for key in sorted(wanted.keys() ^ shapes.keys()):
        raise ValueError(f"{place} belongs to another recipe: only one of them has {key}")
    for key, value in wanted.items():
        if (value.shape or (1,)) != shapes[key][0]:
            raise ValueError(
                f"{place} belongs to another recipe: {key} is {list(shapes[key][0])}, not {list(value.shape)}"
            )
    try:
        sharded_checkpoint.read(place, wanted)
    except Exception as error:  # torch's own, which holds those of every process
        raise _damaged(place, error) from error
    optimizer.state.update(moments)
    torch.set_rng_state(random)


def _damaged(place: Path, error: Exception | str) -> ValueError:
    return ValueError(
        f"{place} is damaged ({error}): delete that folder, and --resume goes on from the whole checkpoint before it, "
        "or from the start where there is none."
    )


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
