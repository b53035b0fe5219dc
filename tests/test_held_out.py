"""A run keeps some of its pictures apart, measures itself by them, and says when it only remembers.

python -m pytest tests/test_held_out.py
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import run_folder

from demos.train import charts, state, views
from demos.train.form import HELD_OUT, RunRequest, apart, learned
from tipsv2.collections.pairs import open_pairs
from train.data.held_out import Part, held_rows, others
from train.data.samples import CaptionedImages
from train.recipe import recipes
from train.recipe.overrides import override
from train.recipe.settings import Data
from train.run import recall
from train.run.shown import shown_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 pictures of one colour each; the colour's number is in the caption."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        Image.new("RGB", (30, 30), (number * 6, 0, 0)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"picture number {number}")
    return folder


def source(photos, *fields):
    chosen = override(
        recipes.get("finetune"), [f"data.source={photos}", "stages.0.batch_size=8", "stages.0.size=56", *fields]
    )
    return CaptionedImages(chosen, 0, 1)


def seen(given, steps=30):
    """Every caption that so many steps learn from."""
    return {caption for step in range(steps) for caption in given.take(step).captions["web"]}


@pytest.mark.parametrize(("count", "held"), [(1, 0), (15, 0), (16, 4), (20, 4), (40, 6), (1000, 150)])
def test_ten_to_twenty_percent_are_kept_apart_and_four_at_least(count, held):
    rows = held_rows(count, Data(held_out=HELD_OUT), seed=3)
    assert len(rows) == held == len(set(rows.tolist())) and count - held == learned(count)
    assert not np.intersect1d(rows, others(count, rows)).size and len(others(count, rows)) == count - held
    assert len(held_rows(count, Data(), seed=3)) == 0


def test_nothing_is_learned_from_what_is_kept_apart(photos):
    given = source(photos, "data.held_out=0.15")
    held = {pair.caption("web", None) for pair in given.held}
    assert len(held) == 6 and given.size == 34 and seen(given) == {f"picture number {k}" for k in range(40)} - held
    assert seen(source(photos)) == {f"picture number {k}" for k in range(40)}
    again = source(photos, "data.held_out=0.15")
    np.testing.assert_array_equal(again.held.rows, given.held.rows)  # after a resume, too
    with pytest.raises(ValueError, match="held_out=2"):
        source(photos, "data.held_out=2")


def test_both_sides_are_shown(photos):
    given = source(photos, "data.held_out=0.15")
    shown = shown_images(given, 56, 0)
    held = {pair.caption("web", None) for pair in given.held}
    assert [each.held for each in shown] == [False, False, True, True]
    assert [each.queries[0] in held for each in shown] == [each.held for each in shown]
    assert not any(each.held for each in shown_images(source(photos), 56, 0))


class Remembering:
    """An encoder that finds the pictures it has learned, and no other."""

    def __init__(self, known):
        self.known, self.rng = known, torch.Generator().manual_seed(0)

    def encode_images(self, images, resolution):
        return [replace_cls(self._of(image.getpixel((0, 0))[0] // 6)) for image in images]

    def encode_text(self, captions):
        return torch.stack([self._of(int(re.findall(r"\d+", caption)[0])) for caption in captions])

    def _of(self, number):
        if number in self.known:
            return torch.nn.functional.one_hot(torch.tensor(number), 40).float()
        return torch.nn.functional.normalize(torch.randn(40, generator=self.rng), dim=-1)


def replace_cls(vector):
    return type("Features", (), {"cls": 3 * vector})


def test_recall_tells_learning_from_remembering(photos):
    given = source(photos, "data.held_out=0.5")
    sides = recall.sides(given)
    assert len(sides.learned) == len(sides.held) == 20
    known = set(others(40, given.held.rows).tolist())
    found = recall.measure(Remembering(known), sides, 56)
    assert found["recall_learned"] == 1 and found["recall_held_out"] < 0.3
    assert recall.measure(Remembering(set(range(40))), sides, 56) == {"recall_learned": 1, "recall_held_out": 1}
    assert recall.sides(source(photos)) is None


def test_a_part_reads_only_its_pairs(photos):
    part = Part(open_pairs(photos), np.array([3, 5]))
    assert [pair.caption("web", None) for pair in part] == ["picture number 3", "picture number 5"] and len(part) == 2


def told(runs, *measured):
    lines = [{"step": k, "recall_learned": a, "recall_held_out": b} for k, (a, b) in enumerate(measured)]
    folder = run_folder(runs, "dog")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line | {"loss": 1.0}) + "\n" for line in lines))
    look = state.look(runs, "dog")
    return views.memorised(look), views.head(look), charts.curves(look)


def test_a_run_that_remembers_says_so(tmp_path):
    sentence, head, curves = told(tmp_path / "bad", (0.1, 0.1), (1.0, 0.2))
    assert "by heart" in sentence and "100 %" in sentence and "20 %" in sentence and sentence in head
    assert "Retrieval" in curves and "kept apart" in curves and "learned from" in curves
    fine = [(0.1, 0.1), (0.9, 0.8)], [(0.9, 0.5), (1.0, 0.6)], [(0.1, 0.1)]  # the second: so it was before it learned
    for number, measured in enumerate(fine):
        assert told(tmp_path / str(number), *measured)[0] == ""


def test_own_pictures_are_split_by_themselves_and_scenes_are_not():
    plan = RunRequest("a")
    assert apart(plan) == [] and apart(replace(plan, data="zip")) == [f"data.held_out={HELD_OUT}", "patience=2"]
