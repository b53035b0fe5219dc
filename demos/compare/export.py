"""What the tab Compare gives to take along: both sides' maps at the image's size, their scores, the code for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demos.backend.offer import shown_name
from demos.compare import mask as compare_mask
from demos.compare.sides import MAX_QUERIES, Both, joint_colors, look, measure
from demos.export import snippets
from demos.export.files import Taken
from demos.export.snippets import IMAGE, call, literal
from demos.ui import chips
from demos.ui.controls import visitor

if TYPE_CHECKING:
    import gradio as gr

    from demos.compare.tab import Compares

OPACITY = 0.7
MASK = "mask.png"  # what the mask is called in the code; it comes with the pictures


def take(
    tab: Compares, image, model_a, features_a, model_b, features_b, resolution, queries, templates, mask, masked, scale,
    request: gr.Request = None,
) -> Taken | None:  # fmt: skip
    """Takes what the tab's `draw` takes. Measured in the image's own pixels, which on images of more than 640 pixels
    are more than the page measures in.
    """
    from tipsv2.analysis.feature_picture import shown_at
    from tipsv2.analysis.render import overlay
    from tipsv2.evaluation.side_by_side import COLORS, SIGNED, draw

    queries, _ = chips.askable(queries, "query", MAX_QUERIES)
    if image is None or not queries:
        return None
    both = look(tab.studio, visitor(request), image, (model_a, model_b), (features_a, features_b), resolution)
    pixels = np.asarray(both.seen[0].image)
    mask = None if mask is None or masked not in queries else _large(mask, pixels.shape[:2])
    masks = compare_mask.for_queries(queries, masked, mask)
    comparison = measure(both, queries, templates, scale, masks, pixels.shape[:2])
    low, high, most = (
        float(comparison.scaled.min()),
        float(comparison.scaled.max()),
        float(np.abs(comparison.difference).max()) or 1.0,
    )
    gray = np.asarray(both.seen[0].image.convert("L").convert("RGB"))  # a blue sky would look like a difference
    pictures = {"overview": draw(pixels, comparison)}
    for number, query in enumerate(queries):
        for side, scaled in zip("AB", comparison.scaled, strict=True):
            pictures[f"{query} {side}"] = overlay(gray, scaled[number], COLORS, OPACITY, low, high)
        pictures[f"{query} B-A"] = overlay(gray, comparison.difference[number], SIGNED, OPACITY, -most, most)
    for side, colors in zip("AB", joint_colors(both)[0], strict=True):
        pictures[f"colors {side}"] = shown_at(colors, pixels.shape[:2])
    if mask is not None:
        pictures["mask"] = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    scores = [
        {"query": query, "a": asdict(a), "b": asdict(b), "agreement": agreement}
        for query, a, b, agreement in zip(queries, *comparison.scores, comparison.agreement, strict=True)
    ]
    arrays = {"maps": comparison.maps, "difference": comparison.difference, "names": np.array(comparison.names)}
    arrays |= {"patches_a": both.grids[0].numpy(), "patches_b": both.grids[1].numpy()}
    return Taken(
        "compare",
        pictures,
        arrays | {"queries": np.array(queries)},
        {"names": comparison.names, "scale": scale, "sentence": comparison.sentence, "scores": scores},
        {} if mask is None else {masked: mask},
        _python(both, queries, templates, masked if mask is not None else None, scale),
        _command(both, queries, templates, masked if mask is not None else None, scale),
        "_".join(dict.fromkeys(shown_name(encoder.info).rpartition("/")[2] for encoder in both.encoders)),
        image,
    )


def _large(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask, which is of the size drawn, at the size of the image."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def _python(both: Both, queries: Sequence[str], templates: str, masked: str | None, scale: str) -> str:
    a, b = both.encoders
    masks = None if masked is None else "[" + ", ".join("mask" if q == masked else "None" for q in queries) + "]"
    given = [] if masks is None else [f"masks={masks}"]
    compared = call(
        "compare",
        "a",
        "b",
        literal(IMAGE),
        "queries",
        *given,
        features=both.features,
        templates=templates,
        resolutions=tuple(seen.resolution for seen in both.seen),
        scale=scale,
    )
    lines = [
        "import numpy as np",
        "from PIL import Image",
        "",
        "from tipsv2 import load, open_image",
        "from tipsv2.analysis.alignment import compare",
        "from tipsv2.evaluation.side_by_side import draw",
        "",
        snippets.load(a.info, "a"),
        "b = a" if b is a else snippets.load(b.info, "b"),
        f"queries = {literal(list(queries))}",
        *([] if masks is None else [f'mask = np.asarray(open_image("{MASK}").convert("L")) > 127']),
        f"comparison = {compared}",
        "print(comparison.sentence)",
        "",
        f"picture = draw(np.asarray(open_image({literal(IMAGE)})), comparison)",
        'Image.fromarray(picture).save("compare.png")',
        'np.savez_compressed("compare.npz", maps=comparison.maps, difference=comparison.difference)',
    ]
    return "\n".join(lines)


def _command(both: Both, queries: Sequence[str], templates: str, masked: str | None, scale: str) -> str:
    """Nothing where the command cannot say it: a query with a comma, two resolutions other than those trained at."""
    models = [snippets.model_name(encoder.info) for encoder in both.encoders]
    used = [seen.resolution for seen in both.seen]
    trained = used == [encoder.info.resolution for encoder in both.encoders]
    if any("," in name for name in (*queries, *models)) or not (trained or used[0] == used[1]):
        return ""
    return snippets.command(
        "compare",
        IMAGE,
        models=",".join(models),
        queries=",".join(queries),
        masks=None if masked is None else ",".join(MASK if query == masked else "none" for query in queries),
        features=",".join(dict.fromkeys(both.features)),
        templates=templates,
        resolution=None if trained else used[0],
        scale=scale,
        out="compare.png",
        arrays="compare.npz",
    )
