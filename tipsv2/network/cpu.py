"""What makes a loaded encoder fast on a CPU, with the numbers it had before: packed weights and attention in blocks.

A bfloat16 linear layer of torch lays its weights out anew for the CPU's matrix units at every call; here that is done
once, and GELU or ReLU is applied while the product is still in registers (oneDNN, through the operators that
torch.compile itself uses). Float32 is left to torch, which multiplies it by MKL: as fast, and without what oneDNN
keeps (see `padded_rows`).
Torch's attention kernel for CPUs multiplies bfloat16 well only where there are AMX tiles; elsewhere two plain products
and a softmax, a few rows at a time, take a third of its time and never hold an N x N matrix.
By request the linear layers multiply 8-bit integers, which is faster and no longer exact; all else stays float32.

    encoder = tipsv2.load("tipsv2-b14")      # does it by itself; on other devices and for training nothing changes
    encoder = tipsv2.load("tipsv2-b14", dtype="int8")
    python -m tipsv2 benchmark               # what it brings
"""

from __future__ import annotations

import logging
import warnings

import torch
from torch import nn
from transformers import AttentionInterface, Tipsv2Model
from transformers.activations import GELUActivation

BLOCKS = "tipsv2_blocks"  # the attention's name among transformers' implementations
SCORES = 4_000_000  # of attention that are held at once: 8 MB in bfloat16, which stays in a CPU's cache
ROWS = 1024  # tokens that the packed weights are laid out for; others work as well
ROW_STEP = 16  # and an eighth of a power of two where that is more: the numbers of tokens that are multiplied
STEPS = 127  # of a weight of eight bits, to either side
POST = {GELUActivation: ("gelu", "none"), nn.ReLU: ("relu", "")}  # "none": exact, by erf


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """softmax(scaling q k^T) v for query, key, value [B, heads, N, d] -> [B, N, heads, d], no gradients.

    The signature is transformers' AttentionInterface. Raises ValueError where there is a mask or dropout: a vision
    tower in inference has neither.
    """
    if attention_mask is not None or dropout:
        raise ValueError("attention in blocks is for inference without a mask: use attn_implementation='sdpa'.")
    batch, heads, tokens, width = query.shape
    many = batch * heads
    scaled = query.new_empty(many, tokens, width)
    torch.mul(query, width**-0.5 if scaling is None else scaling, out=scaled.view(query.shape))
    keys = key.reshape(many, tokens, width).transpose(1, 2)
    values = value.reshape(many, tokens, width)
    out = torch.empty_like(scaled)
    rows = min(tokens, max(1, SCORES // tokens))
    step = min(many, max(1, SCORES // (rows * tokens)))
    held = query.new_empty(step, rows, tokens)
    for first in range(0, many, step):
        some = slice(first, first + step)
        for top in range(0, tokens, rows):
            part = scaled[some, top : top + rows]
            scores = held[: part.shape[0], : part.shape[1]]
            torch.bmm(part, keys[some], out=scores)
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, values[some], out=out[some, top : top + rows])
    return out.view(batch, heads, tokens, width).transpose(1, 2), None


AttentionInterface.register(BLOCKS, attention)


class PackedLinear(nn.Module):
    """A linear layer in inference whose weights are laid out once; an activation of `POST` is applied to its result."""

    def __init__(self, linear: nn.Linear, activation: type[nn.Module] | None = None):
        super().__init__()
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self._post = POST.get(activation, ("none", ""))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        post, algorithm = self._post
        rows = x.reshape(-1, x.shape[-1])
        padded = nn.functional.pad(rows, (0, 0, 0, padded_rows(len(rows)) - len(rows)))
        product = torch.ops.mkldnn._linear_pointwise(padded, self.packed, self.bias, post, [], algorithm)
        return product[: len(rows)].view(*x.shape[:-1], product.shape[-1])


def padded_rows(rows: int) -> int:
    """The next number of rows above `rows` that oneDNN is asked for: eight in every octave from 128 on, at most an
    eighth more. It makes kernels for each number of rows, 0.6 MB for a layer, and keeps them until the process ends
    (not in its cache, which can be bounded): as many as there are shapes of pictures and lengths of texts.
    """
    step = max(ROW_STEP, 1 << max(0, rows - 1).bit_length() >> 4)
    return -(-rows // step) * step


class Int8Linear(nn.Module):
    """A linear layer in inference that multiplies 8-bit integers; its input and output are float32.

    Weights have a step per output channel. Each token is divided by its largest entry, so that none sets the steps of
    others, before torch's dynamic quantisation takes it. Where the CPU has no VNNI, products are added in 16 bits,
    which 8 by 8 bits would overflow: tokens have 7 bits there.
    """

    bias: torch.Tensor

    def __init__(self, linear: nn.Linear):
        """Raises RuntimeError where this torch has no oneDNN for 8-bit integers."""
        super().__init__()
        weight = linear.weight.detach().float()
        steps = (weight.abs().amax(1) / STEPS).clamp_min(torch.finfo(torch.float32).tiny).double()
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a future torch may drop it, and `_try_int8` will say so
            whole = torch.quantize_per_channel(weight, steps, zeros, 0, torch.qint8)
        bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("bias", bias)
        before = torch.backends.quantized.engine
        try:
            torch.backends.quantized.engine = "onednn"  # faster than fbgemm also without VNNI
            self._weight = torch.ops.quantized.linear_prepack(whole, None)
        finally:
            torch.backends.quantized.engine = before
        self._seven_bits = not _multiplies_bytes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        largest = x.abs().amax(-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        product = torch.ops.quantized.linear_dynamic(x / largest, self._weight, self._seven_bits)
        return torch.addcmul(self.bias, product, largest, out=product)


@torch.no_grad()
def quantise(model: Tipsv2Model) -> None:
    """Let the linear layers of both towers, float32 on the CPU and in evaluation mode, multiply 8-bit integers, in
    place; it can no longer be trained or saved. Norms, softmax, activations, the patch embedding and the first vision
    block stay float32: in that block the norms make one channel a hundred times as large as others.

    Raises RuntimeError where this torch or its oneDNN cannot.
    """
    _try_int8()
    first, *others = model.vision_model.encoder.layer
    for layer in (*others, *model.text_model.encoder.layers):
        for module in layer.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    setattr(module, name, Int8Linear(child))
    for layer in (first, *others):
        _drop_scales(layer)


def multiplies_int8(model: Tipsv2Model) -> bool:
    """Has `quantise` been here?"""
    return any(isinstance(module, Int8Linear) for module in model.text_model.encoder.modules())


@torch.no_grad()
def speed_up(model: Tipsv2Model) -> bool:
    """Pack the towers of a model in evaluation mode on the CPU, in place; it can no longer be trained or saved.

    Returns whether weights were packed: those of float32 never are, nor any where this torch or its oneDNN cannot.
    """
    if model.device.type != "cpu":
        return False
    for layer in model.vision_model.encoder.layer:
        _drop_scales(layer)
    if model.vision_model.dtype == torch.float32 or not _can_pack(model.vision_model.dtype):
        return False
    if model.vision_model.dtype == torch.bfloat16 and not _multiplies_tiles():
        model.set_attn_implementation({"vision_config": BLOCKS})
    for layer in (*model.vision_model.encoder.layer, *model.text_model.encoder.layers):
        _pack(layer)
    return True


def _drop_scales(layer: nn.Module) -> None:
    for name in ("layer_scale1", "layer_scale2"):
        if bool((getattr(layer, name).lambda1 == 1).all()):  # the released and our own: there is none to apply
            setattr(layer, name, nn.Identity())


def _pack(block: nn.Module) -> None:
    for module in block.modules():
        inner = {name: child for name, child in module.named_children() if isinstance(child, nn.Linear)}
        function = getattr(module, "activation_fn", None)
        activation = type(function) if isinstance(function, nn.Module) else None
        for name, child in inner.items():
            setattr(module, name, PackedLinear(child, activation if name == "fc1" else None))
        if "fc1" in inner and activation in POST:
            module.activation_fn = nn.Identity()


def _multiplies_tiles() -> bool:
    """Has this CPU AMX? torch's own attention is fast there."""
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16")) or bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _multiplies_bytes() -> bool:
    """Has this CPU VNNI? It adds products of bytes in 32 bits."""
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_vnni")) or bool(getattr(torch.cpu, "_is_vnni_supported", bool)())


def _try_int8() -> None:
    """Raises RuntimeError where torch's operators for 8-bit integers are missing or compute something else."""
    try:
        linear = nn.Linear(32, 16)
        x = torch.linspace(-1, 1, 64).view(2, 32)
        near = torch.allclose(Int8Linear(linear)(x), linear(x), atol=0.05)
    except (AttributeError, NotImplementedError) as error:
        raise RuntimeError(f"torch {torch.__version__} has no 8-bit products: {error}") from error
    if not near:
        raise RuntimeError("8-bit products are wrong on this processor")


def _can_pack(dtype: torch.dtype) -> bool:
    """Do oneDNN's packed operators exist here and compute what torch does? They are not public, so they are tried."""
    try:
        linear = nn.Linear(16, 16).to(dtype)
        x = torch.linspace(-1, 1, 32).view(2, 16).to(dtype)
        same = torch.allclose(PackedLinear(linear)(x).float(), linear(x).float(), atol=2e-2, rtol=2e-2)
        return bool(same) and torch.backends.mkldnn.is_available()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        logging.getLogger(__name__).info("weights stay unpacked: %s", error)
        return False
