"""Official TIPS and TIPSv2 checkpoints, a vision .npz and a text .npz: their keys, shapes and files.

Key names: github.com/google-deepmind/tips, pytorch/image_encoder.py and text_encoder.py; files: tips_oss_*.npz (TIPS,
sizes S, B, L, So400m, g, positions 16 x 16) and tips_v2_oss_*.npz (TIPSv2, without S, positions 32 x 32). Both hold the
same keys: two CLS tokens, the second as `register_tokens`, and a LayerScale (`ls1.gamma`) that only the PyTorch port
has, all ones. Number of heads and everything in `EXPECTED` is in the code there and not in the files.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.files import whole_file

if TYPE_CHECKING:
    import torch
    from transformers import Tipsv2Config

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24}  # of the released widths, vision and text alike

_WHOLE = {
    "vision": {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "register_tokens": "embeddings.register_tokens",  # the second (caption) CLS
        "mask_token": "embeddings.mask_token",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    },
    "text": {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    },
}
_BLOCK = {
    "vision": {
        "norm1": ["norm1"],
        "attn.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        "attn.proj": ["attention.o_proj"],
        "ls1.gamma": ["layer_scale1.lambda1"],
        "norm2": ["norm2"],
        "mlp.fc1": ["mlp.fc1"],
        "mlp.fc2": ["mlp.fc2"],
        "mlp.w12": ["mlp.gate_proj", "mlp.up_proj"],
        "mlp.w3": ["mlp.down_proj"],
        "ls2.gamma": ["layer_scale2.lambda1"],
    },
    "text": {
        "attn.in_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "attn.out_proj": ["self_attn.out_proj"],
        "ln_1": ["layer_norm1"],
        "mlp.c_fc": ["mlp.fc1"],
        "mlp.c_proj": ["mlp.fc2"],
        "ln_2": ["layer_norm2"],
    },
}
_PREFIX = {"vision": "vision_model.", "text": "text_model."}
_PLACE = {
    "vision": ("blocks.", "vision_model.encoder.layer."),
    "text": ("transformer.resblocks.", "text_model.encoder.layers."),
}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, never unpickled. Raises ModelError with the file's name."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise ModelError(f"There is no file '{path}': check the path.") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:  # TypeError: a lone .npy
        raise ModelError(f"'{path}' is not an .npz of plain arrays: download it again.") from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz, whole or not at all. Raises OSError with one sentence where the disk does not take it."""
    with whole_file(path) as part, part.open("wb") as file:  # a file, since savez would add ".npz" to another name
        np.savez(file, allow_pickle=False, **arrays)


def state_dict(vision: Mapping[str, np.ndarray], text: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Official arrays by official key -> Tipsv2Model's state dict, float32, without copying what is float32 already.

    Raises ModelError on keys it does not know and on values that are not numbers.
    """
    import torch

    state, unknown = {}, []
    for part, arrays in (("vision", vision), ("text", text)):
        for key, array in arrays.items():
            if array.dtype.kind != "f":
                raise ModelError(f"The {part} array {key} holds {array.dtype} and not floats: get the file again.")
            tensor = torch.from_numpy(np.asarray(array, dtype=np.float32))
            if (part, key) == ("text", "temperature"):
                state[key] = tensor.reshape(())
                continue
            names = _names(key, part)
            if not names or len(names) > 1 and (not tensor.ndim or len(tensor) % len(names)):
                unknown.append(f"{part} {key}")
                continue
            state.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    if unknown:
        raise ModelError(f"{len(unknown)} keys of the .npz files have no place in the model ({first(unknown)}).")
    return state


def official(state: Mapping[str, torch.Tensor], part: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The reverse of `state_dict` for one part, "vision" or "text", in the official order: (official key, tensor)."""
    import torch

    if part == "text":
        yield "temperature", state["temperature"]
    before, after = _PLACE[part]
    depth = 1 + max(int(key[len(after) :].split(".")[0]) for key in state if key.startswith(after))
    last = ("norm", "ln_final")
    keys = [key for key in _WHOLE[part] if not key.startswith(last)]
    joints = "_" if part == "text" else "."
    for number in range(depth):
        for name in _BLOCK[part]:
            joint = joints if name == "attn.in_proj" else "."
            endings = ("",) if name.startswith("ls") else (f"{joint}weight", f"{joint}bias")
            keys += [f"{before}{number}.{name}{ending}" for ending in endings]
    for key in [*keys, *(key for key in _WHOLE[part] if key.startswith(last))]:
        names = _names(key, part)
        if all(name in state for name in names):  # of MLP and SwiGLU a model has one
            yield key, torch.cat([state[name] for name in names]) if len(names) > 1 else state[names[0]]


def config_of(
    vision: Mapping[str, np.ndarray],
    text: Mapping[str, np.ndarray],
    heads: int | None = None,
    text_heads: int | None = None,
) -> Tipsv2Config:
    """The Tipsv2Config that fits the arrays' shapes. Heads are not stored: of a released width they are known, else
    given.

    Raises ModelError if a needed array is missing or the heads are not known.
    """
    from transformers import Tipsv2Config

    try:
        width = vision["cls_token"].shape[-1]
        side = round((vision["pos_embed"].shape[1] - 1) ** 0.5)
        patch_size = vision["patch_embed.proj.weight"].shape[-1]
        swiglu = "blocks.0.mlp.w12.weight" in vision
        hidden = vision["blocks.0.mlp.w3.weight" if swiglu else "blocks.0.mlp.fc1.weight"]
        vocab_size, text_width = text["token_embedding.weight"].shape
        text_hidden = text["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
        registers = vision["register_tokens"].shape[1]
        temperature = float(text["temperature"]) if "temperature" in text else None
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ModelError(
            f"The .npz files lack what a TIPSv2 checkpoint holds ({error}): give vision first, then text."
        ) from error
    if swiglu:
        ratio = 4.0  # the model takes two thirds of it, rounded up to eights
        hidden_size, expected = hidden.shape[1], (int(width * ratio * 2 / 3) + 7) // 8 * 8
        if hidden_size != expected:
            raise ModelError(
                f"blocks.0.mlp.w3.weight has {hidden_size} columns: a SwiGLU of width {width} has {expected}."
            )
    else:
        # int(width * ratio) must give the stored size back; 4304 / 1152 alone would round down
        ratio = next(
            r for r in (hidden.shape[0] / width, (hidden.shape[0] + 0.5) / width) if int(width * r) == hidden.shape[0]
        )
    if width != text_width:
        raise ModelError(f"The vision .npz is {width} wide and the text .npz {text_width}: give two of one model.")
    if temperature is not None and not temperature > 0:
        raise ModelError(f"The temperature in the text .npz is {temperature}, not above 0: download it again.")
    if side * side + 1 != vision["pos_embed"].shape[1]:
        raise ModelError(
            f"pos_embed has {vision['pos_embed'].shape[1]} rows: a square grid and one more were expected."
        )
    return Tipsv2Config(
        vision_config=dict(
            hidden_size=width,
            num_hidden_layers=_depth(vision, "vision"),
            num_attention_heads=_heads(heads, width, "heads"),
            mlp_ratio=int(ratio) if ratio == int(ratio) else ratio,
            image_size=side * patch_size,
            patch_size=patch_size,
            use_swiglu_ffn=swiglu,
            num_register_tokens=registers,
        ),
        text_config=dict(
            vocab_size=vocab_size,
            hidden_size=text_width,
            intermediate_size=text_hidden,
            num_hidden_layers=_depth(text, "text"),
            num_attention_heads=_heads(text_heads or heads, text_width, "text_heads"),
        ),
        **({} if temperature is None else {"temperature_init_value": temperature}),
    )


def _names(key: str, part: str) -> list[str]:
    """Official key -> the names its pieces (cut along the first axis) have in transformers; empty if unknown."""
    if key in _WHOLE[part]:
        return [_PREFIX[part] + _WHOLE[part][key]]
    before, after = _PLACE[part]
    match = re.fullmatch(re.escape(before) + r"(\d+)\.(.+?)(?:[._](weight|bias))?", key)
    if not match or match[2] not in _BLOCK[part]:
        return []
    ending = f".{match[3]}" if match[3] else ""
    return [f"{after}{match[1]}.{name}{ending}" for name in _BLOCK[part][match[2]]]


def _depth(arrays: Mapping[str, np.ndarray], part: str) -> int:
    before = _PLACE[part][0]
    return 1 + max((int(key[len(before) :].split(".")[0]) for key in arrays if key.startswith(before)), default=-1)


def _heads(given: int | None, width: int, name: str) -> int:
    heads = given or HEADS.get(width)
    if not heads or width % heads:
        raise ModelError(f"The number of attention heads of width {width} is not known: give it ({name}).")
    return heads


def first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
