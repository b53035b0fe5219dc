"""What segmentation by a probe, depth and normals share: the parts of a data set, the steps of an evaluation, pictures.

A task says in a `Task` how its guesses are made, judged, summed up and painted; `evaluate_task` does the rest. Below
`out` it leaves features/ (of the training images), probe.safetensors, partial/ (the score of each image) and pictures;
of the first three, what is there when it is started again is not made again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from tipsv2 import scenes
from tipsv2.analysis.render import beside
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import HELD_OUT, SCENES, SampleLike, Split, open_data
from tipsv2.evaluation.probing import probes as probing
from tipsv2.evaluation.segmentation.protocol import layer_of
from tipsv2.evaluation.shared.partial import PARTIAL, Partial
from tipsv2.evaluation.shared.splits import BATCH_SIZE, DrawnSample, network_side, open_split
from tipsv2.records import fingerprint, identity
from tipsv2.scenes.splits import is_scenes

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

SCENES_TRAIN = 1000  # drawn scenes to train on where no number is given
SHOWN = 3  # worst and best images that are painted
LONGEST = 480  # pixels of a painted image's longer side
Guess = Callable[[Sequence], Iterator[np.ndarray]]  # pictures -> what is said of each


@dataclass(frozen=True)
class Task:
    """One dense task. Sizes: C outputs, h x w patches, H x W pixels."""

    name: str  # as `evaluate` calls it
    truth: str  # what a sample's truth() is, see `layouts.Split`
    drawn: Callable[[scenes.Scene], np.ndarray]  # that truth of a scene
    recipe: Callable[[Split], probing.Recipe]
    guess: Callable[[torch.Tensor, tuple[int, int]], np.ndarray]  # outputs [C, h, w], size (H, W) -> as the truth
    score: Callable[[np.ndarray, np.ndarray, Split], dict]  # truth, guess -> arrays; "pixels" says how many were judged
    summary: Callable[[Mapping[str, Mapping], Split], dict]  # the scores of images by their names -> numbers
    pictures: Callable[[Path, Mapping[str, Mapping], Split, Callable[[str], tuple]], None]  # as `extremes`
    version: int = 1  # raised where the same data is judged otherwise, so that nothing kept before is mixed in


def evaluate_task(
    task: Task,
    encoder: Encoder,
    data: str,
    resolution: int | None,
    limit: int | None,
    out: Path | None,
    progress: bool,
    features: str,
    epochs: int | None,
    train_limit: int | None,
    predict: Callable[[Any, int], np.ndarray] | None = None,
) -> dict:
    """Evaluate `task`; arguments as its module's `evaluate`.

    predict: (image, resolution) -> guess, in place of a probe. Then there is no training part.
    Raises ValueError naming what is wrong with the data or an argument.
    """
    side = resolution or encoder.info.resolution
    resolution = network_side(encoder, side) if is_scenes(data) else side  # others need not be in whole patches
    if predict is None:
        layer_of(features, encoder.num_layers)  # before anything is computed
    test = open_part(task, data, resolution, None if predict else HELD_OUT)
    samples = test.samples[: limited(len(test.samples), limit)]
    record = {"task": task.name, "data": data, "part": test.part, "model": encoder.info.name, "resolution": resolution}
    layout = {} if is_scenes(data) else {"layout": test.layout}
    settings = record | {"model": identity(encoder)} | ({"version": task.version} if task.version > 1 else {})
    with _folder(out) as folder:
        if predict is None:
            fitting = open_part(task, data, resolution, "train")
            chosen = _spread(fitting.samples, train_limit)
            store = Partial(folder / "features", settings | {"part": fitting.part, "features": features}, keep=False)
            names = [sample.name for sample in chosen]
            settings |= {"features": features, "epochs": epochs, "train": fingerprint(names)}
            known = Partial(folder / PARTIAL, settings)
            probing.collect(encoder, chosen, features, resolution, store, progress)
            recipe = task.recipe(fitting)
            epochs = probing.planned(store, names) if epochs is None else epochs
            record |= {"features": features, "epochs": epochs, "train_images": len(names)}
            file = folder / "probe.safetensors"
            probe = probing.train(store, names, recipe, epochs, encoder.device, file, progress)
            guess: Guess = partial(_guesses, task, encoder, probe, recipe, features, resolution)
        else:
            record |= {"head": "dpt"}
            known = Partial(folder / PARTIAL, settings | {"head": "dpt"})
            guess = partial(_predicted, predict, resolution)
        _measure(task, test, samples, guess, known, progress)
        scores = {sample.name: known[sample.name] for sample in samples}
        judged = {name: score for name, score in scores.items() if int(score["pixels"])}
        if not judged:
            raise ValueError(f"None of the {len(samples)} images of '{data}' has a known pixel: nothing can be judged.")
        if out is not None:
            by_name = {sample.name: sample for sample in samples}

            def show(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                image, truth = probing.read(by_name[name])
                return np.asarray(image), truth, next(iter(guess([image])))

            task.pictures(out, judged, test, show)
    return {
        **record, **layout, "images": len(judged), "left_out": len(samples) - len(judged),
        "fingerprint": fingerprint((sample.name for sample in test.samples), test.classes),
        **task.summary(judged, test),
    }  # fmt: skip


def _predicted(predict: Callable[[Any, int], np.ndarray], resolution: int, images: Sequence) -> Iterator[np.ndarray]:
    """What `predict` says of pictures."""
    return (predict(image, resolution) for image in images)


def _guesses(
    task: Task,
    encoder: Encoder,
    probe: probing.Probe,
    recipe: probing.Recipe,
    features: str,
    resolution: int,
    images: Sequence,
) -> Iterator[np.ndarray]:
    """What the probe says of pictures, in their pixels."""
    encoded = probing.encode(encoder, images, features, resolution)
    for image, (patches, cls) in zip(images, encoded, strict=True):
        entered = probing.inputs(patches[None], cls[None] if recipe.with_cls else None)
        with torch.no_grad():
            outputs = probe(entered.to(encoder.device))[0]
        yield task.guess(outputs, (image.height, image.width))


def open_part(task: Task, data: str, size: int, part: str | None = None) -> Split:
    """The part that is judged, or the one that the probe is trained on.

    part: "train", HELD_OUT for what is judged by such a probe, None for what is judged without one.
    data: as `layouts.open_data` takes it, or "scenes:val" and the like, drawn `size` pixels a side. Of scenes those to
    train on are the first SCENES_TRAIN that encoders are trained on too, in the seen styles.
    """
    if not is_scenes(data):
        return open_data(task.truth, data, part)
    training = part == "train"
    split, count = open_split(data, size)
    seeds, styles = range(split.first, split.first + count), split.styles
    if training:
        seeds, styles = range(SCENES_TRAIN), scenes.SEEN_STYLES
    drawn = [
        DrawnSample(f"scene {seed}", partial(scenes.draw, seed, size, styles, split.nouns), task.drawn)
        for seed in seeds
    ]
    return Split(SCENES, "train" if training else data.partition(":")[2], drawn, scenes.names())


def _spread(samples: Sequence[SampleLike], count: int | None) -> Sequence[SampleLike]:
    """`count` of the samples, evenly over all of them."""
    count = limited(len(samples), count)
    return [samples[k * len(samples) // count] for k in range(count)]


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """`out`, or a folder that goes when it is not needed any more."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="tipsv2-") as name:
        yield Path(name)


def _measure(
    task: Task, split: Split, samples: Sequence[SampleLike], guess: Guess, known: Partial, progress: bool
) -> None:
    missing = [sample for sample in samples if sample.name not in known]
    with known, tqdm(total=len(missing), unit="image", disable=not progress, desc=task.name) as bar:
        for start in range(0, len(missing), BATCH_SIZE):
            batch = missing[start : start + BATCH_SIZE]
            pairs = [probing.read(sample) for sample in batch]
            guesses = guess([image for image, _ in pairs])
            for sample, (_, truth), guessed in zip(batch, pairs, guesses, strict=True):
                known.add(sample.name, **task.score(truth, guessed, split))
                bar.update()


def rounded(intervals: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Intervals as a record holds them, without those that nothing is known of."""
    return {name: [round(low, 4), round(high, 4)] for name, (low, high) in intervals.items() if np.isfinite(low)}


def extremes(
    out: Path,
    scores: Mapping[str, Mapping],
    split: Split,
    show: Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]],
    badness: Callable[[Mapping], float],
    paint: Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]],
) -> None:
    """Write worst_1.png, ..., best_1.png, ... into `out`.

    scores: of the images by their names.   show: a name -> RGB uint8 [H, W, 3], truth, guess.
    badness: of a score; the highest is the worst.   paint: what `show` gave -> pictures to stand side by side.
    """
    order = sorted(scores, key=lambda name: -badness(scores[name]))
    for kind, names in (("worst", order[:SHOWN]), ("best", order[::-1][:SHOWN])):
        for place, name in enumerate(names, 1):
            panels = [_shown(panel) for panel in paint(*show(name))]
            Image.fromarray(beside(panels)).save(out / f"{kind}_{place}.png")


def _shown(picture: np.ndarray) -> np.ndarray:
    """A picture as it is, or smaller, so that its longer side has LONGEST pixels."""
    height, width = picture.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
