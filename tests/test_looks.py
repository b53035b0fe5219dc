"""Drawings in other looks: the same thing in the same place, other colours, shades and proportions."""

import colorsys
import random

import numpy as np
import pytest

from tipsv2 import scenes
from tipsv2.scenes.looks import Look, random_look, recolour
from tipsv2.scenes.scene import _stamp

PLAIN = Look(hue=0.0, saturation=1.0, levels=0, stretch=1.0, shear=0.0)


@pytest.fixture(scope="module")
def stamp():
    return _stamp("fluent", 40, 0, 60, 0.3, False)


def test_a_plain_look_changes_nothing(stamp):
    assert np.abs(recolour(stamp, PLAIN) - stamp).max() < 0.01
    same = _stamp("fluent", 40, 0, 60, 0.0, False, PLAIN)
    assert same.shape == (60, 60, 4)
    assert np.abs(same - _stamp("fluent", 40, 0, 60, 0.0, False)).max() < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_greys_stay_grey_and_equally_bright(seed):
    look = random_look(random.Random(seed))
    for grey in (0.0, 0.5, 1.0):
        assert look.colours() @ ([grey] * 3) == pytest.approx([grey] * 3, abs=1e-9)


def test_a_third_of_a_turn_makes_red_green():
    assert Look(2 * np.pi / 3, 1.0, 0, 1.0, 0.0).colours() @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-9)


def test_no_saturation_is_the_luminance():
    colour = np.array([0.9, 0.2, 0.4])
    expected = colorsys.rgb_to_yiq(*colour)[0]  # Y
    assert Look(0.0, 0.0, 0, 1.0, 0.0).colours() @ colour == pytest.approx([expected] * 3, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_recoloured_drawings_stay_premultiplied_colours_with_their_alpha(stamp, seed):
    found = recolour(stamp, random_look(random.Random(seed)))
    assert found.dtype == np.float32 and np.array_equal(found[..., 3], stamp[..., 3])
    assert found.min() >= 0 and (found[..., :3] <= found[..., 3:] + 1e-3).all()


def test_levels_flatten_the_shades(stamp):
    solid = stamp[..., 3] == 255
    shades = recolour(stamp, Look(0.0, 1.0, 4, 1.0, 0.0))[solid][:, 0]
    assert len(np.unique(stamp[solid][:, 0].round())) > 20
    assert set((shades * 4 / 255).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize("stretch, shear", [(1.4, 0.0), (0.7, 0.2), (1.0, -0.2)])
def test_proportions_change_and_the_area_stays(stretch, shear):
    look = Look(0.0, 1.0, 0, stretch, shear)
    plain, other = (_stamp("noto", 100, 0, 100, 0.0, False, chosen)[..., 3] / 255 for chosen in (None, look))
    assert other.sum() == pytest.approx(plain.sum(), rel=0.03)
    assert not other[[0, -1]].any() and not other[:, [0, -1]].any(), "nothing is cut off"
    spans = [np.ptp(np.flatnonzero(x.any(axis=1))) for x in (plain, other)]
    assert spans[1] / spans[0] == pytest.approx(1 / np.sqrt(stretch), rel=0.05)


def test_a_restyled_scene_has_the_same_things_in_the_same_places():
    for seed in range(8):
        plain, other, again = (scenes.draw(seed, 112, restyle=share) for share in (0.0, 1.0, 1.0))
        assert np.array_equal(other.image, again.image) and not np.array_equal(plain.image, other.image)
        assert [(o.noun, o.style, o.center, o.side) for o in plain.objects] == [
            (o.noun, o.style, o.center, o.side) for o in other.objects
        ]
        assert plain.regions == other.regions
        assert (plain.labels == other.labels).mean() > 0.85
