"""The Compare tab for programs: named endpoints for gradio_client, each with what it takes and returns."""

from __future__ import annotations

from dataclasses import asdict

import gradio as gr
import numpy as np

from demos.backend import belongings
from demos.backend.studio import Studio
from demos.compare import mask as compare_mask
from demos.compare.sides import asked, every_layer, farthest, joint_colors, look, measure
from demos.ui import controls
from demos.ui.controls import MODEL_WORK, answered, visitor

OPACITY = 0.7


class Endpoints:
    """Handlers of the API; they hold nothing but the studio."""

    def __init__(self, studio: Studio):
        self.studio = studio

    @answered
    def compare(
        self,
        image: str,
        queries: list[str],
        model_a: str,
        features_a: str,
        model_b: str,
        features_b: str,
        resolution: float,
        templates: str,
        scale: str,
        mask: str | None = None,
        masked: str = "",
        request: gr.Request = None,
    ) -> tuple[list, dict, str]:
        """Which of two encoders aligns better with the words on this image? Returns a picture per query of B - A over
        the grey image (PNG; red where B responds more, blue where A does), the scores, and the verdict in one sentence.

        image: the picture. queries: up to eight phrases. model_a, model_b: encoders on offer. features_a, features_b:
        "values" or "final". resolution: short side in pixels that both see, 0 for each as trained. templates: "none",
        "tips9" or "clip80". scale: of the difference, "z" (standard deviations), "rank" or "cosine". mask: optional, a
        picture that is white where one query really is, measured at "size", the pictures' width and height: at most
        640 pixels. masked: the query of the mask, by default the first.
        """
        from tipsv2.analysis import render

        if mask is not None:
            belongings.claim(visitor(request), mask)
        queries = _some(asked(queries))
        both = look(self.studio, visitor(request), image, (model_a, model_b), (features_a, features_b), resolution)
        picture = both.seen[0].image
        masks = [None] * len(queries)
        if mask is not None:
            masked = (masked or queries[0]).strip()
            if masked not in queries:
                raise ValueError(f"The mask is for '{masked[:80]}', which is none of the queries.")
            masks = compare_mask.for_queries(queries, masked, compare_mask.read_mask(mask, picture))
        comparison = measure(both, queries, templates, scale, masks)
        most, (height, width) = farthest(comparison), both.size
        gray = np.asarray(picture.convert("L").resize((width, height)).convert("RGB"))
        drawn = [render.overlay(gray, values, "RdBu_r", OPACITY, -most, most) for values in comparison.difference]
        scores = [
            {"query": query, "a": asdict(a), "b": asdict(b), "agreement": agreement}
            for query, a, b, agreement in zip(queries, *comparison.scores, comparison.agreement, strict=True)
        ]
        numbers = {"names": comparison.names, "scale": scale, "size": [width, height], "range": most, "scores": scores}
        return list(zip(drawn, queries, strict=True)), numbers, comparison.sentence

    @answered
    def layers(
        self,
        image: str,
        queries: list[str],
        model_a: str,
        features_a: str,
        model_b: str,
        features_b: str,
        resolution: float,
        templates: str,
        request: gr.Request = None,
    ) -> dict:
        """How alike are the layers of two encoders on this image, and in which do patches follow the words? Returns
        "cka" (a row per layer of A, a column per layer of B), "measure", and under "a" and "b", per layer, a score per
        query.

        image, queries, model_a, features_a, model_b, features_b, resolution, templates: as in /compare.
        """
        queries = _some(asked(queries))
        both = look(self.studio, visitor(request), image, (model_a, model_b), (features_a, features_b), resolution)
        cka, measured, scores = every_layer(both, queries, templates, None)
        tables = {side: np.round(table, 5).tolist() for side, table in zip("ab", scores, strict=True)}
        alike = [[round(float(value), 5) if np.isfinite(value) else None for value in row] for row in cka]
        return {"names": both.names, "cka": alike, "measure": measured, **tables}

    @answered
    def colors(
        self,
        image: str,
        model_a: str,
        features_a: str,
        model_b: str,
        features_b: str,
        resolution: float,
        request: gr.Request = None,
    ) -> tuple[list, str]:
        """The principal components of two encoders' patches in comparable colours: two pictures (PNG, a pixel per
        patch) and a sentence on how they were made comparable.

        image, model_a, features_a, model_b, features_b, resolution: as in /compare.
        """
        both = look(self.studio, visitor(request), image, (model_a, model_b), (features_a, features_b), resolution)
        pictures, note = joint_colors(both)
        return list(zip(pictures, both.names, strict=True)), note


def endpoints(studio: Studio, queries: gr.Dropdown, sides: list, resolution, templates, scale) -> None:
    """Name the endpoints; the components tell clients the choices and the values to begin with."""
    handlers = Endpoints(studio)
    gallery = dict(visible=False, format="png")
    question = [queries, *sides, resolution, templates]
    truth = [gr.File(visible=False, label="mask"), gr.Textbox("", visible=False, label="masked")]
    gr.Button(visible=False).click(
        handlers.compare,
        [controls.api_image(), *question, scale, *truth],
        [gr.Gallery(**gallery, label="differences"), gr.JSON(visible=False, label="scores"), _text("sentence")],
        api_name="compare",
        **MODEL_WORK,
    )
    gr.Button(visible=False).click(
        handlers.layers,
        [controls.api_image(), *question],
        gr.JSON(visible=False, label="layers"),
        api_name="compare_layers",
        **MODEL_WORK,
    )
    gr.Button(visible=False).click(
        handlers.colors,
        [controls.api_image(), *sides, resolution],
        [gr.Gallery(**gallery, label="components"), _text("note")],
        api_name="compare_colors",
        **MODEL_WORK,
    )


def _some(queries: list[str]) -> list[str]:
    if not queries:
        raise ValueError("Give an image and at least one query.")
    return queries


def _text(label: str) -> gr.Textbox:
    return gr.Textbox(visible=False, label=label)
