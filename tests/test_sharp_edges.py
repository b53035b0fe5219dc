"""Sharp edges: a made-up picture whose edges are known, and the means of its stretches against a loop.

python -m pytest tests/test_sharp_edges.py
"""

import numpy as np
import pytest
import torch
from PIL import Image

from tipsv2.analysis.heatmap import to_pixels
from tipsv2.analysis.segmentation import label, label_map
from tipsv2.analysis.sharp_edges import sharp_label_map, superpixels
from tipsv2.network.view import ImageFeatures


@pytest.fixture
def wavy():
    """A picture 90 x 60 of two colours with a wavy edge, where they are, and 4 x 6 patches that know their share."""
    across = np.arange(90)[None] < 45 + 9 * np.sin(np.arange(60)[:, None] / 3.5)
    picture = np.where(across[..., None], (200, 60, 40), (30, 90, 160)).astype(np.uint8)
    share = torch.from_numpy(across.astype(np.float32)).reshape(4, 15, 6, 15).mean(dim=(1, 3))
    return Image.fromarray(picture), across, torch.stack([share, 1 - share])


def test_edges_are_the_pictures(wavy):
    picture, left, maps = wavy
    segments = superpixels(picture, (4, 6), 14)
    assert segments.shape == (56, 84)  # as the network saw it
    found, scores = sharp_label_map(maps, segments, (60, 90))
    plain, _ = label_map(maps, (60, 90))
    wrong = ((found == 0).numpy() != left).mean(), ((plain == 0).numpy() != left).mean()
    assert wrong[0] < 0.5 * wrong[1], wrong
    assert found.dtype == torch.int64 and scores.dtype == torch.float32 and found.shape == scores.shape == (60, 90)


def test_a_stretch_has_the_class_of_its_mean():
    rng = np.random.default_rng(0)
    segments = rng.integers(0, 5, (12, 18))
    maps = torch.from_numpy(rng.normal(size=(7, 4, 6)).astype(np.float32))
    full = to_pixels(maps, (12, 18)).numpy()
    labels, scores = sharp_label_map(maps, segments, (24, 36), 0.0)
    for stretch in range(5):
        means = [full[number][segments == stretch].mean() for number in range(7)]
        inside = np.repeat(np.repeat(segments == stretch, 2, axis=0), 2, axis=1)
        expected = int(np.argmax(means)) if max(means) >= 0 else -1
        assert set(labels.numpy()[inside].tolist()) == {expected}
        np.testing.assert_allclose(scores.numpy()[inside], max(means), atol=1e-5)


def test_background_words_and_small_pictures(wavy):
    picture, left, maps = wavy
    small = picture.resize((30, 20), Image.Resampling.NEAREST)
    segments = superpixels(small, (4, 6), 14)
    assert segments.shape == (20, 30)
    rows = torch.eye(2)  # a patch's cosines with them are its two numbers, over its length
    features = ImageFeatures(None, None, None, maps.permute(1, 2, 0), (60, 90))
    labels = label(features, rows, classes=1, segments=segments).labels.numpy()
    assert set(np.unique(labels)) == {-1, 0} and ((labels == 0) != left).mean() < 0.03
