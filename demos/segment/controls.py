"""The controls of the Segment tab: the class list, its background, the true mask, and the drawer with the rest."""

from __future__ import annotations

import functools

import gradio as gr

from demos.segment import truth as segmentation_truth
from demos.segment.truth import Truth
from demos.segment.work import split
from demos.ui import controls

BACKGROUND_WORDS = "background, wall, floor, sky"
NO_CLASS = ("No class", "")
NO_LIST, OWN_NAMES = "", "Names of this example"
TITLES = {
    "everyday": "Everyday",
    "ade20k150": "ADE20K",
    "context59": "PASCAL Context",
    "voc20": "PASCAL VOC",
    "cocostuff171": "COCO-Stuff",
    "cityscapes19": "Cityscapes",
}
SCENES = {"animal": "animals", "food": "food", "vehicle": "vehicles", "plant": "plants", "object": "objects"}


@functools.cache
def presets() -> dict[str, str]:
    """Class lists to start with: title -> names separated by commas; photographs' first, then the drawn scenes', whose
    surfaces stand in each.
    """
    from tipsv2.prompts import CLASS_LISTS
    from tipsv2.scenes import STUFF, nouns

    lists = {title: CLASS_LISTS[name] for name, title in TITLES.items()}
    lists["Scenes: surfaces"] = STUFF
    for category, title in SCENES.items():
        lists[f"Scenes: {title}"] = (*STUFF, *(noun.name for noun in nouns() if noun.category == category))
    return {title: ", ".join(names) for title, names in lists.items()}


def class_field() -> tuple[gr.Textbox, gr.Dropdown]:
    """The names, in a field that grows to a few lines at most, and the lists to take them from."""
    with gr.Row(elem_classes="tips-classes"):
        classes = gr.Textbox(
            label="Classes",
            info="Separate names by commas, words for one class by |; press Enter to run.",
            lines=1,
            max_lines=4,
            placeholder="cat, sofa, window",
            scale=3,
            min_width=240,
        )
        counted = [(f"{title} · {names.count(',') + 1}", title) for title, names in presets().items()]
        preset = gr.Dropdown(
            [("Choose a list", NO_LIST), (OWN_NAMES, OWN_NAMES), *counted],
            value=NO_LIST,
            label="Lists",
            info="Names to start from.",
            filterable=False,
            scale=1,
            min_width=200,
        )
    return classes, preset


def background_choice() -> tuple[gr.Radio, gr.Slider, gr.Textbox]:
    """What becomes of pixels that resemble none of the classes."""
    background = gr.Radio(
        [("By verdict", "verdict"), ("None", "none"), ("Threshold", "threshold"), ("Words", "words")],
        value="verdict",
        label="Background",
        info="Leave out what resembles none of the classes and classes that are not here, or give every pixel a class.",
    )
    threshold = gr.Slider(
        -0.1, 0.6, value=0.1, step=0.01, label="Least cosine", visible=False, elem_classes="tips-slider"
    )
    words = gr.Textbox(
        BACKGROUND_WORDS,
        label="Background words",
        info="They compete with the classes; what they win is background.",
        lines=1,
        max_lines=3,
        visible=False,
    )
    return background, threshold, words


def truth_part() -> tuple[gr.HTML, gr.UploadButton, gr.Button, gr.Radio, gr.Dropdown, gr.HTML]:
    """The true mask: what it is, where it comes from -> (note, upload, remove, first number, class to draw, canvas)."""
    html = dict(apply_default_css=False, elem_classes="tips-under")
    with gr.Accordion("True mask", open=False, elem_classes="tips-more"):
        truth_note = gr.HTML(segmentation_truth.describe(None, ()), js_on_load=None, **html)
        with gr.Row(elem_classes="tips-buttons"):
            upload = gr.UploadButton("Upload a mask", file_types=["image"], size="sm", min_width=0)
            remove = gr.Button("Remove", size="sm", min_width=0)
        first = gr.Radio(
            [("1", "1"), ("0", "0")],
            value="1",
            label="Number of the first class",
            info="In a grey or palette PNG; with 1, 0 is none of them, and 255 counts nowhere. Or paint in the "
            "legend's colours, on white.",
        )
        marked = gr.Dropdown(
            [NO_CLASS],
            value="",
            label="Draw",
            info="One class at a time; the rest of the picture is not it.",
            filterable=False,
        )
        canvas = gr.HTML("", js_on_load=controls.script("compare-mask.js"), visible=False, **html)
    return truth_note, upload, remove, first, marked, canvas


def more(training: int) -> tuple[gr.Radio, gr.Radio, gr.Slider, gr.Checkbox, gr.Slider, gr.HTML]:
    """The drawer -> (templates, features, layer, windows, resolution, note)."""
    with gr.Accordion("More", open=False, elem_classes="tips-more"):
        resolution = controls.resolution_slider(training)
        note = gr.HTML("", apply_default_css=False, js_on_load=None, elem_classes="tips-under")
        windows = gr.Checkbox(
            False, label="Sliding windows", info="Large images in parts of the trained size, one pass for each."
        )
        features = gr.Radio(
            [("Values", "values"), ("Layer's output", "final")],
            value="values",
            label="Patch features",
            info="Values skip the layer's attention and follow words more closely.",
        )
        # Beyond the last layer of any encoder means its last one, until the encoder tells how deep it is.
        layer = gr.Slider(
            1, 48, value=48, step=1, label="Layer", info="Words are matched to the last.", elem_classes="tips-slider"
        )
        sets = [("None", "none"), ("TIPS 9", "tips9"), ("CLIP 80", "clip80")]
        templates = gr.Radio(sets, value="tips9", label="Prompt templates")
    return templates, features, layer, windows, resolution, note


def begin(image: str | None, truth: Truth | None, marked: str, classes: str):
    """A class to draw was chosen, or another image came: the canvas, seen only if there is something to draw on."""
    drawing = segmentation_truth.canvas(image, truth, marked, split(classes))
    return gr.update(value=drawing, visible=bool(drawing))


def choices(classes: str, marked: str):
    """The classes that can be drawn; one that has left the list is no longer chosen."""
    names = split(classes)
    return gr.update(choices=[NO_CLASS, *((name, name) for name in names)], value=marked if marked in names else "")
