"""Zero-shot classification: accuracy against scikit-learn, pictures of one fixed thing, an oracle, nano itself.

python -m pytest tests/test_classification.py
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import top_k_accuracy_score

from tipsv2 import load, scenes
from tipsv2.__main__ import main
from tipsv2.analysis.metrics import answer_ranks
from tipsv2.evaluation.shared.drawings import FIRST_SEED, draw_example, examples, open_labelled
from tipsv2.evaluation.shared.ranking import top
from tipsv2.evaluation.tasks.classification import evaluate
from tipsv2.evaluation.tasks.instances import open_instances


@pytest.mark.parametrize("seed", range(4))
def test_top_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores, right = rng.normal(size=(80, 12)), rng.integers(0, 12, 80)
    scores[np.arange(80), right] += 1
    found = top(answer_ranks(scores, right))
    for k in (1, 5):
        assert found[f"top{k}"] == pytest.approx(top_k_accuracy_score(right, scores, k=k, labels=range(12)), abs=1e-4)


def test_ties_count_against_the_encoder():
    assert top(answer_ranks(np.ones((4, 9)), np.arange(4))) == {"top1": 0.0, "top5": 0.0}
    scores = np.array([[1.0, 1, 0, 0, 0, 0], [0, 2, 1, 0, 0, 0]])
    assert top(answer_ranks(scores, np.array([0, 1]))) == {"top1": 0.5, "top5": 1.0}


def test_a_picture_shows_one_thing_and_never_changes():
    for noun, style in [(0, "fluent"), (0, "noto"), (160, "twemoji"), (314, "noto")]:
        scene = draw_example(noun, style, 112)
        assert [(o.noun, o.style) for o in scene.objects] == [(noun, style)]
        shown = set(np.unique(scene.labels).tolist()) - set(range(len(scenes.STUFF)))
        assert shown == {len(scenes.STUFF) + noun} and (scene.labels >= len(scenes.STUFF)).mean() > 0.02
        assert np.array_equal(scene.image, draw_example(noun, style, 112).image)
        assert scenes.nouns()[noun].name in scene.captions["short"]
    first, second = draw_example(0, "fluent", 112), draw_example(0, "noto", 112)
    assert first.objects[0].center != second.objects[0].center  # each picture has its own seed


def test_splits_hold_every_noun_once_per_style():
    val, style = examples("scenes:val"), examples("scenes:style")
    assert len(set(val)) == len(val) == 2 * len(scenes.nouns()) and {s for _, s in val} == set(scenes.SEEN_STYLES)
    assert style == [(noun, scenes.UNSEEN_STYLE) for noun in range(len(scenes.nouns()))]
    assert FIRST_SEED > max(first for _, first in scenes.SPLITS.values()) + 10**12


def test_recipes_are_chosen_by_other_pictures_than_are_measured():
    """scenes:search shares no picture with scenes:val or what is learned from; those of val are as they were."""
    val, style, search = (open_labelled("knn", f"scenes:{name}:12", 56) for name in ("val", "style", "search"))
    train = [
        sample
        for part in ("val", "search")
        for sample in open_labelled("knn", f"scenes:{part}:12", 56, "train").samples
    ]
    drawn = {s.name: s.image.tobytes() for s in (*val.samples, *style.samples, *search.samples, *train)}
    assert len(drawn) == len(set(drawn.values())) == 12 * (2 + 1 + 2 + 2 * 4)
    assert [s.truth() for s in search.samples] == [s.truth() for s in val.samples]
    expected = [draw_example(*what, 56).image.tobytes() for what in examples("scenes:val:12")]
    assert [drawn[s.name] for s in val.samples] == expected
    for part in open_instances("scenes:search:12", 56):
        assert [s.image.tobytes() for s in part.samples] == [drawn[s.name] for s in search.samples]


def test_drawing_one_thing_left_the_scenes_as_they_were():
    """Figures of all versions are about the same scenes: captions of a few, written down before there was draw_one."""
    for seed, (web, short) in {
        7: ("loaf of bread for sale", "a crown, a hippopotamus, a sailboat, a puzzle piece and some bread"),
        10**12: ("life buoy #5104", "a life buoy"),
        10**12 + 499: ("cap wallpaper hd", "a chicken, a wheelchair and two baseball caps"),
    }.items():
        captions = scenes.draw(seed, 56).captions
        assert (captions["web"], captions["short"]) == (web, short)


class Oracle:
    """An image's CLS 1 is its noun's text embedding; CLS 2 is noise."""

    info = SimpleNamespace(name="oracle", resolution=14)
    patch_size = 14

    def __init__(self, data):
        self.nouns = {draw_example(noun, style, 14).image.tobytes(): noun for noun, style in examples(data)}
        self.generator = torch.Generator().manual_seed(0)
        self.names = [noun.name for noun in scenes.nouns()]
        self.text = F.normalize(torch.randn(len(self.names), 64, generator=self.generator), dim=-1)

    def encode_text(self, texts, templates, keep=False):
        assert templates == "clip80"
        return self.text[[self.names.index(text) for text in texts]]

    def encode_pixels(self, pixels, only):
        images = (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        known = self.text[[self.nouns[image.tobytes()] for image in images]]
        return {"cls": 7 * known, "caption_cls": torch.randn(known.shape, generator=self.generator)}


def test_oracle_is_perfect_and_noise_is_at_chance():
    record = evaluate(Oracle("scenes:val"), "scenes:val", templates="clip80", progress=False)
    assert record["cls"] == {"top1": 1.0, "top5": 1.0} and (record["images"], record["classes"]) == (630, 315)
    assert record["caption_cls"]["top5"] == pytest.approx(record["chance"]["top5"], abs=0.02)
    assert record["chance"] == {"top1": round(1 / 315, 4), "top5": round(5 / 315, 4)}


@pytest.mark.slow
def test_nano_equals_scikit_learn_on_its_embeddings():
    encoder, count = load("opentips-nano", device="cpu", dtype="float32"), 40
    record = evaluate(encoder, "scenes:val", templates="none", limit=count, progress=False)
    assert json.loads(json.dumps(record)) == record and record["images"] == count
    pictures = [Image.fromarray(draw_example(i // 2, ("fluent", "noto")[i % 2], 224).image) for i in range(count)]
    text = encoder.encode_text([noun.name for noun in scenes.nouns()])
    features = encoder.encode_images(pictures)
    right = np.arange(count) // 2
    for name in ("cls", "caption_cls"):
        scores = np.array([[float(s) for s in text @ F.normalize(getattr(f, name), dim=0)] for f in features])
        for k in (1, 5):
            expected = top_k_accuracy_score(right, scores, k=k, labels=range(315))
            assert record[name][f"top{k}"] == pytest.approx(expected, abs=1e-4)
        assert record[name]["top5"] > 0.5


def test_sentences(tiny_encoder):
    with pytest.raises(ValueError, match="scenes:val or scenes:style"):
        evaluate(tiny_encoder, "scenes:test")
    with pytest.raises(ValueError, match="there is no data set 'imagenet'"):
        evaluate(tiny_encoder, "imagenet")
    with pytest.raises(ValueError, match="limit=-2"):
        evaluate(tiny_encoder, limit=-2)


def test_command_line(tiny_folder, capsys):
    arguments = ["evaluate", "classification", "--limit", "4", "--model", str(tiny_folder), "--device", "cpu"]
    assert main([*arguments, "--data", "scenes:style", "--templates", "none", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    numbers = json.loads(line)
    assert (numbers["task"], numbers["data"], numbers["templates"]) == ("classification", "scenes:style", "none")
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "templates         tips9" in printed.out and "chance top1       0.0032" in printed.out
    assert "4/4" in printed.err and "315/315" in printed.err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--language", "de"])
    assert "--language" in capsys.readouterr().err.splitlines()[-1]
