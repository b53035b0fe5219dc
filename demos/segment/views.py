"""What the Segment tab draws: the picture under its regions, and the table that is their legend. HTML out, no gradio.

The regions travel as run lengths, which demos/ui/web/regions.js paints onto a canvas: exact, small with 200 classes,
and one class can be shown alone without asking the server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from demos.ui.views import photo_uri
from tipsv2.analysis.label_maps import Agreement

VIEWS = (("found", "Found"), ("truth", "Truth"), ("wrong", "Differences"))


def run_lengths(labels: np.ndarray) -> list[int]:
    """A label map [H, W], row after row, as label, count, label, count, ..."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    counts = np.diff(np.append(starts, flat.size))
    return np.stack([flat[starts], counts], axis=1).ravel().tolist()


def segments(
    image: Image.Image,
    labels: np.ndarray,
    colors: np.ndarray,
    table: Sequence[dict],
    num_classes: int,
    judged: tuple[np.ndarray, Agreement] | None = None,
    badges: Sequence[str] = (),
) -> str:
    """A segmentation: the image under its regions and a table of the classes.

    labels: [H, W] place in the list, negative for background.   colors: [N, 3] uint8.   table: of
    `demos.segment.work.rows`.   judged: (true labels [H, W], the agreement), if there is a truth.
    badges: HTML of the classes' verdicts.
    """
    height, width = labels.shape
    codes = ["#{:02x}{:02x}{:02x}".format(*map(int, color)) for color in colors]
    names = [row["name"] for row in table[:num_classes]]
    content = {"colors": codes, "names": names, "found": run_lengths(labels)}
    if judged is not None:
        content |= {"truth": run_lengths(judged[0]), "wrong": run_lengths(judged[1].wrong.astype(int))}
    style = f"--photo:url({photo_uri(image)});--ratio:{image.width / image.height:.6f}"
    return (
        f'<div class="tips-segments" style="{style}"><div class="picture">{_switch() if judged else ""}'
        f'<div class="stage" data-grid="{height}x{width}" data-content="{escape(_packed(content), quote=True)}">'
        f'<canvas width="{width}" height="{height}" role="img" aria-label="{escape(_sentence(table), quote=True)}">'
        f'</canvas><span class="tag"></span></div></div>{_tables(table, codes, num_classes, judged, badges)}</div>'
    )


def _packed(content) -> str:
    return json.dumps(content, separators=(",", ":"))


def _switch() -> str:
    buttons = "".join(
        f'<button type="button" data-view="{view}" aria-pressed="{str(view == "found").lower()}">{title}</button>'
        for view, title in VIEWS
    )
    return f'<div class="views" role="group" aria-label="What to show">{buttons}</div>'


def _sentence(table: Sequence[dict]) -> str:
    """The picture for those who do not see it."""
    largest = sorted((row for row in table if row["share"] > 0), key=lambda row: -row["share"])[:5]
    return "Regions: " + ", ".join(f"{row['name']} {100 * row['share']:.0f} %" for row in largest)


def _tables(table: Sequence[dict], codes: Sequence[str], num_classes: int, judged, badges: Sequence[str]) -> str:
    from tipsv2.analysis.verdict import HERE, NOT_HERE, PERHAPS, UNKNOWN

    keyed = [(index if index < num_classes else -1, row) for index, row in enumerate(table)]
    shown = sorted((pair for pair in keyed if pair[1]["share"] > 0), key=lambda pair: -pair[1]["share"])
    others = sorted((pair for pair in keyed[:num_classes] if pair[1]["share"] <= 0), key=lambda pair: -pair[1]["peak"])
    scored, badges = judged is not None, [*badges, *[""] * (len(table) - len(badges))]
    body = "".join(_class_row(key, row, codes, scored, badges[key]) for key, row in shown)
    head = _head(("Share", "of the image"), ("Mean", "mean cosine of its own pixels"), ("Peak", "its highest cosine"))
    iou = '<th scope="col"><abbr title="intersection over union with the true mask">IoU</abbr></th>' if scored else ""
    present = HERE, PERHAPS
    count = sum(key >= 0 and row["verdict"] in present for key, row in shown)  # what won pixels need not be there
    title = f"{count} of {num_classes} {'class' if num_classes == 1 else 'classes'} found"
    if any(row["verdict"] == UNKNOWN for row in table[:num_classes]):
        title = f"Whether {'it is' if num_classes == 1 else f'any of {num_classes} classes is'} here is unknown"
    class_table = f'<table><thead><tr><th scope="col">Class</th>{head}{iou}</tr></thead><tbody>{body}</tbody></table>'
    folded = ""
    for name, answers in (("Not here", (NOT_HERE,)), ("Unknown", (UNKNOWN,)), ("Not found", present)):
        lines = [_absent_row(row, scored, badges[key]) for key, row in others if row["verdict"] in answers]
        if lines:
            why = "; another class was higher there" if answers == present else ""
            best = _head(("Best", f"its highest cosine{why}"))
            folded += (
                f'<details class="absent"><summary>{name}: {len(lines)}</summary><table><thead><tr>'
                f'<th scope="col">Class</th>{best}{iou}</tr></thead><tbody>{"".join(lines)}</tbody></table></details>'
            )
    score = _score(judged[1]) if scored else ""
    return (
        f'<div class="legend"><p class="sum">{title}</p>{score}'
        f'<div class="scroll" tabindex="-1">{class_table}{folded}</div></div>'
    )


def _head(*columns: tuple[str, str]) -> str:
    return "".join(f'<th scope="col"><abbr title="{long}">{short}</abbr></th>' for short, long in columns)


def _class_row(key: int, row: dict, codes: Sequence[str], scored: bool, badge: str) -> str:
    name = escape(row["name"], quote=True)
    color = codes[key] if key >= 0 else "transparent"
    share = row["share"]
    percent = f"{100 * share:.1f}&thinsp;%" if share >= 0.001 else "&lt;&thinsp;0.1&thinsp;%"
    return (
        f'<tr><th scope="row"><button type="button" data-class="{key}" aria-pressed="false" title="{name}">'
        f'<i style="background:{color}"></i><span>{name}</span>{badge}</button></th>'
        f'<td class="share"><em style="width:{100 * share:.2f}%;background:{color}"></em>{percent}</td>'
        f"<td>{_number(row['mean'])}</td><td>{_number(row['peak'])}</td>{_iou(row, scored)}</tr>"
    )


def _absent_row(row: dict, scored: bool, badge: str) -> str:
    name = escape(row["name"], quote=True)
    cells = f"<td>{_number(row['peak'])}</td>{_iou(row, scored)}"
    return f'<tr><th scope="row" title="{name}"><span>{name}</span>{badge}</th>{cells}</tr>'


def _iou(row: dict, scored: bool) -> str:
    return f"<td>{_number(row.get('iou', math.nan), 2)}</td>" if scored else ""


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else '<span class="none">–</span>'


def _score(agreement: Agreement) -> str:
    """The sum of it: mIoU, over how many classes, and the pixels that are right."""
    if not math.isfinite(agreement.mean):
        return '<p class="score">None of the classes is in the mask: there is nothing to compare.</p>'
    count = int(np.isfinite(agreement.iou).sum()) + math.isfinite(agreement.background)
    title, over = ("mIoU", f"over {count} classes") if count > 1 else ("IoU", "of one class")
    compared = "" if agreement.compared > 0.9995 else f" of {100 * agreement.compared:.0f}&thinsp;% compared"
    return (
        f'<p class="score"><b>{title} {agreement.mean:.3f}</b> <span>{over}</span> · '
        f"<span>{100 * agreement.accuracy:.1f}&thinsp;% of the pixels right{compared}</span></p>"
    )
