"""Annotation files of data sets: read, checked, and the images they name found, or one sentence saying what is wrong.

rows = read_json_lines(root / "docci_descriptions.jsonlines")
images = Images(root / "images", rows.path)
images("test_00000.jpg")                               # the file's path; ValueError where it is not there
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """A JSON file's content. Raises ValueError naming the file where it is missing or no JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path}' is not JSON (line {error.lineno}: {error.msg}): download it again.") from None


def read_json_lines(path: Path) -> list[dict]:
    """A file with a JSON object a line. Raises ValueError naming the file and the line."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"'{path}', line {number}, is not JSON ({error.msg}): download it again.") from None
    return rows


def read_text(path: Path) -> str:
    """A text file's content in UTF-8. Raises ValueError naming the file where it cannot be read."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is not text in UTF-8: download it again.") from None
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}.") from error


def take(row: Any, key: str, path: Path) -> Any:
    """`row[key]` of an annotation; ValueError naming the file where there is no such field."""
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"'{path}' has an entry without '{key}': is it the file of another data set?")
    return row[key]


class Images:
    """The files below a folder, by their names in an annotation file. Each directory is listed once: a question per
    file takes long where the files are on another machine.
    """

    def __init__(self, folder: Path, annotations: Path):
        self.folder, self.annotations = folder, annotations
        self._listed: dict[str, frozenset[str]] = {}

    def __call__(self, name: str) -> Path:
        """The path of the image called `name`. Raises ValueError where it is not there."""
        if not self.has(name):
            stem, here = Path(name).stem, self._listed[os.path.dirname(name)]
            other = next((candidate for candidate in sorted(here) if Path(candidate).stem == stem), None)
            hint = f"there is {other}" if other else "unpack all of its images there"
            raise ValueError(f"'{self.annotations}' names the image {name}, which '{self.folder}' lacks: {hint}.")
        return self.folder / name

    def has(self, name: str) -> bool:
        parent, base = os.path.split(name)
        if parent not in self._listed:
            try:
                self._listed[parent] = frozenset(os.listdir(self.folder / parent))
            except OSError:
                self._listed[parent] = frozenset()
        return base in self._listed[parent]
