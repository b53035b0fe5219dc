"""An encoder against numbers that were published for its weights; the verify command.

python -m tipsv2 verify google/tipsv2-b14 --image 000000039769.jpg

The numbers are those of transformers' own slow test of Tipsv2Model (tests/models/tipsv2): the picture is 000000039769
of COCO val2017, two cats on a sofa, resized to a square of 448 px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelError

if TYPE_CHECKING:
    import argparse

    from tipsv2.images import ImageSource
    from tipsv2.network.encoder import Encoder

PICTURE = "http://images.cocodataset.org/val2017/000000039769.jpg"
PICTURE_SIZE = (640, 480)
SIDE = 448  # pixels
TEXTS = ("two cats on a sofa", "a cat lying down", "a dog on a couch", "an empty room")
WIDTH, LAYERS, WORDS = 768, 12, 32_000  # of B/14, whose numbers these are
PUBLISHED = {
    "logits": (31.12190, 26.99341, 20.26748, 17.55544),  # of the picture with each text
    "text": (0.69319, 0.03710, 0.01194, 0.02136, -0.04281),  # first five numbers of the first text's unit vector
    "image": (0.03267, 0.02216, 0.00546, 0.01890, -0.05426),  # of the picture's unit vector
    "patch": (0.25287, -0.01092, -0.57542, 0.09660, -0.04010),  # of its first patch
}
# Their test allows 1e-3 of each number and beside it for what Pillow and torchvision resize differently, texts 1e-4.
TOLERANCES = {"logits": 0.05, "text": 2e-4, "image": 2e-3, "patch": 2e-3}


@dataclass(frozen=True)
class Verdict:
    """What an encoder gave, beside `PUBLISHED`."""

    computed: dict[str, tuple[float, ...]]

    def deviations(self) -> dict[str, float]:
        """The largest difference of each kind of number."""
        return {
            name: max(abs(a - b) for a, b in zip(self.computed[name], numbers, strict=True))
            for name, numbers in PUBLISHED.items()
        }

    def __str__(self) -> str:
        off = self.deviations()
        wrong = [name for name in off if not off[name] <= TOLERANCES[name]]  # NaN is neither
        listed = ", ".join(f"{name} {value:.2g} (allowed {TOLERANCES[name]:g})" for name, value in off.items())
        if wrong:
            return f"differs from the published numbers in {' and '.join(wrong)}; largest differences: {listed}."
        return f"gives the published numbers; largest differences: {listed}."

    @property
    def agrees(self) -> bool:
        return all(value <= TOLERANCES[name] for name, value in self.deviations().items())


def verify(encoder: Encoder, image: ImageSource) -> Verdict:
    """Compute what was published. encoder: B/14 in float32, see `tipsv2.load`; image: anything that
    `tipsv2.images.open_image` takes, resized to SIDE x SIDE whatever its shape. Raises ImageError, and ModelError for
    an encoder of other sizes.
    """
    import torch.nn.functional as F

    from tipsv2.images import open_image, to_tensor

    vision, text = encoder.model.config.vision_config, encoder.model.config.text_config
    if (vision.hidden_size, vision.num_hidden_layers, text.vocab_size) != (WIDTH, LAYERS, WORDS):
        raise ModelError(
            f"{encoder.info.name} is not of the size of google/tipsv2-b14, the only one whose numbers were published: "
            "there is nothing to compare it with."
        )
    pixels = to_tensor(open_image(image), (SIDE, SIDE))[None]
    features = encoder.encode_pixels(pixels, only=("cls", "patches"))
    rows, row = encoder.encode_text(TEXTS), F.normalize(features["cls"].cpu(), dim=-1)[0]
    numbers = {
        "logits": rows @ row / encoder.temperature,
        "text": rows[0],
        "image": row,
        "patch": features["patches"][0, 0, 0],
    }
    return Verdict({name: tuple(map(float, numbers[name][: len(PUBLISHED[name])])) for name in PUBLISHED})


def fetch_picture() -> bytes:
    """The file of COCO's picture. Raises ModelError where it cannot be fetched."""
    import urllib.request

    try:
        with urllib.request.urlopen(PICTURE, timeout=20) as answer:
            return answer.read(5_000_000)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The picture {PICTURE} cannot be fetched ({error}): give a copy of it with --image FILE."
        ) from error


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `verify` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "verify",
        run,
        "Compare google/tipsv2-b14 on this machine with the numbers published for it.",
        "verify google/tipsv2-b14 --image 000000039769.jpg",
    )
    parser.add_argument("model", help="google/tipsv2-b14, or the folder of a copy")
    parser.add_argument("--image", metavar="FILE", help="000000039769.jpg of COCO val2017 (default: it is fetched)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")


def run(options: argparse.Namespace) -> None:
    """The verify command. Raises ValueError or OSError with one sentence, also where the numbers differ."""
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.images import open_image

    find(options.model)  # before the picture is fetched and torch loaded
    image = open_image(Path(options.image) if options.image else fetch_picture())
    if image.size != PICTURE_SIZE:
        width, height = PICTURE_SIZE
        raise ModelError(
            f"'{options.image or PICTURE}' is not the picture that the numbers are of, which has {width} x {height} "
            "pixels: give 000000039769.jpg of COCO val2017 as it was published."
        )
    from tipsv2.network.encoder import load

    verdict = verify(load(options.model, options.device, "float32"), image)
    if not verdict.agrees:
        raise ModelError(f"{options.model} {verdict}")
    print(f"{options.model} {verdict}")
