"""How much faster training is with the frozen part kept, for `python -m train benchmark`.

The same terms, steps and sizes three times: from kept tokens; with the pixels drawn and the frozen blocks run in every
step; and with all blocks learning, as without a frozen part. A tower of DINOv2 ViT-S/14's size with random weights, on
scenes, since their labels come with them.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tipsv2 import scenes
from tipsv2.benchmark.measuring import timed
from tipsv2.network.encoder import pick_device
from train.data.kept.batches import KeptBatches
from train.data.kept.keep import Settings, hidden_tokens, keep
from train.data.kept.sets import open_sets
from train.data.kept.sources import FIRST_SCENE, STYLES
from train.data.kept.words import compose
from train.data.sentence_vectors import Bridge
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives.kept import KeptObjective
from train.objectives.soft_names import SoftNames
from train.objectives.whole_names import WholeNames
from train.recipe import recipes
from train.recipe.settings import Recipe, Tower
from train.run import checkpoint
from train.run.step import Step, optimizer_of

TOWER = Tower(width=384, vision_layers=12, text_layers=1, heads=6, vocabulary=400, table=518)
BLOCKS, SIZE, CROPS, KEPT = 9, 224, 8, 16
WORDS = ["a large dog on the grass, two cats in the snow"] * 50
WAYS = ("kept", "frozen blocks each step", "all blocks learn")


class Steps:
    """Steps of one way, a folder of kept scenes given: `step` takes one."""

    def __init__(self, way: str, folder: Path):
        torch.manual_seed(0)
        self.way, self.device = way, pick_device("auto")
        base = recipes.photos()
        self.recipe: Recipe = replace(
            base,
            tower=TOWER,
            data=replace(base.data, source=f"kept:{folder}:{CROPS}"),
            soft_names=SoftNames(),
            whole_names=WholeNames(),
        )
        sets = open_sets(self.recipe.data.source)
        words = compose([each.kept for each in sets], self.recipe.kept, captions=False)
        model = build(self.recipe, TOWER.vocabulary)
        model.requires_grad_(False)
        vision = model.vision_model
        parts = vision if way == WAYS[2] else nn.ModuleList([vision.encoder.layer[BLOCKS:], vision.layernorm])
        parts.requires_grad_(True)
        vectors = torch.randn(len(words.sentences), TOWER.width)
        bridge = Bridge(TOWER.width, self.recipe.kept.hidden, TOWER.width).map
        self.objective = KeptObjective(self.recipe, model, sets, words, vectors, bridge).to(self.device)
        self.take = Step(self.recipe, self.objective, optimizer_of(self.recipe, self.objective))
        self.batches, self.done = KeptBatches(self.recipe, words=words), 0

    def step(self) -> None:
        """Its batch, loss, gradients and update."""
        batch = {key: value.to(self.device) for key, value in self.batches[self.done].items()}
        if self.way != WAYS[0]:
            with torch.set_grad_enabled(self.way == WAYS[2]):
                vision = self.objective.model.vision_model
                batch["0.hidden"] = hidden_tokens(vision, self._pixels(), BLOCKS)
        self.take(self.done, batch)
        self.done += 1

    def _pixels(self) -> Tensor:
        drawn = [scenes.draw(FIRST_SCENE + self.done * CROPS + k, SIZE, STYLES).image for k in range(CROPS)]
        pixels = torch.stack([torch.from_numpy(image) for image in drawn]).permute(0, 3, 1, 2)
        return pixels.to(self.device).float() / 255


def images_per_second(turns: int) -> dict[str, float]:
    """way -> images a second, medians of steps taken in turns, and how many times faster "kept" is than the others."""
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        base = replace(recipes.photos(), tower=TOWER)
        checkpoint.export(top / "base", build(base, TOWER.vocabulary), train_tokenizer(WORDS, TOWER.vocabulary))
        kept = Settings("scenes", str(top / "base"), blocks=BLOCKS, size=SIZE, limit=KEPT)
        keep(kept, top / "scenes", show=False)
        ways = {way: Steps(way, top / "scenes") for way in WAYS}
        for turn in range(1 + turns):
            for way, steps in ways.items():
                seconds = timed(steps.step)
                if turn:  # the first of each warms up
                    took[way].append(seconds)
    rates = {way: CROPS / sorted(seconds)[len(seconds) // 2] for way, seconds in took.items()}
    return rates | {f"faster than {way}": rates[WAYS[0]] / rates[way] for way in WAYS[1:]}
