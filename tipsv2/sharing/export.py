"""An encoder as ONNX or torch.export programs, checked against this project's own numbers; the export command.

python -m tipsv2 export opentips-nano exported                     # vision.onnx, text.onnx, tokenizer, README.md
python -m tipsv2 export google/tipsv2-b14 exported --format torch --size 448
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelError

if TYPE_CHECKING:
    import argparse

    import numpy as np
    import torch

    from tipsv2.network.encoder import Encoder

ENDINGS = {"onnx": "onnx", "torch": "pt2"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # for --format onnx only
TOLERANCE = 1e-3  # largest difference from `Encoder.encode_pixels` and `embed_prompts`; what is found is near 1e-5
PROBES = ("a dog", "two cats and a bird on the grass in front of a red house")


def export(
    encoder: Encoder, out: str | Path, kind: str = "onnx", size: tuple[int, int] | None = None, progress: bool = True
) -> dict:
    """Write the folder `out`: vision and text tower, tokenizer files, model.json and a README.md that shows their use.

    encoder: `tipsv2.load(..., "cpu", "float32", fast=False)`.   kind: "onnx" or "torch".
    size: (H, W) that the vision tower takes, in pixels; None for any multiples of the patch size. The batch and the
        length of texts are free in any case.
    Returns model.json as a dict, with the largest difference from the encoder's own numbers under "difference".
    Raises ModelError where that exceeds TOLERANCE, the size does not fit or packages are missing, and OSError where
    `out` cannot be written or holds something already.
    """
    from tqdm.auto import tqdm

    from tipsv2.files import whole_folder

    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OSError(f"'{out}' exists already: give the name of a new folder.")
    if encoder.precision == "int8" or any(key.endswith(".packed") for key in encoder.model.state_dict()):
        raise ModelError("The encoder is laid out for this machine's CPU: load it with fast=False to export it.")
    patch = encoder.patch_size
    if size is not None and (min(size) < patch or size[0] % patch or size[1] % patch):
        raise ModelError(f"--size is {size[0]}x{size[1]}, but both sides must be multiples of the patch, {patch} px.")
    if kind == "onnx" and (absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]):
        raise ModelError(f"Exporting to ONNX needs {', '.join(absent)}: pip install {' '.join(absent)}.")
    with whole_folder(out) as part, _quiet(), tqdm(total=3, disable=not progress, leave=False) as bar:
        for name, write in (("vision", _vision), ("text", _text)):
            bar.set_description(name)
            _save(write(encoder, size), part / f"{name}.{ENDINGS[kind]}", name)
            bar.update()
        bar.set_description("comparing")
        deviations = differences(encoder, part, kind, size)
        if not max(deviations.values()) <= TOLERANCE:
            raise ModelError(
                f"The exported towers differ from the encoder by {max(deviations.values()):.1e}: not written."
            )
        about = _about(encoder, kind, size) | {"difference": deviations}
        encoder.tokenizer.save_pretrained(part)
        (part / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (part / "README.md").write_text(_readme(about), encoding="utf-8")
    return about


def differences(encoder: Encoder, folder: Path, kind: str, size: tuple[int, int] | None) -> dict[str, float]:
    """Largest absolute difference per output between the files in `folder` and the encoder: on noise of `size`, or of
    a square and an oblong size, one image and two, and on two texts of different length.
    """
    import torch

    vision, text = (opened(folder / f"{name}.{ENDINGS[kind]}") for name in ("vision", "text"))
    patch, side = encoder.patch_size, encoder.info.resolution // encoder.patch_size
    square, oblong = (side * patch, side * patch), ((2 * side // 3 + 1) * patch, (3 * side // 2 + 1) * patch)
    sizes = [size] if size else [square, oblong]
    deviations: dict[str, float] = {}

    def compare(name: str, theirs: np.ndarray, ours: torch.Tensor) -> None:
        deviations[name] = max(deviations.get(name, 0.0), float((torch.from_numpy(theirs) - ours).abs().max()))

    for count, (height, width) in enumerate(sizes, 1):
        pixels = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
        ours = encoder.encode_pixels(pixels)
        for name, theirs in zip(ours, vision(pixels.numpy()), strict=True):
            compare(name, theirs, ours[name])
    tokens = encoder.tokenizer(list(PROBES), padding=True, return_tensors="np")
    compare("vector", text(tokens["input_ids"], tokens["attention_mask"])[0], encoder.embed_prompts(list(PROBES)))
    return deviations


def opened(file: Path) -> Callable[..., list[np.ndarray]]:
    """An exported tower as a function from arrays to a list of arrays. Open only .pt2 files you trust."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        names = [entry.name for entry in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))
    import torch

    module = torch.export.load(file).module()

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            given = module(*map(torch.from_numpy, arrays))
        return [value.numpy() for value in (given if isinstance(given, tuple) else (given,))]

    return call


def _vision(encoder: Encoder, size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    import torch

    from tipsv2.sharing.exportable import VisionTower, positions_by_products

    patch, shape = encoder.patch_size, {0: torch.export.Dim("batch", min=1)}
    if size is None:
        shape |= {2: patch * torch.export.Dim("rows", min=1), 3: patch * torch.export.Dim("columns", min=1)}
        size = 3 * patch, 5 * patch  # an example whose sides differ from each other and from the table's
    model = encoder.model.vision_model
    with positions_by_products(model):
        return torch.export.export(VisionTower(model).eval(), (torch.rand(2, 3, *size),), dynamic_shapes=(shape,))


def _text(encoder: Encoder, _size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    import torch

    from tipsv2.sharing.exportable import TextTower

    most = encoder.model.config.text_config.max_position_embeddings
    shape = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=most)}
    ids = torch.ones(2, 5, dtype=torch.int64)
    tower = TextTower(encoder.model.text_model).eval()
    return torch.export.export(tower, (ids, ids.tril()), dynamic_shapes=(shape, shape))


def _save(program: torch.export.ExportedProgram, file: Path, tower: str) -> None:
    import torch

    from tipsv2.sharing.exportable import TextTower, VisionTower

    if file.suffix == ".pt2":
        torch.export.save(program, file)
        return
    inputs, outputs = (["pixels"], VisionTower.outputs) if tower == "vision" else (["ids", "mask"], TextTower.outputs)
    written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=inputs, output_names=list(outputs))
    assert written is not None  # dynamo=True gives a program
    written.save(file)


def _about(encoder: Encoder, kind: str, size: tuple[int, int] | None) -> dict:
    from tipsv2.records import versions

    patch, width, ending = encoder.patch_size, encoder.info.width, ENDINGS[kind]
    sides = f"{size[0]}, {size[1]}]" if size else f"H, W], H and W multiples of {patch}"
    grid = f"{size[0] // patch}, {size[1] // patch}" if size else f"H / {patch}, W / {patch}"
    return {
        "model": encoder.info.name,
        "format": kind,
        "patch_size": patch,
        "width": width,
        "resolution": encoder.info.resolution,
        "size": list(size) if size else None,
        "temperature": float(encoder.model.temperature.detach()),
        "vision": {
            "file": f"vision.{ending}",
            "inputs": {"pixels": f"float32 [batch, 3, {sides}; RGB in [0, 1], no mean or standard deviation"},
            "outputs": {
                "cls": f"float32 [batch, {width}], the image (web alt-text side), not normalised",
                "caption_cls": f"float32 [batch, {width}], the image (caption side), not normalised",
                "patches": f"float32 [batch, {grid}, {width}], patches of the final layer, not normalised",
                "values": f"float32 [batch, {grid}, {width}], value features, for maps and segmentation",
            },
        },
        "text": {
            "file": f"text.{ending}",
            "max_tokens": encoder.model.config.text_config.max_position_embeddings,
            "pad_id": encoder.tokenizer.pad_token_id,
            "inputs": {
                "ids": "int64 [batch, length], token ids out of tokenizer.json, padded at the end",
                "mask": "int64 [batch, length], 1 for tokens, 0 for padding",
            },
            "outputs": {"vector": f"float32 [batch, {width}], of length one"},
        },
        "versions": versions(),
    }


def _readme(about: dict) -> str:
    towers = "\n".join(
        f"| {about[tower]['file']} | {way[:-1]} `{name}` | {text} |"
        for tower in ("vision", "text")
        for way in ("inputs", "outputs")
        for name, text in about[tower][way].items()
    )
    if about["format"] == "onnx":
        package, loaded = "onnxruntime", 'onnxruntime.InferenceSession(about[name]["file"])'
        see, read = 'vision.run(None, {"pixels": pixels})', 'text.run(None, {"ids": ids, "mask": mask})[0]'
    else:
        package, loaded = "torch", 'torch.export.load(about[name]["file"]).module()'
        see = "[value.detach().numpy() for value in vision(torch.from_numpy(pixels))]"
        read = "text(torch.from_numpy(ids), torch.from_numpy(mask)).detach().numpy()"
    height, width = about["size"] or [about["resolution"]] * 2
    return f"""# {about["model"]}, exported

Both towers of a TIPSv2 encoder for {package}, with their tokenizer; `python -m tipsv2 export` wrote them. Largest
difference from the encoder itself: {max(about["difference"].values()):.0e}. The same as JSON: `model.json`.

| file | | |
|---|---|---|
{towers}

Logits of image and text: cosine / {about["temperature"]:.6f}. Where is a phrase in a picture? Run in this folder:

```python
import json

import numpy as np
import {package}
from PIL import Image
from tokenizers import Tokenizer

IMAGE, PHRASES = "image.png", ["a banana", "a gear"]
about = json.load(open("model.json"))
vision, text = ({loaded} for name in ("vision", "text"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(about["text"]["max_tokens"])
tokenizer.enable_padding(pad_id=about["text"]["pad_id"])

picture = Image.open(IMAGE).convert("RGB").resize(({width}, {height}), Image.Resampling.BILINEAR)
pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255
cls, caption_cls, patches, values = {see}
tokens = tokenizer.encode_batch(PHRASES)
ids, mask = np.array([row.ids for row in tokens]), np.array([row.attention_mask for row in tokens])
vectors = {read}
grid = values[0] / np.linalg.norm(values[0], axis=-1, keepdims=True)
maps = np.einsum("hwd,qd->qhw", grid, vectors)  # cosine of every patch with every phrase
```
"""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' notes about packages and axis names that nothing here depends on."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(before)


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `export` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "export",
        run,
        "Write an encoder's two towers as ONNX or torch.export programs, with tokenizer and description.",
        "export opentips-nano exported\n  python -m tipsv2 export tipsv2-b14 exported --format torch --size 336x448",
    )
    parser.add_argument("model", help="a name, a folder or a run")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--format", choices=tuple(ENDINGS), default="onnx", help="for onnxruntime, or for torch (default: onnx)"
    )
    parser.add_argument("--size", metavar="HxW", help="pixels the vision tower takes, as 448 or 336x448 (default: any)")


def run(options: argparse.Namespace) -> None:
    """The export command. Raises ValueError or OSError with one sentence for whoever typed it."""
    from tipsv2.checkpoints.catalogue import find

    find(options.model)  # before torch: a wrong name should not cost its loading
    size = None
    if options.size:
        sides = options.size.lower().split("x")
        if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
            raise ValueError(f"--size is a side or HxW in pixels, as 448 or 336x448, not '{options.size}'.")
        size = int(sides[0]), int(sides[-1])
    from tipsv2.network.encoder import load

    about = export(load(options.model, "cpu", "float32", fast=False), options.out, options.format, size)
    for name, difference in about["difference"].items():
        print(f"{name:<12} differs from the encoder by at most {difference:.1e}")
    print(f"written to {options.out}")
