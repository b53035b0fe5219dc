"""fit(): the one training loop. Recipes differ by objective, data and schedule, never by a second loop.

A run is a folder: recipe.json, metrics.jsonl, checkpoints/ (exact resume), model/ (a transformers folder), adapter/ (of
LoRA, peft's), samples/.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from transformers import AutoTokenizer

from tipsv2.checkpoints.weights import turn_back
from tipsv2.files import whole_folder
from train.data.batches import BatchStream, open_batches
from train.data.samples import NAMED
from train.network.tuning import write_adapter
from train.parallel import distributed
from train.parallel.signals import StopFlag, Stopped
from train.recipe.settings import Recipe, choose
from train.run import checkpoint, early, recall
from train.run.monitor import MONITOR_SEED, Monitor, due
from train.run.resume import claimed
from train.run.shown import shown_images
from train.run.step import NotFinite, Step, chosen_precision, optimizer_of


def fit(
    recipe: Recipe, objective: torch.nn.Module, tokenizer, run: Path, resume: bool = False, show: bool = True
) -> Path:
    """Train `objective` by `recipe` into folder `run`; returns the exported model folder.

    Raises:
        ValueError: the folder is used and resume is off, or its recipe is another one.
        FloatingPointError: a loss was not finite; the state before that step is saved and the message names the term.
        Stopped: asked to stop; saved first.
    """
    with ExitStack() as hold:  # the run's folder, from the moment it is claimed
        return _fit(recipe, objective, tokenizer, run, resume, show, hold)


def _fit(
    recipe: Recipe, objective: torch.nn.Module, tokenizer, run: Path, resume: bool, show: bool, hold: ExitStack
) -> Path:
    # stages may leave heads or the mask token out of the graph
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    precision = chosen_precision(recipe.precision)
    sharded = choose("sharding", recipe.sharding, "none", "full") == "full"
    if sharded and precision == "fp16":
        raise ValueError("sharding=full trains without fp16's loss scaling: set precision to bf16 or fp32.")
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else accelerate does not join processes that have no accelerator
        mixed_precision=precision,
        kwargs_handlers=[unused],
        log_with=_trackers(recipe.trackers) or None,
        project_dir=run,
    )
    main = accelerator.is_main_process
    batches = open_batches(
        recipe, tokenizer, distributed.rank(), distributed.world()
    )  # data may fail: before the folder is
    torch.manual_seed(recipe.seed)
    shards = None
    if sharded and distributed.world() > 1:
        from train.parallel.sharding import Shards  # torch's FSDP takes time to import, and not every build has it

        shards = Shards(objective, accelerator.device)
    optimizer = optimizer_of(recipe, objective)
    if main:
        hold.enter_context(claimed(recipe, run, resume))
        with whole_folder(run / "tokenizer") as part:
            tokenizer.save_pretrained(part)
        batches.remember(run / "data.jsonl")
    accelerator.init_trackers("tracked")
    accelerator.wait_for_everyone()
    batches.tokenizer = tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")  # every process reads the same one
    if not main:
        batches.remember(run / "data.jsonl")
    place = checkpoint.latest(run)
    done = checkpoint.load(place, objective, optimizer, accelerator.scaler) if place else 0
    if shards:  # no engine around it: what is divided averages its gradients itself; this only adds autocast
        accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)  # a cast weight must not outlive its block
        objective = accelerator.prepare_model(objective, device_placement=False, evaluation_mode=True)
        optimizer = accelerator.prepare(optimizer)
    else:
        objective, optimizer = accelerator.prepare(objective, optimizer)
    inner = accelerator.unwrap_model(objective)
    stop, shown, sides = StopFlag(), [], None
    if main and recipe.sample_every:
        shown = shown_images(batches.source, max(stage.size for stage in recipe.stages), MONITOR_SEED)
        sides = recall.sides(batches.source)
    if main and show:
        goes_on = f" from step {done} on" if done else ""
        numbers = "fp32" if precision == "no" else precision
        print(f"training on {accelerator.device} in {numbers}{goes_on}; {batches.extent()}", file=sys.stderr)
        if recipe.patience and sides is None:
            print("no pairs are kept apart, so patience ends nothing: the run takes all its steps", file=sys.stderr)

    def clip(norm: float) -> torch.Tensor:
        return shards.clip(norm) if shards else accelerator.clip_grad_norm_(inner.parameters(), norm)

    scaled = accelerator.scaler is not None
    take = Step(recipe, inner, optimizer, objective, accelerator.backward, clip, scaled)
    minutes = SaveClock(recipe.save_minutes)
    arriving = BatchStream(batches, done, recipe.workers)

    def flags() -> list[bool]:
        return [stop.asked > 0, *([minutes.over()] if recipe.save_minutes else [])]

    with Monitor(run, recipe, done, shown, show, main, sides) as monitor, stop, arriving:

        def save(step: int) -> None:
            if main or shards:
                more = (recipe.milestones, accelerator.scaler, early.best(monitor.held) if recipe.patience else None)
                checkpoint.save(run, step, inner, optimizer.optimizer, main, *more)
            accelerator.wait_for_everyone()

        def sample(step: int) -> bool:
            """Whether the run ends with it, which the first process knows and all others hear."""
            encoder = shards.encoder() if shards else inner.model  # with shards the work of all processes
            if main and not monitor.sampled(step):
                size = recipe.stage_at(max(0, step - 1)).size
                accelerator.log(monitor.sample(step, encoder, tokenizer, size), step=step)
            return recipe.patience > 0 and distributed.in_any(monitor.over(), accelerator.device)

        before = monitor.last.get("unreadable", (0, 0))[1]
        unreadable, problems = 0, Counter()  # a mended, resumed run is judged anew
        objective.train()
        ended = done
        over = due(recipe, done) and sample(done)
        for step in () if over else range(done, recipe.steps):
            stage = recipe.stage_at(step)
            started = time.perf_counter()
            arrived = next(arriving)
            problems.update(arrived.pop("problems", ()))
            batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in arrived.items()}
            unreadable_here = batch.pop("unreadable", None)
            waited = time.perf_counter() - started
            counts = {} if unreadable_here is None else {"unreadable": unreadable_here * distributed.world()}
            try:
                values, (asked, *late) = take(step, batch, counts, flags)
            except NotFinite as error:
                save(step)
                raise FloatingPointError(
                    f"step {step + 1}: {error} is not finite. The state before this step is saved in {run}; "
                    "begin a new run with a lower learning rate or precision=fp32."
                ) from None
            if counts:
                unreadable += round(values["unreadable"])
                values["unreadable"] = before + unreadable
            images_seen = batches.images_before(step + 1) - batches.images_before(done) + unreadable
            too_many_unreadable = batches.too_many(unreadable, images_seen)
            seconds = time.perf_counter() - started
            line = monitor.step(step + 1, values | {"data_wait": waited}, stage.batch_size, seconds)
            accelerator.log(line, step=step + 1)
            last = step + 1 == recipe.steps
            ended = step + 1
            sampled = due(recipe, step + 1)
            kept = recipe.patience > 0 and sampled  # its weights may be those that the run leaves
            if asked or last or kept or too_many_unreadable or any(late) or (step + 1) % recipe.save_every == 0:
                save(step + 1)
                minutes.restart()
            if too_many_unreadable:
                raise ValueError(
                    f"stopped after step {step + 1}: {unreadable} of {images_seen} images cannot be used, more than "
                    f"data.unreadable={recipe.data.unreadable} allows. {' '.join(list(problems)[:NAMED])} "
                    "`train check` counts and names them. Mend them where they are, then go on with --resume."
                )
            if sampled and sample(step + 1):
                break
            if asked and not last:
                raise Stopped(step + 1, stop.asked)
        monitor.end(problems)
        best = None
        if main:
            checkpoint.thin(run, recipe.milestones, early.best(monitor.held) if recipe.patience else None, whole=1)
            best = early.best(monitor.held, checkpoint.steps(run)) if recipe.patience else None
            if best is not None:
                monitor.leaves(best, ended)
    encoder = shards.encoder() if shards else inner.model
    if main:
        if best not in (None, ended):
            turn_back(encoder, run / "checkpoints" / f"step-{best:07d}" / checkpoint.WEIGHTS)
        with inner.finished():
            checkpoint.export(run / "model", encoder, tokenizer, recipe.stages[-1].size)
            if recipe.tuning.base and recipe.tuning.part == "lora":
                write_adapter(run / "adapter", encoder, recipe.tuning)
            inner.write_more(run)
    accelerator.end_training()
    return run / "model"


def _trackers(names: str) -> list[str]:
    """The experiment trackers asked for, each known to accelerate and installed."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    installed = {str(kind.value) for kind in get_available_trackers()}
    for name in wanted:
        choose("trackers", name, *sorted(LOGGER_TYPE_TO_CLASS))
        if name not in installed:
            raise ValueError(
                f"trackers={names}: {name} is not installed; pip install {name}, or set trackers= to none."
            )
    return wanted


class SaveClock:
    """Whether `minutes` have passed since it was made or restarted; never where they are 0."""

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.restart()

    def restart(self) -> None:
        self.since = time.monotonic()

    def over(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self.since > 60 * self.minutes
