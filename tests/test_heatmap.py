"""tipsv2.analysis.heatmap against loops and scikit-image, and on features with a known answer.

python -m pytest tests/test_heatmap.py
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import resize

from tipsv2.analysis.heatmap import (
    compete,
    heatmap,
    maps,
    mean_of_windows,
    patch_maps,
    patch_similarity,
    peak,
    pick_features,
    similarity,
    to_pixels,
)
from tipsv2.network.view import ImageFeatures, View, windowed


def cosine(a, b) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b)
    )


@pytest.fixture
def patches():
    return torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def test_similarity_is_the_cosine(patches, text):
    found = similarity(patches * 7, text * 0.1)
    assert found.shape == (5, 3, 4)
    for n in range(5):
        for row in range(3):
            for col in range(4):
                assert found[n, row, col] == pytest.approx(cosine(patches[row, col], text[n]), abs=1e-6)


def test_compete_is_a_softmax_over_queries(patches, text):
    found = compete(similarity(patches, text), temperature=0.1)
    assert torch.allclose(found.sum(dim=0), torch.ones(3, 4))
    exps = [math.exp(cosine(patches[2, 1], text[n]) / 0.1) for n in range(5)]
    assert found[:, 2, 1].tolist() == pytest.approx([value / sum(exps) for value in exps], abs=1e-5)
    assert (
        compete(similarity(patches, text), 1e-3).max(dim=0).values > compete(similarity(patches, text), 1).max()
    ).all()
    for temperature in (0, -1):
        with pytest.raises(ValueError, match="temperature"):
            compete(torch.zeros(2, 1, 1), temperature)


def test_patch_similarity(patches, text):
    found = patch_similarity(patches, 1, 2)
    assert found.shape == (3, 4) and found[1, 2] == pytest.approx(1)
    assert found[0, 3] == pytest.approx(cosine(patches[1, 2], patches[0, 3]), abs=1e-6)
    other = torch.randn(2, 6, 8)
    across = patch_similarity(patches, 1, 2, other)
    assert across.shape == (2, 6) and across[1, 5] == pytest.approx(cosine(patches[1, 2], other[1, 5]), abs=1e-6)
    for row, col in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(ValueError, match="outside the grid of 3 rows and 4 columns"):
            patch_similarity(patches, row, col)


def test_to_pixels_equals_scikit_image():
    """Oracle: bilinear interpolation between pixel centres with the edge repeated, which is align_corners=False."""
    maps = torch.rand(2, 3, 5)
    found = to_pixels(maps, (21, 60))
    assert found.shape == (2, 21, 60) and found.dtype == torch.float32
    for n in range(2):
        expected = resize(maps[n].numpy(), (21, 60), order=1, mode="edge", anti_aliasing=False)
        assert np.abs(found[n].numpy() - expected).max() < 1e-5
    assert torch.equal(to_pixels(maps, (3, 5)), maps)


def test_pick_features():
    found = SimpleNamespace(values="v", patches="p")
    assert (pick_features(found, "values"), pick_features(found, "final")) == ("v", "p")
    with pytest.raises(ValueError, match="values or final"):
        pick_features(found, "last")


@pytest.mark.parametrize("features", ["values", "final"])
@pytest.mark.parametrize("mode", ["cosine", "competing"])
def test_heatmap_is_the_exact_functions_in_a_row(tiny_encoder, features, mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    found = heatmap(tiny_encoder, image, ["dog", "grass"], mode, features, "tips9", resolution=42, temperature=0.2)
    assert found.dtype == np.float32 and found.shape == (2, 50, 90)
    encoded = tiny_encoder.encode_image(image, 42)
    grid = encoded.values if features == "values" else encoded.patches
    assert grid.shape[:2] == (3, 5)
    maps = similarity(grid, tiny_encoder.encode_text(["dog", "grass"], "tips9"))
    maps = torch.softmax(maps / 0.2, dim=0) if mode == "competing" else maps
    assert np.allclose(found, to_pixels(maps, (50, 90)).numpy(), atol=1e-6)
    assert found.max() <= 1.00001 and found.min() >= (0 if mode == "competing" else -1.00001)


def test_one_look_answers_every_question(tiny_encoder):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    features = tiny_encoder.look(image, View(42))
    text = tiny_encoder.encode_text(["dog", "grass", "sky"])
    assert np.array_equal(
        maps(features, text).numpy(), heatmap(tiny_encoder, image, ["dog", "grass", "sky"], resolution=42)
    )
    competing = heatmap(tiny_encoder, image, ["dog"], "competing", "final", resolution=42, distractors=["grass", "sky"])
    assert np.array_equal(maps(features, text, "final", 0.05, count=1).numpy(), competing)
    assert maps(features, text, size=(7, 11)).shape == (3, 7, 11)
    layer = tiny_encoder.look(image, View(42), layer=2)
    assert np.array_equal(
        maps(layer, text[:1], "final").numpy(), heatmap(tiny_encoder, image, ["dog"], features=2, resolution=42)
    )


def test_maps_of_windows_apart_are_their_mean(tiny_encoder):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 130, 3), dtype=np.uint8))
    features = tiny_encoder.look(image, windowed(tiny_encoder, 60, "bicubic"))
    text = tiny_encoder.encode_text(["dog", "grass"])
    cosines = patch_maps(features, text)
    assert cosines.shape[:2] == (len(features.windows.corners), 2) and len(cosines) > 3
    total, seen = torch.zeros(2, 60, 130), torch.zeros(60, 130)
    for grid, (top, left) in zip(cosines, features.windows.corners, strict=True):
        total[:, top : top + 56, left : left + 56] += to_pixels(grid, (56, 56))
        seen[top : top + 56, left : left + 56] += 1
    torch.testing.assert_close(maps(features, text), total / seen)
    assert torch.equal(
        mean_of_windows(cosines, features.windows, 10, 20), mean_of_windows(cosines, features.windows)[:, 10:20]
    )
    shares = maps(features, text, temperature=0.1)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(60, 130))


def test_a_peak_is_a_patch_whatever_the_size_of_the_map():
    """Of 3 x 4 patches drawn at 50 x 70 pixels no pixel lies on a patch's middle: the map's highest pixel is lower."""
    grid = torch.zeros(3, 4)
    grid[1, 2] = 0.562
    top = peak(grid)
    assert (top.score, top.row, top.column) == (pytest.approx(0.562), 1, 2) == (peak(grid.numpy()).score, 1, 2)
    assert to_pixels(grid[None], (50, 70)).max() < 0.562
    x, y = top.at((50, 70))
    assert (x, y) == (43, 25) and to_pixels(grid[None], (50, 70))[0].argmax() // 70 in (24, 25)


def test_a_known_answer():
    """An encoder that sees red in the left half and blue in the right, and words for both."""

    class Colours:
        def look(self, image, view=None, layer=None):
            grid = torch.zeros(4, 6, 2)
            grid[:, :3, 0] = grid[:, 3:, 1] = 5
            return ImageFeatures(None, None, grid.flip(1), grid, (40, 60))

        def encode_text(self, texts, templates="none"):
            return torch.stack(
                [torch.tensor([1.0, 0.0]) if text == "red" else torch.tensor([0.0, 1.0]) for text in texts]
            )

    red, blue = heatmap(Colours(), "picture", ["red", "blue"])
    assert red[:, :25].min() > 0.99 and red[:, 35:].max() < 0.01 and np.allclose(red + blue, 1)
    red, _ = heatmap(Colours(), "picture", ["red", "blue"], features="final")
    assert red[:, :25].max() < 0.01
    red, _ = heatmap(Colours(), "picture", ["red", "blue"], mode="competing", temperature=1.0)
    assert red[0, 0] == pytest.approx(math.e / (math.e + 1), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "loud"}, "cosine or competing"),
        ({"features": "middle"}, "values or final"),
        ({"templates": "clip7"}, "templates"),
        ({"queries": []}, "at least one phrase"),
        ({"queries": ["dog"], "mode": "competing"}, "at least two"),
        ({"queries": "dog"}, "list"),
        ({"queries": ["dog", " "]}, "empty"),
        ({"temperature": 0, "mode": "competing"}, "temperature"),
    ],
)
def test_sentences(tiny_encoder, options, words):
    with pytest.raises(ValueError, match=words):
        heatmap(tiny_encoder, np.zeros((20, 20, 3), np.uint8), **({"queries": ["dog", "cat"]} | options))
