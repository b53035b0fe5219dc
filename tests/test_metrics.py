"""tipsv2.metrics against hand-computed tables and scikit-learn.

python -m pytest tests/test_metrics.py
"""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from tipsv2.metrics import accuracy, class_iou, confusion_matrix, mean_iou, recall_at_k


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
