"""Verdicts: peaks and leads against loops, thresholds against their definition, calibrations on made-up measurements.

python -m pytest tests/test_verdict.py
"""

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tipsv2.analysis import verdict
from tipsv2.analysis.verdict import HERE, NOT_HERE, PERHAPS, Calibration, calibration_of, color_range, judge, measure
from tipsv2.checkpoints.bundled import NANO, S14, names
from tipsv2.checkpoints.catalogue import ModelError, find
from tipsv2.evaluation.segmentation.calibration import Measured, clear_from, figures, fit

FINE = Calibration(peak=10, lead=20, bias=-4, here=0.8, not_here=0.3, floor=0.1, low=0.05, high=0.4)


def unit(*numbers):
    return F.normalize(torch.tensor(numbers, dtype=torch.float32), dim=0)


class Words:
    """An encoder whose texts are given vectors: what `judge` needs of one."""

    def __init__(self, vectors, vocabulary):
        self.vectors, self.info = vectors, SimpleNamespace(knows=(), source="folder", location="nowhere")
        self.vocabulary = vocabulary

    def encode_text(self, texts, templates="none", keep=False):
        return torch.stack([self.vectors[text] for text in texts])


@pytest.fixture
def three(monkeypatch):
    """Red, green and blue patches in the space of red, green, blue and yellow; yellow and gold mean the same."""
    red, green, blue, yellow = torch.eye(4)
    vectors = dict(red=red, green=green, blue=blue, yellow=yellow, gold=unit(0, 0, 0.1, 1))
    monkeypatch.setattr(verdict, "vocabulary", lambda knows: ["red", "green", "yellow"])
    patches = torch.stack([torch.stack([unit(1, 0, 0, 0.2), unit(0.1, 1, 0, 0)]), torch.stack([blue, blue])])
    return Words(vectors, ["red", "green", "yellow"]), patches


def test_peaks_and_leads_equal_a_loop():
    rng = torch.Generator().manual_seed(0)
    patches, text, rows = (torch.randn(*size, generator=rng) for size in ((5, 6, 8), (4, 8), (30, 8)))
    rows[3] = 2 * text[1]  # the query itself
    peaks, leads, rivals, own = measure(patches, text, rows)
    grid = [F.normalize(patch, dim=0) for patch in patches.reshape(-1, 8)]
    for number, query in enumerate(F.normalize(text, dim=1)):
        cosines = [float(patch @ query) for patch in grid]
        best = grid[int(np.argmax(cosines))]
        others = {
            place: float(best @ word)
            for place, word in enumerate(F.normalize(rows, dim=1))
            if float(word @ query) <= verdict.SAME
        }
        rival = max(others, key=others.get)
        assert peaks[number] == pytest.approx(max(cosines), abs=1e-5)
        assert (int(rivals[number]), float(leads[number])) == (
            rival,
            pytest.approx(max(cosines) - others[rival], abs=1e-5),
        )
    assert 3 not in rivals[1:2].tolist()
    expected = [max(float(patch @ F.normalize(word, dim=0)) for patch in grid) for word in rows]
    np.testing.assert_allclose(own, expected, atol=1e-5)


def test_what_is_there_and_what_is_not(three):
    encoder, patches = three
    red, blue, gold, yellow = judge(encoder, patches, ["red", "blue", "gold", "yellow"], FINE)
    assert (red.answer, red.rival, red.beats) == (HERE, "yellow", pytest.approx(1 / 3))
    assert red.lead == pytest.approx(0.8 / 1.04**0.5, abs=1e-5)
    assert (blue.answer, blue.lead) == (HERE, pytest.approx(1))  # also what the vocabulary does not hold
    assert (yellow.answer, yellow.rival) == (NOT_HERE, "red") and yellow.lead < 0
    assert gold.rival != "yellow"  # which means the same
    odds = math.exp(-4 + 10 * red.peak + 20 * red.lead)
    assert red.likelihood == pytest.approx(odds / (1 + odds))


def test_without_a_calibration_ranks_decide(three):
    encoder, patches = three
    answers = {each.query: each for each in judge(encoder, patches, ["green", "blue", "red", "yellow"])}
    # Red leads where it is nearest, but green is nearer to its own patch than red to its own.
    assert [each.answer for each in answers.values()] == [HERE, HERE, PERHAPS, NOT_HERE]
    assert all(math.isnan(each.likelihood) for each in answers.values())
    low, high = color_range(encoder, patches)
    own = [1 / 1.04**0.5, 1 / 1.01**0.5, 0.2 / 1.04**0.5]
    assert (low, high) == (pytest.approx(sorted(own)[1]), pytest.approx(max(own)))


def test_a_query_without_a_rival_leads_by_its_peak():
    peaks, leads, rivals, _ = measure(torch.eye(2)[None], torch.eye(2)[:1], torch.eye(2)[:1])
    assert (float(peaks), float(leads), int(rivals)) == (1, 1, -1)


def test_a_calibration_lies_beside_the_weights(tmp_path):
    info = SimpleNamespace(source="folder", location=str(tmp_path))
    assert calibration_of(info) is None
    FINE.save(tmp_path)
    assert calibration_of(info) == FINE
    replace(FINE, here=None).save(tmp_path)
    written = (tmp_path / "verdict.json").stat().st_mtime_ns + 10
    os.utime(tmp_path / "verdict.json", ns=(written, written))
    assert calibration_of(info).answer(1.0) == PERHAPS
    content = json.loads((tmp_path / "verdict.json").read_text())
    for number, broken in enumerate(({"low": 1.0}, {"peak": "x"}, {"bias": float("nan")})):
        (tmp_path / "verdict.json").write_text(json.dumps(content | broken))
        os.utime(tmp_path / "verdict.json", ns=(written + number + 1, written + number + 1))
        with pytest.raises(ModelError, match="verdict.json' is no calibration"):
            calibration_of(info)


def test_the_best_of_several_words_counts():
    answers = [verdict.Verdict(word, answer, 0.1, lead, "", 0.5, 0.5) for word, answer, lead in
               (("a", PERHAPS, 0.9), ("b", HERE, 0.1), ("c", HERE, 0.2), ("d", NOT_HERE, 1))]  # fmt: skip
    assert verdict.most_present(answers).query == "c"
    assert verdict.most_present(answers[3:]).query == "d"


def test_thresholds_are_the_least_that_is_right_often_enough():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.2
    scores = (rng.normal(size=400) + 1.5 * right).round(1)  # with ties
    found = clear_from(scores, right, 0.9)

    def share(least):
        hits, misses = (
            (right & (scores >= least)).sum() / right.sum(),
            (~right & (scores >= least)).sum() / (~right).sum(),
        )
        return hits / (hits + misses)

    assert found == min(value for value in np.unique(scores) if share(value) >= 0.9)
    assert clear_from(-scores, right, 0.999) is None


def measured(rng, pictures=12, names=40, gap=0.2):
    """Peaks and leads that are higher where a name is."""
    there = rng.random((pictures, names)) < 0.2
    peaks = rng.normal(0.1, 0.05, there.shape) + gap * there
    leads = rng.normal(-0.1, 0.05, there.shape) + gap * there
    covered = tuple(rng.normal(0.3, 0.1, 50) for _ in there)
    return Measured(peaks, leads, there, rng.random(there.shape) < 0.9, covered)


def test_a_fit_keeps_its_word_on_other_pictures():
    rng = np.random.default_rng(1)
    fitted = fit([measured(rng, gap=0.12), measured(rng, gap=0.12)], ("a", "b"))
    told = figures([(fitted, measured(rng, pictures=200, gap=0.12))])
    assert fitted.peak > 0 and fitted.lead > 0 and fitted.here > fitted.not_here
    assert told["here_precision_half"] == pytest.approx(0.95, abs=0.03)
    assert told["not_here_precision_half"] > 0.87
    assert told["here_precision"] < told["here_precision_half"]  # one name of five is there
    assert told["presence"] > told["presence_peak"] > 0.85
    assert 0.2 < fitted.floor < 0.23 and fitted.low == pytest.approx(0.1, abs=0.02)


def test_what_says_nothing_is_never_here():
    rng = np.random.default_rng(2)
    fitted = fit([measured(rng, pictures=60, gap=0)])
    told = figures([(fitted, measured(rng, pictures=60, gap=0))])
    assert told["here_recall"] < 0.02 and told["presence"] == pytest.approx(0.5, abs=0.06)
    with pytest.raises(ValueError, match="names that are in a picture"):
        part = measured(rng)
        fit([replace(part, there=np.zeros_like(part.there))])


def test_figures_count_what_is_judged_only():
    there = np.array([[True, False, True, False]])
    part = Measured(np.array([[0.9, 0.9, 0.0, 0.0]]), np.zeros((1, 4)), there, np.array([[True, True, True, True]]), ())
    told = figures([(FINE, part)])
    assert (told["here_precision"], told["here_recall"], told["not_here_recall"]) == (0.5, 0.5, 0.5)
    told = figures([(FINE, replace(part, judged=np.array([[True, False, True, True]])))])
    assert (told["here_precision"], told["here_recall"], told["asked"]) == (1, 0.5, 3)


@pytest.mark.parametrize("name", [name for name in (S14, NANO) if name in names()])
def test_the_bundled_encoders_are_calibrated(name):
    calibration = calibration_of(find(name))
    assert calibration.here > calibration.not_here and calibration.lead > 0
    for told in calibration.figures.values():
        assert told["presence"] > 0.75 and told["here_precision_half"] > 0.8
