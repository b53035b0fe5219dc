"""Behind the Train tab: what a run's folder says about the run. Nothing is remembered, so any app finds any run again.

runs/dog/recipe.json metrics.jsonl checkpoints/ model/ samples/     written by python -m train
runs/dog/app/owner.json command.json process.json log.txt asked data/      written by the tab (train_process.py)
"""

from __future__ import annotations

import functools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from train.recipe import settings
from train.recipe.metrics import BEST, current, left
from train.recipe.settings import Recipe

APP = "app"  # what the tab keeps beside a run, in the run's own folder; train.run.loop lets it be there
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")  # names Windows keeps for itself
FRESH = 90  # seconds since its last line in which a run started from a terminal counts as going on
RECENT = 50  # steps over which the speed is averaged
LOG_BYTES = 16_000
BAR = re.compile(r"\d+%\||\d+(step|pair|B|it)/s|\d+step \[")  # a line of a progress bar
TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
GOING = ("starting", "running", "stopping")


@dataclass(frozen=True)
class Look:
    """A run as it is now. state: "starting" | "running" | "stopping" | "done" | "stopped" | "failed" | "unknown"."""

    name: str
    state: str
    step: int = 0
    steps: int = 0
    note: str = ""  # one sentence on what is the matter
    command: tuple[str, ...] = ()  # after `python -m train`; () if it was started from a terminal
    recipe: Recipe | None = None
    lines: tuple[dict, ...] = field(default=(), repr=False)  # of metrics.jsonl
    samples: tuple[Path, ...] = ()
    log: str = field(default="", repr=False)

    @property
    def going(self) -> bool:
        return self.state in GOING

    @property
    def own_data(self) -> bool:
        """Whether it learns from somebody's images, not from drawn scenes."""
        return self.recipe is not None and self.recipe.data.source != "scenes"

    @property
    def base(self) -> str:
        """The encoder this one came from, as the command names it: a fine-tune's base or a student's teacher."""
        return (self.recipe.tuning.base or self.recipe.distillation.teacher) if self.recipe else ""

    @property
    def rate(self) -> float:
        """Images a second over the last steps; 0 where there is none."""
        rates = [line["images_per_second"] for line in self.lines[-RECENT:] if line.get("images_per_second")]
        return len(rates) / sum(1 / rate for rate in rates) if rates else 0.0

    @property
    def seconds_left(self) -> float | None:
        if not (self.recipe and self.rate):
            return None
        left = sum(self.recipe.stage_at(step).batch_size for step in range(self.step, self.recipe.steps))
        return left / self.rate

    def series(self) -> dict[str, tuple[list[int], list[float]]]:
        """name -> (steps, values) of every number the run logged."""
        series: dict[str, tuple[list[int], list[float]]] = {}
        for line in self.lines:
            for name, value in current(line).items():
                if name != "step" and isinstance(value, int | float):
                    steps, values = series.setdefault(name, ([], []))
                    steps.append(line["step"])
                    values.append(value)
        return series


def place(runs: Path, name: str) -> Path:
    """The folder a run of this name has or would have. Raises ValueError: a name is never a path."""
    if not NAME.fullmatch(str(name)) or RESERVED.fullmatch(str(name)):
        raise ValueError(
            f"A run cannot be called '{str(name)[:60]}': use up to 40 letters, digits, - and _, such as dogs-1."
        )
    return runs / name


def names(runs: Path) -> list[str]:
    """The runs of a folder, the newest first."""
    try:
        folders = [p for p in runs.iterdir() if NAME.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    except OSError:
        return []
    folders = [p for p in folders if (p / "recipe.json").is_file() or (p / APP).is_dir()]
    return [p.name for p in sorted(folders, key=_born, reverse=True)]


def look(runs: Path, name: str) -> Look:
    """How a run is. One without a folder is "unknown". Raises ValueError for what is no name."""
    folder = place(runs, name)
    if not folder.is_dir():
        return unknown(name)
    recipe, lines, log = _recipe(folder), _metrics(folder / "metrics.jsonl"), _log(folder / APP / "log.txt")
    command = tuple(map(str, _json(folder / APP / "command.json") or ()))
    asked = (folder / APP / "asked").exists()
    step = max((line["step"] for line in lines), default=0)
    steps = recipe.steps if recipe else 0
    best = lines[-1].get(BEST) if lines else None
    held = {line["step"]: line["recall_held_out"] for line in lines if "recall_held_out" in line}
    if going(folder) or (not command and _fresh(folder)):
        state, note = "running" if lines else "starting", "" if command else "Started from a terminal: stop it there."
        if asked:
            state, note = "stopping", "Saving its state, then it stops."
        elif steps and (step >= steps or best):
            note = "Writing the encoder."
        elif not lines:
            note = "Getting ready: the base, the data, the first batch."
    elif (folder / "model" / "config.json").is_file() and (step >= steps or best):
        state, note = "done", left(best, step, steps, held) if best in held else ""
    elif asked or "stopped after step" in log[-400:] or "interrupted at once" in log[-400:]:
        state, note = "stopped", "Stopped; resume goes on exactly there." if step else "Stopped before its first step."
    else:
        state, note = "failed", _last_words(log)
    samples = tuple(sorted((folder / "samples").glob("step-*.png")))
    return Look(name, state, step, steps, note, command, recipe, lines, samples, log)


def unknown(name: str) -> Look:
    """A run that is not there, for whoever asks."""
    return Look(name, "unknown", note=f"There is no run '{name}' here: it was deleted, or never was.")


def stamp(runs: Path, name: str) -> tuple:
    """Changes whenever `look` would: cheap enough to ask every second."""
    folder = place(runs, name)
    watched = (folder, *(folder / part for part in ("metrics.jsonl", "samples", "model", f"{APP}/log.txt", APP)))
    return (name, going(folder), *(_mtime(path) for path in watched))


def going(folder: Path) -> bool:
    """Whether the process that the tab started for this run is still there."""
    return process(folder) is not None


def process(folder: Path) -> psutil.Process | None:
    """The run's process, if it lives. A number that another process has taken over since is told by its birth."""
    noted = _json(folder / APP / "process.json")
    try:
        running = psutil.Process(int(noted["pid"]))
        alive = abs(running.create_time() - float(noted["created"])) < 2 and running.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, TypeError, KeyError, ValueError):
        return None
    return running if alive else None


def _born(folder: Path) -> float:
    times = [_mtime(folder / APP / "command.json"), _mtime(folder / "recipe.json")]
    return next((moment for moment in times if moment), 0.0)


def _fresh(folder: Path) -> bool:
    unfinished = not (folder / "model").exists()
    return unfinished and time.time() - max(_mtime(folder / "metrics.jsonl"), _mtime(folder / "recipe.json")) < FRESH


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _json(path: Path):
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _recipe(folder: Path) -> Recipe | None:
    try:
        return settings.from_dict(_json(folder / "recipe.json"))
    except (TypeError, KeyError, ValueError, AttributeError):  # not there yet, or of another version
        return None


def _metrics(path: Path) -> tuple[dict, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return _read_metrics(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read_metrics(path: Path, when: int, size: int) -> tuple[dict, ...]:
    """The whole lines; the last may be half written."""
    lines = []
    try:
        for text in path.read_text("utf-8").splitlines():
            if text.endswith("}"):
                line = json.loads(text)
                if isinstance(line.get("step"), int):
                    lines.append(line)
    except (OSError, ValueError):
        pass
    return tuple(lines)


def _log(path: Path) -> str:
    """The end of what the run said, without its progress bars, and without anything that looks like a Hub token."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text)]
    return TOKEN.sub("hf_…", "\n".join(line for line in lines if line and not BAR.search(line)))


def _last_words(log: str) -> str:
    last = log.rpartition("\n")[2]
    if "Traceback (most recent call last)" in log:
        return f"It crashed: {last[:300]}"
    usual = (
        "parameters in the encoder",
        "training on ",
        "patch-text mIoU",
        ", the last: loss",
        "could not be used",
        "encoder is that of step",
    )
    if not last or any(words in last for words in usual):
        return "It ended without a word, as it does when memory runs out: try a smaller batch or a lower resolution."
    return last[:600]
