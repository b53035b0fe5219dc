"""The endpoints' part of docs/explorer.md, made from the handlers' docstrings and what the page takes.

python -m demos.reference           # prints it
python -m demos.reference --write   # puts it into docs/explorer.md
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

TABS = sorted(place.parent.name for place in Path(__file__).parent.glob("*/tab.py"))
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "explorer.md"
START, END = "<!-- made by python -m demos.reference --write -->\n", "<!-- end -->\n"
AS_OPENED = ("Encoder", "A", "B", "Base", "Heads", "Look for", "Words on the map")  # labels of the page's controls
OPENED = "as the page opens"  # for what depends on the encoder and the example that it opens with


def described(docstring: str, parameters: list[str]) -> tuple[str, dict[str, str]]:
    """What a handler's docstring says -> (what it is and returns, parameter -> what is said of it).

    The docstring names parameters in paragraphs after the first: "near, far: in metres. colormap: of depth."
    Raises ValueError naming the parameters that it leaves out.
    """
    summary, _, rest = inspect.cleandoc(docstring).partition("\n\n")
    text = " ".join(rest.split())
    name = "|".join(map(re.escape, parameters)) or "(?!)"
    starts = list(re.finditer(rf"(?:^|(?<=\. ))((?:{name})(?:, (?:{name}))*): ", text))
    said = {}
    for match, following in zip(starts, [*starts[1:], None], strict=False):
        description = text[match.end() : following.start() if following else None].strip()
        said |= dict.fromkeys(match[1].split(", "), description.removesuffix("."))
    if missing := [parameter for parameter in parameters if parameter not in said]:
        raise ValueError(f"The docstring does not say what {', '.join(missing)} may be: name each before a colon.")
    return " ".join(summary.split()), said


def reference(page: gr.Blocks) -> str:
    """Markdown: a section for each endpoint of the page, with a table of its parameters."""
    handlers = {f"/{block.api_name}": block.fn for block in page.fns.values() if isinstance(block.api_name, str)}
    sections = []
    for name, endpoint in page.get_api_info()["named_endpoints"].items():
        given = {parameter["parameter_name"]: parameter for parameter in endpoint["parameters"]}
        try:
            summary, said = described(handlers[name].__doc__ or "", list(given))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        rows = [f"| `{parameter}` | {_default(given[parameter])} | {_cell(said[parameter])} |" for parameter in given]
        table = "\n".join(["", "| parameter | if left out | |", "|---|---|---|", *rows, ""]) if rows else ""
        sections.append(f"### `{name}`\n\n{_escaped(summary)}\n{table}")
    return "\n".join(sections)


def _default(parameter: dict) -> str:
    if not parameter["parameter_has_default"]:
        return "has to be given"
    if parameter["label"] in AS_OPENED:
        return OPENED
    value = parameter["parameter_default"]
    if value is None or value in ("", []):
        return "none"
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("\\n", " ")


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("[", "\\[").replace("]", "\\]")


def document(text: str, made: str) -> str:
    """docs/explorer.md with the endpoints' part made anew. Raises ValueError where it has no place for it."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{DOCUMENT.name} lacks the line '{START.strip()}' or '{END.strip()}': put it back.")
    return f"{before}{start}\n{made}\n{end}{after}"


def main() -> None:
    from demos.ui.page import build

    flags = argparse.ArgumentParser(prog="python -m demos.reference", description=__doc__.partition("\n")[0])
    flags.add_argument("--write", action="store_true", help="put it into docs/explorer.md")
    made = reference(build(TABS, "opentips-nano", "cpu"))
    if flags.parse_args().write:
        DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8"), made), "utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main()
