"""The Segment tab for programs: named endpoints for gradio_client, each with what it takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from demos.backend import belongings
from demos.segment import truth as segmentation_truth
from demos.segment.work import BACKGROUND, ask, judge, legend, rows, split
from demos.ui import controls
from demos.ui.controls import MODEL_WORK, answered, visitor

if TYPE_CHECKING:
    from demos.segment.tab import Segmentations
    from demos.ui.page import Page


class Endpoints:
    """Handlers of the API; they hold nothing but the tab's own handlers, whose memory they share."""

    def __init__(self, tab: Segmentations):
        self.tab = tab

    @answered
    def segmentation(
        self,
        image: str,
        classes: str,
        model: str,
        templates: str,
        features: str,
        layer: float,
        windows: bool,
        background: str,
        threshold: float,
        words: str,
        resolution: float,
        opacity: float,
        mask: str | None = None,
        first: str = "1",
        sharp: bool = True,
        request: gr.Request = None,
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Which class does every pixel resemble most? Returns the painted image (PNG), the label map (PNG; grey value 0
        is background, i is the i-th class) and the numbers: share of the image, mean cosine and highest cosine of each
        class, the verdict "here", "perhaps", "not here" or "unknown" with what it rests on (see /heatmap), and IoU and
        mIoU if a true mask is given.

        image: the picture. classes: up to 200 names separated by commas, each of one word or several ("gear|cog").
        model: an encoder on offer. templates: "none", "tips9" or "clip80". features: "values" or "final". layer: 1 to
        the encoder's last; any number beyond is the last. windows: look at a large image in parts of the trained size.
        background: "verdict" (what the encoder's calibration says is not here), "none", "threshold" (low cosines) or
        "words" (other words compete with the classes). threshold: the least cosine that is no background. words: of the
        background "words", separated by commas. resolution: short side in pixels, 0 for as trained. opacity: of the
        paint. mask: the true label map, a PNG whose grey values or palette places number the classes, 255 counting
        nowhere. first: the number of the first class in it, "1" (0 is none of them) or "0". sharp: regions end where
        the picture's colours do.
        """
        from tipsv2.analysis.render import paint_labels

        if mask:
            belongings.claim(visitor(request), mask)
        if image is None:
            raise ValueError("Give an image and at least one class name.")
        question = ask(classes, templates, features, layer, windows, background, threshold, words, resolution, sharp)
        regions = self.tab.service.divide(image, question, model, visitor(request), full=True)
        names = split(classes)
        truth = segmentation_truth.uploaded(mask, int(first), "", names, legend(len(names)), image) if mask else None
        judged = judge(regions, truth)
        table = rows(regions, judged and judged[1])
        painted = paint_labels(np.asarray(regions.seen.image), regions.labels, regions.colors, opacity)
        return painted, (regions.labels + 1).astype(np.uint8), numbers(table, judged and judged[1])

    def class_lists(self) -> dict[str, list[str]]:
        """The lists of class names on offer: the benchmarks' in the order that numbers them in their label files, and
        the bundled scenes'.
        """
        from demos.segment.controls import presets

        return {title: split(names) for title, names in presets().items()}


def numbers(table: Sequence[dict], agreed) -> dict:
    """The table as JSON: what is not a number becomes null."""

    def plain(value):
        return (
            value if value is None or isinstance(value, str) else round(float(value), 6) if np.isfinite(value) else None
        )

    classes = [{key: plain(value) for key, value in row.items()} for row in table]
    shares = {row["name"]: row["share"] for row in classes}
    summary = {"background": shares.pop(BACKGROUND, 0.0) if table[-1]["name"] == BACKGROUND else 0.0, "shares": shares}
    summary["classes"] = classes
    if agreed is not None:
        summary |= {"miou": plain(agreed.mean), "accuracy": plain(agreed.accuracy), "compared": plain(agreed.compared)}
    return summary


def endpoints(
    tab: Segmentations, page: Page, asked: Sequence, opacity: gr.Slider, first: gr.Radio, sharp: gr.Checkbox
) -> None:
    """Register the endpoints. asked: the components of a question, in the order of `ask`: resolution last."""
    api = Endpoints(tab)
    asked = [*asked[:-1], controls.api_resolution()]
    mask = gr.File(visible=False, label="mask")
    gr.Button(visible=False).click(
        api.segmentation,
        [controls.api_image(), asked[0], page.choice, *asked[1:], opacity, mask, first, sharp],
        [
            gr.Image(visible=False, format="png", label="painted"),
            gr.Image(visible=False, format="png", label="labels"),
            gr.JSON(visible=False, label="numbers"),
        ],
        api_name="segmentation",
        **MODEL_WORK,
    )
    gr.Button(visible=False).click(
        api.class_lists, None, gr.JSON(visible=False, label="lists"), api_name="class_lists", queue=False
    )
