"""`pip install .`: what the wheel holds works outside the checkout, and asks for what it needs.

python -m pytest tests/test_install.py
"""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tipsv2

ROOT = Path(__file__).resolve().parents[1]


def requirement(line: str) -> str:
    return re.sub(r"\s*#.*", "", line).strip()


def test_the_package_asks_for_what_requirements_list():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later read TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {*project["dependencies"], *extras["app"], *extras["train"]}
    assert asked == {requirement(line) for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()} - {""}
    development = {requirement(line) for line in (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()}
    assert set(extras["export"]) <= development


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content in a folder of its own, as pip unpacks it."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install -r requirements-dev.txt")
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


@pytest.mark.slow
def test_the_installed_command_answers_from_any_folder_without_a_network(installed, tmp_path):
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "tipsv2 = tipsv2.__main__:main" in entry.read_text("utf-8")
    assert not (installed / "train").exists() and not (installed / "demos").exists()
    assert (installed / "tipsv2" / "py.typed").is_file()  # else type checkers take the library for untyped
    picture = ROOT / "assets" / "examples" / "scene_1.png"
    command = f"heatmap {picture} dog --resolution 112 --out out --device cpu".split()
    code = "import sys; from tipsv2.__main__ import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "maps.npz").is_file()
    code = "import tipsv2, tipsv2.scenes as s; print(tipsv2.__file__); print(s.split('val', 56)[0].image.shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    where, shape = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed) and shape == "(56, 56, 3)", done.stderr


def test_editors_see_the_names_that_are_resolved_when_they_are_used():
    tree = ast.parse((ROOT / "tipsv2" / "__init__.py").read_text("utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    imported = {alias.name: node.module for node in typed.body for alias in node.names}
    assert imported == {name: f"tipsv2.{home}" for name, home in tipsv2._HOMES.items()}
    assert sorted(imported) == sorted(tipsv2.__all__)
    assert all(getattr(tipsv2, name).__name__ == name for name in imported)
