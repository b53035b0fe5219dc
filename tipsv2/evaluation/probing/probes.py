"""Linear probes on frozen patches: one layer per task, trained on features that are computed once.

    store = collect(encoder, samples, "final", 448, Partial(folder, settings, keep=False))
    probe = train(store, names, recipe, epochs=10)
    outputs = probe(inputs(features, recipe.with_cls))          # [B, C, h, w], on the patch grid

After DINOv2's linear evaluations (arXiv 2304.07193, Sec. 7.4; facebookresearch/dinov2, eval/segmentation and
eval/depth): AdamW, learning rate 1e-3, weight decay 1e-4, batches of 16. Ours: the learning rate falls as a cosine, ten
epochs as in Probe3D but 2000 steps at least (DINOv2 takes 40 000), and pictures whole and unaugmented, since their
features are kept. A linear layer and bilinear
interpolation commute, so outputs are made on the patch grid and enlarged; the loss compares them with the truth on a
grid four times as fine as the patches (to which DINOv2's depth head enlarges its features).
Sizes: B images, h x w patches, D width, C outputs, H x W pixels.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from tipsv2.evaluation.layouts import SampleLike
from tipsv2.evaluation.segmentation.protocol import layer_of
from tipsv2.evaluation.shared.partial import Partial
from tipsv2.evaluation.shared.splits import BATCH_SIZE
from tipsv2.images import open_image
from tipsv2.network.view import View, look

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

FINER = 4  # steps of the grid of the loss, a patch
EPOCHS, STEPS = 10, 2000  # at least so many of both
RATE, WEIGHT_DECAY = 1e-3, 1e-4
SEED = 0


@dataclass(frozen=True)
class Recipe:
    """What tells the probe of one task from that of another."""

    channels: int  # C
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs [B, C, 4h, 4w], truth [B, 4h, 4w, ...]
    known: Callable[[torch.Tensor], torch.Tensor]  # truth -> bool [B, 4h, 4w]: what the loss looks at
    batch_norm: bool = False  # before the layer
    with_cls: bool = False  # CLS 1 beside every patch


class Probe(nn.Module):
    """One linear layer, a batch norm before it if asked for: features [B, D, h, w] -> outputs [B, C, h, w]."""

    def __init__(self, width: int, channels: int, batch_norm: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.linear = nn.Conv2d(width, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(features))


def enlarge(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs [B, C, h, w] -> [B, C, 4h, 4w], bilinear."""
    return F.interpolate(outputs, scale_factor=FINER, mode="bilinear", align_corners=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every task with a probe."""
    parser.add_argument(
        "--features", default=argparse.SUPPRESS, metavar="KIND", help="final, values or layer:K (default: final)"
    )
    parser.add_argument(
        "--epochs", type=int, help=f"of the probe's training (default: {EPOCHS}, {STEPS} steps at least)"
    )
    parser.add_argument(
        "--train-limit",
        type=int,
        metavar="N",
        help="only N training images, spread evenly (default: all; scenes: 1000)",
    )


def encode(
    encoder: Encoder, images: Sequence, features: str, resolution: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images -> for each its patches [h, w, D] and its CLS 1 [D], float32 on the CPU."""
    layer = layer_of(features, encoder.num_layers)
    seen = look(encoder, images, View(resolution), layer)
    return [(f.values if features == "values" else f.patches, f.cls) for f in seen]


def inputs(patches: torch.Tensor, cls: torch.Tensor | None) -> torch.Tensor:
    """patches [B, h, w, D] and cls [B, D] or None -> [B, D or 2D, h, w], float32."""
    patches = patches.float().permute(0, 3, 1, 2)
    if cls is None:
        return patches
    return torch.cat([patches, cls.float()[:, :, None, None].expand_as(patches)], dim=1)


def read(sample: SampleLike) -> tuple:
    """A sample's picture (RGB, PIL) and truth [H, W, ...]; ValueError where their sizes differ."""
    image, truth = open_image(sample.image), sample.truth()
    if truth.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"'{sample.name}' is {image.width} x {image.height} pixels, but its truth is {truth.shape[1]} x "
            f"{truth.shape[0]}: both must be of the same picture."
        )
    return image, truth


def nearest(truth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The truth [H, W, ...] on a grid of size (h, w): each takes the pixel at its centre."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, truth.shape[:2], strict=True))
    return truth[rows[:, None], columns]


def collect(
    encoder: Encoder,
    samples: Sequence[SampleLike],
    features: str,
    resolution: int,
    store: Partial,
    progress: bool = True,
) -> None:
    """Put into `store` what it lacks: of each sample "patches" [h, w, D] and "cls" [D] in float16, "grid" (h, w), and
    "truth" [4h, 4w, ...].
    """
    missing = [sample for sample in samples if sample.name not in store]
    with store, tqdm(total=len(missing), unit="image", disable=not progress, desc="training features") as bar:
        for start in range(0, len(missing), BATCH_SIZE):
            batch = missing[start : start + BATCH_SIZE]
            pairs = [read(sample) for sample in batch]
            encoded = encode(encoder, [image for image, _ in pairs], features, resolution)
            for sample, (_, truth), (patches, cls) in zip(batch, pairs, encoded, strict=True):
                grid = np.array(patches.shape[:2])
                store.add(
                    sample.name,
                    patches=patches.half().numpy(),
                    cls=cls.half().numpy(),
                    grid=grid,
                    truth=nearest(truth, tuple(FINER * grid)),
                )
            bar.update(len(batch))


def train(
    store: Partial,
    names: Sequence[str],
    recipe: Recipe,
    epochs: int,
    device: torch.device | str = "cpu",
    file: Path | None = None,
    progress: bool = True,
) -> Probe:
    """Train the probe of `recipe` on what `collect` stored of `names`; the same every time, by a fixed seed.

    file: a .safetensors that is written after each epoch and gone on from.
    Raises ValueError where no image has anything known, or on fewer than one epoch.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs}: at least one is needed.")
    grids = _grids(store, names)
    width = len(store[names[0]]["cls"]) * (2 if recipe.with_cls else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        probe = Probe(width, recipe.channels, recipe.batch_norm).to(device)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    steps = _steps(grids)
    done = _restore(file, probe, optimizer) if file is not None and file.exists() else 0
    learnt = done > 0
    probe.train()
    with tqdm(total=steps * epochs, initial=steps * done, unit="step", disable=not progress, desc="probe") as bar:
        for epoch in range(done, epochs):
            for number, batch in enumerate(_batches(names, grids, epoch)):
                stored = [store[name] for name in batch]
                patches, cls, truth = (
                    torch.from_numpy(np.stack([one[kind] for one in stored])).to(device)
                    for kind in ("patches", "cls", "truth")
                )
                for group in optimizer.param_groups:
                    group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * (epoch * steps + number) / (epochs * steps)))
                bar.update()
                if not recipe.known(truth).any():
                    continue
                loss = recipe.loss(enlarge(probe(inputs(patches, cls if recipe.with_cls else None))), truth)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                learnt = True
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if file is not None:
                _save(file, probe, optimizer, epoch + 1)
    if not learnt:
        raise ValueError(f"None of the {len(names)} training images has a known pixel: there is nothing to learn from.")
    return probe.eval()


def planned(store: Partial, names: Sequence[str]) -> int:
    """How many epochs `train` takes where nobody says: EPOCHS, or as many as make STEPS steps."""
    return max(EPOCHS, math.ceil(STEPS / _steps(_grids(store, names))))


def _grids(store: Partial, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    return {name: tuple(store[name]["grid"].tolist()) for name in names}


def _steps(grids: dict[str, tuple[int, int]]) -> int:
    """Of an epoch: images of one size go together."""
    return sum(math.ceil(count / BATCH_SIZE) for count in Counter(grids.values()).values())


def _batches(names: Sequence[str], grids: dict[str, tuple[int, int]], epoch: int) -> Iterator[list[str]]:
    """The names in an order of the epoch's own, those of one size together, BATCH_SIZE at a time."""
    generator = torch.Generator().manual_seed(SEED + epoch)
    waiting: dict[tuple, list[str]] = {}
    for index in torch.randperm(len(names), generator=generator).tolist():
        batch = waiting.setdefault(grids[names[index]], [])
        batch.append(names[index])
        if len(batch) == BATCH_SIZE:
            yield waiting.pop(grids[names[index]])
    yield from waiting.values()


def _save(file: Path, probe: Probe, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    from safetensors.torch import save

    tensors = {f"probe.{key}": value for key, value in probe.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    part = file.with_suffix(".part")
    part.write_bytes(save({k: v.contiguous().cpu() for k, v in tensors.items()}, {"epochs": str(epochs)}))
    part.replace(file)


def _restore(file: Path, probe: Probe, optimizer: torch.optim.Optimizer) -> int:
    """Load what `_save` wrote; the number of epochs it had done."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        epochs = int(opened.metadata()["epochs"])
    probe.load_state_dict({key.removeprefix("probe."): v for key, v in tensors.items() if key.startswith("probe.")})
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            states.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    return epochs
