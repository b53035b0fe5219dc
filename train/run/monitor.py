"""What a run leaves to look at: metrics.jsonl (a line a step), a progress bar, sample heatmaps and patch-text mIoU.

The heatmaps are of the images in train/run/shown.py, on one's own data one's own. The mIoU is always that of drawn
scenes,
since only those have labels: of an encoder that learns from other images it says what is forgotten.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from tipsv2.analysis.heatmap import maps
from tipsv2.analysis.render import headed, overlay
from tipsv2.checkpoints.catalogue import ModelInfo
from tipsv2.evaluation.segmentation.zero_shot import score_scenes
from tipsv2.files import whole_file
from tipsv2.network.encoder import Encoder
from tipsv2.scenes import LARGEST, draw
from train.data.samples import NAMED
from train.recipe.metrics import BEST, left
from train.recipe.settings import PATCH, Recipe
from train.run import early, recall
from train.run.shown import QUERIES, Shown

MONITOR_SEED = 3 * 10**12  # scenes of neither training nor the evaluation splits
SCENES = 64
SIDE = 224  # pixels of a square in the picture


def due(recipe: Recipe, step: int) -> bool:
    """Whether to sample after `step` steps: before the first, every `sample_every`, after the last; never if it is 0.

    Own data has few steps and is what one wants to see, so there are five samples at least, however short the run.
    """
    every = recipe.sample_every
    if recipe.data.source != "scenes":
        every = min(every, max(1, recipe.steps // 5))
    return every > 0 and (step in (0, recipe.steps) or step % every == 0)


class Monitor:
    """Open for one run; use as a context manager. `step` logs, `sample` measures alignment on a small fixed set.

    last: name -> (step, value) of what was logged last, before a resume too; empty in every process but the first, as
    is held: step -> recall among pairs kept apart, as metrics.jsonl has it.
    """

    def __init__(
        self,
        run: Path,
        recipe: Recipe,
        done: int,
        shown: Sequence[Shown],
        show: bool = True,
        main: bool = True,
        sides: recall.Sides | None = None,
    ):
        """`main` is False in every process but the first: those keep silent and write nothing. sides: pairs that the
        run learns from and pairs that it keeps apart, where it does.
        """
        self.sides = sides
        self.run, self.recipe, self.shown, self.main = run, recipe, shown, main
        self.path = run / "metrics.jsonl" if main else Path(os.devnull)
        self.last: dict[str, tuple[int, float]] = {}
        self.held: dict[int, float] = {}
        for line in _kept_lines(self.path, done) if main else ():
            self._note(line)
        show, steps = show and main, recipe.steps
        self.bar = tqdm(total=steps, initial=done, unit="step", disable=not show, dynamic_ncols=True, smoothing=0.05)
        self.rates: deque[float] = deque(maxlen=50)

    def __enter__(self) -> Monitor:
        self.file = self.path.open("a")
        return self

    def __exit__(self, *_) -> None:
        self.file.close()
        self.bar.close()

    def step(self, step: int, values: dict[str, float], images: int, seconds: float) -> dict[str, float]:
        """One line for 1-based `step`, which is returned, and the bar: loss, images/s, ETA."""
        self.rates.append(images / seconds)
        line = {"step": step, **values, "images_per_second": images / seconds, "ln_batch": math.log(images)}
        self._write(line)
        rate = sum(self.rates) / len(self.rates)
        self.bar.update()
        self.bar.set_postfix_str(f"loss {values['loss']:.3f}, {rate:.0f} images/s", refresh=False)
        return line

    def sampled(self, step: int) -> bool:
        """Whether `sample` came to its end after this step, maybe before a resume."""
        return self.last.get("miou_values", (-1, 0.0))[0] == step

    def sample(self, step: int, model, tokenizer, size: int) -> dict[str, float]:
        """Heatmaps in samples/, and mIoU among the present names on SCENES fixed scenes of `size` pixels.

        On own images a quarter of the scenes do: there it is asked for more often and says less.
        """
        info = ModelInfo("run", "run", "folder", str(self.run), "", 0, size, "", 0, "")
        training = model.training
        encoder = Encoder(info, model.eval(), tokenizer)
        self._picture(step, encoder)
        side = min(size, LARGEST // PATCH * PATCH)  # own images may be larger than scenes can be drawn
        count = SCENES if self.recipe.data.source == "scenes" else max(1, SCENES // 4)
        scenes = [draw(MONITOR_SEED + i, side) for i in range(count)]
        scores = score_scenes(encoder, scenes, candidates=("present",), progress=False)
        numbers = {f"miou_{kind}": scores[kind]["miou_present"] for kind in ("final", "values")}
        if self.sides is not None:
            numbers |= recall.measure(encoder, self.sides, size)
        self._write({"step": step, **numbers})  # last: it says that the sample is whole
        model.train(training)
        self._say(
            f"step {step}: patch-text mIoU on drawn scenes final {numbers['miou_final']:.3f}, "
            f"values {numbers['miou_values']:.3f}{self._meaning()}"
        )
        if self.sides is not None:
            learned, held = (f"{100 * numbers[name]:.0f} %" for name in (recall.LEARNED, recall.HELD_OUT))
            self._say(f"step {step}: R@1 among {len(self.sides.held)} pairs: learned from {learned}, kept apart {held}")
        return numbers

    def over(self) -> bool:
        """Whether the run ends here, since pairs kept apart are found no better; False in every process but the first.

        With patience only.
        """
        return early.over(self.held, self.recipe.patience)

    def leaves(self, best: int, step: int) -> None:
        """Log and say that the model of a run that ends after `step` is that of step `best`."""
        if self.last.get(BEST, (-1, 0))[0] != step:
            self._write({"step": step, BEST: best})
        self._say(left(best, step, self.recipe.steps, self.held))

    def end(self, problems: Counter[str]) -> None:
        """Say what came out: the last loss, and which images could not be used.

        problems: sentence about an image -> how often this process heard it, since the run was last resumed. An image
        is counted every time it was tried, so only where all of these were heard it is known how many images it was.
        """
        if "loss" in self.last:
            step, loss = self.last["loss"]
            self._say(f"step {step}, the last: loss {loss:.3f}")
        missed = self.last.get("unreadable", (0, 0))[1]
        if not missed:
            return
        count = len(problems)
        named = " ".join(list(problems)[:NAMED])
        more = " `train check` names them all." if count > NAMED or problems.total() < missed else ""
        least = "at least " if problems.total() < missed else ""
        images = "1 image" if max(1, count) == 1 else f"{count} images"
        self._say(f"{least}{images} could not be used{': ' if named else '.'}{named}{more}")

    def _meaning(self) -> str:
        """What a mIoU on drawn scenes is not, where the run learns from other images."""
        if self.recipe.data.source == "scenes":
            return ""
        known = self.recipe.tuning.base or self.recipe.distillation.weight
        what = "it measures what is forgotten" if known else "it measures nothing of your data"
        return f" ({what}; samples/ shows your images)"

    def _picture(self, step: int, encoder: Encoder) -> None:
        """A row of squares for each image: itself, then a heatmap for each query. None where no image can be shown."""
        rows = []
        for image, queries in ((shown.image, shown.queries) for shown in self.shown):
            answers = maps(encoder.look(image), encoder.encode_text(queries)).numpy()
            pixels = np.asarray(image)
            tiles = [_tile(pixels, f"step {step}")]
            tiles += [_tile(overlay(pixels, answer), query) for answer, query in zip(answers, queries, strict=True)]
            tiles += [np.full_like(tiles[0], 255)] * (1 + QUERIES - len(tiles))
            rows.append(np.concatenate(tiles, axis=1))
        if rows:
            folder = self.run / "samples"
            folder.mkdir(exist_ok=True)
            asked = [shown.queries for shown in self.shown]
            (folder / "queries.json").write_text(json.dumps(asked) + "\n")  # of every row of the pictures
            (folder / "held.json").write_text(json.dumps([shown.held for shown in self.shown]) + "\n")
            for number, shown in enumerate(self.shown):
                if not (folder / f"image-{number}.png").exists():  # to ask other encoders of it
                    with whole_file(folder / f"image-{number}.png") as part:
                        shown.image.convert("RGB").save(part, "PNG")
            Image.fromarray(np.concatenate(rows)).save(folder / f"step-{step:07d}.png")

    def _say(self, text: str) -> None:
        if not self.bar.disable:
            self.bar.write(text)

    def _note(self, line: dict) -> None:
        self.last |= {name: (line["step"], value) for name, value in line.items()}
        if recall.HELD_OUT in line:
            self.held[line["step"]] = line[recall.HELD_OUT]

    def _write(self, line: dict) -> None:
        line = {k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}
        if self.main:
            self._note(line)  # rounded: what is decided by it is decided alike after a resume
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


def _tile(pixels: np.ndarray, title: str) -> np.ndarray:
    """Pixels uint8 [H, W, 3] inside a square of SIDE on white, under a title."""
    square = ImageOps.pad(Image.fromarray(pixels), (SIDE, SIDE), color="white")
    return headed(np.asarray(square), title)


def _kept_lines(path: Path, step: int) -> list[dict]:
    """The lines up to `step`; those after it leave the file: their steps are run again."""
    if not path.exists():
        return []
    texts = [text for text in path.read_text().splitlines() if text.endswith("}")]  # a killed run may leave half a line
    lines = [(text, json.loads(text)) for text in texts]
    kept = [(text, line) for text, line in lines if line["step"] <= step]
    with whole_file(path) as part:  # a kill here must not cost the log
        part.write_text("".join(text + "\n" for text, _ in kept))
    return [line for _, line in kept]
