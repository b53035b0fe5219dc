"""What kind of picture an encoder knows: numbers by hand, a fit on made-up clouds, the bundled encoders on pictures.

python -m pytest tests/test_familiar.py
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from demos.ui.examples import every_example
from tipsv2.__main__ import main
from tipsv2.analysis import verdict
from tipsv2.analysis.familiar import Familiar, summary
from tipsv2.analysis.verdict import HERE, UNKNOWN, Calibration, calibration_of, is_familiar, judge
from tipsv2.checkpoints.bundled import DRAWINGS, NANO, PHOTOGRAPHS, S14, names
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.evaluation.familiarity import fit
from tipsv2.network.encoder import load
from tipsv2.scenes import draw

ANY = Calibration(peak=10, lead=20, bias=-4, here=0.8, not_here=0.3, floor=0.1, low=0.05, high=0.4)


def test_a_summary_is_mean_and_spread_of_directions():
    patches = np.random.default_rng(0).normal(size=(3, 4, 5))
    rows = [patch / np.sqrt((patch**2).sum()) for row in patches for patch in row]
    mean = sum(rows) / 12
    spread = np.sqrt(sum((row - mean) ** 2 for row in rows) / 11)
    np.testing.assert_allclose(summary(torch.from_numpy(patches)), [*mean, *spread], atol=1e-6)
    assert summary(7 * torch.from_numpy(patches)) == pytest.approx([*mean, *spread], abs=1e-6)


def clouds(rng, count, gap):
    known = np.arange(2 * count) < count
    return rng.normal(size=(2 * count, 6)) * 0.05 + np.where(known, gap, 0)[:, None], known


@pytest.mark.parametrize("gap, recall", [(0.1, (0.98, 1)), (0.03, (0.2, 0.6))])
def test_one_in_twenty_others_passes(gap, recall):
    rng = np.random.default_rng(0)
    fitted = fit(*clouds(rng, 300, gap))
    numbers, known = clouds(rng, 2000, gap)
    passes = np.array([fitted.likelihood(row) >= fitted.least for row in numbers])
    assert passes[~known].mean() <= 0.07
    assert recall[0] <= passes[known].mean() <= recall[1]
    assert fitted.figures["known_are_known"] == pytest.approx(passes[known].mean(), abs=0.1)
    assert fitted.figures["unlike_are_unlike"] == pytest.approx(1 - passes[~known].mean(), abs=0.03)


class Colours:
    """An encoder of two colours: what `judge` needs of one."""

    def __init__(self, folder):
        self.info = SimpleNamespace(knows=(), source="folder", location=str(folder))

    def encode_text(self, texts, templates="none", keep=False):
        return torch.stack([torch.eye(2)["red blue".split().index(text)] for text in texts])


def test_on_another_kind_of_picture_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "vocabulary", lambda knows: ["red", "blue"])
    encoder, red = Colours(tmp_path), torch.eye(2)[0].expand(2, 2, 2)
    assert is_familiar(encoder, red)  # nobody has fitted what it knows
    reds_only = Familiar((9.0, -9.0, 0.0, 0.0), 0.0, 0.5, ("photos",), {"pictures": 3})
    replace(ANY, familiar=reds_only).save(tmp_path)
    assert calibration_of(encoder.info).familiar == reds_only
    assert is_familiar(encoder, red) and not is_familiar(encoder, red.flip(-1))
    assert [judge(encoder, patches, ["red"])[0].answer for patches in (red, red.flip(-1))] == [HERE, UNKNOWN]
    with pytest.raises(ValueError, match=r"4 numbers, but this encoder gives 6: write its verdict.json anew"):
        is_familiar(encoder, torch.ones(2, 2, 3))
    path = replace(ANY, familiar=replace(reds_only, bias=float("nan"))).save(tmp_path / "..")
    with pytest.raises(ModelError, match="is no calibration"):
        verdict._read(path, 0)


@pytest.mark.parametrize("name", names())
def test_the_bundled_encoders_know_their_pictures(name):
    encoder = load(name)
    for example in every_example():
        with Image.open(example.path) as picture:
            seen = encoder.encode_image(picture.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        assert is_familiar(encoder, seen.values) == (name == S14 or example.kind == DRAWINGS), example.path.name
    assert {example.kind for example in every_example()} == {DRAWINGS, PHOTOGRAPHS}


@pytest.mark.parametrize("resolution", [224, 448])
def test_drawings_never_seen_are_familiar_at_any_size(resolution):
    encoder = load(NANO)
    drawn = [Image.fromarray(draw(9_000_000 + seed, resolution, styles=("twemoji",)).image) for seed in range(24)]
    assert sum(is_familiar(encoder, encoder.encode_image(image, resolution).values) for image in drawn) >= 20


def test_sentences_before_the_encoder_is_loaded(tmp_path, capsys):
    (tmp_path / "few").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "few" / "a.PNG")
    for folder, words in ((tmp_path / "nowhere", "is no folder"), (tmp_path / "few", "holds 1 pictures: 10 at least")):
        assert main(["calibrate", "scenes:val", "--model", "opentips-nano", "--unlike", str(folder)]) == 2
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error
