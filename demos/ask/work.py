"""What the Ask tab computes: a question about an image -> patches, maps, words near a patch, regions. No gradio here.

Sizes: N maps, h x w patches, D embedding width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demos.backend.layers import LayerMemory
from demos.backend.studio import Seen, Studio
from demos.ui import controls
from tipsv2.checkpoints.bundled import DRAWINGS

if TYPE_CHECKING:
    import torch

    from tipsv2.analysis.regions import Regions

MAX_QUERIES = 12
MAX_TEMPLATES = 100
MAX_VOCABULARY = 500
NEAREST = 8  # words told of a clicked patch
SMALLEST = 0.002  # of the image: parts of a region that cover less are not drawn
# Where things and surfaces of the bundled scenes are cut out best (mean IoU over 30 of them): 0.55 of a cosine map's
# range, a cosine of 0.2 and a competing share of 0.5.
SHARE, COSINE, COMPETING = 0.55, 0.2, 0.5
COLOURS = "red orange yellow green blue purple pink brown black white gray".split()


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
    shared: bool = False  # one colour range for all maps
    smooth: bool = True


@dataclass(frozen=True)
class Answer:
    """names: of the maps; grid: [h, w, D]; maps: [N, h, w]."""

    seen: Seen
    grid: torch.Tensor
    names: list[str]
    maps: torch.Tensor

    def patch(self, question: Question) -> tuple[int, int]:
        """(row, column) of the clicked patch. Raises ValueError for a point outside the image."""
        width, height = self.seen.given
        return patch_at(question.patch, (height, width), tuple(self.grid.shape[:2]))


class Asker:
    """Answers questions. It holds the studio it shares with the other tabs, and remembers layers itself."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.layers = LayerMemory()

    def look(self, question: Question, who: str, path: str | None = None) -> tuple[Seen, torch.Tensor]:
        """The patches of the image (of `path` if given) -> (Seen, [h, w, D]); encoded only if `who` has not yet."""
        from tipsv2.analysis.heatmap import pick_features

        encoder, path = self.studio.encoder(question.model), path or question.image
        layer = layer_number(question.features)
        if layer is not None:
            seen = self.studio.encode(who, encoder, path, question.resolution)
            return seen, self.layers.grid(who, seen, encoder, layer, "final")
        seen = self.studio.encode(who, encoder, path, question.resolution, question.windows)
        return seen, pick_features(seen.features, question.features)

    def answer(self, question: Question, who: str) -> Answer:
        """Raises ValueError with a sentence about what cannot be asked."""
        from tipsv2.analysis.heatmap import compete, similarity

        names, text = self.texts(question)
        seen, grid = self.look(question, who)
        maps = similarity(grid, text)
        if question.mode == "competing" and names:
            maps = compete(maps, question.temperature)
        return Answer(seen, grid, names, maps[: len(names)])

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
        from tipsv2.analysis.heatmap import patch_similarity

        row, column = answer.patch(question)
        here = patch_similarity(answer.grid, row, column)
        if question.other is None:
            return here, None, None
        seen, grid = self.look(question, who, question.other)
        return here, seen, patch_similarity(answer.grid, row, column, grid)

    def near(self, answer: Answer, question: Question, count: int = NEAREST) -> list[tuple[str, float]]:
        """The words nearest to the clicked patch, with cosines."""
        from tipsv2.analysis.words import nearest_words

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


def others_of(question: Question, names: list[str]) -> list[str]:
    """The distractors that are none of the names, cleaned. Raises ValueError naming a bad one."""
    return [each for each in controls.texts(question.distractors, "distractor", MAX_QUERIES) if each not in names]


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


def vocabulary(knows: Collection[str]) -> list[str]:
    """The words to tell patches in, for an encoder which knows these kinds of pictures (`ModelInfo.knows`): the names
    of the drawn scenes, of the benchmarks' photographs, or both; of photographs where nobody has said.
    """
    from tipsv2.prompts import CLASS_LISTS
    from tipsv2.scenes import names

    photographed = [name for listed in CLASS_LISTS.values() for name in listed] if {*knows} != {DRAWINGS} else []
    drawn = names() if DRAWINGS in knows else []
    return list(dict.fromkeys([*photographed, *drawn, *COLOURS]))


def region(question: Question, values: torch.Tensor, size: tuple[int, int]) -> Regions:
    """What of a map [h, w] is above the threshold, at a size (H, W)."""
    from tipsv2.analysis.heatmap import to_pixels
    from tipsv2.analysis.regions import at_share, find_regions

    pixels = to_pixels(values[None], size)[0].numpy()
    if question.above not in ("range", "score"):
        raise ValueError(f"A threshold is a share of the range or a score, not '{str(question.above)[:80]}'.")
    limit = at_share(pixels, question.threshold) if question.above == "range" else question.threshold
    return find_regions(pixels, limit, SMALLEST)


def ranges(question: Question, maps) -> tuple[list[float], list[float]]:
    """The scores of the first and the last colour of every map [N, h, w]."""
    if not len(maps):
        return [], []
    if question.mode == "competing":
        return [0.0] * len(maps), [1.0] * len(maps)  # shares of a patch: their range is known
    lows, highs = maps.amin(dim=(1, 2)).tolist(), maps.amax(dim=(1, 2)).tolist()
    return ([min(lows)] * len(lows), [max(highs)] * len(highs)) if question.shared else (lows, highs)


def patch_at(point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(x, y) in pixels of an image of size (H, W) -> (row, column) of the patch there. Raises ValueError for a point
    outside; the right and the lower edge belong to the image.
    """
    (x, y), (height, width), (rows, columns) = point, size, grid
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"The point ({x:g}, {y:g}) lies outside the image, which has {width} × {height} pixels.")
    row, column = int(y / height * rows), int(x / width * columns)
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)
