"""What the Segment tab gives to take along: pictures, label map and scores at full size, COCO masks, the code."""

from __future__ import annotations

import numpy as np

from demos.backend.offer import shown_name
from demos.export import snippets
from demos.export.files import Taken
from demos.export.snippets import IMAGE, call, literal
from demos.segment.api import numbers
from demos.segment.truth import Truth
from demos.segment.work import MAX_CLASSES, Question, Regions, SegmentationService, ask, judge, rows, split
from demos.ui import chips
from demos.ui.controls import visitor

OPACITY = 0.65
SETTINGS = ("templates", "features", "layer", "windows", "background", "threshold", "words", "resolution", "sharp")


def take(
    service: SegmentationService, image, model, truth: Truth | None, classes, *given, request=None
) -> Taken | None:
    """Takes what the tab's `draw` takes. Measured in the image's own pixels, which on images of more than 640 pixels
    are more than the page measures in.
    """
    from tipsv2.analysis.render import legend, paint_labels

    names, _ = chips.askable(split(classes), "class name", MAX_CLASSES)
    if image is None or not names:
        return None
    question = ask(", ".join(names), **dict(zip(SETTINGS, given, strict=False)))
    regions = service.divide(image, question, model, visitor(request), full=True)
    judged = judge(regions, truth)
    table = rows(regions, judged and judged[1])
    white = np.full((*regions.labels.shape, 3), 255, np.uint8)
    present = np.flatnonzero(regions.shares > 0)
    present = present[np.argsort(-regions.shares[present], kind="stable")]
    pictures = {
        "overlay": paint_labels(np.asarray(regions.seen.image), regions.labels, regions.colors, OPACITY),
        "labels": paint_labels(white, regions.labels, regions.colors, 1),
    }
    if len(present):
        names, colors = [regions.names[index] for index in present], regions.colors[present]
        pictures["legend"] = legend(names, colors, regions.shares[present].tolist())
    arrays = {"labels": regions.labels, "scores": regions.scores, "classes": np.array(regions.names)}
    if judged is not None:
        pictures["truth"] = paint_labels(white, judged[0], regions.colors, 1)
        arrays["truth"] = judged[0].astype(np.int16)
    masks = {regions.names[index]: regions.labels == index for index in present}
    info = service.studio.info(model)
    last = service.studio.encoder(model).num_layers
    asked = {"model": shown_name(info), "templates": question.templates, "features": question.features}
    asked |= {"layer": regions.layer, "windows": question.windows, "resolution": regions.seen.resolution}
    asked |= {"background_by": _background(question)}
    python, command = _code(info, regions, truth is not None, last)
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


def _code(info, regions: Regions, judged: bool, last: int) -> tuple[str, str]:
    """-> (Python, the shell's line or nothing where the shell has no option for it)."""
    question, layer = regions.question, None if regions.layer == last else regions.layer
    options = dict(classes=list(question.names), templates=question.templates, features=question.features)
    options |= dict(background=_background(question), resolution=regions.seen.resolution)
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
        f"segmentation = {call('segment', 'encoder', 'image', **options)}",
        "for name, share in sorted(segmentation.shares.items(), key=lambda item: -item[1]):",
        '    print(f"{name}: {100 * share:.1f} %, mean {segmentation.means.get(name, np.nan):.3f}")',
        f"picture = paint_labels(np.asarray(image), segmentation.labels, WIDE_PALETTE, {OPACITY})",
        'Image.fromarray(picture).save("segmentation.png")',
        'np.savez_compressed("segmentation.npz", labels=segmentation.labels, scores=segmentation.scores)',
    ]
    if judged:
        lines += [
            "",
            "# The true labels lie in the exported NPZ: places in the list, -1 for none of them, -2 for unknown.",
            'truth = np.load("exported.npz")["truth"]',
            "print(agreement(segmentation.labels, truth, len(segmentation.classes)).mean)",
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
            resolution=regions.seen.resolution,
            sharp=question.sharp or None,
            protocol="slide" if question.windows else None,
            resample="bilinear",
            model=snippets.model_name(info),
            out="out",
        )
    return "\n".join(lines), command
