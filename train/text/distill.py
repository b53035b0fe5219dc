"""A text tower of TIPSv2's architecture that says of a phrase what a sentence encoder says of it.

    python -m train text --teacher foundations/minilm --wordnet foundations/nouns.jsonl --out runs/text \
        --vision runs/photos/model

SF-CLIP's idea of a text foundation model, without paying for it at use: the tower is small, and a word that no image
was ever paired with still lands near its synonyms. The teacher's vectors may be carried over a bridge, trained with
images, to where patches are; then the tower learns what comes out of it. A loop of its own: a step takes phrases and
fixed vectors, and there is no encoder to sample while it lasts. Checkpoints, stopping and resuming are the other
trainings'.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase, Tipsv2TextModel

import tipsv2
from tipsv2.files import whole_file
from train.data import sentence_vectors
from train.data.phrase_batches import Batches, pad
from train.network.teachers import TextTeacher
from train.objectives import losses
from train.objectives.schedules import warmup_cosine
from train.parallel.signals import StopFlag, Stopped
from train.run import checkpoint
from train.run.hold import LOCK, held
from train.text import tower
from train.text.phrases import Phrases, compose, read_dictionary, read_names
from train.text.vocabulary import cut

RECORD, METRICS, MODEL = "text.json", "metrics.jsonl", "model"
SAVE_SECONDS = 180.0
# Temperature of `losses.neighbours`. After 80 steps of 128 short phrases of all-MiniLM-L6-v2, on 600 held out: mean
# cosine, and share that find their own target first. Cosine alone 0.771, 0.882; with neighbours 0.735, 0.987 (at 0.02:
# 0.670, 0.928); with losses.contrastive, where only the own target is right, 0.746, 0.982. Words frozen 0.732, 0.985,
# at the whole learning rate 0.739, 0.987. Twice the learning rate 0.752, 0.992.
CONTRAST = 0.05
WORDS_SCALE = 0.3  # of the learning rate, for word embeddings: those that no phrase moves must stay among the others
CLIP = 1.0  # largest norm of a gradient
WARMUP = 100  # steps, and at most a tenth


@dataclass(frozen=True)
class Settings:
    """What a run of this command is; it is recorded, and resumed with nothing else. Paths and names as they were given.

    teacher: folder or Hub id.   wordnet: WordNet's nouns.jsonl, files of names.   emphasis, exclude: files of names.
    bridge: safetensors, see `targets.open_bridge`.   base: an earlier run, whose tower and vocabulary go on.
    phrases: about how many, beside the emphasised.   vocabulary: word pieces; 0 keeps the teacher's tokenizer.
    """

    teacher: str = ""
    wordnet: tuple[str, ...] = ()
    emphasis: str = ""
    exclude: str = ""
    bridge: str = ""
    base: str = ""
    steps: int = 2000
    layers: int = 4
    batch_size: int = 256
    phrases: int = 100_000
    vocabulary: int = 16_000
    learning_rate: float = 2e-3
    seed: int = 0


class Student(nn.Module):
    """The tower and its loss, in the shape that `train.run.checkpoint` keeps."""

    fixed: frozenset[str] = frozenset()

    def __init__(self, model: Tipsv2TextModel):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, goal: Tensor) -> dict[str, Tensor]:
        """Two terms: how far each phrase is from its target [B, D], and whom it stands near among the batch's."""
        pooled = self.model(input_ids=ids, attention_mask=mask).pooler_output
        return {
            "cosine": losses.patch_distillation(pooled, goal),
            "neighbours": losses.neighbours(pooled, goal, CONTRAST),
        }


@dataclass(frozen=True)
class Parts:
    """Everything a run needs, in step: row i of `vectors` and `ids` is phrase i of `phrases.all`."""

    phrases: Phrases
    vectors: np.ndarray  # float16 [N, W]
    ids: list[list[int]]  # the student's tokens
    bridge: sentence_vectors.Bridge | None
    student: Student
    tokenizer: PreTrainedTokenizerBase

    def goals(self, rows: Sequence[int]) -> Tensor:
        """The targets of some phrases: [B, D] float32."""
        goal = torch.from_numpy(np.asarray(self.vectors[rows], dtype=np.float32))
        return self.bridge(goal) if self.bridge else goal


def run(settings: Settings, out: Path, vision: str = "", resume: bool = False, show: bool = True) -> dict[str, float]:
    """Train a tower into folder `out`; returns `scores`.

    Writes out/text (the tower as plain transformers), and with `vision`, an encoder whose vision tower is taken,
    out/model. With `resume` the run that `out` holds goes on with its own settings; where it was done, only what is
    written at the end is written again. Raises ValueError for what a user can mend, Stopped after Ctrl-C, SIGTERM or
    SIGHUP, saved.
    """
    _check(settings)
    sight = tipsv2.load(vision, "cpu", "float32", progress=show, fast=False).model if vision else None
    if not resume and out.exists() and any(entry.name != LOCK for entry in out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out, or go on with --resume.")
    with ExitStack() as hold:  # the folder, from its first file on
        parts = _prepare(settings, out, resume, show, sight.config.vision_config.hidden_size if sight else 0, hold)
        _fit(settings, parts, out, show)
        text = parts.student.model.eval()
        tower.write_tower(text, parts.tokenizer, out / tower.FOLDER)
        if sight is not None:
            tower.write_encoder(text, parts.tokenizer, sight, out / MODEL)
    return scores(parts)


@torch.no_grad()
def scores(parts: Parts) -> dict[str, float]:
    """How near the tower is to its targets on phrases it was not taught, by group.

    "NAME cosine": mean cosine to the target. "NAME first": share that find their own target first among all held-out
    and excluded phrases. NAME is held out (names in no taught phrase), excluded (words of --exclude) or emphasised
    (taught; every tenth, among themselves). A group without phrases is left out.
    """
    phrases, ids = parts.phrases, parts.ids
    start = len(phrases.taught)
    ends = np.cumsum([start, len(phrases.emphasised), len(phrases.held_out), len(phrases.excluded)]).tolist()
    asked = {"held out": range(ends[1], ends[2]), "excluded": range(ends[2], ends[3])}
    known = {}
    for group in (asked, {"emphasised": range(ends[0], ends[1], 10)}):
        rows = [row for some in group.values() for row in some]
        if not rows:
            continue
        goal = parts.goals(rows)
        cosines = tower.embed(parts.student.model.eval(), [ids[row] for row in rows]) @ goal.T
        right, own = cosines.argmax(1) == torch.arange(len(rows)), cosines.diagonal()
        for name, some in group.items():
            here = [k for k, row in enumerate(rows) if row in some]
            if here:
                known[f"{name} cosine"] = own[here].mean().item()
                known[f"{name} first"] = right[here].float().mean().item()
    return known


def recorded(out: Path, given: dict) -> Settings:
    """The settings of the run in `out`; only `steps` may be given anew, to end a run sooner or later than was meant.

    Raises ValueError where there is none, or `given` says something else.
    """
    try:
        kept = json.loads((out / RECORD).read_text("utf-8"))
        names = {field.name for field in fields(Settings)}
        settings = Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()})
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{out} holds no run of `train text` to resume: leave --resume out.") from error
    settings = replace(settings, steps=given.get("steps", settings.steps))
    for key in names & given.keys():
        if (old := getattr(settings, key)) != given[key]:
            raise ValueError(
                f"the run in {out} was begun with {key}={old!r}, not {given[key]!r}: it can only be resumed as it was; "
                "leave the flag out, or begin a new run with another --out."
            )
    return settings


def _check(settings: Settings) -> None:
    """Raises ValueError, naming the flag, before anything is opened."""
    if not settings.teacher:
        raise ValueError("--teacher is missing: give the folder or the Hub id of a sentence encoder.")
    if not settings.wordnet and not settings.emphasis:
        raise ValueError("--wordnet is missing: give nouns.jsonl of python -m train foundations, or files of names.")
    least = {"steps": 0, "layers": 1, "batch_size": 2, "phrases": 10, "vocabulary": 0}
    for name, minimum in least.items():
        if (value := getattr(settings, name)) < minimum:
            raise ValueError(f"--{name.replace('_', '-')} {value}: it must be {minimum} or more.")
    if not 0 < settings.learning_rate < 1:
        raise ValueError(f"--learning-rate {settings.learning_rate}: it must be between 0 and 1.")
    for flag in ("emphasis", "exclude", "bridge"):
        if (file := getattr(settings, flag)) and not Path(file).is_file():
            raise ValueError(f"--{flag} {file}: there is no such file.")


def _prepare(settings: Settings, out: Path, resume: bool, show: bool, wide: int, hold: ExitStack) -> Parts:
    """Open or make everything; what can be wrong is, before `out` is there and the teacher reads.

    wide: of the vision tower that the text tower is to stand beside; 0 for any.
    """
    torch.manual_seed(settings.seed)
    bridge = None
    teacher = TextTeacher(settings.teacher, "--teacher")
    if settings.bridge:
        bridge = sentence_vectors.open_bridge(Path(settings.bridge), teacher.width)
    width = bridge.map[-1].out_features if bridge else teacher.width
    if wide and wide != width:
        raise ValueError(
            f"--vision is {wide} wide and the targets {width}: give an encoder of the same width, or a bridge to it."
        )

    def tokens(texts: list[str]) -> list[list[int]]:
        return teacher.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    dictionary = read_dictionary([Path(place) for place in settings.wordnet], tokens)
    emphasis, exclude = (read_names(Path(file)) if file else [] for file in (settings.emphasis, settings.exclude))
    phrases = compose(dictionary, emphasis, exclude, settings.phrases, settings.seed)
    if settings.base:
        text, tokenizer = tower.open_tower(Path(settings.base))
        if text.config.hidden_size != width:
            raise ValueError(f"--base {settings.base} is {text.config.hidden_size} wide and the targets {width}.")
    else:
        tokenizer, matrix = teacher.tokenizer, teacher.matrix
        if settings.vocabulary:
            names = [*dictionary.names[: dictionary.visible], *emphasis]
            tokenizer, numbers = cut(tokenizer, names, [*phrases.all, *dictionary.glosses], settings.vocabulary)
            matrix = matrix[numbers]
        text = tower.new_tower(matrix, width, settings.layers, tokenizer.pad_token_id)
    if show:
        total, words = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (text, text.get_input_embeddings()))
        print(
            f"{len(phrases.taught)} phrases are taught and {len(phrases.emphasised)} emphasised, "
            f"{len(phrases.held_out)} held out and {len(phrases.excluded)} excluded; {len(tokenizer)} word pieces; "
            f"{total:.1f}M parameters, {words:.1f}M of them words",
            file=sys.stderr,
        )
    known = Path(settings.base) if settings.base else None
    if resume and checkpoint.latest(out) and not sentence_vectors.holds(teacher, phrases.all, out):
        raise ValueError(f"the names or the teacher of the run in {out} are no longer what they were: begin a new run.")
    hold.enter_context(held(out))
    with whole_file(out / RECORD) as part:
        part.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    vectors = sentence_vectors.teach(teacher, phrases.all, out, known, show)
    ids = tokenizer(phrases.all, truncation=True, max_length=text.config.max_position_embeddings)["input_ids"]
    return Parts(phrases, vectors, ids, bridge, Student(text), tokenizer)


def _optimizer(settings: Settings, student: Student) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors and words do not, and words move slower (WORDS_SCALE)."""
    words = student.model.get_input_embeddings().weight
    rest = [parameter for parameter in student.parameters() if parameter is not words]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.01, "lr_scale": 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": [words], "weight_decay": 0.0, "lr_scale": WORDS_SCALE},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _fit(settings: Settings, parts: Parts, out: Path, show: bool) -> None:
    """Train until `settings.steps`. Raises Stopped, and FloatingPointError where a loss is not finite; saved first."""
    phrases, student = parts.phrases, parts.student
    optimizer = _optimizer(settings, student)
    place = checkpoint.latest(out)
    done = checkpoint.load(place, student, optimizer) if place else 0
    lengths = [len(some) for some in parts.ids[: len(phrases.taught) + len(phrases.emphasised)]]
    batches = Batches(lengths, len(phrases.emphasised), settings.batch_size, settings.seed)
    warmup = max(1, min(WARMUP, settings.steps // 10))
    saved = time.monotonic()
    _cut_back(out / METRICS, done)
    student.train()
    bar = tqdm(total=settings.steps, initial=done, unit="step", disable=not show)
    with StopFlag() as stop, bar, (out / METRICS).open("a", buffering=1) as record:
        for step in range(done, settings.steps):
            started = time.perf_counter()
            rows = batches.rows(step)
            rate = settings.learning_rate * warmup_cosine(step, settings.steps, warmup, floor=0.02)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["lr_scale"]
            ids, mask = pad([parts.ids[row] for row in rows], parts.tokenizer.pad_token_id)
            terms = student(ids, mask, parts.goals(rows))
            loss = sum(terms.values())
            values = {"loss": loss.item()} | {name: term.item() for name, term in terms.items()}
            if not math.isfinite(values["loss"]):
                checkpoint.save(out, step, student, optimizer)
                raise FloatingPointError(
                    f"step {step + 1}: the loss is not finite. The state before it is saved in {out}; begin a new run "
                    "with a lower --learning-rate."
                )
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            values |= {"lr": rate, "seconds": time.perf_counter() - started, "tokens": int(mask.sum())}
            record.write(json.dumps({"step": step + 1} | values) + "\n")
            bar.set_postfix(cosine=f"{1 - values['cosine']:.3f}", refresh=False)
            bar.update()
            last = step + 1 == settings.steps
            if stop.asked or last or time.monotonic() - saved > SAVE_SECONDS:
                checkpoint.save(out, step + 1, student, optimizer)
                saved = time.monotonic()
            if stop.asked and not last:
                raise Stopped(step + 1, stop.asked)


def _cut_back(record: Path, done: int) -> None:
    """Take from the metrics what a run that was stopped without a word made after its last checkpoint."""
    if record.exists():
        kept = record.read_text().splitlines()[:done]
        record.write_text("".join(f"{line}\n" for line in kept))
