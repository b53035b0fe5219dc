"""Retrieval: recall against plain loops, duplicates that are no errors, chance by counting, lists of names.

python -m pytest tests/test_retrieval.py
"""

import json
from itertools import permutations
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2 import load, scenes
from tipsv2.__main__ import main
from tipsv2.analysis.metrics import chance_recall_at_k
from tipsv2.evaluation.tasks.retrieval import (
    all_languages,
    by_chance,
    evaluate,
    list_names,
    rank_both_ways,
    recalls,
    same,
    things,
)


def recall_by_loop(scores, texts, k):
    """For each query sort the candidates, wrong ones first among equals, and look for an identical text in the best k;
    the text of candidate j and of query j is texts[j].
    """
    found = 0
    for query, row in enumerate(scores):
        order = sorted(range(len(texts)), key=lambda j, q=query, r=row: (-r[j], texts[j] == texts[q]))
        found += any(texts[j] == texts[query] for j in order[:k])
    return found / len(texts)


@pytest.mark.parametrize("seed", range(6))
def test_recall_with_duplicates_and_ties_equals_the_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    texts = [f"caption {number}" for number in torch.randint(18, (30,), generator=generator).tolist()]
    table = {text: torch.randint(-2, 3, (5,), generator=generator).float() for text in texts}  # whole: ties
    rows = torch.stack([table[text] for text in texts])
    images = rows + torch.randint(-1, 2, rows.shape, generator=generator)
    found = recalls(rank_both_ways(images, rows, same(texts)))
    scores = (images @ rows.T).tolist()
    turned = [list(column) for column in zip(*scores, strict=True)]
    assert any(len(set(row)) < len(set(texts)) for row in scores), "no ties: the test shows nothing"
    for k in (1, 5, 10):
        assert found[f"i2t_r{k}"] == pytest.approx(recall_by_loop(scores, texts, k), abs=1e-4)
        assert found[f"t2i_r{k}"] == pytest.approx(recall_by_loop(turned, texts, k), abs=1e-4)
    assert 0 < found["i2t_r1"] < 1


def test_constant_scores_find_nothing_among_different_texts():
    found = recalls(rank_both_ways(torch.ones(20, 4), torch.ones(20, 4), same([str(i) for i in range(20)])))
    assert set(found.values()) == {0.0}


def test_chance_equals_counting_all_orders():
    right = same(["a", "b", "a", "c", "a", "b"])
    orders = list(permutations(range(6)))
    for k in (1, 2, 4, 6, 9):
        hits = [np.mean([right[q, list(order[:k])].any() for order in orders]) for q in range(6)]
        assert chance_recall_at_k(right, k) == pytest.approx(np.mean(hits))
    assert by_chance(same(list("abcdefghijklmnopqrst"))) == {"r1": 0.05, "r5": 0.25, "r10": 0.5}
    for wrong, k in ((right, 0), (right.astype(int), 1), (right[0], 1)):
        with pytest.raises(ValueError):
            chance_recall_at_k(wrong, k)


class Reader:
    """Knows every picture's captions: CLS 1 is the embedding of the alt-text, CLS 2 of the text `second` gives."""

    info = SimpleNamespace(name="reader", resolution=14)
    patch_size = 14

    def __init__(self, chosen, second):
        self.texts = {s.image.tobytes(): (s.captions["web"], second(s)) for s in chosen}

    def encode_text(self, texts, templates, keep=False):
        assert templates == "none"
        rows = [torch.randn(48, generator=torch.Generator().manual_seed(crc32(text.encode()))) for text in texts]
        return F.normalize(torch.stack(rows), dim=-1)

    def encode_pixels(self, pixels, only):
        images = (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        first, second = zip(*(self.texts[image.tobytes()] for image in images), strict=True)
        return {"cls": self.encode_text(first, "none"), "caption_cls": self.encode_text(second, "none")}


@pytest.fixture(scope="module")
def val():
    split = scenes.split("val", 14)
    return [split[i] for i in range(len(split))]


@pytest.mark.parametrize("role", ["short", "detailed", "names"])
def test_a_reader_of_captions_makes_no_error_though_captions_repeat(val, role):
    """Among 500 scenes some share their web alt-text, short caption and list of names."""
    texts = [s.captions.get(role) or list_names(things(s), "fr") for s in val]
    assert len(set(texts)) < len(texts) or role == "detailed"
    assert len({s.captions["web"] for s in val}) < len(val)
    record = evaluate(Reader(val, lambda s: s.captions.get(role) or list_names(things(s), "fr")),
                      languages=["fr"], progress=False)  # fmt: skip
    captions = record["captions"]
    perfect = record["languages"]["fr"] if role == "names" else captions[role]
    assert set(perfect.values()) == {1.0} and set(captions["web"].values()) == {1.0}
    others = {"short", "detailed"} - {role}
    assert all(captions[other]["i2t_r10"] < 0.1 for other in others)  # each kind has its own texts
    repeats = np.mean([texts.count(text) for text in texts]) / len(texts)
    assert record["chance"][role]["r1"] == pytest.approx(repeats, abs=1e-4)


def test_lists_name_what_shows_in_every_language(val):
    assert len(all_languages()) == 14 and {"en", "de", "fr", "ja"} <= set(all_languages())
    nouns = scenes.nouns()
    dog, apple = (next(i for i, n in enumerate(nouns) if n.name == name) for name in ("dog", "apple"))
    assert list_names((dog, apple), "de") == "Hund, Apfel" and list_names((dog, apple), "en") == "dog, apple"
    buried = 0
    for scene in val:
        visible, hidden = ({o.noun for o in scene.objects if (o.visible >= 0.35) is seen} for seen in (True, False))
        assert things(scene) == tuple(sorted(visible))  # one order, so that the same things are the same list
        for index in things(scene):
            assert nouns[index].name in scene.captions["short"] or nouns[index].plural in scene.captions["short"]
        buried += len(hidden - visible)
    assert buried, "no scene hides a thing: the test shows nothing about hidden ones"
    sets = same([frozenset(things(s)) for s in val])
    assert sets.sum() > len(val)
    for language in all_languages():  # scenes with the same things, and only those, have the same list
        assert np.array_equal(same([list_names(things(s), language) for s in val]), sets)


@pytest.mark.slow
def test_nano_equals_a_loop_over_its_embeddings():
    encoder, count = load("opentips-nano", device="cpu", dtype="float32"), 24
    record = evaluate(encoder, "scenes:val", languages=("en", "zh"), limit=count, progress=False)
    assert json.loads(json.dumps(record)) == record and record["images"] == count and record["resolution"] == 224
    split = scenes.split("val", 224)
    drawn = [split[i] for i in range(count)]
    features = encoder.encode_images([Image.fromarray(s.image) for s in drawn])
    for role, cls in (("web", "cls"), ("short", "caption_cls"), ("detailed", "caption_cls")):
        texts = [s.captions[role] for s in drawn]
        images = [F.normalize(getattr(f, cls), dim=0) for f in features]
        rows = [encoder.encode_text([text])[0] for text in texts]
        scores = [[float(image @ row) for row in rows] for image in images]
        turned = [list(column) for column in zip(*scores, strict=True)]
        for k in (1, 5):
            assert record["captions"][role][f"i2t_r{k}"] == pytest.approx(recall_by_loop(scores, texts, k), abs=1e-4)
            assert record["captions"][role][f"t2i_r{k}"] == pytest.approx(recall_by_loop(turned, texts, k), abs=1e-4)
    assert record["captions"]["short"]["i2t_r1"] > 0.8 > 10 * record["chance"]["short"]["r1"]
    assert record["languages"]["en"]["t2i_r1"] > record["languages"]["zh"]["t2i_r1"] + 0.4  # it reads English only


def test_sentences(tiny_encoder):
    for data in ("scenes:test", "scenes"):
        with pytest.raises(ValueError, match="scenes:val or scenes:style"):
            evaluate(tiny_encoder, data)
    with pytest.raises(ValueError, match="there is no data set 'coco': give scenes:val, or LAYOUT:ROOT of coco, "):
        evaluate(tiny_encoder, "coco")
    with pytest.raises(ValueError, match="'xx' is unknown; choose all, en, de"):
        evaluate(tiny_encoder, languages=["de", "xx"])
    with pytest.raises(ValueError, match="limit=0"):
        evaluate(tiny_encoder, limit=0)
    with pytest.raises(ValueError, match="resolution=100 is not a multiple of the patch size 14; take 98"):
        evaluate(tiny_encoder, resolution=100)


def test_what_is_kept_of_a_split_is_not_for_another(tiny_encoder, tmp_path):
    given = {"resolution": 28, "limit": 2, "progress": False}
    val, style = (evaluate(tiny_encoder, f"scenes:{name}", **given) for name in ("val", "style"))
    assert val["fingerprint"] != style["fingerprint"]
    assert evaluate(tiny_encoder, "scenes:val", out=tmp_path, **given)["fingerprint"] == val["fingerprint"]
    for other in ("scenes:style", "scenes:val:60"):
        with pytest.raises(ValueError, match="another data: choose another --out"):
            evaluate(tiny_encoder, other, out=tmp_path, **given)


def test_command_line(tiny_folder, capsys):
    arguments = ["evaluate", "retrieval", "--data", "scenes:style", "--limit", "12", "--model", str(tiny_folder)]
    assert main([*arguments, "--language", "de, fr", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    numbers = json.loads(line)
    assert list(numbers["languages"]) == ["de", "fr"] and numbers["data"] == "scenes:style"
    assert main([*arguments, "--language", "all"]) == 0
    printed = capsys.readouterr()
    rows = {words[0]: words[1:] for words in map(str.split, printed.out.splitlines()) if words}
    assert set(all_languages()) <= set(rows) and rows["languages"] == list(numbers["languages"]["de"])
    assert rows["de"] == [f"{value:.4f}" for value in numbers["languages"]["de"].values()]
    assert "12/12" in printed.err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--templates", "tips9"])
    assert "--templates" in capsys.readouterr().err.splitlines()[-1]
    assert main([*arguments, "--json"]) == 0
    assert "languages" not in json.loads(capsys.readouterr().out)
    for unused in (("--cls", "cls"), ("--shape", "square")):
        assert main([*arguments, *unused]) == 2 and "leave --cls and --shape out" in capsys.readouterr().err
