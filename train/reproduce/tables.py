"""table.md and table.png from the records of `python -m train reproduce`: rows, claims, and how sure the seeds make us.

A claim is judged on seeds that both of its rows have: the mean of the differences within a seed, whose scenes and
starting weights the two rows share, and their standard deviation.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from train.reproduce.claims import BATCH, CLAIMS, LANGUAGES, NOUNS, ROWS, START, STEPS
from train.reproduce.runner import read_record

COLUMNS = {
    "mIoU final": ("val", "final"),
    "mIoU values": ("val", "values"),
    "unseen style, final": ("style", "final"),
    "unseen style, values": ("style", "values"),
    "image to text R@1": ("val", "i2t"),
    "text to image R@1": ("val", "t2i"),
    "top-1": ("val", "top1"),
    "English names R@1": ("val", "en"),
    f"names R@1 in {' '.join(LANGUAGES)}": ("val", "foreign"),
}
SEARCH = {name: ("search", key) for name, (split, key) in COLUMNS.items() if split == "val"}
Scores = dict[str, dict[int, dict[str, float]]]  # row -> seed -> column -> value


def read(out: Path, kind: str = "claim") -> Scores:
    """The columns of every record of a kind in `out`, and chance, rows in the order of train/reproduce/claims.py. Left
    out are records of other settings than a row has now.
    """
    table: Scores = {row.name: {} for row in ROWS if row.kind == kind}
    columns = COLUMNS if kind == "claim" else SEARCH
    for path in sorted((out / "runs").glob("*.json")):
        record = read_record(path)
        if record and record["row"] in table:
            for scores in record["scores"].values():
                scores["foreign"] = statistics.fmean(scores[code] for code in LANGUAGES)
            values = {name: record["scores"][split][key] for name, (split, key) in columns.items()}
            chances = {f"chance {split}": scores["chance"] for split, scores in record["scores"].items()}
            table[record["row"]][record["seed"]] = values | chances
    return {name: dict(sorted(seeds.items())) for name, seeds in table.items() if seeds}


def write(out: Path) -> str:
    """Write table.md and table.png into `out` from the records there, and return the table's text.

    Raises ValueError if no run of the table has finished.
    """
    table, tried = read(out), read(out, "search")
    if not table:
        raise ValueError(f"{out} holds no finished run; run `python -m train reproduce --out {out}`.")
    shown = [*COLUMNS][:7]
    claims = [["claim", "rows", "seeds", *shown, "the paper"]]
    for claim in CLAIMS:
        if claim.before in table and claim.after in table:
            changes = differences(table[claim.after], table[claim.before])
            cells = [spread([change[c] for change in changes], "+") if changes else "" for c in shown]
            claims.append([claim.said, f"{claim.before} -> {claim.after}", str(len(changes)), *cells, claim.paper])
    chances = [_any(table)[f"chance {split}"] for split in ("val", "style")]
    text = (
        f"# What the papers claim, at {NOUNS} nouns and {STEPS * BATCH:,} images a run\n\n"
        "Written by `python -m train reproduce`. Rows without a teacher go on from `start`: captions grounded in the "
        f"patches of {START * BATCH:,} of these images. Mean ± standard deviation over seeds; mIoU among the names "
        f"present, chance {chances[0]:.3f}, on the unseen style {chances[1]:.3f}.\n\n"
        + f"{_markdown(_rows(table, COLUMNS))}\n\n"
        "## Claims\n\nMean ± standard deviation of the differences within a seed. **Bold**: more than two standard "
        f"deviations from 0, over three seeds or more.\n\n{_markdown(claims)}\n"
    )
    if tried:
        text += (
            "\n## The search for unite\n\nA third of the steps, scored on scenes:search, which no other number comes "
            f"from.\n\n{_markdown(_rows(tried, SEARCH))}\n"
        )
    (out / "table.md").write_text(text)
    plot(table, out / "table.png")
    return text


def differences(ours: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]]) -> list[dict[str, float]]:
    """Ours minus theirs, column by column, for every seed that both have."""
    return [{c: ours[s][c] - theirs[s][c] for c in COLUMNS} for s in sorted(ours.keys() & theirs.keys())]


def spread(values: list[float], sign: str = "") -> str:
    """Mean ± sample standard deviation; signed ones in bold where they are more than two deviations from 0."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:{sign}.3f}"
    deviation = statistics.stdev(values)
    text = f"{mean:{sign}.3f} ± {deviation:.3f}"
    return f"**{text}**" if sign and len(values) > 2 and abs(mean) > 2 * deviation else text


def _rows(table: Scores, columns: Iterable[str]) -> list[list[str]]:
    rows = [["row", "seeds", *columns]]
    for name, seeds in table.items():
        rows.append([name, str(len(seeds)), *(spread([s[c] for s in seeds.values()]) for c in columns)])
    return rows


def _markdown(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(table: Scores, path: Path) -> None:
    """Patch-text mIoU of every row: bars are means, points are seeds."""
    from matplotlib.figure import Figure  # seconds to import, and only drawing needs it

    figure = Figure(figsize=(10, 0.4 * len(table) + 1.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, sharex=True)
    sides = (
        ("mIoU final", "mIoU values", "chance val", "drawing styles of the training"),
        ("unseen style, final", "unseen style, values", "chance style", "a style never seen"),
    )
    for axis, (final, values, chance, title) in zip(axes, sides, strict=True):
        for column, shift, color in ((final, 0.2, "#56B4E9"), (values, -0.2, "#0072B2")):
            points = [[scores[column] for scores in seeds.values()] for seeds in table.values()]
            places = [shift - place for place in range(len(table))]
            bars = axis.barh(places, [statistics.fmean(row) for row in points], 0.36, color=color)
            bars.set_label("value features" if column == values else "final layer")
            for place, row in zip(places, points, strict=True):
                axis.plot(row, [place] * len(row), ".", color="#222222", markersize=4)
        axis.axvline(_any(table)[chance], color="#888888", linewidth=1, linestyle="--", label="chance")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("mIoU among the names present")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks([-place for place in range(len(table))], list(table))
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=3)
    figure.savefig(path, dpi=120)


def _any(table: Scores) -> dict[str, float]:
    """The numbers of some run: chance is the same in all."""
    return next(iter(next(iter(table.values())).values()))
