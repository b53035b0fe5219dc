"""tipsv2.network.dense: one pass, two ways through the last block; windows that stitch back. Golden numbers:
test_convert.py.

python -m pytest tests/test_dense.py
"""

import numpy as np
import pytest
import torch
from conftest import make_model

import tipsv2
from tipsv2.network.dense import crop_windows, layer_features, stitch, vision_features, window_corners
from tipsv2.scenes import draw


@pytest.fixture(scope="module")
def vision():
    return make_model(64).vision_model


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 42, 70, generator=torch.Generator().manual_seed(0))


def plain_values(vision, pixels, layer=3):
    """The values trick on the hidden states that transformers itself hands out, every step written out."""
    hidden = vision(pixels, output_hidden_states=True).hidden_states[layer - 1]
    last = vision.encoder.layer[layer - 1]
    x = torch.nn.functional.layer_norm(hidden, (48,), last.norm1.weight, last.norm1.bias, 1e-6)
    value = x @ last.attention.v_proj.weight.T + last.attention.v_proj.bias
    value = value @ last.attention.o_proj.weight.T + last.attention.o_proj.bias
    hidden = hidden + value * last.layer_scale1.lambda1
    x = torch.nn.functional.layer_norm(hidden, (48,), last.norm2.weight, last.norm2.bias, 1e-6)
    x = torch.nn.functional.gelu(x @ last.mlp.fc1.weight.T + last.mlp.fc1.bias)
    hidden = hidden + (x @ last.mlp.fc2.weight.T + last.mlp.fc2.bias) * last.layer_scale2.lambda1
    return vision.layernorm(hidden)[:, 2:]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_equals_plain_transformers(vision, pixels, attention):
    vision.set_attn_implementation(attention)
    with torch.no_grad():
        cls, caption_cls, patches, values = vision_features(vision, pixels)
        plain = vision(pixels).last_hidden_state
        expected_values = plain_values(vision, pixels)
    found = torch.cat([cls[:, None], caption_cls[:, None], patches.flatten(1, 2)], dim=1)
    assert (found - plain).abs().max() < 1e-5
    assert patches.shape == values.shape == (2, 3, 5, 48)
    assert (values.flatten(1, 2) - expected_values).abs().max() < 1e-5
    assert (values - patches).abs().max() > 0.1  # not the same thing twice


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_layer_equals_plain_transformers(vision, pixels, attention):
    vision.set_attn_implementation(attention)
    with torch.no_grad():
        found = dict(layer_features(vision, pixels, [1, 2, 3]))
        states = vision(pixels, output_hidden_states=True).hidden_states
        for layer, (cls, caption_cls, patches, values) in found.items():
            plain = vision.layernorm(states[layer])
            assert (
                torch.cat([cls[:, None], caption_cls[:, None], patches.flatten(1, 2)], 1) - plain
            ).abs().max() < 1e-5
            assert (values.flatten(1, 2) - plain_values(vision, pixels, layer)).abs().max() < 1e-5
            assert patches.shape == values.shape == (2, 3, 5, 48)
        whole = vision_features(vision, pixels)
    assert list(found) == [1, 2, 3] and all(torch.equal(a, b) for a, b in zip(found[3], whole, strict=True))
    assert (found[1][2] - found[2][2]).abs().max() > 0.1


def test_layers_cost_no_more_than_the_highest_asked_for(vision, pixels):
    ran = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(vision.encoder.layer, 1)
    ]
    try:
        with torch.no_grad():
            everything = dict(layer_features(vision, pixels, [1, 2, 3]))
            ran.clear()
            second = dict(layer_features(vision, pixels, {2}))
            assert ran == [1, 2] and not dict(layer_features(vision, pixels, []))
            ran.clear()
            vision_features(vision, pixels)
            assert ran == [1, 2, 3]
    finally:
        for hook in hooks:
            hook.remove()
    assert list(second) == [2] and all(torch.equal(a, b) for a, b in zip(second[2], everything[2], strict=True))


@pytest.mark.parametrize("layers", [[0], [4], [1, -1]])
def test_layers_that_do_not_exist(vision, pixels, layers):
    with pytest.raises(ValueError, match="layers of this encoder are 1 to 3"):
        list(layer_features(vision, pixels, layers))


def test_patches_are_rows_then_columns(vision):
    """A bright square in the patch of row 1, column 3 is seen there most."""
    dark = torch.zeros(1, 3, 42, 70)
    bright = dark.clone()
    bright[:, :, 14:28, 42:56] = 1
    with torch.no_grad():
        change = (vision_features(vision, bright)[3] - vision_features(vision, dark)[3]).norm(dim=-1)[0]
    assert divmod(int(change.argmax()), 5) == (1, 3)


def test_masked_patches_do_not_see_their_pixels(vision, pixels):
    masked = torch.zeros(2, 15, dtype=torch.bool)
    masked[:, 8] = True  # row 1, column 3
    other = pixels.clone()
    other[:, :, 14:28, 42:56] = 0
    with torch.no_grad():
        same = [
            torch.equal(a, b)
            for a, b in zip(*(vision_features(vision, p, masked) for p in (pixels, other)), strict=True)
        ]
        seen = (vision_features(vision, pixels)[2] - vision_features(vision, pixels, masked)[2]).abs().max()
    assert all(same) and seen > 1e-3


def test_a_batch_is_its_rows(vision, pixels):
    with torch.no_grad():
        together = vision_features(vision, pixels)
        alone = vision_features(vision, pixels[1:])
    assert all((a[1] - b[0]).abs().max() < 1e-5 for a, b in zip(together, alone, strict=True))


def test_gradients_reach_every_parameter_and_pixel(pixels):
    vision = make_model(64).vision_model.train()
    pixels.requires_grad_()
    masked = torch.zeros(2, 15, dtype=torch.bool)
    masked[:, ::4] = True
    outputs = vision_features(vision, pixels, masked)
    sum((value**2).mean() for value in outputs).backward()
    assert not [name for name, p in vision.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert pixels.grad.abs().sum() > 0


def test_value_gradients_match_a_plain_pass(vision, pixels):
    weight = vision.encoder.layer[0].mlp.fc1.weight
    direction = torch.randn(48, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad((vision_features(vision, pixels)[3] @ direction).sum(), weight)[0]
    expected = torch.autograd.grad((plain_values(vision, pixels) @ direction).sum(), weight)[0]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_autocast(vision, pixels, attention):
    vision.set_attn_implementation(attention)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = vision_features(vision, pixels)
        plain = vision(pixels).last_hidden_state
    exact = vision_features(vision, pixels)
    assert torch.equal(low[2].flatten(1, 2), plain[:, 2:])
    assert all((a.float() - b).abs().max() < 0.2 for a, b in zip(low, exact, strict=True))


def test_gradient_checkpointing_changes_nothing(pixels):
    gradients = []
    for checkpointing in (False, True):
        vision = make_model(64).vision_model.train()
        if checkpointing:
            vision.activation_checkpointing_enable()
        vision_features(vision, pixels)[3].square().mean().backward()
        gradients.append(vision.embeddings.patch_embeddings.projection.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shape", [(2, 3, 40, 42), (2, 3, 42, 43), (3, 42, 42), (2, 3, 0, 42)])
def test_wrong_sizes(vision, shape):
    with pytest.raises(ValueError, match="multiples of the patch size 14"):
        vision_features(vision, torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "window", "stride", "tops", "lefts"),
    [
        ((448, 448), 448, 336, [0], [0]),
        ((448, 784), 448, 336, [0], [0, 336]),
        ((448, 800), 448, 336, [0], [0, 336, 352]),
        ((449, 447), 448, 336, [0, 1], [0]),
        ((100, 100), 40, 40, [0, 40, 60], [0, 40, 60]),
    ],
)
def test_window_corners(size, window, stride, tops, lefts):
    assert window_corners(size, window, stride) == [(top, left) for top in tops for left in lefts]


def test_windows_cover_every_pixel_and_stay_inside():
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width, window = random.integers(1, 60, 3)
        stride = random.integers(1, window + 1)
        seen = np.zeros((height, width), int)
        for top, left in window_corners((height, width), window, stride):
            assert 0 <= top and 0 <= left and top + min(window, height) <= height and left + min(window, width) <= width
            seen[top : top + window, left : left + window] += 1
        assert seen.min() >= 1


def test_cutting_and_stitching_is_identity():
    picture = torch.rand(3, 50, 33)
    corners = window_corners((50, 33), 20, 13)
    pieces = crop_windows(picture, corners, 20)
    assert pieces.shape == (len(corners), 3, 20, 20)
    assert (stitch(pieces, corners, (50, 33)) - picture).abs().max() < 1e-6
    small = window_corners((10, 12), 20, 13)
    assert torch.equal(stitch(crop_windows(picture[:, :10, :12], small, 20), small, (10, 12)), picture[:, :10, :12])


def test_stitching_averages_overlaps():
    maps = torch.stack([torch.full((1, 2, 4), 1.0), torch.full((1, 2, 4), 3.0)])
    found = stitch(maps, [(0, 0), (0, 2)], (2, 6))
    assert found.tolist() == [[[1, 1, 2, 2, 3, 3]] * 2]


def test_a_stride_that_leaves_gaps_is_refused():
    for stride in (0, 21):
        with pytest.raises(ValueError, match="stride"):
            window_corners((50, 50), 20, stride)


def test_pixels_are_not_rounded_to_bfloat16():
    """Of what bfloat16 costs the worst patch, the rounding of the pixels is the most: it is spared."""
    pixels = torch.from_numpy(draw(2, 448).image / np.float32(255)).permute(2, 0, 1)[None]
    plain = tipsv2.load("opentips-nano", device="cpu", dtype="float32", fast=False)
    ours = tipsv2.load("opentips-nano", device="cpu", dtype="bfloat16")
    exact, rounded, found = (
        encoder.encode_pixels(given, only=("patches",))["patches"]
        for encoder, given in ((plain, pixels), (plain, pixels.bfloat16()), (ours, pixels))
    )
    alone = torch.cosine_similarity(rounded, exact, dim=-1).min()
    assert torch.cosine_similarity(found, exact, dim=-1).min() > max(alone, 0.9995), alone
