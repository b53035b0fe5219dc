"""Write short and detailed captions for images with any image-text-to-text model of transformers.

python -m train caption photos --model HuggingFaceTB/SmolVLM-256M-Instruct --out captions.jsonl

A line is written as soon as it is known, and the same command goes on where it was stopped. The file opens as data
(`tipsv2.collections.pairs`); images are named relative to it, and those that lay in tars or tables are put beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from PIL import Image
from tqdm.auto import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

from tipsv2.collections.pairs import ROLES, Pair
from tipsv2.collections.sources import HUB_TIMEOUT
from tipsv2.files import whole_file
from tipsv2.network.encoder import native_bf16
from train.data.samples import open_data
from train.recipe.settings import Data

PROMPTS = {
    "short": "Describe this image in one short sentence.",
    "detailed": "Describe this image in detail: the objects, their colours and where they are.",
}
LONGEST = 512  # side in pixels an image is shrunk to; captions need no more, and memory does
NAMED = 5
EXTRA = ("torchvision", "num2words")  # packages of requirements-caption.txt


@dataclass(frozen=True)
class Captioner:
    """A model and its processor: `write` gives one caption an image, greedily."""

    model: torch.nn.Module
    processor: Any  # of the model's own class

    @torch.inference_mode()
    def write(self, images: list[Image.Image], prompt: str, max_tokens: int) -> list[str]:
        """One line of text for each picture, without the prompt."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        else:
            text = getattr(self.processor, "image_token", "") + prompt
        inputs = self.processor(
            images=[[image] for image in images], text=[text] * len(images), padding=True, return_tensors="pt"
        ).to(self.model.device, self.model.dtype)
        written = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        asked = inputs["input_ids"]
        if torch.equal(written[:, : asked.shape[1]], asked):  # a decoder repeats what it was given
            written = written[:, asked.shape[1] :]
        texts, given = (self.processor.batch_decode(ids, skip_special_tokens=True) for ids in (written, asked))
        # BLIP repeats it too, but between special tokens of its own
        return [" ".join(t.removeprefix(g.strip()).split()) for t, g in zip(texts, given, strict=True)]


def load_captioner(model: str) -> Captioner:
    """Load a model folder or Hub id on the fastest device. Raises ValueError if it cannot caption images."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    dtype = torch.bfloat16 if native_bf16(device) else torch.float32
    here = Path(model).is_dir() or not _on_hub(model)  # transformers itself goes on trying for minutes
    try:
        processor = AutoProcessor.from_pretrained(model, local_files_only=here)
        network = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype, local_files_only=here)
    except ImportError as error:  # some processors take packages that nothing else here needs
        package = next((name for name in EXTRA if name in str(error).lower()), "more packages")
        install = "pip install -r requirements-caption.txt" if package in EXTRA else str(error).strip()
        raise ValueError(f"--model {model} needs {package}, not installed here: {install.splitlines()[0]}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--model {model} cannot be loaded as an image-text-to-text model: {reason}") from error
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(f"--model {model} has no tokenizer: choose a model that answers with text about an image.")
    tokenizer.padding_side = "left"  # a decoder goes on from the last token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Captioner(network.to(device).eval(), processor)


def _on_hub(model: str) -> bool:
    try:
        HfApi().model_info(model, timeout=HUB_TIMEOUT)
    except Exception:  # no such model, no network, offline mode: what is cached may still do
        return False
    return True


def caption(
    data: Data, model: str, out: Path, prompts: dict[str, str] | None = None, batch_size: int = 8,
    max_tokens: int = 128, show: bool = True,
) -> tuple[int, list[str]]:  # fmt: skip
    """Append to `out` a line for every image that has none yet: key, image, and captions by role.

    Captions the data has are kept; of short and detailed the missing ones are written. prompts: role -> what to ask.
    Returns: how many lines were added, and a sentence for each image that cannot be read (they are left out).
    """
    if batch_size < 1 or max_tokens < 1:
        raise ValueError("--batch-size and --max-tokens must be at least 1.")
    pairs = open_data(data, captions=False)
    done = _done(out)
    captioner = load_captioner(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    added, problems = 0, []
    total = len(pairs) if pairs.indexed else None
    with (
        out.open("a", encoding="utf-8") as file,
        tqdm(total=total, initial=len(done), unit="image", disable=not show) as bar,
    ):
        for some in _chunks((pair for pair in pairs if pair.name not in done), batch_size):
            opened = []
            for pair in some:
                try:
                    opened.append((pair, _shrunk(pair)))
                except ValueError as error:
                    problems.append(str(error))
            for line in _lines(captioner, opened, PROMPTS | (prompts or {}), max_tokens, out):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                added += 1
            file.flush()
            bar.update(len(some))
    return added, problems


def _lines(captioner: Captioner, opened: list, prompts: dict[str, str], max_tokens: int, out: Path) -> list[dict]:
    lines = [{"key": pair.name, "image": _reference(pair, out)} for pair, _ in opened]
    for role in ROLES:
        without = []
        for line, (pair, picture) in zip(lines, opened, strict=True):
            if texts := pair.captions.get(role):
                line[role] = list(texts) if len(texts) > 1 else texts[0]
            elif role in prompts:
                without.append((line, picture))
        if without:
            texts = captioner.write([picture for _, picture in without], prompts[role], max_tokens)
            for (line, _), text in zip(without, texts, strict=True):
                line[role] = text
    return lines


def _shrunk(pair: Pair) -> Image.Image:
    picture = pair.open()
    picture.thumbnail((LONGEST, LONGEST))
    return picture


def _reference(pair: Pair, out: Path) -> str:
    """The image's path from the table's folder; bytes that have no file of their own get one there."""
    if isinstance(pair.image, Path):
        return os.path.relpath(pair.image.resolve(), out.parent.resolve())
    data = pair.read()
    folder = out.parent / f"{out.stem}-images"
    path = folder / f"{hashlib.sha256(data).hexdigest()[:24]}{_suffix(data)}"
    if not path.exists():
        with whole_file(path) as part:
            part.write_bytes(data)
    return f"{folder.name}/{path.name}"


def _suffix(data: bytes) -> str:
    kind = Image.open(io.BytesIO(data)).format or "png"
    return {"JPEG": ".jpg", "MPO": ".jpg"}.get(kind, f".{kind.lower()}")


def _done(out: Path) -> set[str]:
    """The keys of the lines that are there; what a killed run left of a line is cut off."""
    if not out.exists():
        return set()
    text = out.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        out.write_text(whole, "utf-8")
    try:
        return {json.loads(line)["key"] for line in whole.split("\n")[:-1]}  # a caption may hold U+2028
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out} was not written by this command: choose another --out.") from error


def _chunks(pairs: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    while some := list(islice(pairs, size)):
        yield some
