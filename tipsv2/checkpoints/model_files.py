"""What the files of a model folder say before any weight is read: its kind, its sizes, whether they can be true.

A configuration is checked here because what reads it afterwards trusts it: transformers allocates what it asks for.
Light: no torch in here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DPT_TYPE = "tipsv2_dpt"  # model_type of vision encoders with DPT heads; an encoder's is "tipsv2"
MAX_CONFIG_BYTES = 10_000_000
TOWERS = {"vision_config": "vision encoder", "backbone_config": "vision encoder", "text_config": "text encoder"}
RANGES = {  # what TIPS towers can be, far around the released ones: least and most
    "hidden_size": (1, 16_384),
    "num_hidden_layers": (1, 200),
    "num_attention_heads": (1, 256),
    "intermediate_size": (1, 131_072),
    "mlp_ratio": (0.1, 32),
    "vocab_size": (1, 2_000_000),
    "max_position_embeddings": (1, 4096),
    "num_register_tokens": (0, 64),
    "num_channels": (3, 3),
    "patch_size": (1, 128),
    "image_size": (1, 8192),
}
SURPLUS = (4, 50_000_000)  # a configuration of so many times the parameters in the files, and of so many, is refused


class ModelError(ValueError):
    """A model that cannot be used, in one sentence: which one, what is wrong, what to do."""


def read_config(folder: Path, wanted: str = "tipsv2") -> dict:
    """config.json of a model folder as a dict. Raises ModelError if it is unreadable, of the first form of the release
    (see `outdated`), not of the type `wanted`, or of sizes that no model has or that are not those of its files.
    """
    config = read_json(folder / "config.json")
    if outdated(folder):
        raise ModelError(f"'{folder}' {OUTDATED}.")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise ModelError(f"'{folder / 'config.json'}' is not a readable model configuration: get it again.")
    if kind != wanted:
        give = "one with DPT heads" if wanted == DPT_TYPE else "a TIPSv2 encoder"
        raise ModelError(f"'{folder}' holds a model of type '{kind}', not '{wanted}': give {give}.")
    _check_sizes(folder / "config.json", config)
    described, there = _least_parameters(config), num_parameters(folder)
    if there and described > max(SURPLUS[0] * there, SURPLUS[1]):
        raise ModelError(
            f"'{folder / 'config.json'}' describes {described:,} parameters and the weights beside it have {there:,}: "
            "they are not of one model; get or save both again."
        )
    return config


OUTDATED = (
    "is of the release's first form (April to June 2026), which only Python code beside the weights can open, and no "
    "code of a model folder runs here: get the model anew from the Hub, whose files transformers opens since"
)


def outdated(folder: Path) -> bool:
    """Is it a model in the first form of the release: a flat configuration with code of its own in auto_map, and for
    models with DPT heads the heads alone?
    """
    try:
        config = read_json(folder / "config.json")
    except ModelError:
        return False
    return isinstance(config, dict) and "auto_map" in config and not TOWERS.keys() & config.keys()


def read_json(file: Path) -> Any:
    """What a JSON file of a model folder holds. Raises ModelError if it cannot be read or is none, or is too long or
    too deeply nested for one.
    """
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("too long")
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{file}' is not a readable model configuration: get it again.") from error


def without_auto_map(file: Path) -> bytes | None:
    """A JSON file of a model folder without the entry that names code beside it; None where it has none. Raises
    ModelError.
    """
    content = read_json(file)
    if not isinstance(content, dict) or "auto_map" not in content:
        return None
    del content["auto_map"]
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def vision_sizes(config: Mapping) -> tuple[int, int]:
    """(width, training resolution) out of a model's configuration, 0 where it does not say."""
    vision = config.get("vision_config") or config.get("backbone_config")
    vision = vision if isinstance(vision, dict) else {}
    width, resolution = vision.get("hidden_size", 0), vision.get("image_size", 0)
    if isinstance(resolution, list) and resolution:  # transformers allows [height, width]
        resolution = min(resolution)
    return (width if isinstance(width, int) else 0), (resolution if isinstance(resolution, int) else 0)


def num_parameters(folder: Path) -> int:
    """The parameters of a model folder out of the headers of its safetensors files (a length, then JSON with every
    tensor's shape); 0 if they cannot be read.
    """
    total = 0
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(length, 100_000_000)))
            total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return 0
    return total


def _check_sizes(file: Path, config: Mapping) -> None:
    for part in TOWERS.keys() & config.keys():
        tower = config[part]
        if not isinstance(tower, dict):
            raise ModelError(f"'{file}' is not a readable model configuration ({part} is no object): get it again.")
        for name, (least, most) in RANGES.items():
            value = tower.get(name, least)
            numbers = value if isinstance(value, list) and len(value) == 2 and name.endswith("_size") else [value]
            for number in numbers:
                kinds = (int, float) if name == "mlp_ratio" else (int,)
                if isinstance(number, bool) or not isinstance(number, kinds) or not least <= number <= most:
                    raise ModelError(
                        f"'{file}' cannot be true: {part}.{name} is {str(value)[:40]}, and a {TOWERS[part]} has "
                        f"{least} to {most}; get or save it again."
                    )
        side = tower.get("image_size")
        if isinstance(side, list) and side[0] != side[1]:
            raise ModelError(
                f"'{file}': the position table is for images of {side[0]} x {side[1]} px, and only square ones can be "
                "stretched to other images: save the model with a square table."
            )


def _least_parameters(config: Mapping) -> int:
    """What the layers and tables that a configuration names have at least; sizes it leaves out count as small."""
    total = 0
    for part in TOWERS.keys() & config.keys():
        tower = config[part]
        width = tower.get("hidden_size", 1)
        hidden = tower.get("intermediate_size", 1) if part == "text_config" else int(width * tower.get("mlp_ratio", 1))
        total += tower.get("num_hidden_layers", 1) * width * (4 * width + 2 * hidden)
        total += width * tower.get("vocab_size", 1)
        side, patch = tower.get("image_size", 1), tower.get("patch_size", 14)
        side, patch = (max(value) if isinstance(value, list) else value for value in (side, patch))
        total += width * (side // patch) ** 2
    return total
