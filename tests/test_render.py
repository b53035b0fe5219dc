"""tipsv2.analysis.render: colours, blending, the palette's promises, legends.

python -m pytest tests/test_render.py
"""

import itertools

import matplotlib
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from tipsv2.analysis.render import (
    COLORMAPS,
    PALETTE,
    beside,
    color_bar,
    colorize,
    headed,
    label_colors,
    legend,
    overlay,
    paint_labels,
    paint_normals,
    ticks,
)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_colorize_equals_matplotlib(colormap):
    values = np.linspace(-3, 5, 60).reshape(6, 10)
    found = colorize(values, colormap)
    expected = matplotlib.colormaps[colormap]((values + 3) / 8)[..., :3] * 255
    assert found.shape == (6, 10, 3) and found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 7  # one step of the table's 256


def test_colorize_ranges():
    grey = colorize(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]]), "gray", low=0, high=1)[0, :, 0]
    assert grey.tolist() == [0, 0, 128, 255, 255]
    assert colorize(np.array([[np.nan, 1.0, 2.0, np.inf, -np.inf]]), "gray")[0, :, 0].tolist() == [0, 0, 255, 255, 0]
    assert (colorize(np.full((2, 2), 7.0), "gray") == 0).all() and (
        colorize(np.full((2, 2), np.nan), "gray") == 0
    ).all()
    assert (colorize(np.array([[1, 3]]), "gray")[0, :, 0] == [0, 255]).all()
    with pytest.raises(ValueError, match="colormap 'rainbow7'"):
        colorize(np.zeros((2, 2)), "rainbow7")


def test_overlay_blends():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = np.eye(4)
    colors = colorize(values, "magma")
    assert (overlay(image, values, "magma", opacity=0) == image).all()
    assert (overlay(image, values, "magma", opacity=1) == colors).all()
    half = overlay(image, values, "magma", opacity=0.5)
    assert np.abs(half - (image / 2 + colors / 2)).max() <= 0.5 + 1e-6 and half.dtype == np.uint8
    assert (overlay(image, values, low=0, high=2) != overlay(image, values)).any()
    for opacity in (-0.1, 1.1):
        with pytest.raises(ValueError, match="opacity"):
            overlay(image, values, opacity=opacity)
    with pytest.raises(ValueError, match="same pixels"):
        overlay(image, np.zeros((4, 5)))


def test_paint_labels():
    image = np.full((2, 3, 3), 200, np.uint8)
    labels = np.array([[0, 1, -1], [2, len(PALETTE), -1]])
    found = paint_labels(image, labels, opacity=1)
    assert found[0, 0].tolist() == list(PALETTE[0]) and found[1, 0].tolist() == list(PALETTE[2])
    assert found[1, 1].tolist() == list(PALETTE[0])  # around again
    assert (found[:, 2] == 200).all()  # background is untouched
    assert (
        np.abs(paint_labels(image, labels, opacity=0.25)[0, 0] - (0.75 * 200 + 0.25 * np.array(PALETTE[0]))).max()
        <= 0.5
    )
    assert paint_labels(image, labels, colors=[(1, 2, 3)], opacity=1)[1, 0].tolist() == [1, 2, 3]


def test_palette_is_distinct():
    assert len(set(PALETTE)) == len(PALETTE) >= 40
    assert all(isinstance(channel, int) and 0 <= channel <= 255 for color in PALETTE for channel in color)
    lab = rgb2lab(np.array(PALETTE)[None] / 255)[0]
    pairs = np.array(list(itertools.combinations(range(len(PALETTE)), 2)))
    assert deltaE_ciede2000(lab[pairs[:, 0]], lab[pairs[:, 1]]).min() > 12  # 2.3 is just noticeable


def test_first_eight_are_okabe_and_itos():
    """As printed in their table (jfly.uni-koeln.de/color): black last, since it hides a picture."""
    table = {(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)}
    assert set(PALETTE[:8]) == table | {(204, 121, 167)}


def test_legend_shows_each_colour_and_some_writing():
    found = legend(["dog", "grass", "Gras, трава, عشب"], shares=[0.5, 0.25, 0.25])
    assert found.dtype == np.uint8 and found.shape[2] == 3
    rows = np.array_split(found, 3)
    for row, color in zip(rows, PALETTE, strict=False):
        assert (row == color).all(axis=2).sum() > 100
        assert (row.max(axis=2) < 60).sum() > 20  # black letters
    assert (rows[0] != rows[1]).any()
    assert legend(["dog"]).shape[1] < legend(["a very long name of a dog"]).shape[1]
    assert legend(["dog"], width=300).shape[1] == 300
    assert legend([]).size > 0
    with pytest.raises(ValueError):
        legend(["dog"], shares=[0.5, 0.5])


def test_the_same_input_gives_the_same_bytes():
    values = np.random.default_rng(0).random((20, 20))
    image = np.zeros((20, 20, 3), np.uint8)
    assert overlay(image, values).tobytes() == overlay(image, values).tobytes()
    assert legend(["dog"]).tobytes() == legend(["dog"]).tobytes()


def test_label_colors_are_the_palette_where_no_two_meet():
    labels = np.array([[0, 5, 5], [2, -1, 5]])
    assert label_colors(labels) == [PALETTE[index] for index in range(6)]
    assert label_colors(np.full((2, 2), -1)) == []


def test_labels_in_one_picture_do_not_share_a_colour():
    colors = [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    # 0, 3 and 6 would all have the first colour; 3 is the most frequent; 1 has the second; so one is left over.
    found = label_colors(np.array([3, 3, 3, 0, 0, 6, 1]), colors)
    assert found[3] == (1, 1, 1) and found[1] == (2, 2, 2) and found[0] == (3, 3, 3)
    assert found[6] == (1, 1, 1)  # no colour is left: as it was
    everything = np.repeat(np.arange(150), np.arange(1, 151))
    used = label_colors(everything)
    assert len(used) == 150 and set(used) == set(PALETTE)
    few = label_colors(np.arange(150)[::4])  # 38 labels up to 148, of which many meet at 48 colours
    assert len({few[label] for label in range(0, 150, 4)}) == 38


def test_paint_normals():
    axes = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, 1]], [[0, 0.96, -0.28], [0, 0, 0], [np.nan, 0, 2]]], np.float32)
    assert paint_normals(axes).tolist() == [
        [[255, 128, 128], [128, 0, 128], [128, 128, 255]],
        [[128, 250, 92], [128, 128, 128], [128, 128, 255]],
    ]


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 6, [0, 2, 4, 6, 8, 10]),
        (0.746, 2.73, 5, [1, 1.5, 2, 2.5]),
        (0.001, 10, 3, [5, 10]),
        (-1, 1, 5, [-1, -0.5, 0, 0.5, 1]),
        (0.1, 0.3, 5, [0.1, 0.15, 0.2, 0.25, 0.3]),
        (7, 7, 5, [7]),
    ],
)
def test_ticks(low, high, count, expected):
    assert ticks(low, high, count) == pytest.approx(expected)


def test_ticks_are_round_and_inside():
    random = np.random.default_rng(0)
    for low, width in zip(random.normal(size=200) * 50, 10 ** random.uniform(-3, 4, 200), strict=True):
        found = np.array(ticks(low, low + width, 6))
        assert 2 <= len(found) <= 6 and (found >= low - 1e-6 * width).all() and (found <= low + 1.000001 * width).all()
        step = np.diff(found)[0]
        assert np.allclose(np.diff(found), step) and np.allclose(found / step, np.round(found / step), atol=1e-6)
        assert any(np.isclose(step / 10 ** np.floor(np.log10(step) + 1e-9), good) for good in (1, 2, 2.5, 5))
    for low, high in ((1, 0), (np.nan, 1), (0, np.inf)):
        with pytest.raises(ValueError, match="scale"):
            ticks(low, high)


def test_color_bar_has_the_colours_from_low_to_high_and_a_mark_at_each_tick():
    bar = color_bar(0, 10, 301, "viridis", unit="m")
    assert bar.dtype == np.uint8 and bar.shape[0] == 301
    column = colorize(np.linspace(0, 10, 301)[:, None], "viridis", 0, 10)[::-1, 0]
    assert (bar[:, 12] == column).all()  # greatest at the top
    marks = np.flatnonzero((bar[:, 8 + 16 + 2] == 0).all(axis=1))
    assert marks.tolist() == [300 - 30 * value for value in (10, 8, 6, 4, 2, 0)]
    assert (bar[:, 40:].max(axis=2) < 60).sum() > 100  # writing
    assert color_bar(0, 10, 301, unit="metres").shape[1] > bar.shape[1]
    assert color_bar(3, 3, 1).shape[0] == 1 and color_bar(3, 3, 50).shape[0] == 50


def test_beside():
    tall, wide = np.full((5, 2, 3), 10, np.uint8), np.full((3, 4, 3), 20, np.uint8)
    found = beside([tall, wide], gap=3)
    assert found.shape == (5, 9, 3) and found.dtype == np.uint8
    assert (found[:, :2] == 10).all() and (found[:3, 5:] == 20).all()
    assert (found[:, 2:5] == 255).all() and (found[3:, 5:] == 255).all()
    assert (beside([tall]) == tall).all()


def test_headed_puts_the_title_above_and_cuts_it():
    blue = np.full((30, 90, 3), (0, 0, 200), np.uint8)
    short, long = headed(blue, "a dog", 10), headed(blue, "a dog " * 40, 10)
    for found in (short, long, headed(blue[:, :3], "a dog", 10)):
        assert found.shape == (50, found.shape[1], 3) and (found[20:] == blue[0, 0]).all()
        assert (found[:20, [0, -1]] == 255).all()
    ends = [np.flatnonzero((found[:20] < 128).any((0, 2)))[-1] for found in (short, long)]
    assert 20 < ends[0] < 50 < 75 < ends[1] < 90
