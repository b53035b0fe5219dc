"""`key=value` of the command line -> a recipe with those fields changed.

recipe = override(recipes.get("nano"), ["seed=1", "stages.*.size=112", "tower.width=96"])
"""

from __future__ import annotations

import dataclasses
import difflib
import shlex
import typing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from train.recipe.settings import Recipe, Stage, choose


def override(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Apply `key=value` strings; nested fields with dots: `stages.0.steps=100`, `tower.width=96`, `stages.*.size=112`
    for every stage.

    Raises ValueError naming the fields that an unknown key may mean, or the expected type for a bad value.
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
            return tuple(_set(stage, rest, value, key) for stage in node)
        index = int(head)
        return (*node[:index], _set(node[index], rest, value, key), *node[index + 1 :])
    kinds = _kinds(type(node))
    if head not in kinds:
        raise ValueError(f"a recipe has no field {key}{meant(key, value) or '.'}")
    current = getattr(node, head)
    if rest:
        return replace(node, **{head: _set(current, rest, value, key)})
    kind = kinds[head]
    if kind is bool:
        return replace(node, **{head: choose(key, value.lower(), "true", "false") == "true"})
    if typing.get_origin(kind) is Literal:
        return replace(node, **{head: choose(key, value, *typing.get_args(kind))})
    if kind not in (int, float, str):
        inner = "0.steps=100" if isinstance(current, tuple) else f"{dataclasses.fields(current)[0].name}=..."
        raise ValueError(f"{key} holds several fields; set one of them, for example {key}.{inner}")
    try:
        converted = kind(value)
    except ValueError:
        raise ValueError(f"{key}={value!r} is not {'a whole number' if kind is int else 'a number'}.") from None
    return replace(node, **{head: converted})


def _kinds(kind: type) -> dict[str, type]:
    """field -> its type, of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def paths(kind: type = Recipe, prefix: str = "") -> Iterator[str]:
    """Every field that can be set: seed, stages.*.steps, tower.width, ..."""
    for name, inner in _kinds(kind).items():
        if dataclasses.is_dataclass(inner):
            yield from paths(inner, f"{prefix}{name}.")
        elif inner in (bool, int, float, str) or typing.get_origin(inner) is Literal:
            yield prefix + name
        else:
            yield from paths(Stage, f"{prefix}{name}.*.")


def meant(key: str, value: str) -> str:
    """'; did you mean ...?' with up to four assignments that an unknown `key` may stand for, or nothing.

    They are fields of that name anywhere (steps), or of its initials (lr), its beginning (batch) or nearly its letters.
    """
    group, _, last = key.rpartition(".")
    by_name: dict[str, list[str]] = {}
    for path in paths():
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
    names = (
        [name for name in by_name if last in (name, "".join(word[0] for word in name.split("_")))]
        or [name for name in by_name if len(last) > 2 and name.startswith(last)]
        or difflib.get_close_matches(last, by_name, 1)
    )
    close = [path for name in names for path in by_name[name]]
    stage = ".".join(group.split(".")[:2]) if group.startswith("stages.") else "stages.*"  # the one that was named
    close = [path.replace("stages.*", stage) for path in close]
    close = [path for path in close if path.rpartition(".")[0] == group] or close  # its own group comes before others
    nearest = difflib.get_close_matches(key, close, 4, cutoff=0)
    written = [shlex.quote(f"{path}={value}") for path in nearest]
    return f"; did you mean {' or '.join(written)}?" if written else ""
