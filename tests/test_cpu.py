"""tipsv2.network.cpu: packed weights and attention in blocks give what torch gives, 8-bit products what integers do."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_model
from PIL import Image
from torch import nn
from transformers.activations import GELUActivation

from tipsv2.analysis.segmentation import label
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.network import cpu
from tipsv2.network.encoder import load
from tipsv2.records import identity
from tipsv2.scenes import draw
from tipsv2.sharing.export import export

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"


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


def test_rows_are_padded_to_few_numbers():
    """For each that it meets oneDNN makes kernels, which it keeps."""
    padded = [cpu.padded_rows(rows) for rows in range(1, 4097)]
    assert all(more >= rows for rows, more in enumerate(padded, 1)) and len(set(padded)) <= 48
    assert all(more <= rows * 9 / 8 for rows, more in enumerate(padded, 1) if rows > 128)
    assert cpu.padded_rows(1025) == 1152 and cpu.padded_rows(1024) == 1024


@pytest.mark.parametrize("dtype, least", [(torch.float32, 0.999999), (torch.bfloat16, 0.999)])
@pytest.mark.parametrize("swiglu", [False, True])
def test_a_fast_model_says_the_same(dtype, least, swiglu):
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
    packed = dtype != torch.float32  # which torch multiplies as fast
    if packed and not cpu._can_pack(dtype):
        pytest.skip(f"oneDNN multiplies no {dtype} on this processor")
    assert cpu.speed_up(model) == packed
    assert any(isinstance(m, nn.Linear) for m in model.modules()) != packed
    assert isinstance(layers[0].layer_scale1, nn.Identity) and not isinstance(layers[1].layer_scale1, nn.Identity)
    for ours, theirs in zip(outputs(model), before, strict=True):
        assert F.cosine_similarity(ours, theirs, dim=-1).min() > least


def test_without_the_operators_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(cpu, "PackedLinear", lambda linear: (_ for _ in ()).throw(RuntimeError("no oneDNN")))
    model = make_model(300).to(torch.bfloat16)
    assert not cpu.speed_up(model) and any(isinstance(m, nn.Linear) for m in model.modules())


def by_integers(linear: nn.Linear, x: torch.Tensor, token_steps: int) -> np.ndarray:
    """What a layer gives whose weights [O, I] have 127 steps to either side per row, and whose tokens [N, I], each
    divided by its largest entry, share `token_steps` steps from the least to the greatest entry; in float64.
    """
    weight, bias = (parameter.detach().double().numpy() for parameter in (linear.weight, linear.bias))
    step = np.abs(weight).max(1, keepdims=True) / 127
    weight = np.rint(weight / step) * step
    rows = x.double().numpy()
    largest = np.abs(rows).max(1, keepdims=True)
    rows = rows / largest
    low, high = min(rows.min(), 0), max(rows.max(), 0)
    width = (high - low) / token_steps
    zero = np.rint(-low / width)  # nothing is a step, too
    rows = (np.clip(np.rint(rows / width) + zero, 0, token_steps) - zero) * width
    return rows @ weight.T * largest + bias


@pytest.fixture
def eight_bits():
    if "onednn" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no 8-bit products")


def test_int8_linear_is_that_of_integers(eight_bits):
    torch.manual_seed(0)
    linear = nn.Linear(96, 40)
    with torch.no_grad():
        linear.weight[3] *= 50  # the steps of one output are not those of another
    x = torch.randn(30, 96)
    x[7] *= 1000  # nor those of one token those of another
    expected = by_integers(linear, x, 127 if cpu.Int8Linear(linear)._seven_bits else 255)
    result = cpu.Int8Linear(linear)(x).double().numpy()
    exact = linear(x).detach().double().numpy()
    size = np.abs(x.numpy()).max(1, keepdims=True) * np.abs(linear.weight.detach().numpy()).max(1)
    assert (np.abs(result - expected) / size).max() < 0.02 < (np.abs(exact - expected) / size).max()


def test_int8_linear_does_not_overflow(eight_bits):
    """The greatest products of all: sums of two of them in 16 bits would be cut off."""
    linear, x = nn.Linear(64, 8, bias=False), torch.ones(2, 64)
    with torch.no_grad():
        linear.weight.fill_(1)
    torch.testing.assert_close(cpu.Int8Linear(linear)(x), torch.full((2, 8), 64.0))
    torch.testing.assert_close(cpu.Int8Linear(linear)(torch.zeros(2, 64)), torch.zeros(2, 8))


def test_int8_on_pictures(eight_bits, tmp_path):
    """What docs/performance.md states of opentips-s14, on a photograph and a drawn scene."""
    exact, fast = (load("opentips-s14", "cpu", dtype) for dtype in ("float32", "int8"))
    assert fast.precision == "int8" and "int8" in repr(fast) and fast.dtype == torch.float32
    assert not any(isinstance(module, cpu.Int8Linear) for module in fast.model.vision_model.encoder.layer[0].modules())
    assert not any(isinstance(module, nn.Linear) for block in fast.model.vision_model.encoder.layer[1:]
                   for module in block.modules())  # fmt: skip
    assert identity(fast)["dtype"] == "int8"  # an evaluation begun in float32 does not go on with it
    with pytest.raises(ModelError, match="fast=False"):
        export(fast, tmp_path / "out")
    names = ["cat", "grass", "sky", "car", "house", "ground"]
    rows, whole = (encoder.encode_text(names) for encoder in (fast, exact))
    assert F.cosine_similarity(rows, whole, dim=-1).min() > 0.999
    for image in (EXAMPLES / "cat.jpg", Image.fromarray(draw(1, 448).image)):
        ours, theirs = fast.encode_image(image, 224), exact.encode_image(image, 224)
        assert F.cosine_similarity(ours.patches, theirs.patches, dim=-1).min() > 0.99
        same = label(ours, rows).labels == label(theirs, whole).labels
        assert same.float().mean() > 0.95


def test_int8_says_where_it_is_not(tiny_folder, monkeypatch):
    with pytest.raises(ModelError, match="int8 is for inference only"):
        load(tiny_folder, "cpu", "int8", fast=False)
    with pytest.raises(ModelError, match="int8 is for the CPU, not for meta"):
        load(tiny_folder, "meta", "int8")
    monkeypatch.setattr(cpu, "Int8Linear", lambda linear: (_ for _ in ()).throw(RuntimeError("no oneDNN")))
    with pytest.raises(ModelError, match="int8 cannot be used here: no oneDNN. Take the dtype auto."):
        load(tiny_folder, "cpu", "int8")
