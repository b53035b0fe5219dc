"""Retrieval, classification, k-NN, probe and instances on miniatures of every layout, computed by hand or by others.

python -m pytest tests/test_image_tasks.py
"""

import json
from itertools import chain

import layout_trees as trees
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from tipsv2.__main__ import main
from tipsv2.analysis.metrics import UNFOUND, answer_ranks, average_precision
from tipsv2.evaluation.layouts import open_data
from tipsv2.evaluation.shared.embeddings import embed_images, keep
from tipsv2.evaluation.shared.ranking import interval, nearest, rank
from tipsv2.evaluation.tasks import classification, instances, knn, probe, retrieval

CAPTIONED = {
    "coco": trees.coco,
    "coco-karpathy": lambda root: trees.karpathy(root, "coco", "val2014"),
    "flickr30k": lambda root: trees.karpathy(root, "flickr30k", "flickr30k-images"),
    "docci": trees.docci,
}


def unit(colours):
    rows = np.array([trees.COLOURS.get(colour, colour) for colour in colours], float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("layout", CAPTIONED)
def test_retrieval_is_the_loop_over_colours(layout, tmp_path):
    """Recalls counted query by query from the colours alone; the layout is recognised by its tree."""
    root = CAPTIONED[layout](tmp_path / "data")
    record = retrieval.evaluate(trees.Colours(), str(root), progress=False)
    samples = open_data("retrieval", f"{layout}:{root}").samples
    assert len(samples) == 10
    texts = [(text, k) for k, sample in enumerate(samples) for text in sample.truth()]
    assert record["texts"] == len(texts) == {"docci": 10, "coco": 20}.get(layout, 23)
    images = unit(trees.NAMES)
    words = np.array([sum(unit([n])[0] * np.linalg.norm(trees.COLOURS[n]) for n in trees.NAMES if n in text)
                      for text, _ in texts])  # fmt: skip
    scores = images @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T
    assert np.diff(np.sort(np.unique(scores.round(9)))).min() > 1e-6, "nearly ties: rounding decides"
    for k in (1, 5, 10):
        hits = []
        for image in range(10):
            best = max(scores[image, t] for t, (_, own) in enumerate(texts) if own == image)
            hits.append(sum(scores[image, t] >= best - 1e-6 for t, (_, own) in enumerate(texts) if own != image) < k)
        assert record["cls"][f"i2t_r{k}"] == pytest.approx(np.mean(hits), abs=1e-4)
        hits = [(scores[:, t] >= scores[own, t] - 1e-6).sum() - 1 < k for t, (_, own) in enumerate(texts)]
        assert record["cls"][f"t2i_r{k}"] == pytest.approx(np.mean(hits), abs=1e-4)
        if k == 1:  # an image is drawn with all its captions
            owner = [own for _, own in texts]
            assert record["interval"]["t2i_r1"] == interval(np.bincount(owner, hits), np.bincount(owner))
    assert record["caption_cls"]["t2i_r1"] == 0 and record["caption_cls"]["t2i_r10"] == 1  # all images are equal
    assert record["chance"]["t2i_r5"] == 0.5 and record["fingerprint"]
    low, high = record["interval"]["t2i_r1"]
    assert low < record["cls"]["t2i_r1"] < high or low == high == record["cls"]["t2i_r1"]


def test_recalls_by_hand(tmp_path):
    """A COCO image's first caption is its colour and no other's, so image to text is perfect; the second is the sum of
    two colours, and red with green is nearest to the yellow card. DOCCI's miniature has the first ones only.
    """
    out = tmp_path / "out"
    out.mkdir()
    record = retrieval.evaluate(trees.Colours(), f"coco:{trees.coco(tmp_path / 'coco')}", progress=False)
    assert record["cls"]["i2t_r1"] == 1.0 and record["cls"]["t2i_r10"] == 1.0 > record["cls"]["t2i_r1"]
    record = retrieval.evaluate(trees.Colours(), f"docci:{trees.docci(tmp_path / 'docci')}", out=out, progress=False)
    assert set(record["cls"].values()) == {1.0} and record["interval"] == {"i2t_r1": [1.0, 1.0], "t2i_r1": [1.0, 1.0]}
    assert not (out / "worst_queries.png").exists()  # nothing went wrong


def test_captions_beyond_the_fifth_do_not_count(tmp_path):
    samples = open_data("retrieval", f"flickr30k:{CAPTIONED['flickr30k'](tmp_path)}").samples
    assert len(samples[0].truth()) == 5 and "a blue card" not in samples[0].truth()
    assert samples[1].truth() == ("a green card", "a green card beside a blue one")


@pytest.mark.parametrize("kaggle", [False, True])
def test_classification_by_hand(tmp_path, kaggle):
    """Two of ten pictures show another class's colour; top-5 of five classes is everything that is not tied away."""
    root = trees.imagenet(tmp_path / "data", kaggle)
    out = tmp_path / "out"
    out.mkdir()
    record = classification.evaluate(trees.Colours(), str(root), templates="none", out=out, progress=False)
    assert record["cls"] == {"top1": 0.8, "top5": 1.0} and record["chance"] == {"top1": 0.2, "top5": 1.0}
    assert record["caption_cls"]["top1"] == 0.2  # always red
    lines = (out / "classes.csv").read_text().splitlines()
    assert lines[0] == "class,images,top1" and sorted(lines[1:3]) == ["blue,2,0.5000", "red,2,0.5000"]
    assert (out / "classes.png").stat().st_size and (out / "worst_queries.png").stat().st_size


def test_knn_and_probe_by_hand(tmp_path):
    root = str(trees.imagenet(tmp_path))
    for task, own in ((knn, {"k": 2}), (probe, {"strengths": (1000.0,)})):
        record = task.evaluate(trees.Colours(), root, progress=False, **own)
        assert (record["top1"], record["training"], record["images"]) == (0.8, 10, 10), task
    assert knn.evaluate(trees.Colours(), root, shots=1, progress=False)["training"] == 5


@pytest.mark.parametrize("seed", range(3))
def test_votes_equal_scikit_learn(seed):
    """Up to ties, the class with the most weight is what scikit-learn's classifier says."""
    rng = np.random.default_rng(seed)
    memory, rows = (F.normalize(torch.from_numpy(rng.normal(size=(n, 8))).float(), dim=1) for n in (200, 60))
    labels = rng.integers(0, 7, 200)
    cosines, found = nearest(rows, memory, 20)
    other = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    other.fit(memory.numpy(), labels)
    ours = knn.votes(cosines, labels[found], 7, 0.07)
    assert np.array_equal(ours.argmax(1), other.predict(rows.numpy()))
    assert ours / ours.sum(1, keepdims=True) == pytest.approx(other.predict_proba(rows.numpy()), abs=1e-4)


def test_the_probe_is_where_its_objective_has_no_slope():
    """The logits of C * cross entropy + half the squared weights at its minimum, found by torch in float64."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    weight = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    inputs = torch.from_numpy(np.hstack([rows, np.ones((60, 1))]))
    optimizer = torch.optim.LBFGS([weight], max_iter=100, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = 2 * F.cross_entropy(inputs @ weight, torch.from_numpy(labels), reduction="sum")
        value = value + (weight[:4] ** 2).sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    expected = torch.log_softmax(inputs @ weight, dim=1).detach().numpy()
    found = torch.log_softmax(torch.from_numpy(probe.fit(rows, labels, rows, 3, 2.0)), dim=1).numpy()
    assert found == pytest.approx(expected, abs=2e-3)
    two = probe.fit(rows, labels % 2 * 3, rows, 5, 2.0)  # classes 0 and 3 of five
    assert np.isneginf(two[:, [1, 2, 4]]).all() and ((two[:, 3] > two[:, 0]) == (labels % 2 * 3 == 3)).mean() > 0.5


def test_a_tenth_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2], [40, 2, 1])
    aside = probe.held_out(labels)
    assert [int(aside[labels == k].sum()) for k in range(3)] == [4, 1, 0]
    with pytest.raises(ValueError, match="single training image"):
        probe.held_out(np.arange(4))


def test_instances_by_hand(tmp_path):
    """cars: red and (250, 30, 0) are each other's nearest, so are the greens; blue's other, (255, 60, 0), is among the
    reds. met: yellow has two right answers, (255, 250, 0) first and cyan third, behind pink; dark blue's is pink, third
    behind (0, 10, 255) and cyan.
    """
    root = f"uned:{trees.uned(tmp_path)}"
    apart = instances.evaluate(trees.Colours(), root, separate=True, progress=False)
    images = unit(["red", (250, 30, 0), "green", (0, 120, 0), "blue", (255, 60, 0)])
    numbers = np.array([0, 0, 1, 1, 2, 2])
    hits, precisions = [], []
    for q in range(6):
        others = [k for k in range(6) if k != q]
        scores, right = images[others] @ images[q], numbers[others] == numbers[q]
        hits.append(right[np.argmax(scores)])
        order = sorted(range(5), key=lambda k, s=scores, r=right: (-round(s[k], 6), r[k]))
        found = [right[k] for k in order]
        precisions.append(np.mean([np.mean(found[: k + 1]) for k in range(5) if found[k]]))
    assert apart["domains"]["cars"]["r1"] == pytest.approx(np.mean(hits), abs=1e-4)
    assert apart["domains"]["cars"]["map"] == pytest.approx(np.mean(precisions), abs=1e-3)
    met = apart["domains"]["met"]
    assert (met["queries"], met["candidates"], met["r1"]) == (2, 4, 0.5)
    assert met["map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2, abs=1e-4)
    assert apart["r1"] == pytest.approx((np.mean(hits) + 0.5) / 2, abs=1e-4) and "sop" not in apart["domains"]
    together = instances.evaluate(trees.Colours(), root, progress=False)
    assert together["domains"]["met"]["r1"] == 0.5 and together["candidates"] == 10
    alone = instances.evaluate(trees.Colours(), root, domains=["cars"], progress=False)
    assert alone["domains"] == {"cars": apart["domains"]["cars"]}
    with pytest.raises(ValueError, match="no domain 'sop': it has cars, met"):
        instances.evaluate(trees.Colours(), root, domains=["sop"], progress=False)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    scores, right = rng.normal(size=(20, 30)), rng.random((20, 30)) < 0.2
    right[:, 0] = True
    expected = [average_precision_score(r, s) for s, r in zip(scores, right, strict=True)]
    assert average_precision(scores, right) == pytest.approx(expected)
    tied = np.zeros((1, 4))
    assert average_precision(tied, np.array([[True, False, True, False]])) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(tied, np.zeros((1, 4), bool)) == 0


def test_ranks_slab_by_slab_are_those_of_the_table(monkeypatch):
    rng = np.random.default_rng(0)
    queries, candidates = (torch.from_numpy(rng.integers(-2, 3, (n, 3))).float() for n in (17, 40))
    answers = [rng.choice(40, rng.integers(0, 4), replace=False) for _ in range(17)]
    own = np.where(rng.random(17) < 0.5, rng.integers(0, 40, 17), -1)
    monkeypatch.setattr("tipsv2.evaluation.shared.ranking.SLAB", 100)  # two queries at a time
    found = rank(queries, candidates, answers, own, precision=True)
    for q in range(17):
        kept = [k for k in range(40) if k != own[q]]
        right = np.isin(kept, answers[q])
        scores = (candidates @ queries[q]).numpy()[kept]
        assert found.first[q] == (answer_ranks(scores[None], right[None])[0])
        assert found.precision[q] == pytest.approx(average_precision(scores[None], right[None])[0])
        assert own[q] not in found.nearest[q] and scores.max() == scores[kept.index(found.nearest[q][0])]
    assert (found.first == UNFOUND).sum() == sum(not set(a) - {o} for a, o in zip(answers, own, strict=True)) > 0


def test_intervals_draw_images_with_all_their_captions():
    hits = np.array([5.0, 0, 5, 0, 5, 0, 5, 0] * 25)  # all captions of an image, or none
    together, apart = interval(hits, np.full(200, 5)), interval(np.repeat(hits / 5, 5))
    assert together[1] - together[0] == pytest.approx(2 * 1.96 * 0.5 / 200**0.5, abs=0.01)
    assert apart[1] - apart[0] == pytest.approx(2 * 1.96 * 0.5 / 1000**0.5, abs=0.01)
    assert interval(np.ones(1)) is None


def test_a_killed_evaluation_goes_on(tmp_path):
    """A file that cannot be read stops it; what went before is known, and the rest alone is encoded afterwards."""
    root, out = trees.imagenet(tmp_path / "data"), tmp_path / "out"
    broken = root / "val/n00000005/ILSVRC2012_val_00000009.JPEG"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    encoder = trees.Colours()
    with pytest.raises(ValueError, match="ILSVRC2012_val_00000009.JPEG"):
        knn.evaluate(encoder, str(root), k=2, out=out, progress=False)
    before = encoder.seen
    broken.write_bytes(whole)
    record = knn.evaluate(encoder, str(root), k=2, out=out, progress=False)
    assert before >= 10 and encoder.seen == 20 and record["top1"] == 0.8
    with pytest.raises(ValueError, match="another shape: choose another --out"):
        knn.evaluate(encoder, str(root), k=2, shape="square", out=out, progress=False)


def test_what_is_kept_of_a_tree_is_not_for_its_twin(tmp_path, monkeypatch):
    """Two folders with the same names and classes; a folder that moved is refused, one that is named otherwise not."""
    first, second = trees.imagenet(tmp_path / "first"), trees.imagenet(tmp_path / "second")
    given = {"k": 2, "out": tmp_path / "out", "progress": False}
    knn.evaluate(trees.Colours(), str(first), **given)
    with pytest.raises(ValueError, match="another data: choose another --out"):
        knn.evaluate(trees.Colours(), str(second), **given)
    encoder = trees.Colours()
    monkeypatch.chdir(tmp_path)
    assert knn.evaluate(encoder, "imagenet:first", **given)["top1"] == 0.8 and encoder.seen == 0
    first.rename(tmp_path / "third")
    with pytest.raises(ValueError, match="another data: choose another --out"):
        knn.evaluate(encoder, "third", **given)


def test_captions_that_were_corrected_are_not_those_that_were_kept(tmp_path):
    root, given = trees.coco(tmp_path / "data"), {"out": tmp_path / "out", "progress": False}
    before = retrieval.evaluate(trees.Colours(), f"coco:{root}", **given)
    assert retrieval.evaluate(trees.Colours(), f"coco:{root}", **given)["fingerprint"] == before["fingerprint"]
    notes = root / "annotations/captions_val2017.json"
    notes.write_text(notes.read_text().replace("a red card beside a green one", "a red card"))
    with pytest.raises(ValueError, match="another captions: choose another --out"):
        retrieval.evaluate(trees.Colours(), f"coco:{root}", **given)
    after = retrieval.evaluate(trees.Colours(), f"coco:{root}", progress=False)
    assert after["fingerprint"] != before["fingerprint"] and after["cls"]["t2i_r1"] > before["cls"]["t2i_r1"]


def test_embeddings_on_the_disk_are_not_held_twice(tmp_path):
    split, encoder = open_data("knn", str(trees.imagenet(tmp_path / "data"))), trees.Colours()
    for out in (tmp_path / "out", tmp_path / "out", None):
        with keep(out, encoder, split, task="knn") as partial:
            found = embed_images(encoder, split.samples, partial, 28, progress=False)
        assert len(partial) == 10 and all(isinstance(partial[name], dict) == (out is None) for name in partial)
        assert all(np.array_equal(partial[s.name]["cls"], found["cls"][k]) for k, s in enumerate(split.samples))
    assert encoder.seen == 20 and found["cls"].dtype == torch.float32


def test_square_and_aspect_differ_where_an_image_is_not_square(tmp_path):
    sizes = []

    class Sizes(trees.Colours):
        def encode_pixels(self, pixels, only=(), layer=None):
            sizes.append(tuple(pixels.shape[2:]))
            return super().encode_pixels(pixels)

    root = str(trees.coco(tmp_path))
    retrieval.evaluate(Sizes(), root, progress=False)
    assert set(sizes) == {(28, 56), (42, 28)}
    sizes.clear()
    retrieval.evaluate(Sizes(), root, shape="square", progress=False)
    assert set(sizes) == {(28, 28)}
    with pytest.raises(ValueError, match="choose aspect or square"):
        retrieval.evaluate(Sizes(), root, shape="round", progress=False)


def test_scenes_have_every_task(tiny_encoder, tmp_path):
    given = {"resolution": 28, "limit": 6, "progress": False}
    for task, own, expected in (
        (knn, {"shots": 1}, {"images": 6, "training": 12}),
        (probe, {"shots": 2, "strengths": (1.0,), "out": tmp_path}, {"images": 6, "training": 24}),
        (instances, {}, {"queries": 6, "candidates": 24}),
    ):
        record, again = (task.evaluate(tiny_encoder, "scenes:style:12", **own, **given) for _ in range(2))
        assert expected.items() <= record.items() and json.loads(json.dumps(record)) == record
        assert again | {"seconds": 0} == record | {"seconds": 0}
    queries, index = instances.open_instances("scenes:val:12", 28)
    assert [s.name for s in queries.samples] == [s.name for s in index.samples]  # each other's index, without itself
    assert instances.evaluate(tiny_encoder, "scenes:val:12", **given)["chance"]["r1"] == round(1 / 23, 4)


@pytest.mark.parametrize("task", [classification, knn, probe])
def test_chance_among_fewer_classes_than_guesses_is_one(task, tiny_encoder):
    own = {"strengths": (1.0,)} if task is probe else {}
    record = task.evaluate(tiny_encoder, "scenes:val:3", resolution=28, limit=4, progress=False, **own)
    assert record["chance"] == {"top1": 0.3333, "top5": 1.0}


def test_training_pictures_are_no_test_pictures():
    seen = [knn.open_both("knn", data, 28) for data in ("scenes:val:12", "scenes:style:12")]
    train, others = seen[0][0].samples, list(chain(seen[0][1].samples, seen[1][1].samples))
    drawn = {sample.image.tobytes() for sample in train}
    assert len(train) == len(drawn) == 12 * 2 * 4 and not drawn & {sample.image.tobytes() for sample in others}


def test_command_line(tiny_folder, tmp_path, capsys):
    root = trees.uned(tmp_path / "uned")
    given = ["--model", str(tiny_folder), "--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    assert main(["evaluate", "instances", "--data", f"uned:{root}", "--domains", "cars,met", *given]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert list(numbers["domains"]) == ["cars", "met"] and (tmp_path / "out/worst_queries.png").exists()
    assert json.loads((tmp_path / "out/record.json").read_text())["r1"] == numbers["r1"]
    assert main(["evaluate", "knn", "--data", f"uned:{root}", "--model", str(tiny_folder)]) == 2
    assert "uned has no knn: it is for instances" in capsys.readouterr().err
