"""Two encoders on one data set: teacher against student, with how sure the difference is, class by class.

    python -m tipsv2 compare --models google/tipsv2-b14 runs/mine/model --data scenes:val
    python -m tipsv2 compare --models A B --data ade20k:/data/ADEChallengeData2016 --protocol slide --out out/a_b

Zero-shot segmentation, see `tipsv2.evaluation.segmentation.zero_shot`, with the same images and the same protocol for
both. The
interval of a difference is a paired bootstrap: the same images are drawn for both, so what makes an image hard for
either of them cancels out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tipsv2.analysis.render import PALETTE
from tipsv2.analysis.segmentation import background_rule
from tipsv2.evaluation import as_text
from tipsv2.evaluation.command import RECORD
from tipsv2.evaluation.layouts import OWN, open_data
from tipsv2.evaluation.segmentation.scores import class_table
from tipsv2.evaluation.segmentation.zero_shot import Measured, measure
from tipsv2.network.encoder import load
from tipsv2.records import identity, write_record
from tipsv2.scenes.splits import is_scenes

MOST_BARS = 25  # classes shown of those that gain and of those that lose most
BLUE, ORANGE = (tuple(channel / 255 for channel in PALETTE[index]) for index in (4, 0))


def run(options: argparse.Namespace, models: Sequence[str], features: Sequence[str | None]) -> None:
    """The compare command with --data. models, features: of A and of B. Raises ValueError or OSError, one sentence."""
    out, protocol = None if options.out is None else Path(options.out), options.protocol or "whole"
    if not is_scenes(options.data):
        # before the models: wrong data should not cost their loading
        for note in open_data("segmentation", options.data).notes:
            print(note, file=sys.stderr)
    measured, identities = [], []
    for side, model, kind in zip("AB", models, features, strict=True):
        encoder = load(model, options.device, options.dtype)
        print(f"{side}: {encoder}", file=sys.stderr)
        identities.append(identity(encoder))
        measured.append(
            measure(
                encoder,
                options.data,
                resolution=options.resolution,
                templates=options.templates or "tips9",
                limit=options.limit,
                out=out and out / side,
                progress=True,
                protocol=protocol,
                features=kind,
                background=background_rule(options.background),
            )
        )
        del encoder  # before the other one takes its memory
    names = [about["name"] for about in identities]
    if features[0] != features[1]:
        names = [f"{name} ({kind})" for name, kind in zip(names, features, strict=True)]
    numbers = table(measured[0], measured[1], names)
    numbers = {"data": options.data, "templates": options.templates or "tips9", "protocol": protocol} | numbers
    if out is not None:
        difference_bars(numbers["per_class"], numbers["models"]).savefig(out / "difference.png")
        write_record(out / RECORD, numbers, identities)
    print(json.dumps(numbers, ensure_ascii=False) if options.json else as_text(numbers))
    if out is not None:
        print(f"written to {out}", file=sys.stderr)


def table(a: Measured, b: Measured, names: Sequence[str]) -> dict:
    """The comparison as numbers that JSON can hold.

    Returns {"models": {"A": name, "B": name}, "images", "resolution": {"A": ..., "B": ...}, "miou": {what: {"A", "B",
        "difference", "low", "high"}}, "per_class": {name: {"A", "B", "difference"}}}, differences being B - A and low
        and high their 95 % interval; None for a class neither knows of. per_class is among all classes, by difference.
        Of own labelled pictures also "figures": {what: {"A", "B", "difference", "chance"}}, what `Measured.scores` says
        beside the mIoU.
    Raises ValueError where the two are of different images.
    """
    rows = {}
    for (key_a, one), (key_b, other) in zip(a.tables.items(), b.tables.items(), strict=True):
        kinds = key_a[0] if key_a[0] == key_b[0] else f"{key_a[0]}, {key_b[0]}"
        low, high = one.difference(other)
        scores = {"A": one.miou(), "B": other.miou(), "difference": other.miou() - one.miou(), "low": low, "high": high}
        rows[f"{kinds}, {key_a[1]}"] = {name: round(float(value), 4) for name, value in scores.items()}
    classes = [class_table(measured.main.sum(), measured.split.classes) for measured in (a, b)]
    per_class = {}
    for name in a.split.classes:
        first, second = (rows_of[name]["iou"] for rows_of in classes)
        if first is not None and second is not None:
            per_class[name] = {"A": first, "B": second, "difference": round(second - first, 4)}
    order = sorted(per_class, key=lambda name: -per_class[name]["difference"])
    return {
        "models": dict(zip("AB", names, strict=True)),
        "images": len(a.main.names),
        "resolution": {"A": a.view.resolution, "B": b.view.resolution},
        "miou": rows,
        **figures(a, b),
        "per_class": {name: per_class[name] for name in order},
    }


def figures(a: Measured, b: Measured) -> dict[str, dict[str, dict[str, float | None]]]:
    """What patches and whole pictures say by name, of own labelled pictures; nothing of other data."""
    if a.split.layout != OWN:
        return {}
    first, second = a.scores(), b.scores()
    rows = {}
    for kind_a, kind_b in zip(a.kinds, b.kinds, strict=True):
        for name, one in first[kind_a].items():
            if name in ("miou_present", "miou_all"):  # which have rows with intervals
                continue
            other, by_chance = second[kind_b].get(name), first["chance"].get(name)
            rows[f"{kind_a if kind_a == kind_b else f'{kind_a}, {kind_b}'} {name}"] = {
                "A": one, "B": other,
                "difference": None if one is None or other is None else round(other - one, 4), "chance": by_chance,
            }  # fmt: skip
    return {"figures": rows}


def difference_bars(per_class: dict[str, dict[str, float]], names: dict[str, str]) -> Figure:
    """`per_class` of `table` as bars, those that gain most on top; of many classes the two ends."""
    rows = [(name, row["difference"]) for name, row in per_class.items() if row["A"] or row["B"]]
    left_out = max(0, len(rows) - 2 * MOST_BARS)
    if left_out:
        rows = rows[:MOST_BARS] + rows[-MOST_BARS:]
    rows = rows[::-1]
    figure = Figure(figsize=(7, 1.4 + 0.17 * max(4, len(rows))), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.barh(range(len(rows)), [value for _, value in rows], color=[BLUE if v >= 0 else ORANGE for _, v in rows])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7, parse_math=False)
    axes.set_title(f"B, {names['B']}, minus A, {names['A']}", fontsize=9, parse_math=False)
    note = f" ({left_out} classes in between are left out)" if left_out else ""
    axes.set_xlabel(f"difference in IoU{note}")
    axes.set_ylim(-0.7, max(1, len(rows)) - 0.3)
    return figure
