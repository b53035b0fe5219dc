"""Official .npz pairs of TIPS and TIPSv2 <-> transformers folders, exactly, both ways; the convert command.

python -m tipsv2 convert tips_v2_oss_b14_vision.npz tips_v2_oss_b14_text.npz models/b14 --tokenizer tokenizer.model
python -m tipsv2 convert runs/mine/model official/mine --heads 3        # official/mine_vision.npz and _text.npz

Every key of the files must be used and every parameter of the model set, otherwise nothing is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.checkpoints.model_files import without_auto_map

if TYPE_CHECKING:
    import argparse

    import torch
    from transformers import PreTrainedTokenizerBase, Tipsv2Config, Tipsv2Model

# What the official code fixes and no .npz holds: a model that has it otherwise cannot be written as one.
_FIXED = {
    "vision_config": ("hidden_act", "layer_norm_eps", "qkv_bias", "num_channels"),
    "text_config": ("hidden_act", "layer_norm_eps", "scale_sqrt_depth", "pooling_epsilon", "max_position_embeddings"),
}


@dataclass(frozen=True)
class Coverage:
    """What a conversion used: keys of both .npz files, and parameters of the model."""

    vision_keys: int
    text_keys: int
    parameters: int
    heads: tuple[int, int]  # vision, text: in the code of the official models, in no file
    written: tuple[Path, ...]

    def __str__(self) -> str:
        vision, text = self.heads
        return (
            f"vision {self.vision_keys} of {self.vision_keys} keys, text {self.text_keys} of {self.text_keys} keys, "
            f"{self.parameters} of {self.parameters} tensors of the model; attention heads {vision} and {text}"
        )


def from_official(
    vision_path: str | Path, text_path: str | Path, heads: int | None = None, text_heads: int | None = None
) -> Tipsv2Model:
    """The official pair as a transformers model in evaluation mode, float32. Raises ModelError unless it fits
    exactly.
    """
    from tipsv2.checkpoints.official import config_of, read_npz, state_dict

    vision, text = read_npz(vision_path), read_npz(text_path)  # before torch: a wrong path should not cost its loading

    from transformers import Tipsv2Model

    from tipsv2.checkpoints.weights import quiet

    config, state = config_of(vision, text, heads, text_heads), state_dict(vision, text)
    check_fit(state, config, f"'{Path(vision_path).name}' and '{Path(text_path).name}'")
    # A third of an array is a view of it, but a file of safetensors takes only tensors with a storage of their own.
    state = {key: value.clone() if value._base is not None else value for key, value in state.items()}
    with quiet():
        return Tipsv2Model.from_pretrained(None, config=config, state_dict=state).eval()


def check_fit(state: Mapping[str, torch.Tensor], config: Tipsv2Config, files: str) -> None:
    """Raises ModelError unless `state` has every parameter of the model `config` describes, in its shape, and no
    other. Allocates nothing.
    """
    import torch
    from transformers import Tipsv2Model

    from tipsv2.checkpoints.official import first

    with torch.device("meta"):
        wanted = Tipsv2Model(config).state_dict()
    unset = [key for key in wanted if key not in state]
    foreign = [key for key in state if key not in wanted]
    wrong = [f"{key} {list(state[key].shape)} for {list(wanted[key].shape)}" for key in state
             if key in wanted and state[key].shape != wanted[key].shape]  # fmt: skip
    parts = [("parameters not set", unset), ("keys too many", foreign), ("of the wrong shape", wrong)]
    if problems := "; ".join(f"{len(keys)} {what} ({first(keys)})" for what, keys in parts if keys):
        used = len(state) - len(foreign) - len(wrong)
        raise ModelError(
            f"{files} do not make a whole model ({used} of {len(wanted)} parameters): {problems}; get both files of "
            "one model again."
        )


def to_folder(
    vision_path: str | Path,
    text_path: str | Path,
    out: str | Path,
    heads: int | None = None,
    text_heads: int | None = None,
    tokenizer: str | Path | None = None,
) -> Coverage:
    """Write a transformers folder: config.json, model.safetensors, preprocessor_config.json and tokenizer files.

    tokenizer: a SentencePiece .model, or a folder whose tokenizer files are copied; without one the folder opens with
        plain transformers, but is not yet an encoder of this project.
    Raises ModelError, and OSError where `out` cannot be written or holds something already.
    """
    from tipsv2.checkpoints.official import official
    from tipsv2.files import whole_folder
    from tipsv2.images import preprocessor_settings

    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OSError(f"'{out}' exists already: give the name of a new folder.")
    model = from_official(vision_path, text_path, heads, text_heads)

    from tipsv2.checkpoints.weights import quiet

    files: list[Path] = []
    words = None
    if tokenizer is not None:
        files, words = _tokenizer(Path(tokenizer), model.config.text_config.vocab_size)
    with whole_folder(out) as part, quiet():
        model.save_pretrained(part)
        settings = preprocessor_settings(model.config.vision_config.image_size)
        (part / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        if words is not None:
            words.save_pretrained(part)
        for file in files:
            shutil.copyfile(file, part / file.name)
            if file.name == "tokenizer_config.json" and (content := without_auto_map(file)):
                (part / file.name).write_bytes(content)
    state = model.state_dict()
    vision, text = (sum(1 for _ in official(state, name)) for name in ("vision", "text"))
    return Coverage(vision, text, len(state), _heads(model.config), (out,))


def to_official(model: Tipsv2Model, prefix: str | Path) -> Coverage:
    """Write `prefix`_vision.npz and `prefix`_text.npz, float32, with the official keys.

    model: as transformers has it, from `tipsv2.checkpoints.weights.read_model` or `tipsv2.load(..., fast=False)`.
    Raises ModelError where the model is nothing that the official code could run, OSError where they cannot be written.
    """
    from tipsv2.checkpoints.official import config_of, official, state_dict, write_npz

    state = {key: value.detach().cpu().float() for key, value in model.state_dict().items()}
    fresh = type(model.config)()
    for part, names in _FIXED.items():
        own, theirs = getattr(model.config, part), getattr(fresh, part)
        for name in names:
            if getattr(own, name) != getattr(theirs, name):
                raise ModelError(
                    f"{part}.{name} is {getattr(own, name)} in this model, but always {getattr(theirs, name)} in the "
                    "official code: it cannot be written as an .npz pair."
                )
    pairs = {part: {key: value.numpy() for key, value in official(state, part)} for part in ("vision", "text")}
    heads = _heads(model.config)
    back = config_of(pairs["vision"], pairs["text"], *heads)  # the way back must be open
    check_fit(state_dict(**pairs), back, "The arrays")
    if foreign := state.keys() - state_dict(**pairs).keys():
        raise ModelError(f"No official key stands for {min(foreign)}: this model cannot be written as an .npz pair.")
    prefix = Path(os.path.abspath(prefix))
    written = tuple(prefix.with_name(f"{prefix.name}_{part}.npz") for part in pairs)
    if there := [path for path in written if path.exists()]:
        raise OSError(f"'{there[0]}' exists already: give another name.")
    for path, part in zip(written, pairs.values(), strict=True):
        write_npz(path, part)
    return Coverage(len(pairs["vision"]), len(pairs["text"]), len(state), heads, written)


def _tokenizer(source: Path, vocab_size: int) -> tuple[list[Path], PreTrainedTokenizerBase | None]:
    """The tokenizer files to copy, or the tokenizer to save. Raises ModelError unless it fits the vocabulary."""
    from tipsv2.checkpoints.weights import read_tokenizer

    if source.is_file():
        from tipsv2.checkpoints.sentencepiece_files import read_sentencepiece

        return [], read_sentencepiece(source, vocab_size)
    files = sorted(source.glob("tokenizer*"))
    if not files:
        raise ModelError(
            f"'{source}' is no SentencePiece file and holds no tokenizer files: give tokenizer.model of the official "
            "release or the folder of any released TIPSv2 model."
        )
    read_tokenizer(source, vocab_size)
    return files, None


def _heads(config: Tipsv2Config) -> tuple[int, int]:
    return config.vision_config.num_attention_heads, config.text_config.num_attention_heads


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `convert` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "convert",
        run,
        "Turn an official pair of .npz files into a transformers folder, or an encoder into such a pair.",
        "convert tips_v2_oss_b14_vision.npz tips_v2_oss_b14_text.npz models/b14 --tokenizer tokenizer.model\n"
        "  python -m tipsv2 convert runs/mine/model official/mine",
    )
    parser.add_argument(
        "source", nargs="+", help="the vision .npz and the text .npz; or one encoder: a name, a folder, a run"
    )
    parser.add_argument("out", help="folder to write; from an encoder: OUT_vision.npz and OUT_text.npz are written")
    parser.add_argument(
        "--tokenizer",
        metavar="FILE|FOLDER",
        help="the SentencePiece tokenizer.model of the release, or a model folder whose tokenizer files are copied",
    )
    parser.add_argument("--heads", type=int, help="attention heads, for widths that were never released")
    parser.add_argument("--text-heads", type=int, help="those of the text tower, where they differ")


def run(options: argparse.Namespace) -> None:
    """The convert command. Raises ValueError or OSError with one sentence for whoever typed it."""
    source, files = options.source, [name for name in options.source if name.endswith(".npz")]
    if len(source) == 2 and len(files) == 2:
        vision, text = source
        done = to_folder(vision, text, options.out, options.heads, options.text_heads, options.tokenizer)
        more = "" if options.tokenizer else "; --tokenizer tokenizer.model would make it an encoder that reads text"
    elif len(source) == 1 and not files:
        if options.tokenizer or options.heads or options.text_heads:
            raise ValueError("--tokenizer and --heads belong to .npz files as the source: leave them out.")
        from tipsv2.checkpoints.catalogue import find
        from tipsv2.checkpoints.official import HEADS

        find(source[0])

        from tipsv2.network.encoder import load

        model = load(source[0], "cpu", "float32", fast=False).model
        done = to_official(model, options.out)
        released = done.heads == 2 * (HEADS.get(model.config.vision_config.hidden_size),)
        more = "" if released else f"; back again with --heads {done.heads[0]} --text-heads {done.heads[1]}"
    else:
        raise ValueError("convert takes VISION.npz TEXT.npz FOLDER, or an encoder and a name: see convert --help.")
    print(done)
    print(f"written to {' and '.join(map(str, done.written))}{more}")
