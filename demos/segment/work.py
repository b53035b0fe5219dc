"""What the Segment tab computes: a question, the regions that answer it, and how these agree with a true label map."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from demos.backend.studio import Seen, Studio
from demos.segment.truth import Truth, placed
from demos.ui import controls, views
from demos.ui.verdicts import verdict_numbers
from tipsv2.analysis.label_maps import Agreement, agreement

if TYPE_CHECKING:
    from tipsv2.analysis.verdict import Calibration, Verdict

MAX_CLASSES = 200
BACKGROUND = "background"


@dataclass(frozen=True)
class Question:
    """What is asked of an image; see `ask`."""

    names: tuple[str, ...]
    others: tuple[str, ...]  # background words
    background: str
    threshold: float | None
    templates: str
    features: str
    layer: int  # 0: the last
    windows: bool
    resolution: int  # short side in pixels, 0: as trained
    sharp: bool = False  # edges follow the picture's


@dataclass(frozen=True)
class Regions:
    """A segmentation. labels: int16 [H, W], place in names, -1 for background."""

    seen: Seen
    question: Question
    grid: tuple[int, int]  # rows and columns of patches
    layer: int
    labels: np.ndarray
    shares: np.ndarray  # [N] parts of one
    means: np.ndarray  # [N] mean score of a class's own pixels
    peaks: np.ndarray  # [N] highest cosine of any patch
    background_mean: float  # mean score of the background's pixels
    verdicts: tuple[Verdict, ...]  # N
    calibration: Calibration | None
    scores: np.ndarray | None = None  # [H, W] cosine of the winner, at full size only

    @property
    def names(self) -> tuple[str, ...]:
        return self.question.names

    @property
    def familiar(self) -> bool:
        """The picture is of a kind that the encoder knows, as far as anybody has fitted that."""
        from tipsv2.analysis.verdict import UNKNOWN

        return all(verdict.answer != UNKNOWN for verdict in self.verdicts)

    @property
    def background(self) -> float:
        return float((self.labels < 0).mean())

    @cached_property
    def colors(self) -> np.ndarray:
        """[N, 3] uint8: a class keeps its colour as long as its place in the list does."""
        return legend(len(self.names))


def legend(count: int) -> np.ndarray:
    """The colours of a list's classes, uint8 [count, 3]."""
    from tipsv2.analysis.render import WIDE_PALETTE

    return np.asarray(WIDE_PALETTE, dtype=np.uint8)[np.arange(count) % len(WIDE_PALETTE)]


def split(names: str | None) -> list[str]:
    """Names separated by commas, semicolons or lines -> a list without blanks and doubles."""
    parts = (part.strip() for part in re.split(r"[,;\n]", names or ""))
    return list(dict.fromkeys(part for part in parts if part))


def ask(
    classes, templates, features, layer, windows, background, threshold, words, resolution, sharp=False
) -> Question:
    """The fields of the page as a question. Raises ValueError on one that cannot be asked."""
    names = controls.texts(split(classes), "class name", MAX_CLASSES)
    if not names:
        raise ValueError("Write at least one class name.")
    if background not in ("verdict", "none", "threshold", "words"):
        raise ValueError(f"Unknown background '{str(background)[:80]}': use verdict, none, threshold or words.")
    if background != "none" and BACKGROUND in names:
        raise ValueError("A class cannot be called 'background' where a background is left out: take one of them away.")
    others = controls.texts(split(words), "background word", MAX_CLASSES) if background == "words" else []
    others = [word for word in others if word not in names]  # what is asked for as a class is not background
    if background == "words" and not others:
        raise ValueError("Write at least one background word that is no class, or choose another background.")
    limit = float(threshold) if background == "threshold" else None
    given = dict(templates=templates, features=features, layer=int(layer or 0), windows=bool(windows))
    return Question(
        tuple(names), tuple(others), background, limit, **given, resolution=int(resolution or 0), sharp=bool(sharp)
    )


class SegmentationService:
    """Answers questions. It holds nothing but the studio it shares with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def divide(self, image: str, question: Question, model: str | None, who: str, full: bool = False) -> Regions:
        """Label every pixel, at the size drawn or (full) of the image. The same question again costs nothing."""
        from tipsv2.analysis.heatmap import pick_features
        from tipsv2.analysis.segmentation import class_shares, class_verdicts, label, seen_only, words_of_classes
        from tipsv2.analysis.verdict import calibration_of

        encoder = self.studio.encoder(model)
        layer = min(question.layer or encoder.num_layers, encoder.num_layers)
        windows = question.windows and layer == encoder.num_layers
        seen = self.studio.encode(who, encoder, image, question.resolution, windows)
        key = ("regions", replace(question, layer=layer, windows=windows))
        answer = None if full else seen.recall(key)
        if answer is None:
            names = question.names
            words, owners = words_of_classes([*names, *question.others])
            text = encoder.encode_text(words, question.templates)
            features = self.studio.layer(seen, encoder, layer)
            grid = tuple(pick_features(features, question.features).shape[:2])
            size = seen.features.size if full else views.display_size(*seen.image.size)
            verdicts = class_verdicts(encoder, seen.features.values, names)
            there, threshold = None, question.threshold
            if question.background == "verdict":
                last = layer == encoder.num_layers and question.features == "values"
                there, threshold = seen_only(encoder, verdicts, last)
            segments = self._superpixels(seen, encoder, grid) if question.sharp else None
            labelled = label(features, text, question.features, owners, len(names), threshold, there, segments, size)
            labels, scores = labelled.labels.numpy(), labelled.scores.numpy()
            own = scores[labels < 0]
            mean = float(own.mean()) if own.size else float("nan")
            table = (*class_shares(labels, scores, len(names)), labelled.peaks.double().numpy())
            answer = (grid, layer, labels.astype(np.int16), *table, mean, tuple(verdicts))
            answer = (*answer, calibration_of(encoder.info))
            if full:
                return Regions(seen, question, *answer, scores)
            self.studio.remember(seen, key, answer)
        return Regions(seen, question, *answer)

    def _superpixels(self, seen: Seen, encoder, grid: tuple[int, int]) -> np.ndarray:
        """Of a picture, found once: every further question about it is answered with them."""
        from tipsv2.analysis.sharp_edges import superpixels

        segments = seen.recall("superpixels")
        if segments is None:
            segments = superpixels(seen.image, grid, encoder.patch_size)
            self.studio.remember(seen, "superpixels", segments)
        return segments


def judge(regions: Regions, truth: Truth | None) -> tuple[np.ndarray, Agreement] | None:
    """-> (the truth at the regions' size, in places of their list; how far they agree), or None without a truth."""
    if truth is None:
        return None
    true = placed(truth, regions.names, regions.labels.shape)
    return true, agreement(regions.labels, true, len(regions.names), truth.whole)


def rows(regions: Regions, agreed: Agreement | None) -> list[dict]:
    """The table: a dict per class, in the order of the list, and one for the background if there is one asked for."""
    table = [
        {"name": name, "share": float(share), "mean": float(mean), "peak": float(peak)} | verdict_numbers(verdict)
        for name, share, mean, peak, verdict in zip(
            regions.names, regions.shares, regions.means, regions.peaks, regions.verdicts, strict=True
        )
    ]
    if regions.question.background != "none":
        table.append(
            {"name": BACKGROUND, "share": regions.background, "mean": regions.background_mean, "peak": float("nan")}
        )
    if agreed is not None:
        for row, iou in zip(table, [*agreed.iou, agreed.background], strict=False):
            row["iou"] = float(iou)
    return table
