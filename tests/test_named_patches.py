"""What patches say by name, against scikit-learn, plain loops and a plain script; chance against random cosines."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from tipsv2.analysis.metrics import confusion_matrix
from tipsv2.evaluation.segmentation.named_patches import (
    NamedPatches,
    asked_for,
    look_at,
    patch_auroc,
    patch_scores,
    patch_shares,
    presence,
)
from tipsv2.evaluation.segmentation.scores import Tables, chance_of_images, pack

RNG = np.random.default_rng(0)


def blobs(classes, size=(56, 84), rng=RNG):
    """A label map of blocks with some of the classes, some of it unlabelled."""
    chosen = rng.choice(np.arange(-1, classes), 4, replace=False)
    small = rng.choice(chosen, (4, 6))
    return small.repeat(size[0] // 4, axis=0).repeat(size[1] // 6, axis=1)


def test_shares_equal_a_loop_over_patches():
    labels = blobs(5)
    shares = patch_shares(labels, [0, 3, 4], (8, 12))
    for row, number in enumerate((0, 3, 4)):
        for y in range(8):
            for x in range(12):
                patch = labels[7 * y : 7 * y + 7, 7 * x : 7 * x + 7]
                assert shares[row, y, x] == pytest.approx((patch == number).mean(), abs=1e-6)
    assert patch_shares(labels, [0, 1], (5, 9)).shape == (2, 5, 9)  # where patches do not divide the picture


def test_names_with_one_patch_are_not_asked_for():
    shares = np.zeros((3, 2, 2), np.float32)
    shares[0, 0, 0], shares[1, 0] = 1, 0.51
    shares[2] = 0.5
    assert asked_for(shares).tolist() == [False, True, False]


def test_auroc_of_patches_equals_scikit_learn():
    for _ in range(5):
        share = RNG.choice([0, 0.2, 0.5, 0.7, 1], (6, 7))
        cosines = RNG.normal(size=(6, 7)).round(1)  # with ties
        kept = (share == 0) | (share > 0.5)
        assert patch_auroc(cosines, share) == pytest.approx(roc_auc_score(share[kept] > 0.5, cosines[kept]))
    assert np.isnan(patch_auroc(cosines, np.ones((6, 7))))  # no patch is without the name


def test_the_peak_is_inside_where_a_quarter_of_its_patch_is_the_names():
    share = np.array([[0.26, 0.25], [1.0, 0.0]])
    peaks = [np.eye(4)[k].reshape(2, 2) for k in range(4)]
    scores = patch_scores(np.stack(peaks), np.stack([share] * 4))
    assert scores[:, 0].tolist() == [1, 0, 1, 0] and scores[:, 1].tolist() == [0.5] * 4


def test_presence_equals_scikit_learn():
    rng = np.random.default_rng(1)
    peaks, there = rng.normal(size=(9, 6)).round(1), rng.random((9, 6)) < 0.4
    there[0], there[1], there[:, 2] = True, False, False  # nothing to tell apart
    by_picture, by_name = presence(peaks, there)
    pictures = [roc_auc_score(there[i], peaks[i]) for i in range(9) if 0 < there[i].sum() < 6]
    names = [roc_auc_score(there[:, j], peaks[:, j]) for j in range(6) if 0 < there[:, j].sum() < 9]
    assert 2 < len(pictures) <= 7 and 2 < len(names) <= 5
    assert (by_picture, by_name) == (pytest.approx(np.mean(pictures)), pytest.approx(np.mean(names)))
    assert np.isnan(presence(peaks, np.ones((9, 6), bool))).all()


def by_a_script(labels, maps, synonyms, synonym_maps):
    """The same figures written once more, as plainly as can be: names, pairs of patches, every pixel asked for."""
    hits, areas, others, plain = [], [], [], []
    for label, cosines, more in zip(labels, maps, synonym_maps, strict=True):
        for number in sorted(set(label.ravel().tolist()) - {-1}):
            mask = torch.from_numpy((label == number).astype(np.float32))[None, None]
            part = F.adaptive_avg_pool2d(mask, cosines.shape[1:])[0, 0].numpy()
            inside, outside = np.argwhere(part > 0.5), np.argwhere(part == 0)
            if len(inside) < 2:
                continue

            def area(score, inside=inside, outside=outside):
                pairs = [(score[tuple(p)], score[tuple(q)]) for p in inside for q in outside]
                return np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs])

            hits.append(part.ravel()[cosines[number].argmax()] > 0.25)
            areas.append(area(cosines[number]))
            for row, whose in enumerate(synonyms):
                if whose == number:
                    others.append(area(more[row]))
                    plain.append(areas[-1])
    return [np.mean(values) for values in (hits, areas, others, plain)]


def test_all_figures_equal_a_plain_script():
    labels = [blobs(6) for _ in range(4)]
    maps = [RNG.normal(size=(6, 8, 12)).astype(np.float32).round(1) for _ in labels]
    synonyms, more = (2, 5, 2), [RNG.normal(size=(3, 8, 12)).astype(np.float32) for _ in labels]
    kept = [
        look_at({"final": -cosines, "values": cosines}, label, synonyms, {"final": -other, "values": other})
        for label, cosines, other in zip(labels, maps, more, strict=True)
    ]
    there = np.array([np.isin(np.arange(6), label) for label in labels])
    found = NamedPatches.of(kept, "values").figures(there)
    names = ("peak_inside", "auroc", "auroc_synonyms", "auroc_their_names")
    assert [found[name] for name in names] == pytest.approx(by_a_script(labels, maps, synonyms, more), abs=1e-4)
    peaks = np.array([[cosines[k].max() for k in range(6)] for cosines in maps])
    expected = presence(peaks, there)
    assert (found["presence_per_picture"], found["presence_per_name"]) == pytest.approx(expected, abs=1e-4)
    turned = NamedPatches.of(kept, "final").figures(there)
    assert turned["auroc"] == pytest.approx(1 - found["auroc"], abs=2e-4)  # no kind is taken for the other
    assert list(NamedPatches.of(kept, "values").chance()) == list(found)


def test_chance_is_the_mean_of_random_cosines():
    labels = [blobs(6) for _ in range(6)]
    there = np.array([np.isin(np.arange(6), label) for label in labels])
    drawn = []
    for _ in range(60):
        kept = [look_at({"values": RNG.normal(size=(6, 8, 12))}, label) for label in labels]
        one = NamedPatches.of(kept, "values")
        drawn.append(list(one.figures(there).values()))
    assert np.mean(drawn, axis=0) == pytest.approx(list(one.chance().values()), abs=0.05)


def test_nothing_to_tell_of_is_none():
    kept = [look_at({"values": RNG.normal(size=(3, 4, 6))}, np.full((56, 84), -1))]
    one = NamedPatches.of(kept, "values")
    assert set(one.figures(np.zeros((1, 3), bool)).values()) == {None}


def test_chance_of_pictures_is_the_mean_of_random_guesses():
    labels = [blobs(5) for _ in range(3)]
    truth = np.array([[(label == k).sum() for k in range(5)] for label in labels])
    means = []
    for _ in range(40):
        packed = []
        for label in labels:
            guess = RNG.choice(np.unique(label[label >= 0]), label.shape)
            packed.append(pack(confusion_matrix(label, guess, 5)))
        means.append(Tables(["a", "b", "c"], packed, 5).of_images().mean())
    assert chance_of_images(truth) == pytest.approx(np.mean(means), abs=0.005)
    assert np.isnan(chance_of_images(np.zeros((2, 5), int)))
