"""Run lengths of masks: against loops from the definition, and strings that pycocotools 2.0.11 wrote.

python -m pytest tests/test_rle.py
"""

import numpy as np
import pytest

from tipsv2.analysis.rle import bounding_box, compress, decode, decompress, encode, run_lengths

DISC = "g27<2N2N2O000000000001N2N2Nn7"


def disc():
    y, x = np.mgrid[:20, :30]
    return (y - 10) ** 2 + (x - 10) ** 2 < 49


def masks():
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(1, 30, 2)
        mask = rng.random((height, width)) < rng.random()
        yield mask
        yield np.kron(mask[:5, :5], np.ones((40, 30))).astype(bool)  # runs that need several letters


def counted(mask):
    """The definition: walk down the columns and count."""
    runs, current = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != current:
                runs.append(0)
                current = not current
            runs[-1] += 1
    return runs


def spelled(counts):
    """The string, from maskApi.c's own words: differences to the count two before from the fourth on, in groups of five
    bits from the lowest, as many as a signed number needs, each plus 48, and plus 32 if more follow.
    """
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        groups = next(n for n in range(1, 13) if -(2 ** (5 * n - 1)) <= value < 2 ** (5 * n - 1))
        for k in range(groups):
            digit = (value % 2 ** (5 * groups)) // 2 ** (5 * k) % 32
            text += chr(48 + digit + (32 if k < groups - 1 else 0))
    return text


@pytest.mark.parametrize(
    "mask, text",
    [
        (np.zeros((3, 4), bool), "<"),
        (np.ones((3, 4), bool), "0<"),
        (np.array([[1, 0], [0, 0]], bool), "013"),
        (np.indices((4, 5)).sum(axis=0) % 2 == 1, "11110O10O10O10O0"),
        (disc(), DISC),
    ],
    ids=["nothing", "everything", "corner", "checks", "disc"],
)
def test_strings_that_pycocotools_wrote(mask, text):
    assert encode(mask) == {"size": list(mask.shape), "counts": text}
    np.testing.assert_array_equal(decode({"size": mask.shape, "counts": text}), mask)


def test_counts_and_strings_are_the_definitions_and_come_back():
    for mask in masks():
        counts = counted(mask)
        assert run_lengths(mask) == counts
        assert compress(counts) == spelled(counts)
        assert decompress(spelled(counts)) == counts
        for form in (counts, spelled(counts)):
            found = decode({"size": list(mask.shape), "counts": form})
            assert found.dtype == bool
            np.testing.assert_array_equal(found, mask)


def test_the_box_is_the_smallest_that_holds_the_mask():
    assert bounding_box(np.zeros((3, 4), bool)) == [0, 0, 0, 0]
    for mask in masks():
        ys, xs = np.nonzero(mask)
        if len(ys):
            expected = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert bounding_box(mask) == expected


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (lambda: encode(np.zeros((2, 3))), "must be bool"),
        (lambda: encode(np.zeros((2, 3, 3), bool)), "must be bool"),
        (lambda: decode({"size": [2, 2], "counts": [1, 2]}), "add up to 2 x 2"),
        (lambda: decode({"size": [2, 2], "counts": [5, -1]}), "add up to 2 x 2"),
        (lambda: decompress("0 "), "letter ' '"),
        (lambda: decompress("0p"), "letter 'p'"),
        (lambda: decompress("g"), "break off"),
    ],
)
def test_what_is_no_mask_is_a_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong()
