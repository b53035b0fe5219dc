"""The rooms of the house and the import arrows between them: app -> demos -> tipsv2, train -> tipsv2, no circles. The
Train tab, demos/train/, may also import KNOWN_TO_THE_TAB.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tipsv2", "train", "demos", "app")
KNOWN_TO_THE_TAB = tuple(f"train.recipe.{name}" for name in ("recipes", "settings", "overrides", "metrics"))
ALLOWED = {
    "tipsv2": {"tipsv2"},
    "train": {"train", "tipsv2"},
    "demos": {"demos", "tipsv2"},
    "app": {"demos", "tipsv2"},
}
ROOMS = {  # room -> the rooms of its package that it may import; a file beside the rooms is a leaf or an entrance
    "tipsv2": {
        "checkpoints": set(),
        "network": {"checkpoints"},
        "analysis": {"network", "checkpoints", "scenes"},
        "scenes": set(),
        "labelled": {"analysis"},
        "collections": {"analysis", "network", "checkpoints", "labelled", "scenes"},
        "evaluation": {"collections", "analysis", "network", "checkpoints", "labelled", "scenes"},
        "sharing": {"network", "checkpoints"},
        "benchmark": {"evaluation", "collections", "analysis", "network", "checkpoints", "scenes"},
    },
    "train": {
        "parallel": set(),
        "objectives": {"parallel"},  # a term is its settings and its loss, and a recipe a list of terms
        "recipe": {"objectives"},
        "foundations": {"recipe"},
        "network": {"objectives", "recipe"},
        "data": {"network", "foundations", "objectives", "parallel", "recipe"},
        "run": {"objectives", "data", "network", "parallel", "recipe"},
        "text": {"run", "objectives", "data", "network", "parallel", "recipe"},
        "tools": {"text", "run", "objectives", "data", "network", "recipe"},
        "reproduce": {"text", "run", "objectives", "recipe"},
        "cli": {"reproduce", "recipe"},
    },
    "demos": {
        "backend": set(),
        "server": {"backend"},
        "export": {"backend"},
        "ui": {"export", "server", "backend"},
        **dict.fromkeys(("ask", "segment", "inside", "compare", "depth", "train"), {"ui", "export", "backend"}),
    },
}
LEAVES = {  # file -> what of ours it may import
    "tipsv2/prompts.py": set(),
    "tipsv2/analysis/metrics.py": set(),
    "tipsv2/analysis/render.py": set(),
    "tipsv2/analysis/heatmap.py": {"tipsv2.network.view"},  # views and features, which it is asked about
    "tipsv2/analysis/projection.py": set(),
    "train/objectives/losses.py": set(),
    "train/data/masking.py": set(),
    "train/objectives/schedules.py": set(),
}
SOURCES = sorted(p for top in PACKAGES for p in (ROOT / top).rglob("*.py")) + [ROOT / "app.py"]


def imported(path: Path, annotations: bool = True) -> set[str]:
    """Every module a file imports, at any depth of nesting; without `annotations` what is really imported."""
    found, tree = set(), ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if not annotations and isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
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
    if relative.is_relative_to(
        "demos/train"
    ):  # the tab knows recipes and their fields; the rest is a process of its own
        names = {
            name for name in names if name not in ("train", "train.recipe") and not name.startswith(KNOWN_TO_THE_TAB)
        }
    assert {name.split(".")[0] for name in ours(names)} <= ALLOWED[top]
    if top in ("tipsv2", "train"):
        assert not any(name.split(".")[0] in ("gradio", "spaces") for name in names), "only app and demos know gradio"


def room_of(name: str) -> str:
    """The room of a module, "" for a file beside the rooms."""
    package, _, rest = name.partition(".")
    room = rest.partition(".")[0]
    return room if room in ROOMS.get(package, ()) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_between_rooms(path):
    relative = path.relative_to(ROOT)
    package, room = relative.parts[0], relative.parts[1] if len(relative.parts) > 2 else ""
    if not room:
        return  # leaves are tested below, entrances may go everywhere
    names = imported(path, annotations=False)
    rooms = {room_of(name) for name in names if name.split(".")[0] == package} - {"", room}
    assert rooms <= ROOMS[package][room]


def test_every_folder_of_a_package_is_a_room_that_says_its_purpose():
    for package, rooms in ROOMS.items():
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert folders == set(rooms)
        for room in rooms:
            assert ast.get_docstring(ast.parse((ROOT / package / room / "__init__.py").read_text("utf-8")))


def test_there_are_no_circles_between_rooms():
    for rooms in ROOMS.values():
        left = dict(rooms)
        while left:
            free = [room for room, below in left.items() if not below & set(left)]
            assert free, f"a circle among {sorted(left)}"
            for room in free:
                del left[room]


def test_the_backend_of_the_explorer_runs_without_gradio():
    for path in (ROOT / "demos" / "backend").glob("*.py"):
        assert not any(name.split(".")[0] == "gradio" for name in imported(path, annotations=False)), path.name


@pytest.mark.parametrize("file", LEAVES)
def test_leaves_import_none_of_ours(file):
    names = {name for name in ours(imported(ROOT / file)) if not name.startswith(tuple(LEAVES[file]))}
    assert not names


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
    """The folders of the README's tree: a line is indentation, names with their slashes, what they hold."""
    tree = (ROOT / "README.md").read_text("utf-8").split("## What is where\n\n```\n")[1].split("```")[0]
    listed, above = [], {}  # indentation -> the folder that stands there
    for line in tree.splitlines():
        indent, names = re.match(r"( *)((?:[\w.-]+/ ?)*)", line).groups()
        above = {depth: folder for depth, folder in above.items() if depth < len(indent)}
        listed += ["".join(above.values()) + name.rstrip("/") for name in names.split()]
        if names:
            above[len(indent)] = names.split()[0]
    return listed


def test_readme_lists_every_folder_of_code():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES} - {"."}
    assert folders <= set(listed_folders())
    assert all((ROOT / folder).is_dir() for folder in listed_folders())


def test_starting_costs_little():
    """The app's --help and the packages' imports load neither torch nor matplotlib nor gradio."""
    code = (
        "import sys, tipsv2, tipsv2.checkpoints.catalogue, train.recipe.recipes, app\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn', 'umap'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
