"""Is it in the picture at all? "here", "perhaps" or "not here" for each query, from a calibration of the encoder.

The brightest patch of a map is bright whatever the picture shows, so a map's own range says nothing. Two cosines do:
  peak   the highest one of the query with any patch (value features of the last layer, the query without a template)
  lead   at that patch, how far the query is above the nearest of some hundred other words, the vocabulary; below 0
         where another word is nearer. Words that mean nearly the query (cosine of the texts above SAME) do not count.
A logistic regression of the two, fitted on label maps by `python -m tipsv2 calibrate` and kept beside the weights as
verdict.json, gives the odds that it is there. If half of what is asked is there, 19 of 20 "here" are right and nine of
ten "not here"; what lies between is "perhaps". An encoder without that file is judged by ranks alone. On a picture of
a kind that the encoder has never seen (`tipsv2.analysis.familiar`) the answer is "unknown", whatever the odds.
No further pass through the vision tower; the vocabulary is read once and kept (`tipsv2.network.text_cache`).
Sizes: N queries, V words, h x w patches, D embedding width.

    from tipsv2 import load
    from tipsv2.analysis.verdict import judge
    encoder = load()
    judge(encoder, encoder.encode_image("dog.jpg").values, ["a dog", "a submarine"])[1].answer     # "not here"
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from tipsv2.analysis.familiar import Familiar
from tipsv2.analysis.heatmap import similarity
from tipsv2.analysis.words import vocabulary
from tipsv2.checkpoints.model_files import ModelError, read_json

if TYPE_CHECKING:
    from tipsv2.checkpoints.catalogue import ModelInfo
    from tipsv2.network.encoder import Encoder

FILE = "verdict.json"  # in a model folder
HERE, PERHAPS, NOT_HERE, UNKNOWN = "here", "perhaps", "not here", "unknown"
ANSWERS = (HERE, PERHAPS, NOT_HERE, UNKNOWN)
SAME = 0.65  # cosine of two texts above which one is no rival of the other: synonyms, and the query itself
CLEAR = 0.5  # of the words: what an uncalibrated encoder must beat on the picture not to be "not here"


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found out about an encoder.

    peak, lead, bias: odds = exp(bias + peak * the query's peak + lead * its lead), if half of what is asked is there.
    here: least likelihood, in [0, 1], of "here"; not_here: the highest of "not here"; None where none is clear enough.
    floor: cosine with a class's nine templates above which four of five patches lie that show it.
    low, high: cosines of the first and the last colour of a map: the median peak of what is absent, and what one in ten
    of those there reaches.   fitted_on: pictures, one text a data set.   figures: of other pictures than these.
    familiar: of which pictures all this is true; None: of any.
    """

    peak: float
    lead: float
    bias: float
    here: float | None
    not_here: float | None
    floor: float
    low: float
    high: float
    fitted_on: tuple[str, ...] = ()
    figures: dict | None = None
    familiar: Familiar | None = None

    def likelihood(self, peak: float, lead: float) -> float:
        """In [0, 1]: how likely it is there, where half of what is asked is."""
        return 1 / (1 + math.exp(-max(-500.0, min(500.0, self.bias + self.peak * peak + self.lead * lead))))

    def answer(self, likelihood: float) -> str:
        if self.here is not None and likelihood >= self.here:
            return HERE
        return NOT_HERE if self.not_here is not None and likelihood <= self.not_here else PERHAPS

    def knows(self, patches: torch.Tensor) -> bool:
        """Is a picture with these value features [h, w, D] of a kind that the encoder knows?"""
        return self.familiar is None or self.familiar.holds(patches)

    def save(self, folder: Path) -> Path:
        """Write it into a model folder -> the file."""
        path = folder / FILE
        content = asdict(self)
        if self.familiar is None:
            del content["familiar"]
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


@dataclass(frozen=True)
class Verdict:
    """What is said of one query, and what it rests on."""

    query: str
    answer: str  # of ANSWERS
    peak: float  # its highest cosine
    lead: float  # over the rival, at that patch
    rival: str  # the word of the vocabulary that is nearest there, "" where there is none
    beats: float  # part of the vocabulary's words, in [0, 1], whose own highest cosine on this picture is lower
    likelihood: float  # in [0, 1]; nan of an encoder without calibration


def calibration_of(info: ModelInfo) -> Calibration | None:
    """What lies beside the weights; None where there is none. Raises ModelError for a damaged file."""
    from tipsv2.checkpoints.catalogue import cached_folder

    folder = cached_folder(info) if info.source == "hub" else Path(info.location)
    path = None if folder is None else folder / FILE
    return _read(path, path.stat().st_mtime_ns) if path is not None and path.is_file() else None


def is_familiar(encoder: Encoder, patches: torch.Tensor) -> bool:
    """Is a picture of a kind that the encoder knows? patches: [h, w, D], its value features. True where nobody has
    fitted what it knows. Raises ModelError for a damaged calibration.
    """
    calibration = calibration_of(encoder.info)
    return calibration is None or calibration.knows(patches)


@functools.lru_cache(maxsize=64)
def _read(path: Path, written: int) -> Calibration:
    """written: when, so that a file that was fitted anew is read anew."""
    content = read_json(path)
    try:
        numbers = {name: float(content[name]) for name in ("peak", "lead", "bias", "floor", "low", "high")}
        limits = {name: None if content[name] is None else float(content[name]) for name in ("here", "not_here")}
        if not all(math.isfinite(value) for value in numbers.values()) or numbers["low"] >= numbers["high"]:
            raise ValueError("not finite, or low is not below high")
        fitted_on = tuple(map(str, content.get("fitted_on", ())))
        familiar = Familiar.of(content["familiar"]) if content.get("familiar") is not None else None
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"'{path}' is no calibration ({error}): write it anew with python -m tipsv2 calibrate, or take it away."
        ) from error
    return Calibration(
        **numbers, here=limits["here"], not_here=limits["not_here"],
        fitted_on=fitted_on, figures=content.get("figures"), familiar=familiar,
    )  # fmt: skip


def words_of(encoder: Encoder) -> tuple[list[str], torch.Tensor]:
    """The vocabulary that suits an encoder -> (V words, [V, D] float32 unit rows), read once."""
    words = vocabulary(encoder.info.knows)
    return words, encoder.encode_text(words, keep=True)


@torch.no_grad()
def measure(
    patches: torch.Tensor, text: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a verdict rests on. patches: [h, w, D]; text: [N, D] of the queries; rows: [V, D] of the vocabulary.

    Returns peaks [N], leads [N], rivals int64 [N] (places in the vocabulary, -1 without one) and the vocabulary's own
    peaks [V]. A query without a rival leads by its peak.
    """
    others = similarity(patches, rows).flatten(1)
    peaks, places = similarity(patches, text).flatten(1).max(dim=1)
    alike = F.normalize(text, dim=-1) @ F.normalize(rows, dim=-1).T
    nearest, rivals = others[:, places].T.masked_fill(alike > SAME, -torch.inf).max(dim=1)
    alone = nearest == -torch.inf
    return peaks, peaks - nearest.masked_fill(alone, 0), rivals.masked_fill(alone, -1), others.amax(dim=1)


def judge(
    encoder: Encoder, patches: torch.Tensor, queries: Sequence[str], calibration: Calibration | None = None
) -> list[Verdict]:
    """Which of the queries are in a picture?

    patches: [h, w, D], the picture's value features, of any length.   queries: N phrases.
    calibration: by default the encoder's own, see `calibration_of`. Raises ValueError on blank queries.
    """
    calibration = calibration or calibration_of(encoder.info)
    known = calibration is None or calibration.knows(patches)
    words, rows = words_of(encoder)
    peaks, leads, rivals, own = measure(patches, encoder.encode_text(queries), rows)
    verdicts = []
    for query, peak, lead, rival in zip(queries, peaks.tolist(), leads.tolist(), rivals.tolist(), strict=True):
        beats = float((own < peak).float().mean())
        if calibration is None:
            likelihood, answer = math.nan, _by_rank(lead, beats)
        else:
            likelihood = calibration.likelihood(peak, lead)
            answer = calibration.answer(likelihood) if known else UNKNOWN
        verdicts.append(Verdict(query, answer, peak, lead, words[rival] if rival >= 0 else "", beats, likelihood))
    return verdicts


def _by_rank(lead: float, beats: float) -> str:
    """Without a calibration: nearer than every other word at its best patch, or behind there and behind most words."""
    if lead >= 0:
        return HERE if beats >= CLEAR else PERHAPS
    return PERHAPS if beats >= CLEAR else NOT_HERE


def most_present(verdicts: Sequence[Verdict]) -> Verdict:
    """Of several words for one thing the verdict that speaks most for it."""
    return max(verdicts, key=lambda verdict: (-ANSWERS.index(verdict.answer), verdict.lead))


def color_range(encoder: Encoder, patches: torch.Tensor, calibrated: bool = True) -> tuple[float, float]:
    """The cosines of the first and the last colour of every map of a picture, whatever is asked.

    patches: [h, w, D], what the maps are made of.   calibrated: they are those the calibration is of: the last layer's.
    Without a calibration for them the vocabulary on this picture gives the range: the median and the highest of its
    words' peaks.
    """
    known = calibration_of(encoder.info) if calibrated else None
    if known is not None:
        return known.low, known.high
    _, rows = words_of(encoder)
    peaks = similarity(patches, rows).amax(dim=(1, 2))
    return float(peaks.median()), float(peaks.max())
