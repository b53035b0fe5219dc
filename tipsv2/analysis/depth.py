"""Depth, surface normals and supervised segmentation with the DPT heads released for TIPSv2: transformers' Tipsv2Dpt
models, loaded once and wrapped.

Heads (google-deepmind/tips, pytorch/decoders.py; cards google/tipsv2-*-dpt): depth in metres is the mean of 256 even
bins from 1 mm to 10 m, learnt with the normals on NYU Depth v2, that is indoors; labels are ADE20K's 150 classes.
Sizes: B images, h x w patches, K classes, H x W pixels; the heads answer on a grid of 8h x 8w.

    from tipsv2.analysis.depth import load_dpt
    room = load_dpt("tipsv2-b14-dpt").predict("room.jpg")
    room.depth, room.normals, room.labels, room.shares()
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from tipsv2.analysis.heatmap import to_pixels
from tipsv2.analysis.segmentation import label_map
from tipsv2.checkpoints.catalogue import (
    AUTO_HUB,
    DPT_TYPE,
    HUB,
    ModelError,
    ModelInfo,
    fetch,
    find,
    read_config,
    vision_sizes,
)
from tipsv2.checkpoints.weights import digest_of, read_whole, readable
from tipsv2.images import MAX_PATCHES, ImageSource, fit_size, open_image, to_tensor
from tipsv2.network.encoder import pick_device
from tipsv2.prompts import CLASS_LISTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEADS = ("depth", "normals", "segmentation")

ADE20K = CLASS_LISTS["ade20k150"]  # for checkpoints that number their classes only; 0 is the wall, none is "other"


@dataclass(frozen=True)
class DptResult:
    """What `Dpt.predict` found, in pixels of the image that came in; None where the checkpoint has no such head."""

    depth: np.ndarray | None  # [H, W] float32, metres
    normals: np.ndarray | None  # [H, W, 3] float32, unit vectors (x, y, z) as NYU Depth v2's training data holds them
    labels: np.ndarray | None  # [H, W] int16: an index into `classes`
    classes: tuple[str, ...]  # K names, none without labels
    grid: tuple[int, int]  # (h, w) patches that the network saw

    def shares(self) -> dict[str, float]:
        """Name -> part of the pixels, in (0, 1] and adding up to one, the largest first; only classes that occur."""
        if self.labels is None:
            return {}
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        order = [label for label in np.argsort(-counts, kind="stable") if counts[label]]
        return {self.classes[label]: float(counts[label] / self.labels.size) for label in order}


class Dpt:
    """A loaded vision encoder with its DPT heads; see `load_dpt`. Nothing in it changes: threads may share it."""

    def __init__(self, info: ModelInfo, model: PreTrainedModel, heads: tuple[str, ...]):
        self.info = info
        self.model = model
        self.heads = heads  # of HEADS
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.precision = str(self.dtype).removeprefix("torch.")
        self.nbytes = sum(parameter.nbytes for parameter in model.parameters())
        self.digest = digest_of(model)
        self.patch_size: int = model.config.backbone_config.patch_size
        self.classes: tuple[str, ...] = _class_names(model.config.id2label) if "segmentation" in heads else ()

    def __repr__(self) -> str:
        heads = " + ".join(self.heads)
        return f"Dpt({self.info.name}: {heads}, {self.device}, {self.precision})"

    def predict(self, image: ImageSource, resolution: int | None = None) -> DptResult:
        """image: anything `tipsv2.images.open_image` takes.   resolution: short side in pixels that the network sees,
        the aspect ratio kept; by default the training resolution, less where it would make more than MAX_PATCHES.

        Bilinear from the heads' grid to pixels: depth as it is, normals brought back to length one, the classes'
        scores before the arg-max. Raises ImageError, and ValueError on a resolution out of range.
        """
        image = open_image(image)
        size = self._fit(image.width, image.height, self.info.resolution if resolution is None else resolution)
        maps = {name: value[0] for name, value in self.predict_pixels(to_tensor(image, size)[None]).items()}
        full = (image.height, image.width)
        depth = normals = labels = None
        if "depth" in maps:
            depth = to_pixels(maps["depth"][None], full)[0].cpu().numpy()
        if "normals" in maps:
            normals = F.normalize(to_pixels(maps["normals"], full), dim=0).permute(1, 2, 0).contiguous().cpu().numpy()
        if "logits" in maps:
            labels = label_map(maps["logits"], full)[0].to(torch.int16).cpu().numpy()
        return DptResult(depth, normals, labels, self.classes, (size[0] // self.patch_size, size[1] // self.patch_size))

    @torch.no_grad()
    def predict_pixels(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The exact level. pixels: [B, 3, H, W] in [0, 1], H and W multiples of `patch_size`.

        Returns, of the heads there are, "depth" [B, 8h, 8w] in metres, "normals" [B, 3, 8h, 8w] of length one and
        "logits" [B, K, 8h, 8w]: float32 on the model's device. An odd h or w counts as one more.
        """
        height, width = pixels.shape[-2:]
        if pixels.ndim != 4 or height % self.patch_size or width % self.patch_size or not height or not width:
            raise ValueError(
                f"Pixels must be [B, 3, H, W] with H and W multiples of the patch size {self.patch_size}, "
                f"not {list(pixels.shape)}: see tipsv2.images.fit_size."
            )
        outputs = self.model(pixel_values=pixels.to(self.device, self.dtype))
        maps = {
            "depth": outputs.get("predicted_depth"),
            "normals": outputs.get("normals"),  # as the last layer left them, of any length
            "logits": outputs.get("segmentation_logits", outputs.get("logits")),
        }
        maps = {name: value.float() for name, value in maps.items() if value is not None}
        if "normals" in maps:
            maps["normals"] = F.normalize(maps["normals"], dim=1)
        return maps

    def _fit(self, width: int, height: int, resolution: int) -> tuple[int, int]:
        """(H, W) for the network. An even number of patches a side, as in training (32): the coarsest level has half
        as many, and would otherwise be stretched by up to a patch.
        """
        most = MAX_PATCHES * self.patch_size**2
        size = fit_size(width, height, resolution, 2 * self.patch_size)
        while size[0] * size[1] > most:
            resolution = min(resolution - 1, int(resolution * math.sqrt(most / (size[0] * size[1]))))
            size = fit_size(width, height, resolution, 2 * self.patch_size)
        return size


def load_dpt(
    name: str | Path = f"{AUTO_HUB}-dpt",
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    progress: bool = True,
) -> Dpt:
    """Load a vision encoder with DPT heads: one of `tipsv2.checkpoints.catalogue.DPT`, another Hub id, or a folder.

    device, progress: as in `tipsv2.network.encoder.load`.   dtype: "float32" (also "auto"), or "bfloat16", which keeps
    depth to half a percent only. Not float16: on the way to the depth, numbers reach 1e8.
    A folder may hold all three heads or one of them, as transformers saves Tipsv2DptForDensePrediction,
    ...ForDepthEstimation, ...ForNormalEstimation and ...ForSemanticSegmentation. Raises ModelError as `load` does.
    """
    info = find(name)
    if info.name in HUB or info.source == "bundled":
        instead = f"{info.name if info.name in HUB else AUTO_HUB}-dpt"
        raise ModelError(f"{info.name} is an encoder without depth, normals or segmentation heads: take {instead}.")
    where, kind = pick_device(device), _pick_dtype(dtype)
    folder = fetch(info, progress)
    width, resolution = vision_sizes(read_config(folder, DPT_TYPE))
    heads, network = _heads(folder)
    model = read_whole(network, folder, kind)
    if not isinstance(model.config.backbone_config.patch_size, int):
        raise ModelError(f"The model in '{folder}' has patches that are not square: not a TIPSv2 encoder.")
    info = replace(info, width=width or info.width, resolution=resolution or info.resolution or 448)
    return Dpt(info, model.to(where).eval(), heads)


def _heads(folder: Path) -> tuple[tuple[str, ...], type[PreTrainedModel]]:
    """The heads whose weights the folder holds, and the transformers class of just these.

    By the weights and not by the configuration's `architectures`, where releases name a class of their own.
    """
    import transformers
    from safetensors import safe_open

    names = set()
    with readable(folder):
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="pt") as weights:
                names |= {match[1] for key in weights.keys() if (match := re.match(r"(\w+?)_(?:head|neck)\.", key))}  # noqa: SIM118 (not a dict)
    single = {
        "depth": transformers.Tipsv2DptForDepthEstimation,
        "normals": transformers.Tipsv2DptForNormalEstimation,
        "segmentation": transformers.Tipsv2DptForSemanticSegmentation,
    }
    for head, network in single.items():
        if names == {head}:
            return (head,), network
    return HEADS, transformers.Tipsv2DptForDensePrediction  # its loading says which weights are missing, if any


def _class_names(id2label: dict[int, str]) -> tuple[str, ...]:
    names = tuple(str(id2label[index]) for index in range(len(id2label)))
    if any(name != f"LABEL_{index}" for index, name in enumerate(names)):
        return tuple(f"{name} ({index})" if names.count(name) > 1 else name for index, name in enumerate(names))
    return ADE20K if len(names) == len(ADE20K) else tuple(f"class {index}" for index in range(len(names)))


def _pick_dtype(dtype: str | torch.dtype) -> torch.dtype:
    known = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    name = str(dtype).removeprefix("torch.")
    if name == "float16":
        raise ModelError("DPT heads do not work in float16, whose numbers end at 65504: take float32 or bfloat16.")
    if name not in known:
        raise ModelError(f"Unknown dtype '{name}' for DPT heads: use {', '.join(known)}.")
    return known[name]
