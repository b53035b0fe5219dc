"""tipsv2.render: colours, blending, the palette's promises, legends.

python -m pytest tests/test_render.py
"""

import itertools

import matplotlib
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from tipsv2.render import COLORMAPS, PALETTE, colorize, legend, overlay, paint_labels


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
