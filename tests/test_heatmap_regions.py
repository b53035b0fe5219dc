"""tipsv2.analysis.regions against scipy, a flood fill and filled outlines.

python -m pytest tests/test_heatmap_regions.py
"""

import numpy as np
import pytest
from skimage.draw import polygon2mask

from tipsv2.analysis.regions import at_share, find_regions, outlines


def flood(mask):
    """Connected parts of a mask by hand, corners touching: sets of (row, column)."""
    left, parts = {tuple(each) for each in np.argwhere(mask).tolist()}, []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            part.add((row, column))
            near = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= near
            edge += near
        parts.append(part)
    return parts


@pytest.fixture
def values():
    coarse = np.random.default_rng(3).random((12, 15))
    return np.kron(coarse, np.ones((3, 3))).astype(np.float32)


def test_parts_are_those_of_a_flood_fill(values):
    found = find_regions(values, 0.75)
    np.testing.assert_array_equal(found.mask, values >= 0.75)
    assert found.share == pytest.approx((values >= 0.75).mean())
    expected = set()
    for part in flood(values >= 0.75):
        rows, columns = zip(*part, strict=True)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        expected.add((box, len(part), float(max(values[place] for place in part))))
    assert len(expected) > 3 and {(part.box, part.area, part.peak) for part in found.parts} == expected
    areas = [part.area for part in found.parts]
    assert areas == sorted(areas, reverse=True)


def test_small_parts_are_left_out_of_the_mask_too(values):
    whole, large = find_regions(values, 0.75), find_regions(values, 0.75, smallest=20 / values.size)
    assert large.parts == tuple(part for part in whole.parts if part.area >= 20) != whole.parts
    assert large.mask.sum() == sum(part.area for part in large.parts)


def test_shares_of_the_range(values):
    for share in (0, 0.3, 1):
        expected = values.min() + share * (values.max() - values.min())
        assert at_share(values, share) == pytest.approx(expected)
    assert find_regions(values, at_share(values, 0)).share == 1
    assert find_regions(values, at_share(values, 1)).parts[0].peak == values.max()
    assert find_regions(values, 2).parts == () and find_regions(values, 2).share == 0
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            at_share(values, share)
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        find_regions(values[None], 0.5)


def test_outlines_enclose_the_mask():
    """Oracle: the lines filled again, a hole being a line within a line."""
    mask = np.zeros((40, 60), bool)
    mask[5:30, 10:50] = True
    mask[12:20, 20:30] = False
    mask[35:, 50:] = True  # at the corner of the picture
    lines = outlines(mask)
    assert len(lines) == 3 and all((line[0] == line[-1]).all() for line in lines)
    filled = sum(polygon2mask(mask.shape, line[:, ::-1] - 0.5).astype(int) for line in lines) % 2 == 1
    assert (filled != mask).mean() < 0.02
    corner = max(lines, key=lambda line: line.sum(axis=1).max())
    assert corner.max(axis=0) == pytest.approx([60, 40], abs=0.75)
    assert outlines(np.zeros((4, 4), bool)) == []
