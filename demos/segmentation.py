"""Tab: class names -> every pixel gets one, with a legend of shares and the classes not found.

python -m demos.segmentation
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import gradio as gr
import numpy as np

from demos import common, views
from demos.common import MODEL_WORK, answered, toasted, visitor
from demos.page import Page
from demos.studio import Seen, Studio

TITLE = "Segmentation"
MAX_CLASSES = 200
BACKGROUND_WORDS = "background, wall, floor, sky"
NO_CLASS = ("Which classes?", "Write names separated by commas and press Enter, or take a preset.")


@dataclass(frozen=True)
class Regions:
    """A segmentation at the size drawn. labels: [H, W] index into names, -1 for background; shares: parts of one."""

    seen: Seen
    grid: tuple[int, int]  # rows and columns of patches
    names: list[str]
    labels: np.ndarray
    shares: list[float]
    background: float

    @property
    def colors(self) -> np.ndarray:
        """[N, 3] uint8: a class keeps its colour as long as its place in the list does."""
        from tipsv2.render import PALETTE

        return np.asarray(PALETTE, dtype=np.uint8)[np.arange(len(self.names)) % len(PALETTE)]


class Segmentations:
    """The handlers of this tab; they hold nothing but the studio they share with the other tabs."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def divide(
        self, image, classes, model, templates, features, background, threshold, words, resolution, who, size=None
    ) -> Regions:
        """Label every pixel. size: (H, W) of the label map, by default the size drawn."""
        from tipsv2.heatmap import pick_features, similarity
        from tipsv2.segmentation import label_map

        names = common.texts(split(classes), "class name", MAX_CLASSES)
        if not names:
            raise ValueError("Write at least one class name.")
        others = common.texts(split(words), "background word", MAX_CLASSES) if background == "words" else []
        others = [word for word in others if word not in names]  # what is asked for as a class is not background
        if background == "words" and not others:
            raise ValueError("Write at least one background word that is no class, or choose another background.")
        encoder = self.studio.encoder(model)
        text = encoder.encode_text([*names, *others], templates)
        seen = self.studio.encode(who, encoder, image, resolution)
        grid = pick_features(seen.features, features)
        size = size or views.display_size(*seen.image.size)
        limit = threshold if background == "threshold" else None
        labels = label_map(similarity(grid, text), size, limit)[0].numpy()
        labels = np.where(labels >= len(names), -1, labels)
        counts = np.bincount(labels.ravel() + 1, minlength=len(names) + 1) / labels.size
        return Regions(seen, tuple(grid.shape[:2]), names, labels, counts[1:].tolist(), float(counts[0]))

    @toasted
    def draw(
        self,
        image: str | None,
        classes: str,
        model: str | None,
        templates: str,
        features: str,
        background: str,
        threshold: float,
        words: str,
        resolution: float,
        request: gr.Request = None,
    ) -> tuple[str, str]:
        """-> (regions with their legend, resolution note)."""
        if image is None:
            return views.empty(*common.NO_IMAGE), ""
        if not split(classes):
            return views.empty(*NO_CLASS), ""
        who = visitor(request)
        found = self.divide(image, classes, model, templates, features, background, threshold, words, resolution, who)
        training = self.studio.info(model).resolution
        note = common.resolution_note(found.grid, found.seen.resolution, int(resolution), training)
        drawn = views.regions(found.seen.image, found.labels, found.names, found.colors, found.shares, found.background)
        return drawn, note

    @toasted
    def arrive(self, model: str | None, image: str | None):
        """A model is ready: its examples and its resolutions; on an empty page, its first example.
        -> (field, image, classes, examples, resolution).
        """
        info = self.studio.info(model)
        strip = common.strip_html(self.studio, model)
        resolution = gr.update(**common.resolution_range(info.resolution))
        if image is not None or not strip:
            return gr.skip(), gr.skip(), gr.skip(), strip, resolution
        return *self.take_example(model, 0), strip, resolution

    def take_example(self, model: str | None, index: int):
        """-> (field, image, classes)."""
        example = common.pick_example(self.studio, model, index)
        path = common.keep(example.path)
        return path, path, ", ".join(example.classes)

    @answered
    def segmentation(
        self,
        image: str,
        classes: str,
        model: str,
        templates: str,
        features: str,
        background: str,
        threshold: float,
        words: str,
        resolution: float,
        opacity: float,
        request: gr.Request = None,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Which class does every pixel resemble most? Returns the painted image (PNG), the label map (PNG; grey value 0
        is background, i is the i-th class) and the share of the image per class.

        image: the picture. classes: names separated by commas. model: an encoder on offer. templates: "none", "tips9"
        or "clip80". features: "values" or "final". background: "none", "threshold" (cosines below `threshold`) or
        "words" (`words`, separated by commas, compete with the classes). resolution: short side in pixels. opacity: of
        the paint.
        """
        from tipsv2.render import paint_labels

        if image is None:
            raise ValueError("Give an image and at least one class name.")
        who = visitor(request)
        encoder = self.studio.encoder(model)
        height, width = self.studio.encode(who, encoder, image, resolution).features.size
        found = self.divide(
            image, classes, model, templates, features, background, threshold, words, resolution, who, (height, width)
        )
        painted = paint_labels(np.asarray(found.seen.image), found.labels, found.colors, opacity)
        shares = dict(zip(found.names, np.round(found.shares, 6).tolist(), strict=True))
        return (
            painted,
            (found.labels + 1).astype(np.uint8),
            {"shares": shares, "background": round(found.background, 6)},
        )


def split(names: str | None) -> list[str]:
    """Names separated by commas, semicolons or lines -> a list without blanks and doubles."""
    parts = (part.strip() for part in re.split(r"[,;\n]", names or ""))
    return list(dict.fromkeys(part for part in parts if part))


def presets() -> dict[str, str]:
    """Class lists to start with: title -> names separated by commas; photographs' first, then the drawn scenes'."""
    from tipsv2.prompts import CLASS_LISTS
    from tipsv2.scenes import STUFF, nouns

    titles = {"everyday": "Everyday", "voc20": "PASCAL VOC", "cityscapes19": "Cityscapes"}
    lists = {title: CLASS_LISTS[name] for name, title in titles.items()}
    lists["Surfaces"] = STUFF
    for category, title in (("animal", "animals"), ("food", "food"), ("vehicle", "vehicles")):
        lists[f"Surfaces and {title}"] = (*STUFF, *(noun.name for noun in nouns() if noun.category == category))
    return {title: ", ".join(names) for title, names in lists.items()}


def tab(page: Page) -> None:
    """Build the tab inside the current Blocks."""
    handlers = Segmentations(page.studio)
    info = page.studio.info()
    lists = presets()
    with gr.Row(elem_classes="tips-work"):
        with gr.Column(elem_classes="tips-source"):
            field, image = common.image_field()
            strip = common.example_strip(page.studio)
        with gr.Column(elem_classes="tips-result"):
            classes = gr.Textbox(
                label="Classes",
                info="Separate names by commas; press Enter to run.",
                lines=1,
                max_lines=6,
                placeholder="cat, sofa, window",
                elem_classes="tips-classes",
            )
            preset = gr.Radio(list(lists), value=None, show_label=False, container=False, elem_classes="tips-presets")
            regions = gr.HTML(
                views.empty(*common.LOADING),
                js_on_load=common.script("regions.js"),
                apply_default_css=False,
                elem_classes="tips-output",
            )
        with gr.Column(elem_classes="tips-settings"):
            background = gr.Radio(
                [("None", "none"), ("Threshold", "threshold"), ("Words", "words")],
                value="none",
                label="Background",
                info="Give every pixel a class, or leave out what resembles none of them.",
            )
            threshold = gr.Slider(
                -0.1, 0.6, value=0.1, step=0.01, label="Least cosine", visible=False, elem_classes="tips-slider"
            )
            words = gr.Textbox(BACKGROUND_WORDS, label="Background words", lines=1, max_lines=3, visible=False)
            features, templates = common.embedding_choices("tips9")
            resolution = common.resolution_slider(info.resolution)
            note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
            opacity = gr.Slider(0, 1, value=0.65, step=0.05, label="Opacity", elem_classes="tips-slider")

    inputs = [image, classes, page.model, templates, features, background, threshold, words, resolution]
    drawing = dict(fn=handlers.draw, inputs=inputs, outputs=[regions, note], api_visibility="private", **MODEL_WORK)
    shown = dict(show_progress="minimal", show_progress_on=regions, trigger_mode="always_last")
    quiet = dict(api_visibility="private", show_progress="hidden")

    @toasted
    def example(event: gr.EventData, model: str | None):
        return *handlers.take_example(model, event.index), None

    field.upload(common.accept_upload, field, [field, image], preprocess=False, **quiet).then(**drawing, **shown)
    field.clear(lambda: None, None, image, **quiet).then(**drawing, **shown)
    strip.select(example, page.model, [field, image, classes, preset], **quiet).then(**drawing, **shown)
    preset.input(lambda chosen: lists.get(chosen, ""), preset, classes, **quiet).then(**drawing, **shown)
    background.change(
        lambda chosen: (gr.update(visible=chosen == "threshold"), gr.update(visible=chosen == "words")),
        background,
        [threshold, words],
        **quiet,
    )
    changes = [each.input for each in (templates, features, background, threshold, resolution)]
    finished = [classes.submit, classes.blur, words.submit, words.blur]
    gr.on([*changes, *finished], **drawing, **shown)
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-mask', v)")
    page.on_arrival(handlers.arrive, [page.model, image], [field, image, classes, strip, resolution])
    page.on_arrival(handlers.draw, inputs, [regions, note])

    gr.Button(visible=False).click(
        handlers.segmentation,
        [
            common.api_image(),
            classes,
            page.choice,
            templates,
            features,
            background,
            threshold,
            words,
            resolution,
            opacity,
        ],
        [
            gr.Image(visible=False, format="png", label="painted"),
            gr.Image(visible=False, format="png", label="labels"),
            gr.JSON(visible=False, label="shares"),
        ],
        api_name="segmentation",
        **MODEL_WORK,
    )


if __name__ == "__main__":
    from demos.launch import run

    run(["segmentation"], program="python -m demos.segmentation")
