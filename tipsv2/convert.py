"""Official TIPSv2 checkpoints (a vision .npz and a text .npz) -> a plain transformers Tipsv2Model folder.

Key names: github.com/google-deepmind/tips, pytorch/image_encoder.py and text_encoder.py; files: tips_v2_oss_*.npz.
Every key of the files must be used and every parameter of the model set, otherwise nothing is written.

    python -m tipsv2 convert tips_v2_oss_b14_vision.npz tips_v2_oss_b14_text.npz OUT --tokenizer FOLDER
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.catalogue import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import Tipsv2Config, Tipsv2Model

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24}  # of the released widths, vision and text alike

_VISION = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",  # the second (caption) CLS
    "mask_token": "embeddings.mask_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_VISION_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.o_proj",
    "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.w12": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.w3": "mlp.down_proj",
}
_TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_TEXT_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.in_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
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


def state_dict(vision: dict[str, np.ndarray], text: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Official arrays by official key -> Tipsv2Model's state dict, float32. Raises ModelError on keys it does not
    know.
    """
    import torch

    state, unknown = {}, []
    for part, prefix, arrays in (("vision", "vision_model.", vision), ("text", "text_model.", text)):
        for key, array in arrays.items():
            tensor = torch.from_numpy(np.array(array, dtype=np.float32))
            if (part, key) == ("text", "temperature"):
                state[key] = tensor.reshape(())
                continue
            names = _rename(key, part)
            if not names or len(names) > 1 and (not tensor.ndim or len(tensor) % len(names)):
                unknown.append(f"{part} {key}")
                continue
            pieces = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
            for name, piece in zip(names, pieces, strict=True):
                state[prefix + name] = piece.clone()
    if unknown:
        raise ModelError(f"{len(unknown)} keys of the .npz files have no place in the model ({_first(unknown)}).")
    return state


def config_of(
    vision: dict[str, np.ndarray], text: dict[str, np.ndarray], heads: int | None = None, text_heads: int | None = None
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
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"The .npz files lack what a TIPSv2 checkpoint holds ({error}): give vision first, then text."
        ) from error
    if swiglu:
        ratio = 4.0  # the model takes two thirds of it, rounded up to eights
        found, expected = hidden.shape[1], (int(width * ratio * 2 / 3) + 7) // 8 * 8
        if found != expected:
            raise ModelError(f"blocks.0.mlp.w3.weight has {found} columns: a SwiGLU of width {width} has {expected}.")
    else:
        # int(width * ratio) must give the stored size back; 4304 / 1152 alone would round down
        ratio = next(
            r for r in (hidden.shape[0] / width, (hidden.shape[0] + 0.5) / width) if int(width * r) == hidden.shape[0]
        )
    if side * side + 1 != vision["pos_embed"].shape[1]:
        raise ModelError(
            f"pos_embed has {vision['pos_embed'].shape[1]} rows: a square grid and one more were expected."
        )
    return Tipsv2Config(
        vision_config=dict(
            hidden_size=width,
            num_hidden_layers=_depth(vision, "blocks."),
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
            num_hidden_layers=_depth(text, "transformer.resblocks."),
            num_attention_heads=_heads(text_heads or heads, text_width, "text_heads"),
        ),
        **({} if temperature is None else {"temperature_init_value": temperature}),
    )


def from_official(
    vision_path: str | Path, text_path: str | Path, heads: int | None = None, text_heads: int | None = None
) -> Tipsv2Model:
    """The official pair as a transformers model in evaluation mode, float32. Raises ModelError unless it fits
    exactly.
    """
    from transformers import Tipsv2Model

    vision, text = read_npz(vision_path), read_npz(text_path)
    model = Tipsv2Model(config_of(vision, text, heads, text_heads))
    state, wanted = state_dict(vision, text), model.state_dict()
    unset = [key for key in wanted if key not in state]
    foreign = [key for key in state if key not in wanted]
    wrong = [f"{key} {list(state[key].shape)} for {list(wanted[key].shape)}" for key in state
             if key in wanted and state[key].shape != wanted[key].shape]  # fmt: skip
    parts = [("parameters not set", unset), ("keys too many", foreign), ("of the wrong shape", wrong)]
    if problems := "; ".join(f"{len(keys)} {what} ({_first(keys)})" for what, keys in parts if keys):
        raise ModelError(
            f"'{Path(vision_path).name}' and '{Path(text_path).name}' do not make a whole model: {problems}."
        )
    model.load_state_dict(state)
    return model.eval()


def convert(
    vision_path: str | Path,
    text_path: str | Path,
    out: str | Path,
    heads: int | None = None,
    text_heads: int | None = None,
    tokenizer: str | Path | None = None,
) -> Path:
    """Write a transformers folder: config.json, model.safetensors and, from the folder `tokenizer`, its tokenizer
    files.
    """
    model = from_official(vision_path, text_path, heads, text_heads)
    out = Path(out)
    files = sorted(Path(tokenizer).glob("tokenizer*")) if tokenizer else []
    if tokenizer and not files:
        raise ModelError(f"'{tokenizer}' holds no tokenizer files: give the folder of any released TIPSv2 model.")
    model.save_pretrained(out)
    for file in files:
        shutil.copyfile(file, out / file.name)
    return out


def _rename(key: str, part: str) -> list[str]:
    """Official key -> the names its pieces (cut along the first axis) have in transformers; empty if unknown."""
    whole, block, pattern, target = (
        (_VISION, _VISION_BLOCK, r"blocks\.(\d+)\.(.+?)", "encoder.layer")
        if part == "vision"
        else (_TEXT, _TEXT_BLOCK, r"transformer\.resblocks\.(\d+)\.(.+?)", "encoder.layers")
    )
    if key in whole:
        return [whole[key]]
    found = re.fullmatch(pattern + r"(?:[._](weight|bias))?", key)
    if not found or found[2] not in block:
        return []
    names = block[found[2]]
    ending = f".{found[3]}" if found[3] else ""
    return [f"{target}.{found[1]}.{name}{ending}" for name in ([names] if isinstance(names, str) else names)]


def _depth(arrays: dict[str, np.ndarray], prefix: str) -> int:
    return 1 + max((int(key[len(prefix) :].split(".")[0]) for key in arrays if key.startswith(prefix)), default=-1)


def _heads(given: int | None, width: int, name: str) -> int:
    heads = given or HEADS.get(width)
    if not heads or width % heads:
        raise ModelError(f"The number of attention heads of width {width} is not known: give it ({name}).")
    return heads


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
