"""Tab: phrases, or the words of a sentence -> one map each over the image; a click on a patch -> what resembles it, in
the image and in a second one, and which words are nearest to it.

python -m demos.ask --model google/tipsv2-b14
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import gradio as gr
from PIL import Image

from demos.ask import export
from demos.ask import views as heatmap_views
from demos.ask.api import endpoints
from demos.ask.controls import FIXED_FEATURES, more, question_field, score
from demos.ask.views import Card
from demos.ask.work import (
    COMPETING,
    COSINE,
    SHARE,
    Answer,
    HeatmapService,
    Question,
    askable,
    layer_number,
    ranges,
    region,
)
from demos.backend.studio import Seen, Studio
from demos.ui import controls, views
from demos.ui.chips import not_asked
from demos.ui.controls import MODEL_WORK, toasted, visitor
from demos.ui.export_row import export_row
from demos.ui.page import Page
from demos.ui.verdicts import because, unfamiliar

TITLE = "Ask"
NO_QUERY = ("What are you looking for?", "Type a few words and press Enter, or click a patch of the image.")
SMOOTH, FINER = 160, 5  # least pixels of a smooth map's long side, and of a patch on it
NO_SENTENCE = ("What does the image show?", "Write a sentence and press Enter: each of its words becomes a map.")


class Heatmaps:
    """The handlers of this tab; they hold nothing but the studio they share with the other tabs, and layers."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.service = HeatmapService(studio)

    def draw(self, request: gr.Request, *given) -> tuple[str, str]:
        """-> (maps, resolution note). given: the fields of a Question in their order."""
        return self.drawn(Question(*given), visitor(request))

    @toasted
    def drawn(self, question: Question, who: str) -> tuple[str, str]:
        """-> (maps, resolution note)."""
        if question.image is None:
            return views.empty(*controls.NO_IMAGE), ""
        question, refused = askable(question)
        answer, refusals = self.service.answer(question, who), not_asked(refused)
        note = self.note(question, answer)
        cards, near = self._cards(question, answer), []
        if question.patch is not None:
            cards = [*self._patch_cards(question, answer, who), *cards]
            near = self.service.near(answer, question)
        if not cards:
            return refusals + views.empty(*(NO_QUERY if question.by == "phrases" else NO_SENTENCE)), note
        bar = views.color_bar(question.colormap)
        unseen = "" if answer.familiar else unfamiliar([self.studio.info(question.model)])
        return refusals + unseen + heatmap_views.maps(answer.seen.image, cards, bar, near, answer.absolute), note

    def note(self, question: Question, answer: Answer) -> str:
        """What the encoder saw, at which price."""
        training = self.studio.info(question.model).resolution
        asked, used = int(question.resolution or training), answer.seen.resolution
        layer = layer_number(question.features)
        if question.windows and layer is None:
            from tipsv2.network.view import count_windows

            rows, columns = answer.grid.shape[:2]
            count = count_windows(self.studio.encoder(question.model), (rows, columns))
            cost = f"{count} windows of {training} px, each as long as one look" if count > 1 else "one window"
            return views.note(f"{used} px short side, {rows} × {columns} patches through {cost}.")
        note = controls.resolution_note(tuple(answer.grid.shape[:2]), used, asked, training)
        if question.windows:
            note += views.note(f"Windows are for the last layer: layer {layer} is of the whole image.", "warn")
        return note

    def _cards(self, question: Question, answer: Answer) -> list[Card]:
        from tipsv2.analysis.verdict import NOT_HERE, UNKNOWN

        if not answer.names:
            return []
        lows, highs = ranges(question, answer)
        pictures = _pictures(answer.seen, answer.maps, lows, highs, question)
        size = views.display_size(*answer.seen.image.size)
        return [
            Card(
                name,
                grid.numpy(),
                picture,
                low,
                high,
                region=region(question, grid, size) if question.cut else None,
                verdict=verdict,
                because=because(verdict, answer.calibration),
                absent=verdict.answer in (NOT_HERE, UNKNOWN) and question.scale == "absolute",
            )
            for name, grid, picture, low, high, verdict in zip(
                answer.names, answer.maps, pictures, lows, highs, answer.verdicts, strict=True
            )
        ]

    def _patch_cards(self, question: Question, answer: Answer, who: str) -> list[Card]:
        """What resembles the clicked patch in the image and in the second one, on one scale."""
        here, other, there = self.service.similar(answer, question, who)
        maps = [(answer.seen, here)] if other is None else [(answer.seen, here), (other, there)]
        low, high = min(grid.min().item() for _, grid in maps), max(grid.max().item() for _, grid in maps)
        pictures = [_pictures(seen, grid[None], [low], [high], question)[0] for seen, grid in maps]
        cards = [Card("Clicked patch", here.numpy(), pictures[0], low, high, patch=answer.patch(question))]
        if other is not None:
            cards.append(Card("In the second image", there.numpy(), pictures[1], low, high, photo=other.image))
        return cards

    @toasted
    def layers(self, model: str | None, features: str):
        """A model is ready: its layers are on offer."""
        count = self.studio.encoder(model).num_layers
        choices = [*FIXED_FEATURES, *((f"Layer {number} of {count}", str(number)) for number in range(count, 0, -1))]
        return gr.update(choices=choices, value=features if features in dict(map(reversed, choices)) else "values")

    @toasted
    def arrive(self, model: str | None, image: str | None):
        """A model is ready: its examples and its resolutions; on an empty page, its first example.
        -> (field, image, examples, resolution).
        """
        return controls.arrival(self.studio, model, image, lambda: self.take_example(model, 0)[:2], 2)

    def take_example(self, model: str | None, index: int):
        """-> (field, image, queries, no patch)."""
        example = controls.pick_example(self.studio, model, index)
        path = controls.keep(example.path)
        return path, path, list(example.queries), None


def _pictures(seen: Seen, maps, lows, highs, question: Question) -> list[Image.Image]:
    """Coloured maps: interpolated, several pixels a patch, of which the page makes the size drawn; or one pixel per
    patch (the page enlarges it with hard edges).
    """
    from tipsv2.analysis.heatmap import to_pixels

    if question.smooth:
        longest = min(views.DISPLAY, max(SMOOTH, FINER * max(maps.shape[1:])))
        maps = to_pixels(maps, views.display_size(*seen.image.size, longest))
    return [
        views.colored(values.numpy(), question.colormap, low, high)
        for values, low, high in zip(maps, lows, highs, strict=True)
    ]


@toasted
def picked(event: gr.EventData) -> list[float]:
    """A click in the image or in a map -> (x, y) in pixels of the image."""
    place = controls.clicked(event, "index", list)
    if len(place) != 2 or not all(isinstance(coordinate, int | float) for coordinate in place):
        raise ValueError("The point that was clicked did not arrive whole: click again.")
    return [float(coordinate) for coordinate in place]


@toasted
def with_word(event: gr.EventData, queries: list[str] | None):
    """A click on a word near a patch -> (phrases, chips with it)."""
    word, queries = controls.clicked(event, "word", str), queries or []
    return "phrases", [*queries, word] if word not in queries else queries


def as_sentence(queries: list[str] | None) -> str:
    """The phrases in a row, for a visitor who has not written a sentence yet."""
    queries = queries or [""]
    return " and ".join([", ".join(queries[:-1]), queries[-1]] if len(queries) > 1 else queries)


def default_threshold(anew: bool, above: str, mode: str):
    """Where to cut when nobody has said. anew: also where it is a share of the range, which every map has."""
    if above == "range":
        return SHARE if anew else gr.skip()
    return COMPETING if mode == "competing" else COSINE


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = Heatmaps(page.studio)
    patch = gr.State(None)
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = controls.image_field()
            strip = controls.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result") as result:
            asked = question_field(controls.first_queries(page.studio))
            maps = gr.HTML(
                views.empty(*controls.LOADING),
                js_on_load=controls.script("maps.js", "chips.js"),
                apply_default_css=False,
                elem_classes="tips-output",
            )
        with gr.Column(elem_classes="tips-settings"):
            scored = score()
            extra, second, note = more(page.studio.info().resolution)
    parts = dict(image=image, patch=patch, model=page.model) | asked | scored | extra
    inputs = [parts[attribute.name] for attribute in fields(Question)]
    with result:
        export_row(partial(export.take, handlers), [*inputs, parts["opacity"]], masks=True)

    drawing = dict(fn=handlers.draw, inputs=inputs, outputs=[maps, note], api_visibility="private", **MODEL_WORK)
    shown = dict(show_progress="minimal", show_progress_on=maps, trigger_mode="always_last")
    quiet = dict(api_visibility="private", show_progress="hidden")

    def upload(payload: dict | None, request: gr.Request):
        return *controls.accept_upload(payload, request), None

    @toasted
    def example(event: gr.EventData, model: str | None):
        return handlers.take_example(model, controls.clicked(event, "index", int))

    def turn(by: str, queries: list[str], sentence: str):
        phrases = by == "phrases"
        return gr.update(visible=phrases), gr.update(visible=not phrases, value=sentence or as_sentence(queries))

    by, queries, mode = parts["by"], parts["queries"], parts["mode"]
    given = [
        field.upload(upload, field, [field, image, patch], preprocess=False, **quiet),
        field.clear(lambda: (None, None), None, [image, patch], **quiet),
        strip.select(example, page.model, [field, image, queries, patch], **quiet),
    ]
    for event in given:
        event.then(**drawing, **shown)
    gr.on([field.select, maps.select], picked, None, patch, **quiet).then(**drawing, **shown)
    maps.clear(lambda: None, None, patch, **quiet).then(**drawing, **shown)
    maps.submit(with_word, queries, [by, queries], **quiet)
    other = parts["other"]
    second.upload(controls.accept_upload, second, [second, other], preprocess=False, **quiet).then(**drawing, **shown)
    second.clear(lambda: None, None, other, **quiet).then(**drawing, **shown)
    sentence = parts["sentence"]
    by.change(turn, [by, queries, sentence], [queries, sentence], **quiet).then(**drawing, **shown)
    above, threshold = parts["above"], parts["threshold"]
    # The threshold that goes with a choice is set before the maps are drawn, so that they are drawn once.
    for choice in (above, mode):
        fitting = choice.input(partial(default_threshold, choice is above), [above, mode], threshold, **quiet)
        fitting.then(**drawing, **shown)
    # Of the chips' events only `change` tells of every chip added and removed; it also follows an example's queries.
    typed = [parts["own"], parts["vocabulary"]]
    changes = [component.change for component in (queries, parts["distractors"])]
    changes += [sentence.submit, *(textbox.blur for textbox in typed), *(textbox.submit for textbox in typed)]
    sliders = "temperature features templates resolution windows cut threshold colormap scale smooth".split()
    gr.on([*changes, *(parts[name].input for name in sliders)], **drawing, **shown)
    page.workspace.share(
        "ask", field, image, given, drawing | shown, words=queries, more=[patch], taken=lambda *_: (None,)
    )
    page.on_arrival(handlers.layers, [page.model, parts["features"]], parts["features"])
    page.on_arrival(handlers.arrive, [page.model, image], [field, image, strip, parts["resolution"]])
    shared = "by sentence mode temperature features templates resolution windows scale smooth colormap cut".split()
    page.reopening.keep(page, "ask", ranged=["resolution", "features"], **{name: parts[name] for name in shared})
    page.on_arrival(handlers.draw, inputs, [maps, note])

    endpoints(handlers, page, parts)
