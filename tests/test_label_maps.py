"""tipsv2.analysis.label_maps: files of labels as the benchmarks write them, and IoU against scikit-learn's.

python -m pytest tests/test_label_maps.py
"""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

from tipsv2.analysis.label_maps import (
    BACKGROUND,
    IGNORED,
    agreement,
    from_colors,
    from_numbers,
    open_labels,
    resize_labels,
)
from tipsv2.analysis.render import WIDE_PALETTE
from tipsv2.images import ImageError

NUMBERS = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)


def png(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def palette_image():
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette([channel for color in WIDE_PALETTE for channel in color])
    return image


@pytest.mark.parametrize(
    "content",
    [
        png(Image.fromarray(NUMBERS)),
        png(palette_image()),
        png(Image.fromarray(NUMBERS.astype(np.uint16))),
        png(Image.merge("RGB", [Image.fromarray(NUMBERS)] * 3)),
        png(Image.fromarray(NUMBERS), format="TIFF"),
    ],
    ids=["grey", "palette", "16 bits", "grey as RGB", "TIFF"],
)
def test_numbers_of_a_file(content, tmp_path):
    path = tmp_path / "mask"
    path.write_bytes(content)
    for source in (content, path):
        np.testing.assert_array_equal(open_labels(source)[0], NUMBERS)


def test_black_and_white_is_0_and_255():
    numbers, _ = open_labels(png(Image.fromarray(NUMBERS > 1)))
    np.testing.assert_array_equal(numbers, np.where(NUMBERS > 1, 255, 0))


def test_colours_without_a_palette_have_no_numbers():
    painted = np.asarray(WIDE_PALETTE, np.uint8)[NUMBERS % 4]
    numbers, colors = open_labels(png(Image.fromarray(painted)))
    assert numbers is None
    np.testing.assert_array_equal(colors, painted)


def test_bad_files_are_sentences():
    with pytest.raises(ImageError, match="save the mask as PNG"):
        open_labels(png(Image.fromarray(NUMBERS), format="JPEG"))
    with pytest.raises(ImageError, match="not a picture"):
        open_labels(b"nothing")


def test_numbers_from_one_and_from_zero():
    np.testing.assert_array_equal(from_numbers(NUMBERS, 3), [[BACKGROUND, 0, 1], [2, IGNORED, 0]])
    np.testing.assert_array_equal(from_numbers(NUMBERS, 4, first=0), [[0, 1, 2], [3, IGNORED, 1]])
    assert from_numbers(np.array([[255]]), 256, first=0) == 255  # a class, where there are so many
    for classes, first in ((2, 1), (3, 0)):
        with pytest.raises(ValueError, match=f"number 3, but the list has {classes} classes, numbered from {first}"):
            from_numbers(NUMBERS, classes, first)


def test_colours_of_the_legend():
    labels = np.arange(-1, 199).reshape(20, 10)
    legend = np.asarray(WIDE_PALETTE[:199], np.uint8)
    painted = np.where((labels >= 0)[..., None], legend[labels], 255).astype(np.uint8)
    np.testing.assert_array_equal(from_colors(painted, legend), labels)
    painted[3, 3] = (1, 2, 3)
    found = from_colors(painted, legend)
    assert found[3, 3] == IGNORED and (found == labels).sum() == labels.size - 1
    assert from_colors(painted, legend[:20]) is None and from_colors(np.full_like(painted, 255), legend) is None


def test_another_size_takes_the_nearest_label():
    labels = np.array([[0, 1], [BACKGROUND, IGNORED]])
    np.testing.assert_array_equal(resize_labels(labels, (4, 6)), labels.repeat(2, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(resize_labels(labels.repeat(5, axis=0).repeat(5, axis=1), (2, 2)), labels)


@pytest.fixture
def maps():
    random = np.random.default_rng(0)
    truth = random.integers(-2, 5, (30, 40))
    found = np.where(random.random(truth.shape) < 0.5, truth, random.integers(0, 6, truth.shape)).clip(0)
    return found, truth


def test_a_whole_truth_against_scikit_learn(maps):
    found, truth = maps
    told = agreement(found, truth, 7)
    seen = truth >= 0
    expected = jaccard_score(truth[seen], found[seen], labels=range(6), average=None)
    np.testing.assert_allclose(told.iou[:6], expected)
    assert np.isnan(told.iou[6]) and np.isnan(told.background)
    assert told.mean == pytest.approx(expected.mean())
    assert told.accuracy == pytest.approx(accuracy_score(truth[seen], found[seen]))
    assert told.compared == pytest.approx(seen.mean())
    np.testing.assert_array_equal(told.wrong, seen & (truth != found))


def test_with_a_background_its_pixels_count(maps):
    found, truth = maps
    found = np.where(found == 2, BACKGROUND, found)
    told = agreement(found, truth, 6)
    seen = truth != IGNORED
    expected = jaccard_score(truth[seen], found[seen], labels=[0, 1, 2, 3, 4, 5, -1], average=None)
    np.testing.assert_allclose([*told.iou, told.background], expected)
    assert told.mean == pytest.approx(expected.mean())
    covered = np.where(truth == BACKGROUND, 0, truth)  # nothing is background in truth: it is no class to find
    told = agreement(found, covered, 6)
    assert np.isnan(told.background) and told.mean == pytest.approx(np.nanmean(told.iou))


def test_a_truth_that_marks_two_classes_is_scored_on_these(maps):
    found, truth = maps
    truth = np.where(np.isin(truth, [1, 3]), truth, BACKGROUND)
    told = agreement(found, truth, 6, whole=False)
    for label in range(6):
        if label in (1, 3):
            both, either = (found == label) & (truth == label), (found == label) | (truth == label)
            assert told.iou[label] == pytest.approx(both.sum() / either.sum())
        else:
            assert np.isnan(told.iou[label])
    assert told.mean == pytest.approx((told.iou[1] + told.iou[3]) / 2) and told.compared == 1


def test_nothing_marked_is_nothing_scored():
    told = agreement(np.zeros((3, 3), int), np.full((3, 3), IGNORED), 2)
    assert np.isnan(told.mean) and np.isnan(told.iou).all() and told.compared == 0
