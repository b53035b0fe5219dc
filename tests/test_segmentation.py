"""tipsv2.analysis.segmentation against a per-pixel loop, and on features with a known answer.

python -m pytest tests/test_segmentation.py
"""

import itertools

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from tipsv2.analysis import segmentation
from tipsv2.analysis.heatmap import to_pixels
from tipsv2.analysis.render import PALETTE, WIDE_PALETTE
from tipsv2.analysis.segmentation import BACKGROUND, class_shares, label, label_map, segment
from tipsv2.network.view import ImageFeatures, View, windowed

AXES = {"red": 0, "green": 1, "blue": 2, "wall": 3}


class Colours:
    """Patches: red, green / blue, wall; the last layer sees red everywhere. A text is the axis of its name."""

    def look(self, image, view=None, layer=None):
        grid = torch.eye(4).reshape(2, 2, 4) * 3
        return ImageFeatures(None, None, grid[:1, :1].expand(2, 2, 4), grid, (40, 40))

    def encode_text(self, texts, templates="none"):
        self.templates = templates
        return torch.eye(4)[[AXES[text] for text in texts]]


def quarters(labels) -> list[int]:
    return [int(labels[row, col]) for row, col in ((5, 5), (5, 35), (35, 5), (35, 35))]


@pytest.mark.parametrize("background", [None, 0.2])
@pytest.mark.parametrize("block", [1, 8, 1000])
def test_label_map_equals_a_loop(monkeypatch, background, block):
    monkeypatch.setattr(segmentation, "BLOCK", block)
    similarities = torch.randn(11, 3, 4, generator=torch.Generator().manual_seed(0)) * 0.2
    labels, scores = label_map(similarities, (31, 45), background)
    assert labels.dtype == torch.int64 and labels.shape == scores.shape == (31, 45)
    full = to_pixels(similarities, (31, 45))
    for row in range(31):
        for col in range(45):
            column = full[:, row, col].tolist()
            best = max(range(11), key=column.__getitem__)
            expected = BACKGROUND if background is not None and column[best] < background else best
            assert labels[row, col] == expected and scores[row, col] == pytest.approx(column[best])
    if background:
        assert 0 < (labels == BACKGROUND).float().mean() < 1


def test_of_equals_the_first_wins():
    labels, _ = label_map(torch.ones(3, 2, 2), (4, 4))
    assert (labels == 0).all()


def test_every_pixel_gets_a_class():
    encoder = Colours()
    found = segment(encoder, None, ["red", "green", "blue", "wall"])
    assert quarters(found.labels) == [0, 1, 2, 3] and found.classes == ("red", "green", "blue", "wall")
    assert found.labels.dtype == np.int64 and found.scores.dtype == np.float32
    assert found.labels.shape == found.scores.shape == (40, 40)
    assert sum(found.shares.values()) == pytest.approx(1) and list(found.shares) == list(found.classes)
    for index, name in enumerate(found.classes):
        assert found.shares[name] == pytest.approx((found.labels == index).mean())
    assert encoder.templates == "tips9"


def test_background_below_a_cosine():
    found = segment(Colours(), None, ["red", "green"], background=0.5)
    assert quarters(found.labels) == [0, 1, BACKGROUND, BACKGROUND]
    assert (
        found.shares["background"] == pytest.approx((found.labels == BACKGROUND).mean())
        and found.shares["background"] > 0.4
    )
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (segment(Colours(), None, ["red"], background=2).labels == BACKGROUND).all()


def test_background_words_compete_and_become_one():
    found = segment(Colours(), None, ["red", " green "], background=["blue", "wall"])
    assert quarters(found.labels) == [0, 1, BACKGROUND, BACKGROUND] and set(found.shares) == {
        "red",
        "green",
        "background",
    }
    assert found.scores[35, 35] > 0.9


def test_features_are_a_choice():
    assert (segment(Colours(), None, ["green", "red"], features="final").labels == 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": []}, "at least one class"),
        ({"classes": "red,green"}, "list of words"),
        ({"classes": ["red", "red "]}, "'red' is listed twice"),
        ({"classes": ["red"], "background": ["red"]}, "'red' is listed twice"),
        ({"classes": ["red"], "background": "wall"}, "list of words"),
        ({"classes": ["background"], "background": 0.1}, "background"),
        ({"classes": ["red", " | "]}, "has no words"),
        ({"classes": ["red"], "features": "middle"}, "values or final"),
    ],
)
def test_sentences(options, words):
    with pytest.raises(ValueError, match=words):
        segment(Colours(), None, **options)


def test_with_a_real_encoder(tiny_encoder):
    image = np.random.default_rng(0).integers(0, 256, (33, 70, 3), dtype=np.uint8)
    found = segment(tiny_encoder, image, ["dog", "grass", "sky"], background=["photo"])
    assert found.labels.shape == (33, 70) and set(np.unique(found.labels)) <= {-1, 0, 1, 2}
    with pytest.raises(ValueError, match="empty"):
        segment(tiny_encoder, image, ["dog", "  "])


def test_labels_and_shares_equal_a_loop():
    generator = torch.Generator().manual_seed(1)
    grid, text = torch.randn(3, 4, 16, generator=generator), torch.randn(9, 16, generator=generator)
    features = ImageFeatures(None, None, None, grid, (31, 45))
    found = label(features, text, classes=7, threshold=0.1)  # the last two are background words
    labels, scores = found.labels.numpy(), found.scores.numpy()
    assert labels.min() == BACKGROUND and labels.max() < 7
    shares, means = class_shares(labels, scores, 7)
    cosines = torch.nn.functional.cosine_similarity(grid[None], text[:, None, None], dim=-1)
    full = to_pixels(cosines, (31, 45)).numpy()
    best = np.where((full.max(axis=0) >= 0.1) & (full.argmax(axis=0) < 7), full.argmax(axis=0), BACKGROUND)
    np.testing.assert_array_equal(labels, best)
    for index in range(7):
        own = labels == index
        assert shares[index] == pytest.approx(own.mean())
        assert means[index] == pytest.approx(full[index][own].mean()) if own.any() else np.isnan(means[index])
        assert found.peaks[index].item() == pytest.approx(cosines[index].max().item())
    assert np.isfinite(means).any() and shares.sum() < 1 and len(found.peaks) == 7
    assert np.isnan(class_shares(np.full((4, 4), BACKGROUND), np.zeros((4, 4)), 7)[1]).all()
    there = torch.tensor([True] * 3 + [False] * 4)
    some = label(features, text, classes=7, there=there)
    expected = full[[0, 1, 2, 7, 8]].argmax(axis=0)
    np.testing.assert_array_equal(some.labels, np.where(expected < 3, expected, BACKGROUND))
    assert torch.equal(some.peaks, found.peaks)  # who may not win still has one


@pytest.mark.parametrize("windows", [False, True])
def test_a_class_has_the_nearest_of_its_words_in_every_view(tiny_encoder, windows):
    image = np.random.default_rng(0).integers(0, 256, (60, 130, 3), dtype=np.uint8)
    view = windowed(tiny_encoder, 60, "bicubic") if windows else View(60, resample="bicubic")
    features = tiny_encoder.look(image, view)
    text = tiny_encoder.encode_text(["dog", "cat", "grass"])
    both = label(features, text, owners=torch.tensor([0, 0, 1]))
    apart = label(features, text)
    assert both.peaks.tolist() == [apart.peaks[:2].max(), apart.peaks[2]]
    assert set(both.labels.unique().tolist()) == {0, 1}
    sure = (apart.labels == 2) != (both.labels == 1)  # of two words for it a class gets a little more
    assert sure.float().mean() < 0.2 and not ((both.labels == 1) & (apart.labels != 2)).float().mean() > 0.02


def test_segment_tells_means_and_peaks():
    found = segment(Colours(), None, ["red", "green", "wall"], background=["blue"])
    assert list(found.means) == list(found.peaks) == ["red", "green", "wall"]
    assert found.peaks["wall"] == pytest.approx(1)
    assert found.means["wall"] == pytest.approx(found.scores[found.labels == 2].mean())
    assert np.isnan(segment(Colours(), None, ["red"], background=2).means["red"])


def test_layers_and_windows(tiny_encoder):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    names = ["dog", "grass", "sky", "cat", "snow"]

    def labels(**options):
        return segment(tiny_encoder, image, names, resolution=112, resample="bilinear", **options).labels

    layers = tiny_encoder.encode_layers(image, [1, 3], 112)
    for number, features in ((1, "values"), (3, "final")):
        expected = label(layers[number], tiny_encoder.encode_text(names, "tips9"), features).labels
        np.testing.assert_array_equal(labels(layer=number, features=features), expected)
    np.testing.assert_array_equal(labels(), labels(layer=3))
    assert (labels() != labels(windows=True)).any() and (labels() != labels(layer=1)).any()
    with pytest.raises(ValueError, match="last layer only"):
        labels(layer=1, windows=True)
    with pytest.raises(ValueError, match="layers of this encoder are 1 to 3"):
        labels(layer=9)


def test_the_wide_palette_is_distinct():
    assert WIDE_PALETTE[: len(PALETTE)] == PALETTE and len(set(WIDE_PALETTE)) == 200
    lab = rgb2lab(np.array(WIDE_PALETTE)[None] / 255)[0]
    pairs = np.array(list(itertools.combinations(range(200), 2)))
    assert deltaE_ciede2000(lab[pairs[:, 0]], lab[pairs[:, 1]]).min() > 7.9  # 2.3 is just noticeable
