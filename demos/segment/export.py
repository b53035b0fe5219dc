"""What the Segment tab gives to take along: pictures, label map and scores at full size, COCO masks, the code."""

from __future__ import annotations

import numpy as np

from demos.backend.offer import shown_name
from demos.export import snippets
from demos.export.files import Taken
from demos.export.snippets import IMAGE, call, literal
from demos.segment.api import numbers
from demos.segment.truth import Truth
from demos.segment.work import Divider, Question, Regions, ask, judge, rows, split
from demos.ui.controls import visitor

OPACITY = 0.65
SETTINGS = ("templates", "features", "layer", "windows", "background", "threshold", "words", "resolution", "sharp")


def take(divider: Divider, image, model, truth: Truth | None, classes, *given, request=None) -> Taken | None:
    """Takes what the tab's `draw` takes. Measured in the image's own pixels, which on images of more than 640 pixels
    are more than the page measures in.
    """
    from tipsv2.analysis.render import legend, paint_labels

    if image is None or not split(classes):
        return None
    question = ask(classes, **dict(zip(SETTINGS, given, strict=False)))
    found = divider.divide(image, question, model, visitor(request), full=True)
    judged = judge(found, truth)
    table = rows(found, judged and judged[1])
    white = np.full((*found.labels.shape, 3), 255, np.uint8)
    present = np.flatnonzero(found.shares > 0)
    present = present[np.argsort(-found.shares[present], kind="stable")]
    pictures = {
        "overlay": paint_labels(np.asarray(found.seen.image), found.labels, found.colors, OPACITY),
        "labels": paint_labels(white, found.labels, found.colors, 1),
    }
    if len(present):
        names, colors = [found.names[index] for index in present], found.colors[present]
        pictures["legend"] = legend(names, colors, found.shares[present].tolist())
    arrays = {"labels": found.labels, "scores": found.scores, "classes": np.array(found.names)}
    if judged is not None:
        pictures["truth"] = paint_labels(white, judged[0], found.colors, 1)
        arrays["truth"] = judged[0].astype(np.int16)
    masks = {found.names[index]: found.labels == index for index in present}
    info = divider.studio.info(model)
    last = divider.studio.encoder(model).num_layers
    asked = {"model": shown_name(info), "templates": question.templates, "features": question.features}
    asked |= {"layer": found.layer, "windows": question.windows, "resolution": found.seen.resolution}
    asked |= {"background_by": _background(question)}
    python, command = _code(info, found, truth is not None, last)
    return Taken(
        "segmentation",
        pictures,
        arrays,
        asked | numbers(table, judged and judged[1]),
        masks,
        python,
        command,
        shown_name(info),
        image,
    )


def _background(question: Question):
    """As `tipsv2.analysis.segmentation.segment` takes it."""
    if question.background == "verdict":
        return "verdict"
    return list(question.others) if question.background == "words" else question.threshold


def _code(info, found: Regions, judged: bool, last: int) -> tuple[str, str]:
    """-> (Python, the shell's line or nothing where the shell has no option for it)."""
    question, layer = found.question, None if found.layer == last else found.layer
    options = dict(classes=list(question.names), templates=question.templates, features=question.features)
    options |= dict(background=_background(question), resolution=found.seen.resolution)
    options |= {} if layer is None else dict(layer=layer)
    options |= dict(sharp=True) if question.sharp else {}
    options |= dict(windows=True) if question.windows and layer is None else {}
    options |= dict(resample="bilinear")  # as the explorer looks at pictures
    lines = [
        "import numpy as np",
        "from PIL import Image",
        "",
        "from tipsv2 import load, open_image, segment",
        *(["from tipsv2.analysis.label_maps import agreement"] if judged else []),
        "from tipsv2.analysis.render import WIDE_PALETTE, paint_labels",
        "",
        snippets.load(info),
        f"image = open_image({literal(IMAGE)})",
        f"found = {call('segment', 'encoder', 'image', **options)}",
        "for name, share in sorted(found.shares.items(), key=lambda item: -item[1]):",
        '    print(f"{name}: {100 * share:.1f} %, mean {found.means.get(name, np.nan):.3f}")',
        f"picture = paint_labels(np.asarray(image), found.labels, WIDE_PALETTE, {OPACITY})",
        'Image.fromarray(picture).save("segmentation.png")',
        'np.savez_compressed("segmentation.npz", labels=found.labels, scores=found.scores)',
    ]
    if judged:
        lines += [
            "",
            "# The true labels lie in the exported NPZ: places in the list, -1 for none of them, -2 for unknown.",
            'truth = np.load("exported.npz")["truth"]',
            "print(agreement(found.labels, truth, len(found.classes)).mean)",
        ]
    background = _background(question)
    background = ",".join(question.others) or None if question.background in ("none", "words") else background
    command = ""
    if layer is None:
        command = snippets.command(
            "segment",
            IMAGE,
            classes=",".join(question.names),
            background=background,
            features=question.features,
            templates=question.templates,
            resolution=found.seen.resolution,
            sharp=question.sharp or None,
            protocol="slide" if question.windows else None,
            resample="bilinear",
            model=snippets.model_name(info),
            out="out",
        )
    return "\n".join(lines), command
