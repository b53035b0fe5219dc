"""One object that turns pictures and phrases into TIPSv2 embeddings: transformers' Tipsv2Model, loaded once and
wrapped.

Two levels: encode_image(s) and encode_text take what people have (files, PIL, strings), encode_pixels takes tensors in
the model's frame. Everything that comes out is float32.
Sizes: B images, N texts, h x w patches, D embedding width.

    from tipsv2 import load
    encoder = load()          # "auto": tipsv2-b14 if it is on this machine, else the bundled encoder
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from cachetools import LRUCache

from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import (
    CHECKPOINT,
    ModelError,
    ModelInfo,
    fetch,
    find,
    read_config,
    resolution_of,
    vision_sizes,
)
from tipsv2.checkpoints.weights import digest_of, read_model, read_tokenizer, turn_back
from tipsv2.images import ImageSource, open_image
from tipsv2.network import text_cache
from tipsv2.network.cpu import multiplies_int8, quantise, speed_up
from tipsv2.network.dense import OUTPUTS, ExactPixels, layer_features, vision_features
from tipsv2.network.view import BATCH_SIZE, ImageFeatures, View, crops_of, look
from tipsv2.prompts import TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Tipsv2Model

TEXT_CACHE_SIZE = 4096  # texts; 12 MB at width 768
INT8 = "int8"  # a precision of linear layers, not a type of the network: everything else is float32
TEXT_BATCH = 128  # prompts that go through together


class Encoder:
    """A loaded encoder; see `load`. Safe to share between threads: nothing but the bounded text cache ever changes."""

    def __init__(self, info: ModelInfo, model: Tipsv2Model, tokenizer: PreTrainedTokenizerBase):
        self.info = info
        self.model = model
        self.tokenizer = tokenizer
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.vision_model.dtype  # the model's own first parameter is the temperature
        self.patch_size: int = model.config.vision_config.patch_size
        self.num_layers: int = model.config.vision_config.num_hidden_layers
        self.temperature = float(model.temperature.detach())  # image-text logits are cosines divided by it
        # of the weights, packed by `cpu` or not
        self.nbytes = sum(parameter.nbytes for parameter in model.parameters())
        self.digest = digest_of(model)
        self._texts: LRUCache = LRUCache(TEXT_CACHE_SIZE)  # (text, templates) -> row [D]
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Encoder({self.info.name}, {self.device}, {self.precision})"

    @property
    def precision(self) -> str:
        """ "int8" where the linear layers multiply integers, else the name of `dtype`, such as "float32"."""
        return INT8 if multiplies_int8(self.model) else str(self.dtype).removeprefix("torch.")

    def look(self, image: ImageSource, view: View | None = None, layer: int | None = None) -> ImageFeatures:
        """What the network makes of an image; ask it with `tipsv2.analysis.heatmap.maps` and
        `tipsv2.analysis.segmentation.label`.

        image: anything `tipsv2.images.open_image` takes.   view: how it is looked at, by default whole, as in training.
        layer: as if the network ended after this block, 1 to num_layers. Raises ImageError, and ValueError on layers
        and resolutions that do not exist.
        """
        return look(self, [image], view, layer)[0]

    def encode_image(self, image: ImageSource, resolution: int | None = None) -> ImageFeatures:
        """`look` at the whole image. resolution: short side in pixels that the network sees, the aspect ratio kept; by
        default the encoder's own, `info.resolution`. Raises ImageError.
        """
        return self.look(image, View(resolution))

    def encode_images(
        self, images: Sequence, resolution: int | None = None, batch_size: int = BATCH_SIZE
    ) -> list[ImageFeatures]:
        """As encode_image for many: those that become equally large go through together, `batch_size` at a time."""
        return look(self, images, View(resolution), batch_size=batch_size)

    @torch.no_grad()
    def encode_layers(
        self, image: ImageSource, layers: Collection[int] | None = None, resolution: int | None = None
    ) -> dict[int, ImageFeatures]:
        """As encode_image for every layer k of `layers` (1..num_layers, by default all), in one pass: what it would
        return if the network ended after block k. The highest layer is encode_image itself; see
        `tipsv2.network.dense.layer_features`. Raises ImageError, and ValueError on layers that do not exist.
        """
        image, view = open_image(image), View(resolution)
        pixels, _ = crops_of(image, view, self.info.resolution if resolution is None else resolution, self.patch_size)
        layers = range(1, self.num_layers + 1) if layers is None else layers
        return {
            number: ImageFeatures(
                cls[0].float().cpu(),
                caption_cls[0].float().cpu(),
                patches[0].float().cpu(),
                values[0].float().cpu(),
                size=(image.height, image.width),
            )
            for number, (cls, caption_cls, patches, values) in layer_features(
                self.model.vision_model, pixels.to(self.device), layers
            )
        }

    @torch.no_grad()  # not inference_mode: a teacher's outputs must be usable in a student's loss
    def encode_pixels(
        self,
        pixels: torch.Tensor,
        masked: torch.Tensor | None = None,
        only: Collection[str] = OUTPUTS,
        layer: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """The exact level. pixels: [B, 3, H, W] in [0, 1], H and W multiples of `patch_size`.   masked: [B, h*w] bool.
        only: which of the outputs are wanted; "values" alone cost less than all, and so does leaving them out.
        layer: as if the network ended after this block; nothing is masked there.

        Returns "cls" [B, D], "caption_cls" [B, D], "patches" [B, h, w, D] and "values" [B, h, w, D], float32 on the
        encoder's device, after the final LayerNorm, not normalised.
        """
        pixels = pixels.to(self.device)
        if masked is not None:
            masked = masked.to(self.device)
        if layer is None:
            outputs = vision_features(self.model.vision_model, pixels, masked, only=only)
        else:
            ((_, outputs),) = layer_features(self.model.vision_model, pixels, [layer])
        named = zip(OUTPUTS, outputs, strict=True)
        return {name: value.float() for name, value in named if name in only and value is not None}

    def encode_text(
        self, texts: Sequence[str], templates: str | Sequence[str] = "none", keep: bool = False
    ) -> torch.Tensor:
        """texts: N phrases in any language, at most 64 tokens of each are read.
        templates: "none", "tips9", "clip80", or own ones, each with a "{}" where the text goes. The embeddings of a
            text's prompts are normalised, averaged and normalised again.
        keep: also on the disk (`tipsv2.network.text_cache`), for class lists that come again; never for a visitor's
        words. Returns [N, D] float32 on the CPU, rows of length one. Raises ValueError on blank texts or unknown
        templates.
        """
        if isinstance(texts, str):
            raise ValueError("encode_text takes a list of texts: put a single text into a list.")
        frames = _frames(templates)
        texts = [_clean(text) for text in texts]
        if not texts:
            return torch.empty(0, self.model.config.text_config.hidden_size)
        vectors = {}
        with self._lock:
            for text in texts:
                if (row := self._texts.get((text, frames))) is not None:
                    vectors[text] = row
        missing = [text for text in dict.fromkeys(texts) if text not in vectors]
        if missing:
            key = text_cache.key_of(self.info, self.precision, frames, missing) if keep else ""
            rows = text_cache.read(key) if key else None
            if rows is None:
                prompts = [frame.replace("{}", text) for text in missing for frame in frames]
                rows = self.embed_prompts(prompts).unflatten(0, (len(missing), len(frames)))
                rows = F.normalize(rows.mean(dim=1), dim=-1)
                if key:
                    text_cache.write(key, rows)
            vectors.update(zip(missing, (row.clone() for row in rows), strict=True))
            with self._lock:
                for text in missing:
                    self._texts[text, frames] = vectors[text]
        return torch.stack([vectors[text] for text in texts])

    def forget_texts(self) -> None:
        """Let go of the texts it remembers; what is on the disk stays."""
        with self._lock:
            self._texts.clear()

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> torch.Tensor:
        """Prompts -> [N, D] float32 unit rows on the CPU. Each different one is read once, with those of its length:
        most prompts hold a tenth of the 64 tokens the network has places for, and padding costs as much as words.
        """
        limit = self.model.config.text_config.max_position_embeddings
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        tokens = self.tokenizer(list(places), truncation=True, max_length=limit)["input_ids"]
        lengths = torch.tensor([len(ids) for ids in tokens])
        for prompt, length in zip(places, lengths, strict=True):
            if not length:
                raise ValueError(f"The text '{prompt}' holds nothing that can be read: write some words.")
        rows = torch.empty(len(tokens), self.model.config.text_config.hidden_size)
        for some in lengths.argsort(stable=True).split(TEXT_BATCH):
            ids = torch.zeros(len(some), int(lengths[some].max()), dtype=torch.long)  # what is masked may be any token
            masks = torch.arange(ids.shape[1]) < lengths[some, None]
            ids[masks] = torch.tensor([token for i in some for token in tokens[i]])
            pooled = self.model.text_model(
                input_ids=ids.to(self.device), attention_mask=masks.long().to(self.device)
            ).pooler_output
            rows[some] = F.normalize(pooled.float(), dim=-1).cpu()
        return rows[[places[prompt] for prompt in prompts]]


def load(
    name: str | Path = "auto",
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    progress: bool = True,
    fast: bool = True,
) -> Encoder:
    """Load an encoder for inference.

    name: as in `tipsv2.checkpoints.catalogue.find`.   device: "auto" (cuda, else mps, else cpu) or a torch device.
    dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware multiplies it itself, else float32.
        "int8", on a CPU and never taken by itself: linear layers multiply 8-bit integers, which docs/performance.md
        weighs; all else is float32.
    progress: show a bar while downloading.
    fast: make the network ready for inference, see `for_inference`; False keeps it as
        transformers has it, to be converted or exported.
    Reads safetensors only and runs no code out of the folder. Raises ModelError when weights are missing, foreign or
    damaged, or when the Hub cannot be reached. Where "auto" finds a released encoder that cannot be opened, the bundled
    one is taken and a warning says so. `tipsv2.checkpoints.weights.read_model` gives a network that can be trained.
    """
    info = find(name)
    if str(name).strip() == "auto" and info.source != "bundled":
        try:
            return _load(info, device, dtype, progress, fast)
        except ModelError as error:
            logging.getLogger(__name__).warning("%s The bundled encoder %s answers instead.", error, bundled.default())
            info = find(bundled.default())
    return _load(info, device, dtype, progress, fast)


def _load(info: ModelInfo, device: str, dtype: str | torch.dtype, progress: bool, fast: bool) -> Encoder:
    folder = fetch(info, progress)
    info = _with_sizes(info, folder)
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    if dtype == INT8 and not fast:
        raise ModelError("int8 is for inference only: take the dtype float32 to convert, export or train a model.")
    model = read_model(folder, kind)
    if info.source == "checkpoint":
        turn_back(model, Path(info.location) / CHECKPOINT)
    encoder = Encoder(info, model.to(where).eval(), read_tokenizer(folder, model.config.text_config.vocab_size))
    if fast:
        for_inference(model, int8=dtype == INT8)
    return encoder


def for_inference(model: Tipsv2Model, int8: bool = False) -> None:
    """Make a model in evaluation mode, where it is, fast and exact, in place; it can no longer be trained or saved.

    int8: with 8-bit products in the linear layers of a float32 model on the CPU instead; ModelError where there are
    none.
    """
    if int8:
        try:
            quantise(model)
        except RuntimeError as error:
            raise ModelError(f"int8 cannot be used here: {error}. Take the dtype auto.") from error
        return
    speed_up(model)
    if model.vision_model.dtype != torch.float32:
        embeddings = model.vision_model.embeddings
        embeddings.patch_embeddings = ExactPixels(embeddings.patch_embeddings)


def native_bf16(device: torch.device) -> bool:
    """Does the hardware multiply bfloat16 itself? Emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # younger than the oldest torch we take
            return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        flags = torch.cpu.get_capabilities()
        return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))
    return False


def pick_device(device: str) -> torch.device:
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by how the device is missing
        raise ModelError(f"The device '{device}' cannot be used here: take 'auto' or 'cpu'.") from error
    return where


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if dtype == INT8 and device.type != "cpu":
        raise ModelError(f"int8 is for the CPU, not for {device}: take the device cpu, or another dtype such as auto.")
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, INT8: torch.float32}
    if dtype not in names:
        raise ModelError(f"Unknown dtype '{dtype}': use auto, {', '.join(names)}.")
    return names[dtype]


def _with_sizes(info: ModelInfo, folder: Path) -> ModelInfo:
    """`info` with what only the folder's own configuration knows for sure. Raises ModelError if it is none."""
    config = read_config(folder)
    width, resolution = vision_sizes(config)[0], resolution_of(folder, config)
    return replace(info, width=width or info.width, resolution=resolution or info.resolution or 448)


def _frames(templates: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise ValueError(f"Unknown templates '{templates}': use {', '.join(TEMPLATES)}, or a list of your own.")
        return TEMPLATES[templates]
    frames = tuple(templates)
    if not frames or not all(isinstance(frame, str) and "{}" in frame for frame in frames):
        raise ValueError(
            'Every template needs a "{}" where the text goes, such as "a photo of a {}.", and at least one.'
        )
    return frames


def _clean(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"A text must be a string, not {type(text).__name__}.")
    text = text.strip().encode("utf-8", "replace").decode()  # half a surrogate pair would stop the tokenizer
    if not text:
        raise ValueError("A text is empty: write what to look for, such as 'a dog'.")
    return text
