"""What the Depth tab shows before it has heads: what they are, what loading them costs, how far a download is, and what
to do where there is no network. Pure functions.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from demos.backend.shelf import amount

if TYPE_CHECKING:
    from tipsv2.checkpoints.catalogue import ModelInfo

# The drawing of the offer: the five sides of an empty room, seen from its open end.
_SIDES = (
    ("down", "0,0 120,0 82,27 38,27"),
    ("right", "0,0 38,27 38,60 0,90"),
    ("left", "120,0 82,27 82,60 120,90"),
    ("up", "0,90 120,90 82,60 38,60"),
    ("flat", "38,27 82,27 82,60 38,60"),
)
_ROOMS = (  # ceiling, left wall, right wall, floor, back wall; "fade" darkens from the back to the front
    ("Depth", "in metres", ("fade", "fade", "fade", "fade", "#fde725")),
    ("Normals", "which way surfaces face", ("#80e080", "#e08080", "#40a0a0", "#804080", "#8080ee")),
    ("Classes", "150 of ADE20K", ("#56b4e9", "#e69f00", "#e69f00", "#009e73", "#e69f00")),
)
_FADE = "".join(
    f'<linearGradient id="tips-fade-{name}" {ends}><stop offset="0" stop-color="#440154"/>'
    '<stop offset=".5" stop-color="#31688e"/><stop offset=".8" stop-color="#35b779"/>'
    '<stop offset="1" stop-color="#c8e020"/></linearGradient>'
    for name, ends in (
        ("down", 'x1="0" y1="0" x2="0" y2="1"'),
        ("up", 'x1="0" y1="1" x2="0" y2="0"'),
        ("right", 'x1="0" y1="0" x2="1" y2="0"'),
        ("left", 'x1="1" y1="0" x2="0" y2="0"'),
    )
)


def offer(info: ModelInfo, where: str, trouble: str = "", progress: tuple[int, int] | None = None) -> str:
    """What stands where the predictions will be.

    where: as `DepthMemory.where` says.   trouble: the sentence of a failure.   progress: (bytes done, bytes in all).
    """
    rooms = "".join(
        f'<figure><svg viewBox="0 0 120 90" aria-hidden="true">{_room(colors)}</svg>'
        f"<figcaption><b>{name}</b> {what}</figcaption></figure>"
        for name, what, colors in _ROOMS
    )
    title = escape(info.title)
    facts = f"{info.parameters} parameters" if info.parameters != "unknown" else "a local folder"
    last = f'<button type="button" class="load">{"Try again" if trouble else button(info, where)}</button>'
    if progress:
        text, last = "", bar(progress)
    elif trouble:
        text = f'<p class="trouble" role="alert">{escape(trouble)}</p>{_steps(info) if info.source == "hub" else ""}'
    elif where == "hub":
        text = (
            f"<p>The heads are a download of their own, {amount(info.download_mb * 1e6)} with an encoder inside. "
            "Nothing is fetched before you ask for it.</p>"
        )
    else:
        text = "<p>They are on this machine; loading them takes some seconds and some memory.</p>"
    return (
        f'<div class="tips-heads" data-state="{"trouble" if trouble else "offer"}"><div class="rooms">{rooms}</div>'
        f"<b>{title}</b><small>{escape(facts)}</small>{text}{last}</div>"
    )


def bar(progress: tuple[int, int]) -> str:
    """How far a download is, and the button that ends it. progress: (bytes done, bytes in all)."""
    done, total = progress
    words = f"{amount(done)} of {amount(max(done, total))}" if done else "Asking the Hub …"
    share = f'value="{min(1.0, done / total):.4f}"' if done and total else ""
    return (
        f'<div class="tips-getting" role="status"><progress {share} max="1" aria-label="downloaded"></progress>'
        f'<span>{words}</span><button type="button" class="cancel">Cancel</button></div>'
    )


def button(info: ModelInfo, where: str) -> str:
    """What the button says that loads these heads."""
    if where == "loaded":
        return "Loaded"
    return f"Load heads · {amount(info.download_mb * 1e6)}" if where == "hub" else "Load heads"


def _room(colors: tuple[str, ...]) -> str:
    sides = "".join(
        f'<polygon points="{points}" fill="{f"url(#tips-fade-{way})" if color == "fade" else color}"/>'
        for (way, points), color in zip(_SIDES, colors, strict=True)
    )
    return f"<defs>{_FADE}</defs>{sides}" if "fade" in colors else sides


def command(info: ModelInfo) -> str:
    """The command that downloads a model into the cache this app reads."""
    return f"hf download {info.location}"


def _steps(info: ModelInfo) -> str:
    """The commands that bring released heads here."""
    copy = info.name.rpartition("/")[2]
    return (
        "<ol><li>Where this app runs, once it has a network:"
        f"<code>{escape(command(info))}</code></li>"
        f"<li>Or on any machine that has one; then bring the folder here and start with it:"
        f"<code>{escape(command(info))} --local-dir {escape(copy)}</code>"
        f"<code>python app.py --model ./{escape(copy)}</code></li></ol>"
    )
