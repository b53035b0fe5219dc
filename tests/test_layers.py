"""tipsv2.analysis.layers: CKA against explicit centring matrices, Song's formula and closed forms; scores of every
layer.

python -m pytest tests/test_layers.py
"""

import numpy as np
import pytest
import torch
from conftest import make_model
from PIL import Image
from sklearn.metrics import roc_auc_score

from tipsv2.analysis.heatmap import heatmap
from tipsv2.analysis.layers import layer_cka, layer_scores, linear_cka
from tipsv2.images import ImageError
from tipsv2.network.encoder import Encoder, ImageFeatures


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 84, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def student(tiny_encoder):
    """As deep as the tiny encoder, with other weights."""
    model = make_model(len(tiny_encoder.tokenizer), seed=1)
    return Encoder(tiny_encoder.info, model, tiny_encoder.tokenizer)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(x, y):
    """tr(K H L H) / (n - 1)^2 with the centring matrix written out (Kornblith et al., equation 3)."""
    x, y = x.double().numpy(), y.double().numpy()
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    return np.trace(x @ x.T @ centre @ y @ y.T @ centre) / (n - 1) ** 2


def unbiased(x, y):
    """Song et al., JMLR 2012, equation 5."""
    x, y = x.double().numpy(), y.double().numpy()
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    sums = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return (np.trace(k @ m) + sums) / (n * (n - 3))


def ratio(hsic, x, y):
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


# Every layer of an encoder


def test_the_last_layer_is_encode_image(tiny_encoder, picture):
    found = tiny_encoder.encode_layers(picture, resolution=42)
    whole = tiny_encoder.encode_image(picture, 42)
    assert list(found) == [1, 2, 3] and tiny_encoder.num_layers == 3
    for name in ("cls", "caption_cls", "patches", "values"):
        assert torch.equal(getattr(found[3], name), getattr(whole, name)), name
        assert getattr(found[1], name).dtype == torch.float32 and not getattr(found[1], name).requires_grad
    assert all(each.size == (60, 84) and each.patches.shape == (3, 4, 48) for each in found.values())
    some = tiny_encoder.encode_layers(picture, [2], 42)
    assert list(some) == [2] and torch.equal(some[2].values, found[2].values)


def test_layers_and_images_that_do_not_exist(tiny_encoder, picture):
    with pytest.raises(ValueError, match="layers of this encoder are 1 to 3"):
        tiny_encoder.encode_layers(picture, [4])
    with pytest.raises(ImageError):
        tiny_encoder.encode_layers("nowhere.png")
    with pytest.raises(ValueError, match="resolution"):
        tiny_encoder.encode_layers(picture, resolution=0)


# CKA


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "widths"), [(4, (3, 2)), (30, (5, 8)), (25, (60, 40))])
def test_cka_equals_its_definition(debiased, n, widths):
    x = normal(n, widths[0]) + 3
    y = x[:, :1] + normal(n, widths[1], seed=1)
    assert linear_cka(x, y, debiased) == pytest.approx(ratio(unbiased if debiased else plain, x, y), abs=1e-10)
    assert linear_cka(x, y, debiased) == pytest.approx(linear_cka(y, x, debiased), abs=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_does_not_see_rotation_scale_and_shift(debiased):
    x, y = normal(40, 6), normal(40, 9, seed=1)
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=2))
    moved = 7.5 * x @ rotation + normal(6, seed=3)
    assert linear_cka(x, x, debiased) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, moved, debiased) == pytest.approx(1, abs=1e-10)
    assert linear_cka(moved, y, debiased) == pytest.approx(linear_cka(x, y, debiased), abs=1e-10)
    stretched = x * torch.tensor([9.0, 1, 1, 1, 1, 1])  # not isotropic: CKA must see it
    assert linear_cka(x, stretched, debiased) < 0.9


def test_cka_is_kornbliths_feature_form_and_sees_what_is_unrelated():
    x, y = normal(50, 4), normal(50, 7, seed=1)
    x0, y0 = x - x.mean(0), y - y.mean(0)
    expected = (y0.T @ x0).square().sum() / ((x0.T @ x0).norm() * (y0.T @ y0).norm())
    assert linear_cka(x, y, debiased=False) == pytest.approx(float(expected), abs=1e-12)
    wide = [normal(60, 300, seed=seed) for seed in (2, 3)]  # fewer items than dimensions
    assert linear_cka(*wide, debiased=False) > 0.7 and abs(linear_cka(*wide)) < 0.1
    apart = torch.zeros(4, 1).double(), torch.zeros(4, 1).double()
    apart[0][:2] = apart[1][::2] = 1  # a 2 x 2 design: orthogonal after centring
    assert linear_cka(*apart, debiased=False) == pytest.approx(0, abs=1e-12)


def test_too_few_patches():
    with pytest.raises(ValueError, match="at least 4 patches"):
        linear_cka(normal(3, 5), normal(3, 5))


@pytest.mark.parametrize("debiased", [False, True])
def test_layers_against_layers(tiny_encoder, student, picture, debiased):
    """Of one encoder with itself a diagonal of ones; of two, every entry as by hand."""
    a, b = (encoder.encode_layers(picture, resolution=70) for encoder in (tiny_encoder, student))
    own = layer_cka([(a, a)], debiased)
    assert own.shape == (3, 3) and np.allclose(np.diag(own), 1, atol=1e-5) and np.allclose(own, own.T, atol=1e-5)
    found = layer_cka([(a, {k: b[k] for k in (1, 3)})], debiased)
    assert found.shape == (3, 2) and found.dtype == np.float64
    for i, k in enumerate((1, 2, 3)):
        for j, m in enumerate((1, 3)):
            x, y = a[k].patches.flatten(0, 1), b[m].patches.flatten(0, 1)
            assert found[i, j] == pytest.approx(ratio(unbiased if debiased else plain, x, y), abs=1e-4)


def test_grids_meet_at_the_smaller_one():
    """Twice as many patches, each 2 x 2 of them around the same mean, is the same grid."""
    small = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(2, 0).repeat_interleave(2, 1)
    large[::2] += 1
    large[1::2] -= 1
    features = [{1: ImageFeatures(None, None, grid, grid, (56, 84))} for grid in (small, large)]
    assert layer_cka([tuple(features)])[0, 0] == pytest.approx(1, abs=1e-5)
    huge = {1: ImageFeatures(None, None, torch.randn(64, 96, 8), None, (64, 96))}
    assert layer_cka([(huge, huge)]).shape == (1, 1)  # 6144 patches, brought down to 32 x 32


@pytest.mark.parametrize("debiased", [False, True])
def test_several_images_average_hsic(tiny_encoder, student, picture, debiased):
    pictures = [picture, picture.transpose(Image.Transpose.ROTATE_90), picture.crop((0, 0, 60, 30))]
    pairs = [tuple(e.encode_layers(image, [3], 56) for e in (tiny_encoder, student)) for image in pictures]
    hsic = unbiased if debiased else plain
    x, y = ([pair[side][3].patches.flatten(0, 1) for pair in pairs] for side in (0, 1))

    def total(left, right):
        return sum(hsic(one, two) for one, two in zip(left, right, strict=True))

    expected = total(x, y) / np.sqrt(total(x, x) * total(y, y))
    assert layer_cka(iter(pairs), debiased)[0, 0] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="at least one image"):
        layer_cka([])


# Patch-text scores


def test_scores_of_every_layer(tiny_encoder, picture):
    queries, text = ["dog", "sky"], tiny_encoder.encode_text(["dog", "sky"])
    layers = tiny_encoder.encode_layers(picture, resolution=42)
    mask = np.zeros((60, 84), bool)
    mask[20:, :40] = True
    measure, table = layer_scores(layers, text, [None, mask], "final")
    assert measure == "auroc" and table.shape == (3, 2) and np.isnan(table[:, 0]).all()
    last = heatmap(tiny_encoder, picture, queries, features="final", resolution=42)[1]
    assert table[2, 1] == pytest.approx(roc_auc_score(mask.ravel(), last.ravel()), abs=1e-6)
    assert len(set(table[:, 1])) == 3

    measure, table = layer_scores(layers, text)
    maps = heatmap(tiny_encoder, picture, queries, resolution=42).astype(np.float64)
    expected = [(each.max() - each.mean()) / each.std() for each in maps]
    assert measure == "sharpness" and table.shape == (3, 2) and table[2] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="1 masks for 2 queries"):
        layer_scores(layers, text, [mask])
