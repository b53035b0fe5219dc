"""The controls of the Ask tab: the question over the maps, the score beside them, and the drawer with everything else.

Each function builds components inside the current Blocks and returns them under the names of a Question's fields.
"""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from demos.ask.work import SHARE
from demos.ui import controls

COLORMAPS = ("viridis", "cividis", "magma", "inferno", "gray")
FIXED_FEATURES = (("Values of the last layer", "values"), ("Last layer", "final"))
SETS = (("None", "none"), ("TIPS 9", "tips9"), ("CLIP 80", "clip80"), ("Own", "own"))
OWN = "a photo of a {}.\na drawing of a {}."


def question_field(queries: list[str]) -> dict[str, Component]:
    """Phrases as chips, or a sentence."""
    by = gr.Radio(
        [("Words and phrases", "phrases"), ("A sentence", "sentence")],
        value="phrases",
        show_label=False,
        container=False,
        elem_classes="tips-view",
    )
    queries = controls.chips(
        "Look for",
        "Press Enter after each; × takes one away. Or click a patch of the image to see what resembles it.",
        queries,
    )
    sentence = gr.Textbox(
        "",
        label="Sentence",
        info="One map for each word: where in the image the match with the sentence depends on it.",
        placeholder="a dog asleep on green grass",
        max_lines=1,
        max_length=controls.MAX_TEXT,
        visible=False,
    )
    return dict(by=by, queries=queries, sentence=sentence)


def score() -> dict[str, Component]:
    """How a patch is scored, and which layer's patches."""
    mode = gr.Radio(
        [("Cosine", "cosine"), ("Competing", "competing")],
        value="cosine",
        label="Score",
        info="Each query alone, or a softmax that makes the queries share every patch.",
    )
    with gr.Column(visible=False, min_width=0, elem_classes="tips-group") as competing:
        temperature = gr.Slider(0.005, 0.2, value=0.05, step=0.005, label="Temperature", elem_classes="tips-slider")
        distractors = controls.chips("Distractors", "Take their share of every patch, get no map.")
    features = gr.Dropdown(
        list(FIXED_FEATURES),
        value="values",
        label="Layer",
        info="Value features, without the last attention, follow words more closely.",
        filterable=False,
    )
    mode.change(
        lambda chosen: gr.update(visible=chosen == "competing"),
        mode,
        competing,
        api_visibility="private",
        show_progress="hidden",
    )
    return dict(mode=mode, temperature=temperature, distractors=distractors, features=features)


def more(training: int) -> tuple[dict[str, Component], gr.Image, gr.HTML]:
    """The drawer -> (components, field of the second image, note under the resolution)."""
    with gr.Accordion("More", open=False, elem_classes="tips-more"):
        resolution = controls.resolution_slider(training)
        note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
        windows = gr.Checkbox(
            False,
            label="Sliding windows",
            info="Large images in parts of the trained size: sharper, one pass for each.",
        )
        templates = gr.Radio(list(SETS), value="none", label="Prompt templates")
        own = gr.Textbox(
            OWN, label="Own templates", info="One a line, {} where the query goes.", lines=3, max_lines=8, visible=False
        )
        region = _region()
        second, other = controls.image_field()
        second.label, second.show_label, second.height = "Second image", True, 150
        second.placeholder = "# Finds a clicked patch again"
        vocabulary = gr.Textbox(
            "",
            label="Nearest words",
            info="What a clicked patch is told in, separated by commas; empty for the encoder's own list.",
            placeholder="dog, cat, grass",
            max_lines=3,
        )
        colormap = gr.Dropdown(COLORMAPS, value="viridis", label="Colours", filterable=False)
        opacity = gr.Slider(0, 1, value=0.7, step=0.05, label="Opacity", elem_classes="tips-slider")
        scale = gr.Radio(
            [("Absolute", "absolute"), ("Shared", "shared"), ("Own range", "own")],
            value="absolute",
            label="Colour scale",
            info="From what is usual for an absent thing to what one that is there reaches; between the queries' "
            "extremes; or each map between its own.",
        )
        smooth = gr.Checkbox(True, label="Smooth between patches")
    templates.change(
        lambda chosen: gr.update(visible=chosen == "own"),
        templates,
        own,
        api_visibility="private",
        show_progress="hidden",
    )
    opacity.input(None, opacity, None, js="(v) => document.body.style.setProperty('--tips-heat', v)")
    parts = dict(resolution=resolution, windows=windows, templates=templates, own=own, other=other)
    parts |= dict(vocabulary=vocabulary, colormap=colormap, opacity=opacity, scale=scale, smooth=smooth)
    return parts | region, second, note


def _region() -> dict[str, Component]:
    """The switch that outlines what is above a threshold, and where that lies."""
    cut = gr.Checkbox(False, label="Outline regions", info="What lies above a threshold, with boxes around its parts.")
    with gr.Column(visible=False, min_width=0, elem_classes="tips-group") as settings:
        above = gr.Radio(
            [("Share of the range", "range"), ("Score", "score")], value="range", label="Threshold", show_label=False
        )
        threshold = gr.Slider(0, 1, value=SHARE, step=0.005, label="Threshold", elem_classes="tips-slider")
    cut.change(lambda on: gr.update(visible=on), cut, settings, api_visibility="private", show_progress="hidden")
    return dict(cut=cut, above=above, threshold=threshold)
