"""The Compare tab through time: a slider over the steps of the run on side B, whose checkpoints are encoders too.

The encoder at a step is called "run@step". What it has seen is remembered as any encoder's, so going back is instant.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import gradio as gr

from demos.backend.studio import Studio
from demos.ui.controls import toasted
from tipsv2.checkpoints.catalogue import ModelError


class Steps:
    """Handlers; they hold nothing but the studio."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def of(self, model: str | None) -> dict[int, str]:
        """Step -> name of the encoder there, in order, of the run that a side's model belongs to; at the last step is
        the run's model itself, or at its best one. Empty where there is nothing to slide over.
        """
        run = (model or "").partition("@")[0]
        checkpoints = {step: f"{run}@{step}" for step in self.studio.offer.checkpoints(run)}
        if not checkpoints:
            return {}
        folder = Path(self.studio.info(run).location).parent
        own = best_step(folder) or max(total_steps(folder), *checkpoints)
        return dict(sorted((checkpoints | {own: run}).items()))

    def track(self, model: str | None) -> dict:
        """Side B has another model -> the slider: shown for a run with checkpoints, where its model is."""
        try:
            names = self.of(model)
        except ModelError:  # deleted a moment ago
            names = {}
        steps = list(names)
        if len(steps) < 2:
            return gr.update(visible=False)
        if "@" in model:
            return gr.update(visible=True)  # the slider itself has put it there
        own = next(step for step, name in names.items() if name == model)
        stride = math.gcd(*(step - steps[0] for step in steps))
        return gr.update(visible=True, minimum=steps[0], maximum=steps[-1], step=stride, value=own)

    @toasted
    def slide(self, step: float, model: str | None) -> str | dict:
        """-> the model of side B: the encoder nearest to this step."""
        steps = self.of(model)
        if not steps:
            return gr.skip()
        name = steps[min(steps, key=lambda offered: abs(offered - step))]
        self.studio.encoder(name)
        return name


def best_step(run: Path) -> int:
    """The step that the model of a run with patience is of; 0 of any other, whose model is that of its last step."""
    try:
        return int(json.loads((run / "metrics.jsonl").read_text("utf-8").splitlines()[-1]).get("best_step", 0))
    except (OSError, ValueError, IndexError, AttributeError, TypeError):
        return 0


def total_steps(run: Path) -> int:
    """How many steps the run's recipe has; 0 if it does not say."""
    try:
        return sum(int(stage["steps"]) for stage in json.loads((run / "recipe.json").read_text("utf-8"))["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def slider() -> gr.Slider:
    return gr.Slider(
        0,
        1,
        value=0,
        label="B at step",
        info="The run on side B as it was then.",
        visible=False,
        elem_classes="tips-slider",
    )
