"""What the Train tab draws, its curves apart (train_charts.py): numbers and files in, HTML out; as demos.ui.views."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from demos.train.check import Checked
from demos.train.process import line
from demos.train.state import Look
from demos.ui import views

TILE = 104  # pixels of one heatmap in the film
BY_HEART = 0.3  # of recall at 1 between the pictures that a run learns from and those that it keeps apart
ROWS = 8  # rows of the film at most: the newest and others evenly before it
WORDS = {
    "starting": "starting", "running": "running", "stopping": "stopping", "done": "done", "stopped": "stopped",
    "failed": "failed", "unknown": "unknown",
}  # fmt: skip
NO_RUN = ("No run yet", "Choose what to start from and what to learn from, then press Start.")
NOT_HERE = "Training is switched off on this page: a run would keep its machine busy for everybody."
INSTEAD = (
    "Choose what you want below. The command trains the same on a machine of yours, with this project's files around "
    "it; python app.py --model runs/NAME then opens the result."
)
PUBLIC_DATA = "The folder or table is named in the command only; nothing is read here."


def explained() -> str:
    """Why nothing can be started, and what to do instead."""
    return f'<div class="tips-instead" role="note"><b>{escape(NOT_HERE)}</b><p>{escape(INSTEAD)}</p></div>'


def head(look: Look) -> str:
    """Name, state, progress bar and the few numbers that matter."""
    share = look.step / look.steps if look.steps else 0.0
    if look.state == "starting":
        share = 0.0
    note = "".join(f"<p>{escape(text)}</p>" for text in (look.note, memorised(look)) if text)
    percent = f"{100 * share:.1f}"
    bar = (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
        f'aria-label="Progress"><i style="width:{percent}%"></i></div>'
    )
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _facts(look))
    live = ' data-live="1"' if look.going else ""
    return (
        f'<div class="tips-run" data-state="{look.state}"{live}><header role="status"><i></i><b>{escape(look.name)}</b>'
        f"<span>{WORDS[look.state]}</span></header>{note}{bar}<dl>{facts}</dl></div>"
    )


def memorised(look: Look) -> str:
    """A sentence where a run learns its pictures by heart: it finds them far better than those that it keeps apart."""
    series = look.series()
    if not {"recall_learned", "recall_held_out"} <= set(series):
        return ""
    (_, learned), (_, held) = series["recall_learned"], series["recall_held_out"]
    if learned[-1] - held[-1] < BY_HEART or learned[-1] - held[-1] < 2 * abs(learned[0] - held[0]):
        return ""
    return (
        f"This run learns its pictures by heart: of those it learns from, {100 * learned[-1]:.0f} % are found by their "
        f"captions, of those kept apart {100 * held[-1]:.0f} %. More pictures help, or fewer steps."
    )


def _facts(look: Look) -> list[tuple[str, str]]:
    facts = [("step", f"{look.step:,} of {look.steps:,}" if look.steps else "–")]
    series = look.series()
    if "loss" in series:
        facts.append(("loss", f"{series['loss'][1][-1]:.3f}"))
    if look.rate:
        facts.append(("images/s", f"{look.rate:.3g}"))
    if look.state == "running":
        left = look.seconds_left
        facts.append(("time left", duration(left) if left is not None else "–"))
    if "miou_values" in series:
        first, last = series["miou_values"][1][0], series["miou_values"][1][-1]
        facts.append(("mIoU on scenes", f"{last:.3f}" if first == last else f"{first:.3f} → {last:.3f}"))
    return facts


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def film(look: Look, scene: int = 0) -> str:
    """The heatmaps of one image's words, a row for every time they were asked in the course of the run."""
    if not look.samples:
        return ""
    asked = queries(look)
    rows, words = [], asked[scene] if scene < len(asked) else []
    count = len(look.samples)
    kept = sorted({round(k * (count - 1) / max(1, min(ROWS, count) - 1)) for k in range(min(ROWS, count))})
    for path in (look.samples[k] for k in kept):
        try:
            picture = _strip(path, path.stat().st_mtime_ns, scene, len(asked))
        except OSError:  # deleted meanwhile
            continue
        step = int(path.stem.partition("-")[2])
        rows.append(
            f'<li><span>{step:,}</span><img src="{picture}" draggable="false" alt="Heatmaps after step {step:,}"></li>'
        )
    titles = "".join(f'<b title="{escape(word, quote=True)}">{escape(word)}</b>' for word in ["image", *words][:5])
    own = "an image it keeps apart" if _kept_apart(look, scene) else "an image it learns from"
    what = own if look.own_data else "a drawn scene no run learns from"
    return (
        f'<section class="tips-film"><h3>Heatmaps of fixed words <small>on {what}, by '
        f'step</small></h3><div class="titles"><span>step</span><div>{titles}</div></div>'
        f"<ol>{''.join(rows)}</ol></section>"
    )


@functools.lru_cache(maxsize=64)
def _strip(path: Path, when: int, scene: int, count: int) -> str:
    """One image's row of a sample picture (train/run/monitor.py: `count` rows of five squares, with or without
    titles).
    """
    with Image.open(path) as image:
        side = image.width // 5
        rows = count or image.height // side
        end = (min(scene, rows - 1) + 1) * image.height // rows  # the titles stand above: the film has its own
        cut = image.convert("RGB").crop((0, end - side, 5 * side, end))
    return views.data_uri(cut.resize((5 * TILE, TILE), Image.Resampling.LANCZOS))


def queries(look: Look) -> list[list[str]]:
    """What the run asks of each of its images; an empty list where it has no pictures, or nothing says it."""
    if not look.samples:
        return []
    try:
        rows = json.loads((look.samples[0].parent / "queries.json").read_text("utf-8"))
        return [[str(word) for word in row] for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def _kept_apart(look: Look, scene: int) -> bool:
    try:
        return json.loads((look.samples[0].parent / "held.json").read_text("utf-8"))[scene] is True
    except (OSError, ValueError, LookupError, TypeError):
        return False


def asked_of(look: Look, scene: int) -> tuple[Path, list[str]] | None:
    """One of the images whose heatmaps a run keeps, and what it asks of it; None where the run has kept none."""
    words = queries(look)
    if not 0 <= scene < len(words):
        return None
    path = look.samples[0].parent / f"image-{scene}.png"
    return (path, words[scene]) if path.is_file() else None


def checked(report: Checked) -> str:
    """What `python -m train check` found: counts, how columns are read, what cannot be used, some pairs."""
    state, verdict = ("failed", report.refusal) if report.refusal else ("done", _verdict(report))
    facts = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(text)}</dd></div>" for what, text in report.facts)
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in report.problems)
    if problems:
        problems = f"<details open><summary>Cannot be used</summary><ul>{problems}</ul></details>"
    picture = ""
    if report.picture is not None:
        source = views.data_uri(report.picture, quality=90)
        picture = f'<img src="{source}" alt="Some of the pairs, each image above its captions" draggable="false">'
    return (
        f'<section class="tips-checked" data-state="{state}"><p class="verdict" role="status">{escape(verdict)}</p>'
        f"{picture}{problems}<dl>{facts}</dl></section>"
    )


def _verdict(report: Checked) -> str:
    among = f"the first {report.rows:,}" if report.limit and report.rows >= report.limit else f"{report.rows:,}"
    return f"{report.name}: {report.usable:,} of {among} pairs can be used."


def command(arguments: Sequence[str], title: str = "Command") -> str:
    """The line of a run with a button that copies it."""
    return (
        '<div class="tips-code tips-command"><section class="command"><header>'
        f'<b>{escape(title)}</b><button type="button" class="copy" aria-label="Copy the command">Copy</button></header>'
        f'<pre tabindex="0" aria-label="Command"><code>{escape(line(arguments))}</code></pre></section></div>'
    )


def log(look: Look) -> str:
    """The end of what the run said."""
    return f'<pre class="tips-log" tabindex="0" aria-label="Log">{escape(look.log)}</pre>' if look.log else ""
