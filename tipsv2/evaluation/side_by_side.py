"""A comparison as one picture: both encoders' maps, what B sees more or less of, the sentence; the compare command.

python -m tipsv2 compare dog.jpg --models opentips-nano,google/tipsv2-b14 --queries "dog,grass" --out compare.png
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tipsv2.prompts import TEMPLATES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    import numpy as np

    from tipsv2.analysis.alignment import Comparison, MapScore

UNITS = {"z": "standard deviations", "rank": "rank", "cosine": "cosine"}
PANEL, DPI = 3.0, 100  # inches, and pixels per inch: the picture is about a thousand pixels wide
COLORS, SIGNED, OPACITY = "viridis", "RdBu_r", 0.6


def draw(image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """image uint8 [H, W, 3] and what `tipsv2.analysis.alignment.compare` found on it -> uint8 [h, w, 3].

    A row per query: the map of A, the map of B, both in one range of colours and with their peaks marked, and B - A,
    red where B responds more and blue where A does. Above them the sentence.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(comparison.queries)
    height = PANEL * float(np.clip(image.shape[0] / image.shape[1], 0.4, 2.5)) + 0.5
    figure = Figure(figsize=(3 * PANEL + 2, rows * height + 1), dpi=DPI, layout="compressed")
    canvas = FigureCanvasAgg(figure)  # not pyplot, whose figures are one global list
    figure.suptitle(textwrap.fill(comparison.sentence, 110), fontsize=10, parse_math=False)  # a query may hold a "$"
    panels = figure.subplots(rows, 3, squeeze=False)
    a, b = comparison.names
    low, high = float(comparison.scaled.min()), float(comparison.scaled.max())
    most = float(np.abs(comparison.difference).max()) or 1.0  # no difference at all is white, not an error
    columns = (
        (a, comparison.scaled[0], COLORS, low, high),
        (b, comparison.scaled[1], COLORS, low, high),
        ("difference, second minus first", comparison.difference, SIGNED, -most, most),
    )
    gray = np.asarray(image) @ (0.299, 0.587, 0.114)  # a blue sky would look like a difference
    for column, (title, maps, colors, least, greatest) in enumerate(columns):
        for row, panel in enumerate(panels[:, column]):
            panel.imshow(gray, "gray", vmin=0, vmax=255)
            shown = panel.imshow(maps[row], colors, vmin=least, vmax=greatest, alpha=OPACITY)
            panel.set_xticks([])
            panel.set_yticks([])
            if column < 2:
                score = comparison.scores[column][row]
                panel.plot(score.x, score.y, "+", color="white", markersize=9)
                panel.set_xlabel("\n".join(_caption(score)), fontsize=8)
        panels[0, column].set_title(title, fontsize=9, parse_math=False)
        if column:  # the first two columns share their range
            figure.colorbar(shown, ax=panels[:, column], label=UNITS[comparison.scale], shrink=0.8)
    for row, query in enumerate(comparison.queries):
        panels[row, 0].set_ylabel(textwrap.shorten(query, 40), fontsize=9, parse_math=False)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3]
    inked = [np.flatnonzero((picture < 255).any(axis=(1 - side, 2))) for side in (0, 1)]
    top, left, bottom, right = *(max(0, ink[0] - 12) for ink in inked), *(ink[-1] + 13 for ink in inked)
    return picture[top:bottom, left:right].copy()


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `compare` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "compare",
        run,
        "Compare two encoders: their maps of a picture side by side, or their scores on a data set class by class.",
        'compare dog.jpg --models opentips-nano,google/tipsv2-b14 --queries "dog,grass" --out compare.png\n'
        '  python -m tipsv2 compare dog.jpg --models A,B --queries "dog,grass" --masks dog_mask.png,none\n'
        "  python -m tipsv2 compare --models A B --data scenes:val --out out/a_b",
    )
    parser.add_argument("image", nargs="?", help="a picture, before all else")
    parser.add_argument("--models", required=True, nargs="+", metavar="MODEL", help="two encoders: A,B or A B")
    parser.add_argument("--queries", metavar="PHRASES", help="what to look for, separated by commas")
    parser.add_argument(
        "--masks", metavar="FILES", help="a picture for each phrase, white where it is, or none if nobody knows"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="picture to write (default: compare.png); with --data a folder (default: none)"
    )
    parser.add_argument("--arrays", metavar="FILE", help="also write both encoders' maps to this .npz")
    parser.add_argument(
        "--features",
        help="values or final, or one for each as in values,final (default: values; with --data as in evaluate)",
    )
    parser.add_argument("--templates", choices=tuple(TEMPLATES), help="(default: none; with --data tips9)")
    parser.add_argument("--resolution", type=int, help="short side that both see (default: each as trained)")
    parser.add_argument("--scale", choices=tuple(UNITS), help="on which maps are subtracted (default: z)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, on a CPU int8 (default: auto)"
    )
    data = parser.add_argument_group("on a data set instead of a picture, by zero-shot segmentation")
    data.add_argument("--data", help="scenes:val, scenes:style, a folder, or LAYOUT:FOLDER, as in evaluate")
    data.add_argument("--protocol", choices=("whole", "slide"), help="(default: whole)")
    data.add_argument("--background", metavar="NUMBER|WORDS", help="as in evaluate segmentation")
    data.add_argument("--limit", type=int, help="only the first so many images")


def run(options: argparse.Namespace) -> None:
    """The compare command. Raises ValueError or OSError with one sentence for whoever typed it."""
    import numpy as np
    from PIL import Image

    from tipsv2.checkpoints.catalogue import find
    from tipsv2.evaluation.layouts import SCENES, recognise
    from tipsv2.images import open_image

    models, kinds = _split(",".join(options.models)), _split(options.features or "")
    if len(models) != 2:
        raise ValueError(f"--models takes two encoders, as A,B or A B, not {len(models)}; a picture goes before it.")
    if len(kinds) > 2:
        raise ValueError(f"--features takes one kind or two with a comma between them, not {len(kinds)}.")
    if options.data is not None:
        if options.image is not None or options.queries is not None:
            raise ValueError("compare takes a picture with --queries, or --data: leave one of them out.")
        _refuse(options, ("masks", "arrays", "scale"), "a picture", "leave it out with --data")
        if options.data.partition(":")[0] != SCENES:
            recognise("segmentation", options.data)  # before torch: wrong data should not cost its loading
        for name in models:
            find(name)
        from tipsv2.evaluation.segmentation import comparison

        return comparison.run(options, models, (kinds[0], kinds[-1]) if kinds else (None, None))
    if options.image is None or options.queries is None:
        raise ValueError("compare needs a picture and --queries, or --data.")
    _refuse(options, ("protocol", "background", "limit"), "--data", "leave it out with a picture")
    queries, kinds = _split(options.queries), kinds or ["values"]
    out = Path(options.out or "compare.png")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--out is a picture to write: call it something like compare.png, not '{options.out}'.")
    image = open_image(options.image)  # before the models: a wrong path should not cost their loading
    masks = [None if name == "none" else _read_mask(name) for name in _split(options.masks)] if options.masks else None
    for name in models:
        find(name)

    from tipsv2.analysis.alignment import compare
    from tipsv2.network.encoder import load

    encoders = []
    for name in models:
        encoders.append(load(name, options.device, options.dtype))
        print(encoders[-1], file=sys.stderr)
    first, second = encoders
    compared = compare(
        first,
        second,
        image,
        queries,
        masks,
        (kinds[0], kinds[-1]),
        options.templates or "none",
        (options.resolution, options.resolution),
        options.scale or "z",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(np.asarray(image), compared)).save(out)
    if options.json:
        print(json.dumps(_numbers(compared), ensure_ascii=False))
    else:
        wide = max(len(query) for query in queries)
        for name, scores in zip(compared.names, compared.scores, strict=True):
            print(name)
            for score in scores:
                print(f"  {score.query:<{wide}}  at ({score.x}, {score.y})  {'; '.join(_caption(score))}")
        print(compared.sentence)
    if options.arrays:
        Path(options.arrays).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            options.arrays,
            maps=compared.maps,
            difference=compared.difference,
            queries=compared.queries,
            names=compared.names,
        )
    message = f"written to {out}" + (f" and {options.arrays}" if options.arrays else "")
    print(message, file=sys.stderr if options.json else sys.stdout)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], where: str, instead: str) -> None:
    """Raises ValueError if one of these options was given, which are of the other kind of comparison."""
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} belongs to {where}: {instead}.")


def _numbers(comparison: Comparison) -> dict:
    """What is printed, for JSON."""
    rows: list[dict[str, Any]] = [
        {"query": query, "agreement": agreement, "A": asdict(a), "B": asdict(b)}
        for query, agreement, a, b in zip(comparison.queries, comparison.agreement, *comparison.scores, strict=True)
    ]
    for row in rows:
        del row["A"]["query"], row["B"]["query"]
    models = dict(zip("AB", comparison.names, strict=True))
    return {"models": models, "scale": comparison.scale, "queries": rows, "sentence": comparison.sentence}


def _caption(score: MapScore) -> list[str]:
    lines = [f"peak {score.peak:.3f}, {score.sharpness:.1f} sd above the mean"]
    if score.auroc is not None:
        lines.append(f"AUROC {score.auroc:.3f}, IoU {score.iou:.2f}, pointing {'hit' if score.pointing else 'miss'}")
    return lines


def _read_mask(name: str) -> np.ndarray:
    """A black-and-white picture -> bool [H, W]."""
    import numpy as np

    from tipsv2.images import open_image

    return np.asarray(open_image(name).convert("L")) > 127


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
