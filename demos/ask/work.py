"""What the Ask tab computes: a question about an image -> patches, maps, words near a patch, regions. No gradio here.

Sizes: N maps, h x w patches, D embedding width, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from demos.backend.studio import Seen, Studio
from demos.ui import chips, controls

if TYPE_CHECKING:
    import torch

    from tipsv2.analysis.regions import Regions
    from tipsv2.analysis.verdict import Calibration, Verdict
    from tipsv2.network.view import ImageFeatures

SCALES = ("absolute", "shared", "own")
MAX_QUERIES = 12
MAX_TEMPLATES = 100
MAX_VOCABULARY = 500
NEAREST = 8  # words told of a clicked patch
SMALLEST = 0.002  # of the image: parts of a region that cover less are not drawn
# Where things and surfaces of the bundled scenes are cut out best (mean IoU over 30 of them): 0.55 of a cosine map's
# range, a cosine of 0.2 and a competing share of 0.5.
SHARE, COSINE, COMPETING = 0.55, 0.2, 0.5


@dataclass(frozen=True)
class Question:
    """What is asked, and how the answer is drawn. The tab has one component for each field, in this order."""

    image: str | None  # path of a checked copy
    other: str | None = None  # of a second image, to find a clicked patch again
    patch: tuple[float, float] | None = None  # (x, y) in pixels of the image
    model: str | None = None
    by: str = "phrases"  # or "sentence"
    queries: tuple[str, ...] = ()
    sentence: str = ""
    mode: str = "cosine"  # or "competing"
    temperature: float = 0.05
    distractors: tuple[str, ...] = ()  # take part in "competing" and get no map
    features: str = "values"  # "values", "final" or the number of a layer
    templates: str = "none"  # a name of tipsv2.prompts.TEMPLATES, or "own"
    own: str = ""  # templates, one a line
    resolution: float | None = None  # short side in pixels, by default the training resolution
    windows: bool = False
    cut: bool = False  # draw regions
    above: str = "range"  # threshold is a share of a map's range; or "score"
    threshold: float = SHARE
    vocabulary: str = ""  # words to tell a patch in, separated by commas; by default what suits the model
    colormap: str = "viridis"
    scale: str = "absolute"  # of the colours: what the encoder's cosines mean; "shared" by the maps; each map's "own"
    smooth: bool = True


@dataclass(frozen=True)
class Answer:
    """features: what the maps are made of; names: of the maps; maps: [N, h, w]; absolute: cosines of the first and the
    last colour.
    """

    seen: Seen
    features: ImageFeatures
    kind: str  # of the features: "values" or "final"
    names: list[str]
    maps: torch.Tensor
    verdicts: list[Verdict]  # N
    calibration: Calibration | None
    absolute: tuple[float, float]
    familiar: bool  # the picture is of a kind that the encoder knows, as far as anybody has fitted that

    @property
    def grid(self) -> torch.Tensor:
        """The patches [h, w, D] that the maps are of."""
        from tipsv2.analysis.heatmap import pick_features

        return pick_features(self.features, self.kind)

    def patch(self, question: Question) -> tuple[int, int]:
        """(row, column) of the clicked patch. Raises ValueError for a point outside the image."""
        width, height = self.seen.given
        return patch_at(question.patch, (height, width), tuple(self.grid.shape[:2]))


class HeatmapService:
    """Answers questions. It holds nothing but the studio it shares with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def look(self, question: Question, who: str, path: str | None = None) -> tuple[Seen, ImageFeatures, str]:
        """What is asked, of the image or of `path` -> (Seen, features, their kind); encoded if `who` has not yet."""
        encoder, path = self.studio.encoder(question.model), path or question.image
        layer = layer_number(question.features)
        if layer is not None:
            seen = self.studio.encode(who, encoder, path, question.resolution)
            return seen, self.studio.layer(seen, encoder, layer), "final"
        seen = self.studio.encode(who, encoder, path, question.resolution, question.windows)
        return seen, seen.features, question.features

    def answer(self, question: Question, who: str) -> Answer:
        """Raises ValueError with a sentence about what cannot be asked."""
        from tipsv2.analysis.heatmap import patch_maps, pick_features
        from tipsv2.analysis.verdict import UNKNOWN, calibration_of, color_range, is_familiar, judge

        if question.scale not in SCALES:
            raise ValueError(f"A colour scale is {', '.join(SCALES)}, not '{str(question.scale)[:80]}'.")
        names, text = self.texts(question)
        seen, features, kind = self.look(question, who)
        encoder = self.studio.encoder(question.model)
        verdicts = judge(encoder, seen.features.values, names) if names else []
        grid = pick_features(features, kind)
        absolute = color_range(encoder, grid, calibrated=layer_number(question.features) is None)
        maps = patch_maps(features, text, kind, question.temperature if question.mode == "competing" else None)
        unknown = any(verdict.answer == UNKNOWN for verdict in verdicts)
        familiar = not unknown if verdicts else is_familiar(encoder, seen.features.values)
        return Answer(
            seen, features, kind, names, maps[: len(names)], verdicts, calibration_of(encoder.info), absolute, familiar
        )

    def texts(self, question: Question) -> tuple[list[str], torch.Tensor]:
        """-> (N names, unit rows of them and then of the distractors [N + ..., D])."""
        import torch

        encoder, templates = self.studio.encoder(question.model), templates_of(question)
        if question.by == "sentence":
            from tipsv2.analysis.words import content_words, words_in_context

            (sentence,) = controls.texts([question.sentence or ""], "sentence", 1) or [""]
            if len(content_words(sentence)) > MAX_QUERIES:
                raise ValueError(f"The sentence has more than {MAX_QUERIES} words to show: split it in two.")
            names, text = words_in_context(encoder, sentence) if sentence else ([], encoder.encode_text([]))
        else:
            names = controls.texts(question.queries, "query", MAX_QUERIES)
            text = encoder.encode_text(names, templates)
        if question.mode != "competing" or not names:
            return names, text
        others = others_of(question, names)
        if len(names) + len(others) < 2:
            raise ValueError(
                "Competing maps need at least two queries: add another one or a distractor, or go back to cosine."
            )
        return names, torch.cat([text, encoder.encode_text(others, templates)])

    def similar(self, answer: Answer, question: Question, who: str):
        """What resembles the clicked patch -> (map [h, w], the second image, map of it), None and None without one."""
        from tipsv2.analysis.heatmap import patch_similarity, pick_features

        row, column = answer.patch(question)
        here = patch_similarity(answer.grid, row, column)
        if question.other is None:
            return here, None, None
        seen, features, kind = self.look(question, who, question.other)
        return here, seen, patch_similarity(answer.grid, row, column, pick_features(features, kind))

    def near(self, answer: Answer, question: Question, count: int = NEAREST) -> list[tuple[str, float]]:
        """The words nearest to the clicked patch, with cosines."""
        from tipsv2.analysis.words import nearest_words, vocabulary

        encoder = self.studio.encoder(question.model)
        words = controls.texts((question.vocabulary or "").split(","), "word", MAX_VOCABULARY) or vocabulary(
            encoder.info.knows
        )
        return nearest_words(answer.grid[answer.patch(question)], encoder, words, count)


def layer_number(features: str) -> int | None:
    """The layer that "7" asks for; None for "values" and "final"."""
    features = str(features).strip()
    if features in ("values", "final"):
        return None
    if not features.isdecimal():
        raise ValueError(f"Unknown features '{features[:80]}': use values, final or the number of a layer.")
    return int(features)


def askable(question: Question) -> tuple[Question, dict[str, str]]:
    """A question of the page without the chips that cannot be asked -> (question, those with why not)."""
    queries, refused = chips.askable(question.queries, "query", MAX_QUERIES)
    distractors, more = chips.askable(question.distractors, "distractor", MAX_QUERIES)
    return replace(question, queries=tuple(queries), distractors=tuple(distractors)), refused | more


def others_of(question: Question, names: list[str]) -> list[str]:
    """The distractors that are none of the names, cleaned. Raises ValueError naming a bad one."""
    return [text for text in controls.texts(question.distractors, "distractor", MAX_QUERIES) if text not in names]


def templates_of(question: Question) -> str | tuple[str, ...]:
    """The templates as `Encoder.encode_text` takes them. Raises ValueError naming the line that cannot be one."""
    if question.templates != "own":
        return question.templates
    lines = {number: line.strip() for number, line in enumerate((question.own or "").splitlines(), 1) if line.strip()}
    if not lines:
        raise ValueError('Write at least one template, such as "a photo of a {}.", or choose another set.')
    if len(lines) > MAX_TEMPLATES:
        raise ValueError(f"There are {len(lines)} templates: keep to {MAX_TEMPLATES} at once.")
    for number, line in lines.items():
        if "{}" not in line:
            raise ValueError(f"Template line {number}, '{line[:60]}', has no {{}}: write {{}} where the query goes.")
        if len(line) > controls.MAX_TEXT:
            raise ValueError(f"Template line {number} has {len(line):,} characters: keep it under {controls.MAX_TEXT}.")
    return tuple(dict.fromkeys(lines.values()))


def region(question: Question, values: torch.Tensor, size: tuple[int, int]) -> Regions:
    """What of a map [h, w] is above the threshold, at a size (H, W)."""
    from tipsv2.analysis.heatmap import to_pixels
    from tipsv2.analysis.regions import at_share, find_regions

    pixels = to_pixels(values[None], size)[0].numpy()
    if question.above not in ("range", "score"):
        raise ValueError(f"A threshold is a share of the range or a score, not '{str(question.above)[:80]}'.")
    limit = at_share(pixels, question.threshold) if question.above == "range" else question.threshold
    return find_regions(pixels, limit, SMALLEST, values.numpy())


def ranges(question: Question, answer: Answer) -> tuple[list[float], list[float]]:
    """The scores of the first and the last colour of every map of an answer."""
    count = len(answer.maps)
    if question.mode == "competing":
        return [0.0] * count, [1.0] * count  # shares of a patch: their range is known
    if not count or question.scale == "absolute":
        low, high = answer.absolute
        return [low] * count, [high] * count
    lows, highs = answer.maps.amin(dim=(1, 2)).tolist(), answer.maps.amax(dim=(1, 2)).tolist()
    return ([min(lows)] * count, [max(highs)] * count) if question.scale == "shared" else (lows, highs)


def patch_at(point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(x, y) in pixels of an image of size (H, W) -> (row, column) of the patch there. Raises ValueError for a point
    outside; the right and the lower edge belong to the image.
    """
    (x, y), (height, width), (rows, columns) = point, size, grid
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"The point ({x:g}, {y:g}) lies outside the image, which has {width} × {height} pixels.")
    row, column = int(y / height * rows), int(x / width * columns)
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)
