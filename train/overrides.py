"""`key=value` of the command line -> a recipe with those fields changed.

recipe = override(recipes.get("nano"), ["seed=1", "stages.*.size=112", "tower.width=96"])
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import replace

from train.settings import Recipe, choose, near


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Apply `key=value` strings; nested fields with dots: `stages.0.steps=100`, `tower.width=96`, `stages.*.size=112`
    for every stage.

    Raises ValueError naming the nearest field for an unknown key, or the expected type for a bad value.
    """
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise ValueError(f"{assignment!r} is not key=value; for example seed=1.")
        recipe = _set(recipe, key.split("."), value, key)
    return recipe


def _set(node, path: list[str], value: str, key: str):
    head, rest = path[0], path[1:]
    if isinstance(node, tuple):
        if head != "*" and not (head.isdigit() and int(head) < len(node)):
            raise ValueError(f"{key}: there are stages 0 to {len(node) - 1}, not {head!r}.")
        if not rest:
            raise ValueError(f"{key} holds several fields; set one of them, for example {key}.steps=100.")
        if head == "*":
            return tuple(_set(each, rest, value, key) for each in node)
        index = int(head)
        return (*node[:index], _set(node[index], rest, value, key), *node[index + 1 :])
    kinds = typing.get_type_hints(type(node))
    if head not in kinds:
        raise ValueError(f"{key}: {type(node).__name__} has no field {head!r}{near(head, kinds) or '.'}")
    current = getattr(node, head)
    if rest:
        return replace(node, **{head: _set(current, rest, value, key)})
    kind = kinds[head]
    if kind is bool:
        return replace(node, **{head: choose(key, value.lower(), "true", "false") == "true"})
    if kind not in (int, float, str):
        inner = f"0.{'steps'}=100" if isinstance(current, tuple) else f"{dataclasses.fields(current)[0].name}=..."
        raise ValueError(f"{key} holds several fields; set one of them, for example {key}.{inner}")
    try:
        return replace(node, **{head: kind(value)})
    except ValueError:
        raise ValueError(f"{key}={value!r} is not {'a whole number' if kind is int else 'a number'}.") from None
