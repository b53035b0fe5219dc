"""A transformers folder -> its network and its tokenizer, whole or not at all.

Weights are read from safetensors, by the class named here: nothing is unpickled and no code out of the folder runs,
whatever its configuration asks for. Every parameter must come from the file, bar the temperature, which releases may
leave to the configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tipsv2.checkpoints.catalogue import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, Tipsv2Model


def read_model(folder: Path, dtype: torch.dtype) -> Tipsv2Model:
    """The network in inference attention (sdpa) with every weight from the folder. Raises ModelError otherwise."""
    from transformers import Tipsv2Model

    model = read_whole(Tipsv2Model, folder, dtype, "sdpa", optional={"temperature"})
    with readable(folder):
        temperature = _stored_temperature(folder)
    if not isinstance(model.config.vision_config.patch_size, int):
        raise ModelError(f"The model in '{folder}' has patches that are not square: not a TIPSv2 encoder.")
    temperature = model.config.temperature_init_value if temperature is None else temperature
    model.temperature.data = torch.tensor(temperature)  # float32 whatever the rest: bfloat16 is off by up to 0.4 %
    return model


def turn_back(model: Tipsv2Model, file: Path) -> None:
    """Give a run's finished network the weights of one of its checkpoints, in place. What a run does not train is in
    no checkpoint and stays. Raises ModelError where the checkpoint holds parts that are no longer in the network.
    """
    from safetensors import safe_open

    prefix = "objective.model."
    own = model.state_dict()
    with readable(file.parent), safe_open(file, framework="pt") as kept:
        state = {key.removeprefix(prefix): kept.get_tensor(key) for key in kept.keys() if key.startswith(prefix)}  # noqa: SIM118 (not a dict)
    foreign = [key for key, value in state.items() if key not in own or own[key].shape != value.shape]
    if foreign or not state:
        raise ModelError(
            f"The checkpoint '{file.parent}' cannot be looked at by itself: its run trained parts that were merged "
            "into the model at the end (LoRA or inherited words). Use the run's model."
        )
    model.load_state_dict(state, strict=False)


def read_whole(
    network: type[PreTrainedModel],
    folder: Path,
    dtype: torch.dtype,
    attention: str | None = None,
    optional: Collection[str] = (),
) -> PreTrainedModel:
    """A `network` of transformers with every weight from the folder, bar the `optional` names, and none left over.

    attention: as transformers' attn_implementation; None for its own choice. Raises ModelError otherwise.
    """
    with readable(folder), quiet():
        model, report = network.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that they are reported below, with the missing ones, in one sentence
            output_loading_info=True,
        )
    without_code(model.config)
    missing = sorted(set(report["missing_keys"]) - set(optional))
    foreign = sorted(report["unexpected_keys"])
    wrong = sorted(key for key, *_ in report["mismatched_keys"])
    if missing or foreign or wrong:
        total = len(model.state_dict())
        covered = 100 * (total - len(missing) - len(wrong)) / total
        parts = [("missing", missing), ("foreign", foreign), ("of the wrong shape", wrong)]
        listed = "; ".join(f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in parts if keys)
        raise ModelError(f"The weights in '{folder}' cover {covered:.1f} % of the model: {listed}; {_again(folder)}.")
    return model


def digest_of(model: PreTrainedModel) -> str:
    """16 hex digits that tell apart models of which any tensor was trained on: some values of every tensor."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)]  # reading them all would take as long as loading
        digest.update(name.encode() + some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    """The tokenizer of the folder, none of whose tokens is unknown to a model of `vocab_size`. Raises ModelError.

    It may be tokenizer.model alone, as in the released repositories, which takes the package sentencepiece.
    """
    from transformers import AutoTokenizer
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    file = "tokenizer.json" if (folder / "tokenizer.json").is_file() else "tokenizer.model"
    if file == "tokenizer.model" and not (is_sentencepiece_available() and is_protobuf_available()):
        raise ModelError(
            f"The tokenizer in '{folder}' is a SentencePiece file, and reading it needs two more packages: pip install "
            "sentencepiece protobuf."
        )
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as in read_model
        raise ModelError(
            f"The tokenizer in '{folder}' cannot be read ({file} is damaged or none of TIPS): {_again(folder)}."
        ) from error
    tokenizer.init_kwargs.pop("auto_map", None)
    if len(tokenizer) > vocab_size:
        raise ModelError(
            f"The tokenizer in '{folder}' has {len(tokenizer)} tokens, the model {vocab_size}: they do not fit."
        )
    return tokenizer


def without_code(config: PreTrainedConfig) -> None:
    """Drop what names Python code beside the weights, in place: where the weights go, that code does not."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        vars(part).pop("auto_map", None)


def _again(folder: Path) -> str:
    """How to come by a whole copy of a damaged folder: half a sentence."""
    if folder.parent.name == "snapshots":  # in the Hub's cache, which takes its damaged files for whole ones
        return f"delete '{folder.parent.parent}', and it is downloaded anew"
    return "get or save it again"


def _stored_temperature(folder: Path) -> float | None:
    """The learned temperature in the weights; None where a release leaves it to the configuration."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if "temperature" in weights.keys():  # noqa: SIM118 (not a dict)
                return float(weights.get_tensor("temperature"))
    return None


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Whatever reading the folder's model raises (configuration checks, safetensors, JSON: each its own) becomes a
    ModelError.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"The model in '{folder}' cannot be read ({reason}): {_again(folder)}.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' loading bar and key report, which `read_whole` replaces by one sentence."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
