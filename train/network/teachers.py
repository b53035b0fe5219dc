"""Unimodal teachers for masked distillation: any vision or any text model that transformers opens.

A vision teacher gives a grid of patch features, a text teacher a feature per token, its tokenizer and its word
embeddings. Of a two-tower model (CLIP, SigLIP, TIPSv2) the tower asked for is taken. Weights are safetensors, no code
of a model's folder runs, nothing here is ever trained or saved with a run.
Sizes: B images or texts, N = side * side patches, L tokens, W the teacher's width, V its vocabulary.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.image_processing_base import ImageProcessingMixin

from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.weights import quiet
from train.objectives.sfclip import Sfclip

MAX_LENGTH = 64  # tokens of a caption that are read, as the student's text tower does


class VisionTeacher:
    """A frozen vision model with square patches, and what its image processor does to the pixels."""

    def __init__(self, name: str, field: str = "sfclip.vision_teacher"):
        """Open a folder, a Hub id or the bundled encoder. Raises ValueError if it is no vision model with patches."""
        self.name, self.field = name, field
        self.model = open_model(name, field, "vision", "pixel_values")
        config = self.model.config
        patch = getattr(config, "patch_size", None)
        patch = patch[0] if isinstance(patch, list | tuple) and len(set(patch)) == 1 else patch
        if not isinstance(patch, int):
            raise ValueError(f"{field}={name!r} gives no grid of square patches; choose a plain vision transformer.")
        self.patch, self.width = patch, config.hidden_size
        self.registers = getattr(config, "num_register_tokens", 0) or 0
        self.resizes = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.scale, mean, deviation = normalisation(name, field)
        self.mean, self.deviation = (torch.tensor(v).view(-1, 1, 1) for v in (mean, deviation))

    def look(self, images: Tensor, side: int, size: int = 0) -> Tensor:
        """What the teacher sees in clean images: its last layer's patches on a grid of `side` x `side`.

        Args:
            images: [B, 3, S, S] in [0, 1].
            size: pixels at which the teacher looks, a multiple of its patch; 0 is the size that gives it this very
                grid. Another grid than `side` is interpolated (bilinear).
        Returns: [B, side * side, W] float32, no gradient.
        Raises: ValueError where the teacher cannot look at this size.
        """
        size = size or side * self.patch
        if size % self.patch:
            raise ValueError(
                f"{self.field}={self.name!r} has patches of {self.patch} px: teacher_size={size} is no multiple of it."
            )
        with torch.no_grad():
            move(self.model, images.device)
            if images.shape[-1] != size:
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            mean, deviation = self.mean.to(images), self.deviation.to(images)
            pixels = ((images * self.scale - mean) / deviation).to(self.model.dtype)
            options = {"interpolate_pos_encoding": True} if self.resizes else {}
            try:
                tokens = self.model(pixel_values=pixels, **options).last_hidden_state
            except (ValueError, RuntimeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise ValueError(
                    f"{self.field}={self.name!r} cannot look at {size} px ({_first(error)}); set the stages' "
                    "teacher_size to a side it takes."
                ) from error
            return self._grid(tokens, size // self.patch, side).flatten(1, 2).float()

    def _grid(self, tokens: Tensor, own: int, side: int) -> Tensor:
        """Tokens [B, T, W] without CLS and registers, on the student's grid: [B, side, side, W]."""
        first = tokens.shape[1] - own * own if tokens.ndim == 3 else -1
        if first not in (self.registers, self.registers + 1):  # without or with a CLS token
            raise ValueError(
                f"{self.field}={self.name!r} gives {list(tokens.shape[1:])} features for {own} x {own} patches and "
                f"{self.registers} registers: its grid cannot be matched. Choose a plain vision transformer."
            )
        grid = tokens[:, first:].unflatten(1, (own, own))
        if own == side:
            return grid
        grid = F.interpolate(grid.float().permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=own > side)
        return grid.permute(0, 2, 3, 1)


class TextTeacher:
    """A frozen text model, encoder or decoder only, with its tokenizer and its word embeddings."""

    def __init__(self, name: str, field: str = "sfclip.text_teacher"):
        """Open a folder, a Hub id or the bundled encoder. Raises ValueError if it is no text model with a tokenizer."""
        self.name, self.field = name, field
        self.model = open_model(name, field, "text", "input_ids")
        self.tokenizer = open_tokenizer(name, field)
        self.width = self.model.config.hidden_size

    @property
    def matrix(self) -> Tensor:
        """The input embeddings [V, E], float32; E may differ from W."""
        return self.model.get_input_embeddings().weight.detach().float().cpu()

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """A feature per token of clean texts: ids and mask [B, L] -> [B, L, W] float32, no gradient."""
        with torch.no_grad():
            move(self.model, ids.device)
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()


@dataclass(frozen=True)
class Teachers:
    """What a recipe's masked distillation learns from; None where it does without."""

    vision: VisionTeacher | None = None
    text: TextTeacher | None = None


def open_teachers(settings: Sfclip) -> Teachers:
    """The teachers that `settings` needs. Raises ValueError naming the field of one that is missing or unfit."""
    wants_text = settings.text_weight or settings.words != "own"
    for wanted, field in ((settings.vision_weight, "vision"), (wants_text, "text")):
        if wanted and not getattr(settings, f"{field}_teacher"):
            raise ValueError(f"sfclip.{field}_teacher is empty; give a model folder or a Hub id.")
    return Teachers(
        VisionTeacher(settings.vision_teacher) if settings.vision_weight else None,
        TextTeacher(settings.text_teacher) if wants_text else None,
    )


def open_tokenizer(name: str, field: str = "sfclip.text_teacher"):
    """A teacher's tokenizer as a student uses it: padding on the right, 64 tokens. Raises ValueError if it has none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_place(name), trust_remote_code=False)
        reads = tokenizer("a", add_special_tokens=False)["input_ids"] not in ([], [tokenizer.unk_token_id])
    except Exception:  # a missing file raises what the class that looked for it raises
        reads = False
    if not reads:  # some classes make an empty one where the file is missing
        raise ValueError(f"{field}={name!r} has no tokenizer that can be read; save its tokenizer there.")
    if tokenizer.pad_token is None:  # most decoders have none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "right"  # the student counts positions from the left
    tokenizer.model_max_length = MAX_LENGTH
    return tokenizer


def open_model(name: str, field: str, kind: str, takes: str) -> nn.Module:
    """The vision or text model (`kind`) in a folder or of a Hub id, every weight from its file, frozen.

    field: names it in errors.   takes: the name of its first argument, which tells the two kinds apart.
    Raises ValueError where there is none, it is of the other kind, or lacks weights.
    """
    place = _place(name)
    if os.path.isabs(place) and not os.path.isdir(place):
        raise ValueError(f"{field}={name!r}: there is no such folder.")
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        opener = AutoModelForTextEncoding if kind == "text" and config.is_encoder_decoder else AutoModel
        with quiet():  # what is missing is reported below
            model, report = opener.from_pretrained(
                place, dtype="auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, ValueError, KeyError) as error:
        where = "" if os.path.isabs(place) else " is no folder here and"
        raise ValueError(
            f"{field}={name!r}{where} cannot be opened ({_first(error)}); give the folder or the Hub id of a {kind} "
            "model that transformers knows, with safetensors."
        ) from error
    tower = getattr(model, f"{kind}_model", None)
    prefix = "" if tower is None else f"{kind}_model."
    model = model if tower is None else tower
    if model.main_input_name != takes or not hasattr(model.config, "hidden_size"):
        raise ValueError(f"{field}={name!r} is a {config.model_type} model, not a {kind} model; choose another.")
    # a checkpoint may come without the pooler, which nothing here reads
    missing = [k for k in report["missing_keys"] if k.startswith(prefix) and "pool" not in k]
    if missing:
        raise ValueError(f"{field}={name!r} lacks {len(missing)} weights, such as {missing[0]}; get it again.")
    return model.eval().requires_grad_(False)


def _place(name: str) -> str:
    """Where transformers finds `name`: an absolute path wherever that is what was meant, else a Hub id."""
    name = bundled.current_name(name)
    if name in bundled.names():
        return str(bundled.MODELS_FOLDER / name)
    path = Path(name).expanduser()
    looks_like_a_path = path.is_dir() or path.is_absolute() or name.startswith(".") or len(path.parts) != 2
    return str(path.resolve()) if looks_like_a_path else name


def normalisation(
    name: str, field: str, otherwise: tuple[list[float], list[float]] | None = None
) -> tuple[float, list[float], list[float]]:
    """Factor on pixels in [0, 1], then mean and standard deviation, from the image processor's settings of a model.

    otherwise: mean and deviation where the model has no such settings. Raises ValueError where neither tells them.
    """
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(_place(name))
    except (OSError, ValueError) as error:
        if otherwise:
            return 1.0, *otherwise
        raise ValueError(
            f"{field}={name!r} has no preprocessor_config.json, so how its pixels are normalised is unknown; save its "
            "image processor there."
        ) from error
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    if not settings.get("do_normalize", True):
        return scale, [0.0], [1.0]
    if "image_mean" not in settings or "image_std" not in settings:
        raise ValueError(f"{field}={name!r}: its preprocessor_config.json lacks image_mean or image_std; add them.")
    return scale, settings["image_mean"], settings["image_std"]


def move(model: nn.Module, device: torch.device) -> None:
    """Bring a frozen teacher to where the images are: in a run of several accelerators every process has its own."""
    if model.device != device:
        model.to(device)


def _first(error: Exception) -> str:
    """The first line of an error, which is where transformers says what is wrong."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
