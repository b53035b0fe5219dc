"""Image-text retrieval: of all captions find the image's, of all images find the caption's; recall at 1, 5 and 10.

    python -m tipsv2 evaluate retrieval --data scenes:val --model tipsv2-nano --json
    python -m tipsv2 evaluate retrieval --data scenes:val --model tipsv2-nano --language de,fr
    python -m tipsv2 evaluate retrieval --data scenes:style --model tipsv2-nano --language all

Each text is compared with the CLS token that TIPSv2 trains for its kind, alt-texts CLS 1, synthetic captions CLS 2:
web       the alt-text, CLS 1; it names a part of the scene and sometimes nothing, so 1.0 is out of reach
short     one phrase that names what shows, CLS 2
detailed  every thing with its place, CLS 2
names     the plain list of the nouns that show, in a language: "Hund, Apfel"; CLS 2, as for the short caption

Duplicates: the same text at several scenes describes them equally well, so all of them are right answers to it, and
it is a right answer to each of them wherever it stands. Only identical texts count as such ("a dog" and "photo of
dog" do not). A list of names has a fixed order, so two scenes with the same things have the same list. Every image's
text stays a candidate and a query, copies included: a wrong text with two copies takes two places in the ranking.
Ties count against the encoder: a right answer stands behind every wrong one that scores the same, so constant scores
find nothing. Chance is the expected recall of a random order given the number of right answers of each query.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from tipsv2 import scenes
from tipsv2.evaluation.splits import embed_images, embed_texts, network_side, open_split
from tipsv2.metrics import chance_recall_at_k, recall_at_k
from tipsv2.scenes.scene import MENTIONED

CAPTIONS = {"web": "cls", "short": "caption_cls", "detailed": "caption_cls"}
NAMES = "caption_cls"
RANKS = (1, 5, 10)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", dest="languages", metavar="CODES", type=_codes, default=(),
        help="also by lists of names in en, de, fr, ... or all of them",
    )  # fmt: skip


def evaluate(
    encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    languages: Sequence[str] = (),
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on retrieval among the scenes of a split.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles) or "scenes:style" (the unseen one).
        resolution: side in pixels the network sees; default the encoder's training resolution.
        languages: codes of `all_languages()` to make lists of names in, or ("all",).
        limit: only the first images.
        out: not used: this takes seconds.

    Returns: {"task", "data", "model", "resolution", "images", "captions": {"web": {...}, "short": {...},
        "detailed": {...}}, "languages": {"de": {...}, ...}, "chance": {"web": {...}, ..., "names": {...}}}. The inner
        dicts hold recalls in [0, 1]: "i2t_r1", "i2t_r5", "i2t_r10" from image to text, "t2i_r1", ... from text to
        image; those of chance "r1", "r5", "r10", the same both ways. "languages" and chance's "names" are there if
        languages were asked for.
    Raises ValueError for an unknown data set or language, a limit under 1, or a resolution not in whole patches.
    """
    languages = _known(languages)
    resolution = network_side(encoder, resolution)
    split, count = open_split(data, resolution, limit)
    started = time.perf_counter()
    drawn: list[tuple[dict[str, str], tuple[int, ...]]] = []  # captions and things of the scenes drawn so far

    def pictures() -> Iterator[np.ndarray]:
        for index in range(count):
            scene = split[index]
            drawn.append((scene.captions, things(scene)))
            yield scene.image

    images = embed_images(encoder, pictures(), count, progress)
    kinds = [("captions", role, cls, [captions[role] for captions, _ in drawn]) for role, cls in CAPTIONS.items()]
    kinds += [("languages", code, NAMES, [list_names(shown, code) for _, shown in drawn]) for code in languages]
    rows = embed_texts(encoder, [text for *_, written in kinds for text in written], progress=progress)
    scores: dict[str, dict] = {}
    chance = {}
    for (group, name, cls, written), texts in zip(kinds, rows.split(count), strict=True):
        right = same(written)
        scores.setdefault(group, {})[name] = both_ways(images[cls], texts, right)
        chance[name if group == "captions" else "names"] = by_chance(right)  # the same lists in every language
    return {
        "task": "retrieval", "data": data, "model": encoder.info.name, "resolution": resolution, "images": count,
        **scores, "chance": chance, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def all_languages() -> tuple[str, ...]:
    """Codes of the languages every noun has a name in: "en", then the translations."""
    return "en", *scenes.nouns()[0].translations


def things(scene: scenes.Scene) -> tuple[int, ...]:
    """The nouns a caption would name, each once, in the order of the vocabulary: indices into `scenes.nouns()`."""
    return tuple(sorted({o.noun for o in scene.objects if o.visible >= MENTIONED}))


def list_names(shown: Sequence[int], language: str) -> str:
    """Nouns as a list of their names: "Hund, Apfel"."""
    nouns = [scenes.nouns()[index] for index in shown]
    return ", ".join(noun.name if language == "en" else noun.translations[language] for noun in nouns)


def same(texts: Sequence[Hashable]) -> np.ndarray:
    """[N, N] bool: are the texts of two scenes identical?"""
    codes: dict[Hashable, int] = {}
    numbers = np.array([codes.setdefault(text, len(codes)) for text in texts])
    return numbers[:, None] == numbers


def both_ways(images: torch.Tensor, texts: torch.Tensor, right: np.ndarray) -> dict[str, float]:
    """Recalls of both directions for unit rows images [N, D] and texts [N, D], right [N, N] bool and symmetric."""
    scores = (images @ texts.T).numpy()
    return {
        f"{way}_r{k}": round(recall_at_k(table, right, k), 4)
        for way, table in (("i2t", scores), ("t2i", scores.T))
        for k in RANKS
    }


def by_chance(right: np.ndarray) -> dict[str, float]:
    """What `both_ways` gives on average in random order, the same in both directions."""
    return {f"r{k}": round(chance_recall_at_k(right, k), 4) for k in RANKS}


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]


def _known(languages: Sequence[str]) -> tuple[str, ...]:
    if list(languages) == ["all"]:
        return all_languages()
    for language in languages:
        if language not in all_languages():
            raise ValueError(f"language '{language}' is unknown; choose all, {', '.join(all_languages())}.")
    return tuple(dict.fromkeys(languages))
