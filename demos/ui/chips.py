"""A chip that cannot be asked spoils no other: the others are asked, it turns red and says why (web/chips.js)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from demos.ui.controls import refusal

MAX_SENTENCES = 3  # sentences


def askable(given: Sequence[str] | None, what: str, limit: int) -> tuple[list[str], dict[str, str]]:
    """The chips of a field for words of the kind `what` -> (those to ask, cleaned as `controls.texts` does; the others,
    each with a sentence that says why not).
    """
    asked: list[str] = []
    refused: dict[str, str] = {}
    for text in dict.fromkeys(str(entry).strip() for entry in given or ()):
        if not text:
            continue
        if why := refusal(text, what):
            refused[text] = why
        elif len(asked) == limit:
            refused[text] = f"There are more than {limit} entries of kind {what}: keep to {limit} at once."
        else:
            asked.append(text)
    return asked, refused


def not_asked(refused: Mapping[str, str]) -> str:
    """The sentences over what the others gave; "" where there are none. Their chips are found by `data-refused`."""
    if not refused:
        return ""
    sentences = list(dict.fromkeys(refused.values()))
    more = [f"So it is with {len(sentences) - MAX_SENTENCES} more."] if len(sentences) > MAX_SENTENCES else []
    message = " ".join([*sentences[:MAX_SENTENCES], *more])
    data = escape(json.dumps(refused), quote=True)
    return f'<p class="tips-note tips-refused" role="alert" data-refused="{data}">{escape(message)}</p>'
