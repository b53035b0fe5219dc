"""The import arrows of the house: app -> demos -> tipsv2, train -> tipsv2, and the leaves import none of ours. The
Train tab, demos/train*.py, may also import KNOWN_TO_THE_TAB.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tipsv2", "train", "demos", "app")
KNOWN_TO_THE_TAB = ("train.recipes", "train.settings", "train.overrides")
ALLOWED = {
    "tipsv2": {"tipsv2"},
    "train": {"train", "tipsv2"},
    "demos": {"demos", "tipsv2"},
    "app": {"demos", "tipsv2"},
}
LEAVES = {  # file -> what of ours it may import
    "tipsv2/prompts.py": set(),
    "tipsv2/metrics.py": set(),
    "tipsv2/render.py": set(),
    "tipsv2/heatmap.py": set(),
    "tipsv2/projection.py": set(),
    "train/losses.py": set(),
    "train/masking.py": set(),
    "train/name_losses.py": set(),
    "train/schedules.py": set(),
}
SOURCES = sorted(p for top in PACKAGES for p in (ROOT / top).rglob("*.py")) + [ROOT / "app.py"]


def imported(path: Path) -> set[str]:
    """Every module a file imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path):
    relative = path.relative_to(ROOT)
    top = relative.parts[0].removesuffix(".py")
    names = imported(path)
    if relative.match("demos/train*.py"):  # the tab knows recipes and their fields; the rest is a process of its own
        names = {name for name in names if name != "train" and not name.startswith(KNOWN_TO_THE_TAB)}
    assert {name.split(".")[0] for name in ours(names)} <= ALLOWED[top]
    if top in ("tipsv2", "train"):
        assert not any(name.split(".")[0] in ("gradio", "spaces") for name in names), "only app and demos know gradio"


@pytest.mark.parametrize("file", LEAVES)
def test_leaves_import_none_of_ours(file):
    assert ours(imported(ROOT / file)) <= LEAVES[file]


def test_scenes_is_a_leaf():
    for path in (ROOT / "tipsv2" / "scenes").glob("*.py"):
        assert all(name.startswith("tipsv2.scenes") for name in ours(imported(path)) - {"tipsv2"}), path.name


def test_relative_imports_are_not_used():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_no_grab_bags_and_every_file_says_what_it_is():
    for path in SOURCES:
        assert path.stem not in ("utils", "helpers", "misc", "common_utils"), path
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path} has no module docstring"


def listed_folders() -> list[str]:
    """The folders of the README's tree: a line is indentation, a folder's name with its slash, what it holds."""
    tree = (ROOT / "README.md").read_text("utf-8").split("## What is where\n\n```\n")[1].split("```")[0]
    listed, above = [], {}  # indentation -> the folder that stands there
    for line in tree.splitlines():
        indent, name = re.match(r"( *)([\w./-]+)", line).groups()
        above = {depth: folder for depth, folder in above.items() if depth < len(indent)}
        if name.endswith("/"):
            above[len(indent)] = name
            listed.append("".join(above.values()).rstrip("/"))
    return listed


def test_readme_lists_every_folder_of_code():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES} - {"."}
    assert folders <= set(listed_folders())
    assert all((ROOT / folder).is_dir() for folder in listed_folders())


def test_starting_costs_little():
    """The app's --help and the packages' imports load neither torch nor matplotlib nor gradio."""
    code = (
        "import sys, tipsv2, tipsv2.catalogue, train.recipes, app\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn', 'umap'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
