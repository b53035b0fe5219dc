"""One file per task; each turns an encoder and a data set into a JSON-able dict of numbers, and `as_text` shows it."""

from __future__ import annotations


def as_text(numbers: dict) -> str:
    """A task's numbers for people: a line for each number, then each dict of dicts as a table with a line per entry.

    numbers: values are plain, dicts of plain values, or dicts of dicts that all have the same keys.
    """
    singles, tables = [], []
    for name, value in numbers.items():
        if not isinstance(value, dict):
            singles.append((name, _plain(value)))
        elif not any(isinstance(inner, dict) for inner in value.values()):
            singles += [(f"{name} {key}", _plain(inner)) for key, inner in value.items()]
        elif value:
            head = [name, *next(iter(value.values()))]
            tables.append([head, *([key, *map(_plain, inner.values())] for key, inner in value.items())])
    wide = max((len(name) for name, _ in singles), default=0)
    blocks = ["\n".join(f"{name:<{wide}}  {text}" for name, text in singles)]
    for table in tables:
        first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = []
        for name, *cells in table:
            aligned = (f"{cell:>{width}}" for cell, width in zip(cells, others, strict=True))
            lines.append("  ".join([f"{name:<{first}}", *aligned]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _plain(value: object) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
