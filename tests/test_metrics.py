"""tipsv2.analysis.metrics against hand-computed tables and scikit-learn.

python -m pytest tests/test_metrics.py
"""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, roc_auc_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from tipsv2.analysis.metrics import (
    accuracy,
    auroc,
    class_iou,
    confusion_matrix,
    mask_iou,
    mask_margin,
    mean_iou,
    peak_margins,
    pointing_hit,
    recall_at_k,
)


def test_a_table_by_hand():
    target = np.array([[0, 0, 1], [1, 2, -1]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    confusion = confusion_matrix(target, predicted, num_classes=4)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # class 0: 1 of {2 target + 2 predicted - 1}; class 1: 2 of 3; class 2: none of 1; class 3 occurs nowhere
    assert class_iou(confusion)[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0]) and math.isnan(class_iou(confusion)[3])
    assert mean_iou(confusion) == pytest.approx(1 / 3)
    assert accuracy(confusion) == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = confusion_matrix(np.zeros(4, int), np.array([0, 0, 0, 1]), 3)
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 0) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
    random = np.random.default_rng(seed)
    target, predicted = random.integers(0, 9, (2, 30, 40))
    target[target == 4] = predicted[predicted == 4] = 3  # class 4 is absent
    confusion = confusion_matrix(target, predicted, 9)
    assert (confusion == sklearn_confusion(target.ravel(), predicted.ravel(), labels=range(9))).all()
    present = [0, 1, 2, 3, 5, 6, 7, 8]
    scores = jaccard_score(target.ravel(), predicted.ravel(), labels=present, average=None)
    assert np.allclose(class_iou(confusion)[present], scores)
    assert mean_iou(confusion) == pytest.approx(scores.mean())
    assert accuracy(confusion) == pytest.approx(accuracy_score(target.ravel(), predicted.ravel()))


def test_matrices_of_images_add_up():
    random = np.random.default_rng(0)
    targets, predictions = random.integers(0, 5, (2, 6, 50))
    total = sum(confusion_matrix(t, p, 5) for t, p in zip(targets, predictions, strict=True))
    assert (total == confusion_matrix(targets, predictions, 5)).all()


def test_what_is_ignored():
    target, predicted = np.array([0, 255, 1]), np.array([0, 7, 1])
    assert confusion_matrix(target, predicted, 2, ignore=255).sum() == 2
    with pytest.raises(ValueError, match="target holds labels from 0 to 255"):
        confusion_matrix(target, predicted, 2)
    with pytest.raises(ValueError, match="prediction holds labels from -1"):
        confusion_matrix(np.array([0]), np.array([-1]), 2)
    with pytest.raises(ValueError, match="same shape"):
        confusion_matrix(np.zeros(3, int), np.zeros(4, int), 2)


def test_small_integers_do_not_overflow():
    labels = np.full(10, 199, np.uint8)
    assert confusion_matrix(labels, labels, 200)[199, 199] == 10


def test_nothing_counted():
    confusion = confusion_matrix(np.full(3, -1), np.zeros(3, int), 2)
    assert math.isnan(mean_iou(confusion)) and math.isnan(accuracy(confusion))


def test_recall_by_hand():
    scores = np.array(
        [
            [0.9, 0.1, 0.3, 0.2],  # right answer 0: rank 1
            [0.8, 0.1, 0.7, 0.6],  # right answer 3: rank 3
            [0.1, 0.2, 0.3, 0.4],  # right answer 0: rank 4
        ]
    )
    assert [recall_at_k(scores, np.array([0, 3, 0]), k) for k in (1, 2, 3, 4, 9)] == pytest.approx(
        [1 / 3, 1 / 3, 2 / 3, 1, 1]
    )


def test_recall_with_several_right_answers():
    """The best of them decides, and right answers do not stand in each other's way."""
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1]])
    relevant = np.array([[False, False, True, True], [True, True, True, False]])
    assert recall_at_k(scores, relevant, 1) == 0.5
    assert recall_at_k(scores, relevant, 2) == 0.5
    assert recall_at_k(scores, relevant, 3) == 1.0
    assert recall_at_k(scores, np.zeros((2, 4), bool), 4) == 0.0


def test_recall_equals_scikit_learn():
    random = np.random.default_rng(0)
    scores, right = random.random((40, 12)), random.integers(0, 12, 40)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(right, scores, k=k, labels=range(12))
        assert recall_at_k(scores, right, k) == pytest.approx(expected)


def test_constant_scores_find_nothing():
    assert recall_at_k(np.ones((5, 10)), np.zeros(5, int), 5) == 0.0


def test_recall_sentences():
    for scores, relevant, k in (
        (np.ones((2, 3)), np.zeros(2, int), 0),
        (np.ones(3), np.zeros(3, int), 1),
        (np.ones((2, 3)), np.array([0, 3]), 1),
        (np.ones((2, 3)), np.zeros(3, int), 1),
        (np.ones((2, 3)), np.ones((3, 2), bool), 1),
    ):
        with pytest.raises(ValueError):
            recall_at_k(scores, relevant, k)


def blob(seed: int, shape=(13, 17)):
    """Scores with many ties (one decimal), a mask that follows them loosely, both random."""
    random = np.random.default_rng(seed)
    scores = random.random(shape).round(1)
    return scores, scores + random.normal(0, 0.3, shape) > 0.7


@pytest.mark.parametrize("seed", range(5))
def test_auroc_equals_scikit_learn_and_a_loop_over_pairs(seed):
    scores, mask = blob(seed)
    assert auroc(scores, mask) == pytest.approx(roc_auc_score(mask.ravel(), scores.ravel()), abs=1e-12)
    pairs = [(a > b) + (a == b) / 2 for a in scores[mask] for b in scores[~mask]]
    assert auroc(scores, mask) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auroc(np.exp(3 * scores), mask) == auroc(scores, mask)  # only the order counts
    assert auroc(-scores, mask) == pytest.approx(1 - auroc(scores, mask))


def test_auroc_limits():
    mask = np.array([True, False, False])
    assert auroc(np.array([3, 2, 1]), mask) == 1 and auroc(np.zeros(3), mask) == 0.5
    assert math.isnan(auroc(np.zeros(3), ~np.zeros(3, bool))) and math.isnan(auroc(np.zeros(3), np.zeros(3, bool)))


@pytest.mark.parametrize("seed", range(5))
def test_iou_with_a_mask_is_the_jaccard_index(seed):
    scores, mask = blob(seed)
    tried = {
        threshold: jaccard_score(mask.ravel(), (scores >= threshold).ravel(), zero_division=0)
        for threshold in [*np.unique(scores), 0.55, 2.0]
    }
    for threshold, expected in tried.items():
        assert mask_iou(scores, mask, threshold) == pytest.approx((expected, threshold))
    iou, threshold = mask_iou(scores, mask)
    assert iou == pytest.approx(max(tried.values())) and tried[threshold] == pytest.approx(iou)


def test_iou_without_a_mask_to_meet():
    assert all(math.isnan(value) for value in mask_iou(np.ones(4), np.zeros(4, bool)))


@pytest.mark.parametrize("tolerance", [0, 1, 2.5, 15])
def test_pointing_equals_a_loop(tolerance):
    random = np.random.default_rng(0)
    found = []
    for _ in range(40):
        scores, mask = random.random((20, 30)), random.random((20, 30)) > 0.99
        peaks = [(y, x) for y in range(20) for x in range(30) if scores[y, x] == scores.max()]
        near = [math.dist(peaks[0], (y, x)) <= tolerance for y in range(20) for x in range(30) if mask[y, x]]
        found.append(pointing_hit(scores, mask, tolerance))
        assert found[-1] == any(near)
    assert len(set(found)) == 2 or tolerance in (0, 15)


def test_pointing_margin_includes_its_rim():
    scores, mask = np.zeros((1, 40)), np.zeros((1, 40), bool)
    scores[0, 3] = mask[0, 18] = 1
    assert pointing_hit(scores, mask) and not pointing_hit(scores, mask, 14.9)
    assert pointing_hit(scores, scores > 0, 0) and not pointing_hit(scores, np.zeros((1, 40), bool))
    with pytest.raises(ValueError, match="tolerance"):
        pointing_hit(scores, mask, -1)


def test_margins_by_hand():
    assert mask_margin(np.array([[4.0, 2.0], [1.0, 0.0]]), np.array([[True, True], [False, False]])) == 2.5
    assert math.isnan(mask_margin(np.ones(2), np.ones(2, bool)))
    maps = np.array([[[5, 1, 0]], [[2, 1, 6]], [[3, 4, 7]]])
    # peaks at 0, 2 and 2: 5 against 3, 6 against 7, 7 against 6
    assert peak_margins(maps).tolist() == [2, -1, 1]
    assert np.isnan(peak_margins(maps[:1])).tolist() == [True]


def test_masks_that_do_not_fit():
    for scores, mask in (
        (np.ones(3), np.ones(3)),
        (np.ones(3), np.ones(2, bool)),
        (np.array([1, np.nan, 2]), np.array([True, False, True])),
    ):
        for metric in (auroc, mask_iou, mask_margin, pointing_hit):
            with pytest.raises(ValueError, match="A mask must be bool"):
                metric(scores, mask)
