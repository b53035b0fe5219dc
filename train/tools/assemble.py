"""Two towers become one encoder: what training on photographs starts from, and what is used in the end.

    python -m train assemble --vision foundations/dinov2-s14 --text foundations/minilm --out runs/start
    python -m train assemble --vision runs/photos/model --text runs/words --size 448 --dtype float16 --out mine

The vision tower is a DINOv2's (see train/network/from_dinov2.py) or another encoder's. The text tower is one that
`python -m train text` made; of a sentence encoder only the words are taken, into a tower that knows nothing yet.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Tipsv2TextModel, Tipsv2VisionModel

import tipsv2
from train.network.from_dinov2 import KINDS, vision_tower
from train.network.from_dinov2 import assemble as join
from train.network.teachers import TextTeacher
from train.recipe.settings import PATCH, choose
from train.run import checkpoint
from train.text import tower

UNTAUGHT_LAYERS = 1  # of a text tower that only holds a place until it is taught
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def assemble(
    vision: str,
    text: str,
    out: Path,
    second_cls: str = "own",
    size: int = 0,
    dtype: str = "float32",
    temperature: float = tower.TEMPERATURE,
) -> Path:
    """Write the encoder as a plain transformers folder `out`.

    Args:
        vision: folder or Hub id of a DINOv2, or any name of an encoder.
        text: a run of `train text`, or folder or Hub id of a sentence encoder.
        second_cls: of a DINOv2 without registers, see `train.network.from_dinov2.vision_tower`.
        size: short side in pixels at which images are to be looked at; 0 is that of the position table.
        dtype: of the weights in the file: "float32", "float16" or "bfloat16". temperature: of the softmax over texts.
    Raises: ValueError for towers that cannot be opened or differ in width, and for an `out` that is not empty.
    """
    if size % PATCH or size < 0:
        raise ValueError(f"--size {size}: it must be a multiple of the patch size, {PATCH} pixels, or 0.")
    if temperature <= 0:
        raise ValueError(f"--temperature {temperature}: it must be above 0.")
    choose("--dtype", dtype, *DTYPES)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out.")
    sight = _vision(vision, second_cls)
    words, tokenizer = _text(text, sight.config.hidden_size)
    model = join(sight, words, temperature)
    return checkpoint.export(out, model.to(DTYPES[dtype]), tokenizer, size)


def _vision(name: str, second_cls: str) -> Tipsv2VisionModel:
    if _kind(name) in KINDS:
        return vision_tower(name, second_cls)
    return tipsv2.load(name, "cpu", "float32", fast=False).model.vision_model


def _kind(name: str) -> str:
    """The model_type of a folder; of a Hub id what its name says."""
    try:
        return json.loads((Path(name) / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return KINDS[0] if "dinov2" in Path(name).name and not Path(name).exists() else ""


def _text(name: str, width: int) -> tuple[Tipsv2TextModel, PreTrainedTokenizerBase]:
    if (Path(name) / tower.FOLDER).is_dir() or _kind(name) == "tipsv2_text_model":
        return tower.open_tower(Path(name))
    teacher = TextTeacher(name, "--text")
    return tower.new_tower(teacher.matrix, width, UNTAUGHT_LAYERS, teacher.tokenizer.pad_token_id), teacher.tokenizer
