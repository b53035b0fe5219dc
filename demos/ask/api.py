"""The Ask tab for programs: named endpoints for gradio_client, each with what it takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np
from gradio.components import Component

from demos.ask.work import MAX_VOCABULARY, Question, ranges, region
from demos.ui import controls
from demos.ui.controls import MODEL_WORK, answered, visitor
from demos.ui.verdicts import verdict_numbers

if TYPE_CHECKING:
    from demos.ask.tab import Heatmaps
    from demos.ask.work import Answer
    from demos.ui.page import Page


class Endpoints:
    """Handlers of the API; they hold nothing but the tab's service, whose memory they share."""

    def __init__(self, tab: Heatmaps):
        self.service = tab.service

    @answered
    def heatmap(
        self,
        image: str,
        queries: list[str],
        model: str,
        mode: str,
        features: str,
        templates: str,
        temperature: float,
        resolution: float,
        colormap: str,
        opacity: float,
        distractors: list[str] = (),
        own_templates: str = "",
        windows: bool = False,
        scale: str = "absolute",
        request: gr.Request = None,
    ) -> tuple[list, list[dict]]:
        """Where in the image is each phrase, and is it there at all? Returns one overlay per query (PNG) and, per
        query, peak and mean score, the scores of all patches, and the verdict "here", "perhaps", "not here" or, on a
        kind of picture that the encoder has never seen, "unknown", with what it rests on: likelihood (null of an
        encoder without calibration), lead over its rival, the nearest other word, and the part of other words whose
        peak it beats.

        image: the picture. queries: up to twelve phrases. model: an encoder on offer. mode: "cosine" (each query alone)
        or "competing" (softmax over the queries). temperature: of the softmax of "competing". features: "values",
        "final" or the number of a layer. templates: "none", "tips9", "clip80" or "own". own_templates: for "own", one a
        line with {} for the query. resolution: short side in pixels, 0 for as trained. colormap, opacity: of the
        overlays. distractors: phrases that compete and get no map. windows: look at a large image through windows of
        the size the encoder was trained at. scale: of the colours, "absolute", "shared" by the queries or each map's
        "own".
        """
        if image is None or not queries:
            raise ValueError("Give an image and at least one query.")
        question = Question(
            image, model=model, queries=queries, mode=mode, temperature=temperature, distractors=distractors,
            features=features, templates=templates, own=own_templates, resolution=resolution, windows=windows,
            scale=scale,
        )  # fmt: skip
        return self._maps(question, colormap, opacity, visitor(request))

    @answered
    def word_maps(
        self,
        image: str,
        sentence: str,
        model: str,
        mode: str,
        features: str,
        temperature: float,
        resolution: float,
        colormap: str,
        opacity: float,
        windows: bool = False,
        scale: str = "absolute",
        request: gr.Request = None,
    ) -> tuple[list, list[dict]]:
        """Where in the image is each word of a sentence? Returns what /heatmap does, for each content word how much the
        sentence would lose without it.

        image: the picture. sentence: up to twelve words besides articles, prepositions and the like. model, mode,
        temperature, features, resolution, colormap, opacity, windows, scale: as in /heatmap.
        """
        if image is None or not (sentence or "").strip():
            raise ValueError("Give an image and a sentence.")
        question = Question(
            image, model=model, by="sentence", sentence=sentence, mode=mode, temperature=temperature,
            features=features, resolution=resolution, windows=windows, scale=scale,
        )  # fmt: skip
        return self._maps(question, colormap, opacity, visitor(request))

    @answered
    def similar_patches(
        self,
        image: str,
        x: float,
        y: float,
        other: str | None = None,  # what has a default may be left out by programs, and so may all that follows
        model: str = "",
        features: str = "values",
        resolution: float = 0,
        colormap: str = "viridis",
        opacity: float = 0.7,
        windows: bool = False,
        request: gr.Request = None,
    ) -> tuple[list, dict]:
        """What resembles the patch at a point? Returns an overlay of the image, and one of a second image if there is
        one (PNG, on one scale), the patch, the cosines of all patches and the second image's best match.

        image: the picture. x, y: the point in its pixels. other: a second picture, or null. model, features,
        resolution, colormap, opacity, windows: as in /heatmap.
        """
        from tipsv2.analysis.heatmap import peak

        question = self._at(
            image, x, y, other=other, model=model, features=features, resolution=resolution, windows=windows
        )
        who = visitor(request)
        answer = self.service.answer(question, who)
        here, second, there = self.service.similar(answer, question, who)
        numbers = {"patch": list(answer.patch(question)), "patches": _rounded(here)}
        maps = [("image", answer.seen, here)]
        if second is not None:
            best = peak(there)
            numbers["other"] = {"best": [best.row, best.column], "peak": round(best.score, 6)}
            numbers["other"]["patches"] = _rounded(there)
            maps.append(("second image", second, there))
        low, high = min(grid.min().item() for *_, grid in maps), max(grid.max().item() for *_, grid in maps)
        return [(painted(seen, grid, colormap, opacity, low, high), name) for name, seen, grid in maps], numbers

    @answered
    def nearest_words(
        self,
        image: str,
        x: float,
        y: float,
        vocabulary: str,
        count: float,
        model: str,
        features: str,
        resolution: float,
        windows: bool = False,
        request: gr.Request = None,
    ) -> list[dict]:
        """Which words are nearest to the patch at a point? Returns words and cosines, the nearest first.

        image: the picture. x, y: the point in its pixels. vocabulary: words separated by commas, or "" for a list that
        suits the encoder. count: how many. model, features, resolution, windows: as in /heatmap.
        """
        question = self._at(
            image, x, y, vocabulary=vocabulary, model=model, features=features, resolution=resolution, windows=windows
        )
        if count is None or not 1 <= count <= MAX_VOCABULARY:
            raise ValueError(f"Ask for 1 to {MAX_VOCABULARY} words, not {count}.")
        answer = self.service.answer(question, visitor(request))
        nearest = self.service.near(answer, question, int(count))
        return [{"word": word, "score": round(score, 6)} for word, score in nearest]

    @answered
    def regions(
        self,
        image: str,
        queries: list[str],
        model: str,
        mode: str,
        features: str,
        templates: str,
        temperature: float,
        resolution: float,
        above: str,
        threshold: float,
        distractors: list[str] = (),
        own_templates: str = "",
        windows: bool = False,
        request: gr.Request = None,
    ) -> tuple[list, list[dict]]:
        """Which part of the image is each phrase? Returns a mask per query (PNG, 255 inside) and, per query, the
        threshold, the share of the image covered, and each connected part's box [left, top, right, bottom], area in
        pixels and peak score, the largest first. Parts under 0.2 % of the image are left out.

        above: "range" or "score". threshold: a share of each map's range, from 0 to 1, or an absolute score. image,
        queries, model, mode, features, templates, temperature, resolution, distractors, own_templates, windows: as in
        /heatmap.
        """
        if image is None or not queries:
            raise ValueError("Give an image and at least one query.")
        question = Question(
            image, model=model, queries=queries, mode=mode, temperature=temperature, distractors=distractors,
            features=features, templates=templates, own=own_templates, resolution=resolution, windows=windows,
            above=above, threshold=threshold,
        )  # fmt: skip
        answer = self.service.answer(question, visitor(request))
        regions = [region(question, grid, answer.seen.features.size) for grid in answer.maps]
        masks = [np.where(area.mask, 255, 0).astype(np.uint8) for area in regions]
        numbers = [
            {
                "query": name,
                "threshold": round(area.threshold, 6),
                "share": round(area.share, 6),
                "parts": parts_of(area),
            }
            for name, area in zip(answer.names, regions, strict=True)
        ]
        return list(zip(masks, answer.names, strict=True)), numbers

    def _at(self, image: str, x: float, y: float, **asked) -> Question:
        if image is None or x is None or y is None:
            raise ValueError("Give an image and a point in it, x and y in pixels.")
        return Question(image, patch=(x, y), **asked)

    def _maps(self, question: Question, colormap: str, opacity: float, who: str) -> tuple[list, list[dict]]:
        answer = self.service.answer(question, who)
        colors = zip(answer.maps, *ranges(question, answer), strict=True)
        overlays = [painted(answer.seen, grid, colormap, opacity, low, high) for grid, low, high in colors]
        return list(zip(overlays, answer.names, strict=True)), scores_of(answer)


def painted(seen, values, colormap: str, opacity: float, low=None, high=None) -> np.ndarray:
    """A map [h, w] over its image -> uint8 [H, W, 3]."""
    from tipsv2.analysis.heatmap import to_pixels
    from tipsv2.analysis.render import overlay

    pixels = to_pixels(values[None], seen.features.size)[0].numpy()
    return overlay(np.asarray(seen.image), pixels, colormap, opacity, low, high)


def scores_of(answer: Answer) -> list[dict]:
    """Peak, mean, patches and verdict of every map."""
    from tipsv2.analysis.heatmap import peak

    return [
        {
            "query": name,
            "peak": round(peak(grid).score, 6),
            "mean": round(grid.mean().item(), 6),
            "patches": _rounded(grid),
        }
        | verdict_numbers(verdict)
        for name, grid, verdict in zip(answer.names, answer.maps, answer.verdicts, strict=True)
    ]


def parts_of(regions) -> list[dict]:
    """The parts of a Regions."""
    return [{"box": list(part.box), "area": part.area, "peak": round(part.peak, 6)} for part in regions.parts]


def endpoints(tab: Heatmaps, page: Page, parts: Mapping[str, Component]) -> None:
    """Register the endpoints. parts: the tab's components, whose values are the defaults."""
    api = Endpoints(tab)
    model, own = page.choice, gr.Textbox("", visible=False, label="own_templates")
    features = gr.Textbox("values", visible=False, label="features")  # the page's menu lists one encoder's layers only
    x, y = gr.Number(0, visible=False, label="x"), gr.Number(0, visible=False, label="y")
    count = gr.Number(8, visible=False, precision=0, label="count")
    resolution = controls.api_resolution()
    look = [resolution, parts["colormap"], parts["opacity"]]
    shared = [model, parts["mode"], features, parts["templates"], parts["temperature"]]
    tail = [parts["distractors"], own, parts["windows"]]
    seen = [model, features]

    def register(handler, inputs: Sequence[Component], outputs: Sequence[Component]) -> None:
        gr.Button(visible=False).click(
            handler, [controls.api_image(), *inputs], [*outputs], api_name=handler.__name__, **MODEL_WORK
        )

    def gallery(label: str) -> gr.Gallery:
        return gr.Gallery(visible=False, format="png", label=label)

    def numbers(label: str) -> gr.JSON:
        return gr.JSON(visible=False, label=label)

    other = gr.File(visible=False, label="other")
    worded = [parts["mode"], features, parts["temperature"]]
    cut = [resolution, parts["above"], parts["threshold"]]
    scale = parts["scale"]
    register(api.heatmap, [parts["queries"], *shared, *look, *tail, scale], [gallery("overlays"), numbers("scores")])
    register(
        api.word_maps,
        [parts["sentence"], model, *worded, *look, parts["windows"], scale],
        [gallery("overlays"), numbers("scores")],
    )
    register(
        api.similar_patches, [x, y, other, *seen, *look, parts["windows"]], [gallery("overlays"), numbers("patches")]
    )
    register(
        api.nearest_words, [x, y, parts["vocabulary"], count, *seen, resolution, parts["windows"]], [numbers("words")]
    )
    register(api.regions, [parts["queries"], *shared, *cut, *tail], [gallery("masks"), numbers("regions")])


def _rounded(values) -> list:
    return np.round(values.double().numpy(), 5).tolist()
