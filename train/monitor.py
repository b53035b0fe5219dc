"""What a run leaves to look at: metrics.jsonl (a line a step), a progress bar, sample heatmaps and patch-text mIoU."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from tipsv2.catalogue import ModelInfo
from tipsv2.encoder import Encoder
from tipsv2.evaluation.segmentation import score_scenes
from tipsv2.heatmap import similarity, to_pixels
from tipsv2.render import overlay
from tipsv2.scenes import draw, names

MONITOR_SEED = 3 * 10**12  # scenes of neither training nor the evaluation splits
SCENES, SAMPLES = 64, 4


class Monitor:
    """Open for one run; use as a context manager. `step` logs, `sample` measures alignment on a small fixed set."""

    def __init__(self, run: Path, total: int, done: int, show: bool = True, main: bool = True):
        """`main` is False in every process but the first: those keep silent and write nothing."""
        self.run = run
        self.path = run / "metrics.jsonl" if main else Path(os.devnull)
        if main:
            _drop_lines_after(self.path, done)  # steps after the checkpoint are run again
        show = show and main
        self.bar = tqdm(total=total, initial=done, unit="step", disable=not show, dynamic_ncols=True, smoothing=0.05)
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

    def sample(self, step: int, model, tokenizer, size: int) -> dict[str, float]:
        """mIoU among the present names on SCENES fixed scenes, and a row of heatmaps in samples/."""
        info = ModelInfo("run", "run", "folder", str(self.run), "", 0, size, "", 0, "")
        training = model.training
        encoder = Encoder(info, model.eval(), tokenizer)
        scenes = [draw(MONITOR_SEED + i, size) for i in range(SCENES)]
        scores = score_scenes(encoder, scenes, candidates=("present",), progress=False)
        found = {f"miou_{kind}": scores[kind]["miou_present"] for kind in ("final", "values")}
        self._write({"step": step, **found})
        self._picture(step, encoder, scenes[:SAMPLES])
        model.train(training)
        if not self.bar.disable:
            self.bar.write(
                f"step {step}: patch-text mIoU final {found['miou_final']:.3f}, values {found['miou_values']:.3f}"
            )
        return found

    def _picture(self, step: int, encoder: Encoder, scenes: list) -> None:
        rows, asked = [], [[names()[i] for i in np.unique(scene.labels)][:4] for scene in scenes]
        for scene, present in zip(scenes, asked, strict=True):
            features = encoder.encode_image(scene.image)
            maps = to_pixels(similarity(features.values, encoder.encode_text(present)), features.size).numpy()
            tiles = [scene.image, *(overlay(scene.image, m) for m in maps)]
            tiles += [np.zeros_like(scene.image)] * (5 - len(tiles))
            rows.append(np.concatenate(tiles, axis=1))
        folder = self.run / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(folder / f"step-{step:07d}.png")
        (folder / "queries.json").write_text(json.dumps(asked) + "\n")  # of every row of the picture

    def _write(self, line: dict) -> None:
        self.file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
        self.file.flush()


def _drop_lines_after(path: Path, step: int) -> None:
    if path.exists():
        lines = [
            line for line in path.read_text().splitlines() if line.endswith("}")
        ]  # a killed run may leave half a line
        path.write_text("".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))
