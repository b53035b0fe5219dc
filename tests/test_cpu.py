"""tipsv2.network.cpu: packed weights and attention in blocks give what torch gives."""

import pytest
import torch
import torch.nn.functional as F
from conftest import make_model
from torch import nn
from transformers.activations import GELUActivation

from tipsv2.network import cpu


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("scores", [4_000_000, 40, 3])  # everything at once, some heads, rows of one head
def test_attention_in_blocks_is_attention(monkeypatch, dtype, close, scores):
    monkeypatch.setattr(cpu, "SCORES", scores)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 13, 3, 8).to(dtype).transpose(2, 3)  # as a linear layer leaves them
    out, weights = cpu.attention(None, q, k, v, scaling=0.4)
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=0.4).transpose(1, 2)
    assert out.shape == (2, 13, 3, 8) and out.dtype == dtype and weights is None
    torch.testing.assert_close(out.float(), expected, atol=close, rtol=close)


def test_attention_takes_no_mask():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="without a mask"):
        cpu.attention(None, q, q, q, torch.zeros(1, 1, 2, 2))


def test_scores_are_never_whole(monkeypatch):
    """A picture of 1792 px has 16386 tokens: N x N in bfloat16 would be half a gigabyte for a head."""
    held = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b, out: held.append(out.numel()) or bmm(a, b, out=out))
    q = torch.randn(1, 2, 5000, 4)
    cpu.attention(None, q, q, q)
    assert max(held) <= cpu.SCORES < 5000 * 5000


@pytest.mark.parametrize("activation", [nn.Identity, GELUActivation, nn.ReLU])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_linear_is_linear(activation, bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(24, 40, bias=bias), torch.randn(2, 7, 24)
    expected = activation()(linear(x))
    torch.testing.assert_close(cpu.PackedLinear(linear, activation)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype, least", [(torch.float32, 0.999999), (torch.bfloat16, 0.999)])
@pytest.mark.parametrize("swiglu", [False, True])
def test_a_packed_model_says_the_same(dtype, least, swiglu):
    model = make_model(300, use_swiglu_ffn=swiglu)
    layers = model.vision_model.encoder.layer
    with torch.no_grad():
        for layer in layers:
            layer.layer_scale1.lambda1.fill_(1)
            layer.layer_scale2.lambda1.fill_(1)
        layers[1].layer_scale1.lambda1[0] = 2  # this one counts
    pixels, ids = torch.rand(2, 3, 56, 84), torch.randint(3, 300, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0

    def outputs(of):
        with torch.no_grad():
            image = of.vision_model(pixel_values=pixels.to(of.vision_model.dtype)).last_hidden_state
            return image.float(), of.text_model(input_ids=ids, attention_mask=mask).pooler_output.float()

    before = outputs(model)
    model = model.to(dtype)
    if not cpu._can_pack(dtype):
        pytest.skip(f"oneDNN multiplies no {dtype} on this processor")
    assert cpu.speed_up(model)
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
    assert isinstance(layers[0].layer_scale1, nn.Identity) and not isinstance(layers[1].layer_scale1, nn.Identity)
    for ours, theirs in zip(outputs(model), before, strict=True):
        assert F.cosine_similarity(ours, theirs, dim=-1).min() > least


def test_without_the_operators_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(cpu, "PackedLinear", lambda linear: (_ for _ in ()).throw(RuntimeError("no oneDNN")))
    model = make_model(300)
    assert not cpu.speed_up(model) and any(isinstance(m, nn.Linear) for m in model.modules())
