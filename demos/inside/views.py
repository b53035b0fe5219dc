"""What the tab Inside draws: the image and one view of its patches beside it, and a key below both.

Pure functions: numbers and pictures in, HTML out, everything a visitor typed escaped. The script is web/inside.js.
Sizes: h x w patches, N words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from demos.ui.views import data_uri, photo_uri

if TYPE_CHECKING:
    from tipsv2.analysis.projection import Norms

WIDE = 1.9  # from this aspect ratio on, image and view stand above each other
CHANNELS = ("Red", "Green", "Blue")
BINS = 48  # of the histogram of norms


def components(
    image: Image.Image, colors: np.ndarray, scores: np.ndarray, explained: np.ndarray, shown: Sequence[int]
) -> str:
    """colors: uint8 [h, w, 3].   scores: [h, w, K].   explained: [K] shares.   shown: three of K, counted from 0."""
    columns = [_column(f"component {index + 1}", scores[..., index], 2) for index in dict.fromkeys(shown)]
    rows, channels = [], {}
    for channel, index in zip(CHANNELS, shown, strict=True):
        channels.setdefault(index, []).append(channel)
        rows.append(
            f'<li class="{channel.lower()}"><i></i><span>{channel} · component {index + 1}</span>'
            f'<b>{_percent(explained[index])}</b><em><u style="width:{100 * explained[index]:.2f}%"></u></em></li>'
        )
    bars = "".join(
        f'<li class="{channels[index][0].lower() if len(channels.get(index, ())) == 1 else ""}" '
        f'title="Component {index + 1}: {100 * share:.1f} % of the variance">'
        f'<u style="height:{100 * share / max(explained.max(), 1e-9):.1f}%"></u>{index + 1}</li>'
        for index, share in enumerate(explained)
    )
    total = sum(explained[index] for index in channels)
    key = (
        f'<ul class="variance">{"".join(rows)}</ul>'
        f'<div class="scree"><ol>{bars}</ol><p>Shown: {_percent(total)} of the variance.</p></div>'
    )
    return _pair("pca", image, colors.shape[:2], _stage(colors, "principal components"), key, columns)


def clusters(image: Image.Image, labels: np.ndarray, shares: np.ndarray, colors: np.ndarray) -> str:
    """labels: [h, w] from 0, of K clusters.   shares: [K].   colors: [K, 3] uint8."""
    rows = []
    for index, share in enumerate(shares):
        color = "#{:02x}{:02x}{:02x}".format(*map(int, colors[index]))
        rows.append(
            f'<li><button type="button" data-cluster="{index}" aria-pressed="false" '
            f'title="Show only cluster {index + 1}">'
            f'<i style="background:{color}"></i><span>Cluster {index + 1}</span><b>{_percent(share)}</b>'
            f'<em style="width:{100 * share:.2f}%;background:{color}"></em></button></li>'
        )
    names = [str(index + 1) for index in range(len(shares))]
    key = f'<div class="tips-regions"><div class="legend"><ul>{"".join(rows)}</ul></div></div>'
    columns = [_column("cluster", labels, names=names)]
    return _pair("clusters", image, labels.shape, _stage(colors[labels], "clusters"), key, columns, veil=True)


def norms(image: Image.Image, measured: Norms, picture: np.ndarray, bar: Image.Image) -> str:
    """picture: uint8 [h, w, 3], the norms in colours.   bar: those colours from low to high, in a row."""
    lengths, limit = measured.norms, measured.limit
    low, high = float(lengths.min()), float(lengths.max())
    digits = 1 if high >= 100 else 2 if high >= 1 else 4
    counts, _ = np.histogram(lengths, bins=BINS, range=(low, max(high, low + 1e-6)))
    tops = counts / counts.max()
    columns = "".join(
        f'<rect x="{place + 0.08}" width=".84" y="{1 - top:.4f}" height="{top:.4f}"/>' for place, top in enumerate(tops)
    )
    count, inside = int(measured.outliers.sum()), low <= limit <= high
    mark = f'<i style="left:{100 * (limit - low) / (high - low):.2f}%" title="limit"></i>' if inside else ""
    lines = [("median", float(np.median(lengths))), ("least", low), ("greatest", high), ("outlier above", limit)]
    facts = "".join(f"<div><dt>{name}</dt><dd>{value:.{digits}f}</dd></div>" for name, value in lines)
    verdict = f"<b>{count or 'None'}</b> of {lengths.size:,} patches {'is an outlier' if count < 2 else 'are outliers'}"
    key = (
        f'<div class="lengths"><div class="histogram"><svg viewBox="0 0 {BINS} 1" preserveAspectRatio="none" '
        f'role="img" aria-label="How many patches have which norm">{columns}</svg>{mark}'
        f'<img src="{data_uri(bar)}" alt="" draggable="false"></div>'
        f'<p class="ends"><span>{low:.{digits}f}</span><span>{high:.{digits}f}</span></p></div>'
        f'<div class="verdict"><p>{verdict}, above the median by more than 3.5 robust deviations.</p>'
        f"<dl>{facts}</dl></div>"
    )
    columns = [_column("norm", lengths, digits), _column("robust deviations", measured.scores, 1)]
    shape = lengths.shape
    outlines = _outlines(measured.outliers) if count else ""
    return _pair("norms", image, shape, _stage(picture, "norms", outlines), key, columns, over=outlines)


def scatter(
    image: Image.Image,
    places: np.ndarray,
    colors: np.ndarray,
    words: Sequence[str],
    word_places: np.ndarray,
    cosines: np.ndarray,
    advise: bool = False,
) -> str:
    """places: [h, w, 2] and word_places [N, 2], of one plane.   colors: uint8 [h, w, 3], the points'.
    cosines: [N, h, w], of every word with every patch.   advise: say that value features follow words more closely.
    """
    shape = places.shape[:2]
    points = np.concatenate([places.reshape(-1, 2), word_places.reshape(-1, 2)])
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - low) / np.where(high > low, high - low, 1)
    points[:, 1] = 1 - points[:, 1]
    points = np.where(high > low, points, 0.5)
    count = shape[0] * shape[1]
    plan = {
        "points": np.round(points[:count], 4).ravel().tolist(),
        "colors": ["{:02x}{:02x}{:02x}".format(*color) for color in colors.reshape(-1, 3).tolist()],
    }
    nearest = cosines.reshape(len(words), count).argmax(axis=1)
    marks = "".join(
        f'<button type="button" class="word" data-x="{x:.4f}" data-y="{y:.4f}" data-patch="{patch}" '
        f'aria-label="Word: {escape(word, quote=True)}"><i></i><span>{escape(word)}</span></button>'
        for word, (x, y), patch in zip(words, points[count:].tolist(), nearest.tolist(), strict=True)
    )
    stage = (
        f'<div class="stage plane" tabindex="0" role="application" data-plan="{_attribute(plan)}" '
        f'aria-label="Map of the patches; arrow keys move from point to point"><canvas></canvas>{marks}</div>'
    )
    columns = []
    if len(words):
        best = cosines.argmax(axis=0)
        columns = [_column("nearest word", best, names=list(words)), _column("cosine", cosines.max(axis=0), 3)]
    said = "Each point is a patch; patches that are alike lie close together."
    if len(words):
        said += " A word lies among the patches that answer it most; point at it to find the one."
        said += " Value features follow words more closely." if advise else ""
    return _pair("map", image, shape, stage, f'<p class="hint">{said}</p>', columns)


def ask_for_map(patches: int, words: int, first: bool) -> str:
    """What stands where the map will be, until somebody asks for it."""
    cells = "<i></i>" * 25
    about = f"{patches:,} patches" + (f" and {words} word{'s' * (words != 1)}" if words else "")
    wait = "The first one on a machine takes ten to thirty seconds." if first else "This one takes some seconds."
    return (
        f'<div class="tips-empty tips-ask"><div class="mark" aria-hidden="true">{cells}</div>'
        f"<b>A map of {about}</b><p>UMAP lays out what is alike side by side. {wait}</p>"
        '<button type="button" class="ask">Draw the map</button></div>'
    )


def _pair(
    kind: str, image: Image.Image, grid: tuple[int, int], stage: str, key: str, columns: list, over="", veil=False
) -> str:
    """The image with its patches to point at, `stage` beside it, what is told of a patch, and the key.

    over: what else lies on the image.   veil: a canvas on both that can hide patches.
    """
    ratio = image.width / image.height
    style = f"--photo:url({photo_uri(image)});--ratio:{ratio:.6f}"
    hidden = "<canvas></canvas>" if veil else ""
    photo = (
        '<div class="stage photo" tabindex="0" role="application" '
        f'aria-label="Patches of the image; arrow keys move, Enter keeps one">{over}{hidden}<i class="spot"></i></div>'
    )
    return (
        f'<div class="tips-inside {kind}{" wide" if ratio > WIDE else ""}" data-kind="{kind}" '
        f'data-grid="{grid[0]}x{grid[1]}" data-told="{_attribute(columns)}" style="{style}">'
        f'<div class="pair">{photo}{stage}</div><p class="told" aria-live="polite"></p>'
        f'<div class="key">{key}</div></div>'
    )


def _stage(picture: np.ndarray, what: str, over: str = "") -> str:
    hidden = "<canvas></canvas>" if what == "clusters" else ""
    return (
        '<div class="stage" tabindex="0" role="application" aria-label="Patches of the view; arrow keys move, Enter '
        f'keeps one"><img src="{data_uri(picture)}" alt="Every patch coloured by its {what}" draggable="false">'
        f'{over}{hidden}<i class="spot"></i></div>'
    )


def _outlines(chosen: np.ndarray) -> str:
    path = "".join(f"M{column} {row}h1v1h-1z" for row, column in np.argwhere(chosen).tolist())
    rows, columns = chosen.shape
    return (
        f'<svg class="outlines" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="casing" d="{path}"/><path d="{path}"/></svg>'
    )


def _column(name: str, values: np.ndarray, digits: int = 0, names: Sequence[str] | None = None) -> dict:
    """One number, or one of `names`, to tell about every patch."""
    column = {"name": name, "values": np.round(values.astype(float), digits).ravel().tolist(), "digits": digits}
    return column | {"names": list(names), "values": values.ravel().tolist()} if names is not None else column


def _attribute(content) -> str:
    return escape(json.dumps(content, separators=(",", ":"), ensure_ascii=False), quote=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}&thinsp;%" if share >= 0.001 or share == 0 else "&lt;&thinsp;0.1&thinsp;%"
