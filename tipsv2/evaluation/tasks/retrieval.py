"""Image-text retrieval: of all captions find the image's, of all images find the caption's; recall at 1, 5 and 10.

    python -m tipsv2 evaluate retrieval --data scenes:val --model opentips-nano --json
    python -m tipsv2 evaluate retrieval --data scenes:val --model opentips-nano --language de,fr
    python -m tipsv2 evaluate retrieval --data coco-karpathy:/data/coco --model google/tipsv2-b14 --out out/coco
    python -m tipsv2 evaluate retrieval --data photos --model runs/mine

--data also takes your own captioned images, whatever `python -m train --data` takes: a folder with .txt or .json beside
the images, a table (csv, tsv, jsonl, parquet), tars, hf:owner/name. Captions of one role are measured: short ones where
there are some, else web (a .txt, a caption column), else detailed; --captions chooses. The same caption at several
images is right at all of them. Images that cannot be used are left out, counted and named. A folder that is one of the
known trees is read as such. Those (COCO, Flickr30K, DOCCI) and collections are in `tipsv2.evaluation.tasks.captioned`;
below are the bundled scenes.

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
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from tipsv2 import scenes
from tipsv2.analysis.metrics import answer_ranks, chance_recall_at_k
from tipsv2.collections.parts import COLUMNS
from tipsv2.evaluation.layouts import SCENES, Split
from tipsv2.evaluation.shared import embeddings
from tipsv2.evaluation.shared.embeddings import TRAINED_FOR, embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_queries
from tipsv2.evaluation.shared.own_captions import PREFERRED
from tipsv2.evaluation.shared.ranking import NEAREST, interval
from tipsv2.evaluation.shared.splits import embed_texts, network_side, open_split
from tipsv2.evaluation.tasks import captioned
from tipsv2.records import fingerprint
from tipsv2.scenes.scene import MENTIONED
from tipsv2.scenes.splits import is_scenes

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

NAMES = "caption_cls"
RANKS = (1, 5, 10)
SHOWN = "short"  # the captions whose interval and worst queries are made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", dest="languages", metavar="CODES", type=_codes, default=(),
        help="scenes also by lists of names in en, de, fr, ... or all of them",
    )  # fmt: skip
    parser.add_argument(
        "--captions", choices=PREFERRED,
        help="of your own images: which, compared with the CLS token trained for such captions unless --cls says "
        "otherwise (default: the first of these that there are)",
    )  # fmt: skip
    parser.add_argument(
        "--data-columns", dest="columns", nargs="+", metavar="data.KEY=COLUMN", default=(),
        help=f"of your own images, where names do not say it; keys: {', '.join(COLUMNS)}",
    )  # fmt: skip
    embeddings.add_arguments(parser)


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    languages: Sequence[str] = (),
    cls: str | None = None,
    shape: str | None = None,
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    captions: str | None = None,
    columns: Sequence[str] = (),
) -> dict:
    """Score an encoder on retrieval among the scenes of a split, or in a data set by `captioned.evaluate`.

    Args:
        encoder: a `tipsv2.Encoder`.
        data: "scenes:val" (seen drawing styles), "scenes:style" (the unseen one), what `layouts.open_data` takes, or
            what `own.open_own` does.
        resolution: short side in pixels the network sees; default the encoder's training resolution.
        languages: codes of `all_languages()` to make lists of names in, or ("all",); scenes only.
        cls, shape: of other data. Default "cls", or for anybody's own images the token that is trained for their kind
            of captions, and "aspect"; a scene is square, and its captions have their own CLS tokens.
        limit: only the first images.
        out: keeps the embeddings and takes worst_queries.png.
        captions, columns: of anybody's own images, see `own.open_own`.

    Returns: {"task", "data", "model", "resolution", "images", "captions": {"web": {...}, "short": {...},
        "detailed": {...}}, "languages": {"de": {...}, ...}, "chance": {"web": {...}, ..., "names": {...}}, "interval",
        "fingerprint", "seconds"}. The inner dicts hold recalls in [0, 1]: "i2t_r1", "i2t_r5", "i2t_r10" from image to
        text, "t2i_r1", ... from text to image; those of chance "r1", "r5", "r10", the same both ways; "interval" those
        of the short caption's "i2t_r1" and "t2i_r1". "languages" and chance's "names" are there if asked for.
    Raises ValueError for an unknown data set or language, a limit under 1, or a resolution not in whole patches.
    """
    languages = _known(languages)
    resolution = network_side(encoder, resolution)
    if not is_scenes(data):
        if languages:
            raise ValueError("lists of names in other languages are of the scenes only: leave --language out.")
        return captioned.evaluate(
            encoder, data, resolution, cls, shape or "aspect", limit, out, progress, captions, columns
        )
    if cls or shape:
        raise ValueError("scenes are square and their captions have their own CLS tokens: leave --cls and --shape out.")
    if captions or columns:
        raise ValueError("scenes have all three captions, each measured: leave --captions and --data-columns out.")
    split, count = open_split(data, resolution, limit)
    every = [SceneSample(split, index, f"{data}/{index:06d}") for index in range(len(split))]
    samples = every[:count]
    started = time.perf_counter()
    with keep(out, encoder, Split(SCENES, data, every), task="retrieval", resolution=resolution) as partial:
        images = embed_images(encoder, samples, partial, resolution, progress=progress)
    drawn = [sample.truth() for sample in samples]
    kinds = [("captions", role, cls, [captions[role] for captions, _ in drawn]) for role, cls in TRAINED_FOR.items()]
    kinds += [("languages", code, NAMES, [list_names(shown, code) for _, shown in drawn]) for code in languages]
    embedded = embed_texts(encoder, [text for *_, written in kinds for text in written], progress=progress)
    scores: dict[str, dict] = {}
    chance, intervals = {}, {}
    for (group, name, token, written), texts in zip(kinds, embedded.split(count), strict=True):
        right = same(written)
        ranks = rank_both_ways(images[token], texts, right)
        scores.setdefault(group, {})[name] = recalls(ranks)
        chance[name if group == "captions" else "names"] = by_chance(right)  # the same lists in every language
        if name == SHOWN:
            intervals = {
                f"{way}_r1": low_high for way, way_ranks in ranks.items() if (low_high := interval(way_ranks < 1))
            }
            if out is not None:
                best = (texts @ images[token].T).topk(min(NEAREST, count)).indices.tolist()
                finds = {k: [(samples[n].image, written[n]) for n in best[k]] for k in worst(ranks["t2i"])}
                rows = [Query(samples[k].image, written[k], near) for k, near in finds.items()]
                write_queries(out / "worst_queries.png", rows)
    return {
        "task": "retrieval", "data": data, "model": encoder.info.name, "resolution": resolution, "images": count,
        **scores, "chance": chance, "interval": intervals,
        "fingerprint": fingerprint(sample.name for sample in samples),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


class SceneSample:
    """A `layouts.Sample` that is drawn when it is asked for its image, and then knows what is said of it."""

    def __init__(self, split: Sequence[scenes.Scene], index: int, name: str):
        self.name = name
        self._split, self._index = split, index
        self._said: tuple[dict[str, str], tuple[int, ...]] | None = None

    @property
    def image(self) -> np.ndarray:
        return self._draw().image

    def truth(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """Its captions by role, and the nouns they would name."""
        if self._said is None:
            scene = self._draw()
            return scene.captions, things(scene)
        return self._said

    def _draw(self) -> scenes.Scene:
        scene = self._split[self._index]
        self._said = scene.captions, things(scene)
        return scene


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


def rank_both_ways(images: torch.Tensor, texts: torch.Tensor, right: np.ndarray) -> dict[str, np.ndarray]:
    """`answer_ranks` from image to text ("i2t") and from text to image ("t2i") for unit rows images [N, D] and texts
    [N, D], right [N, N] bool and symmetric.
    """
    scores = (images @ texts.T).numpy()
    return {way: answer_ranks(table, right) for way, table in (("i2t", scores), ("t2i", scores.T))}


def recalls(ranks: dict[str, np.ndarray]) -> dict[str, float]:
    """The recalls of ranks by direction: "i2t_r1", ..."""
    return {f"{way}_r{k}": round(float((way_ranks < k).mean()), 4) for way, way_ranks in ranks.items() for k in RANKS}


def by_chance(right: np.ndarray) -> dict[str, float]:
    """What `recalls` are on average in random order, the same in both directions."""
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
