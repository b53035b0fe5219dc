"""What the export row draws: its buttons, and the code panel with its colours. Pure functions, all text escaped."""

from __future__ import annotations

import keyword
import re
from html import escape

from demos.export.snippets import IMAGE

BUTTONS = (
    ("png", "PNG", "The picture, or a zip of all, as large as the image here"),
    ("npz", "NPZ", "Maps and features as numbers, for numpy.load"),
    ("json", "JSON", "The scores"),
    ("coco", "COCO", "The masks as run lengths in a COCO data set"),
    ("code", "Code", "The Python and the command that make this"),
)
_PYTHON = re.compile(
    r"(?P<text>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|(?P<note>\#[^\n]*)|(?P<number>(?<![\w.])-?\d[\d.e-]*)|(?P<word>[A-Za-z_]\w*)"
)
_SHELL = re.compile(r"(?P<text>'[^']*'|\"[^\"]*\")|(?P<option>(?<!\S)--?[\w-]+)|(?P<note>(?<!\S)\#[^\n]*)")


def row(masks: bool) -> str:
    """The buttons; COCO only where there are masks."""
    buttons = "".join(
        f'<button type="button" data-kind="{kind}" title="{title}">{label}</button>'
        for kind, label, title in BUTTONS
        if masks or kind != "coco"
    )
    return f'<div class="tips-export" role="group" aria-label="Export">{buttons}</div>'


def code(python: str, command: str) -> str:
    """The panel with both blocks."""
    blocks = [("Python", python, _PYTHON), ("Command", command, _SHELL)]
    shown = "".join(_block(*block) for block in blocks if block[1])
    close = '<button type="button" class="close" title="Close" aria-label="Close the code">×</button>'
    source = f'{IMAGE} is your picture. <button type="button" data-kind="image">Save it</button>'
    return f'<div class="tips-code">{close}{shown}<footer>{source}</footer></div>'


def _block(title: str, source: str, grammar: re.Pattern) -> str:
    name = title.lower()
    copy = f'<button type="button" class="copy" aria-label="Copy the {name}">Copy</button>'
    text = f'<pre tabindex="0" aria-label="{title}"><code>{colored(source, grammar)}</code></pre>'
    return f'<section class="{name}"><header><b>{title}</b>{copy}</header>{text}</section>'


def colored(source: str, grammar: re.Pattern) -> str:
    """Source -> escaped HTML in which strings, comments, numbers, keywords and options carry a class."""
    parts, done = [], 0
    for match in grammar.finditer(source):
        kind = match.lastgroup
        parts.append(escape(source[done : match.start()]))
        done = match.end()
        if kind == "word":
            kind = "keyword" if keyword.iskeyword(match.group()) else None
        text = escape(match.group())
        parts.append(f'<span class="{kind}">{text}</span>' if kind else text)
    return "".join([*parts, escape(source[done:])])
