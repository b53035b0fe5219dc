"""Zero-shot segmentation scores: an oracle scores 1, a blind encoder chance, the counting equals a plain loop."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tipsv2 import scenes
from tipsv2.evaluation.segmentation import zero_shot as segmentation
from tipsv2.evaluation.segmentation.scores import chance
from tipsv2.evaluation.segmentation.zero_shot import evaluate, score_scenes


class Oracle:
    """Knows every pixel's name: its patch embedding is the text embedding of the label under the patch's centre."""

    patch_size = 2

    def __init__(self, chosen, noise=0.0):
        generator = torch.Generator().manual_seed(0)
        self.text = F.normalize(torch.randn(len(scenes.names()), 64, generator=generator), dim=-1)
        self.labels = {s.image.tobytes(): s.labels for s in chosen}
        self.noise, self.generator = noise, generator

    def encode_text(self, texts, templates, keep=False):
        assert list(texts) == list(scenes.names())
        return self.text

    def encode_pixels(self, pixels, only=(), layer=None):
        images = (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        labels = np.stack([self.labels[image.tobytes()][::2, ::2] for image in images])
        values = self.text[torch.from_numpy(labels).long()]
        blind = torch.randn(values.shape, generator=self.generator)
        return {"patches": blind, "values": values}


def test_oracle_is_nearly_perfect_and_noise_is_near_chance():
    chosen = [scenes.draw(i, 56) for i in range(12)]
    scores = score_scenes(Oracle(chosen), chosen, progress=False)
    assert scores["values"]["miou_all"] > 0.8 and scores["values"]["miou_present"] > 0.85
    assert scores["final"]["miou_present"] == pytest.approx(scores["chance"]["miou_present"], abs=0.06)
    assert scores["final"]["miou_all"] < 0.02


def test_chance_equals_the_average_of_random_guesses():
    labels = [scenes.draw(i, 56).labels % 12 for i in range(4)]
    rng = np.random.default_rng(0)
    for candidates in ("present", "all"):
        table = np.zeros((12, 12))
        for _ in range(40):
            for label in labels:
                among = np.unique(label) if candidates == "present" else np.arange(12)
                guess = rng.choice(among, label.shape)
                for t, g in zip(label.ravel(), guess.ravel(), strict=True):
                    table[t, g] += 1
        hits = np.diag(table)
        union = table.sum(0) + table.sum(1) - hits
        expected = np.mean(hits[union > 0] / union[union > 0])
        counts = np.stack([np.bincount(label.ravel(), minlength=12) for label in labels])
        assert chance(counts, candidates) == pytest.approx(expected, abs=0.01)


def test_evaluate_gives_one_json_line(tiny_encoder):
    record = evaluate(tiny_encoder, "scenes:style", limit=3, progress=False)
    assert json.loads(json.dumps(record)) == record
    assert record["images"] == 3 and record["data"] == "scenes:style" and record["classes"] == len(scenes.names())
    for feature in segmentation.FEATURES:
        assert 0 <= record[feature]["miou_all"] <= record[feature]["miou_present"] <= 1


def test_unknown_data_names_the_choices(tiny_encoder):
    for data in ("scenes:test", "scenes", "ade20k"):
        with pytest.raises(ValueError, match="scenes:val"):
            evaluate(tiny_encoder, data)


def test_scenes_through_windows_and_layers(tiny_encoder):
    options = dict(data="scenes:val", limit=2, templates="none", progress=False)
    plain = evaluate(tiny_encoder, **options)
    last = evaluate(tiny_encoder, **options, features="layer:3")
    assert last["layer:3"] == plain["final"] and "values" not in last
    windows = evaluate(tiny_encoder, **options, resolution=112, protocol="slide")
    assert windows["window"] == 56 and windows["stride"] == 42 and set(windows["values"]) == set(plain["values"])
    with pytest.raises(ValueError, match="features='layer:4' is unknown; choose values, final, or layer:1 to layer:3"):
        evaluate(tiny_encoder, **options, features="layer:4")
    with pytest.raises(ValueError, match="no background class"):
        evaluate(tiny_encoder, **options, background=0.3)
