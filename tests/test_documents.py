"""README, CONTRIBUTING and docs: links lead somewhere, commands are understood, tests and fields they name are there.

python -m pytest tests/test_documents.py
"""

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from tipsv2.__main__ import build_parser
from train.cli import arguments
from train.recipe import recipes
from train.recipe.overrides import override

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(text):
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands():
    """The words of all commands of ours that stand in code blocks, and of all tests that a sentence names, by text."""
    found = {}
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        lines = "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)).splitlines()
        for line in [*lines, *re.findall(r"`(python -m pytest [^`\n]+)`", text)]:
            if match := re.match(r"(?:python|torchrun .*?) -m ((?:tipsv2|train|pytest)\b.*)", line):
                words = shlex.split(match[1], comments=True)
                if len(words) > 1 and not {"COMMAND", "TASK"} & {*words}:  # those are patterns
                    found[f"{path.name}: {' '.join(words)}"] = words
    return found


COMMANDS = commands()


def of(package):
    return [pytest.param(words[1:], id=name) for name, words in COMMANDS.items() if words[0] == package]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = unquote(target).partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place.read_text("utf-8")), target


@pytest.mark.parametrize("words", of("train"))
def test_commands_of_train_are_understood(words):
    options = arguments.parse(words, "")
    if options.command in arguments.TRAINING and not options.resume:
        recipe = recipes.get(options.recipe or arguments.TRAINING[options.command][0])
        assert recipe.command == options.command
        override(recipe, options.overrides)


@pytest.mark.parametrize("words", of("tipsv2"))
def test_commands_of_tipsv2_are_understood(words):
    assert build_parser().parse_args(words).run


@pytest.mark.parametrize("words", of("pytest"))
def test_tests_that_are_named_are_there(words, pytestconfig):
    files = [word for word in words if word.endswith(".py")]
    if "-m" in words:
        known = [marker.partition(":")[0] for marker in pytestconfig.getini("markers")]
        assert set(words[words.index("-m") + 1].split()) - {"not", "and", "or"} <= set(known), words
    else:
        assert files
    for file in files:
        names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
        if "-k" in words:
            assert any(words[words.index("-k") + 1] in name for name in names), words


def test_the_table_of_claims_names_tests_that_are_there():
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for file in files for name in re.findall(r"^ *def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "claims.md").read_text("utf-8"))
    assert len(named) > 80 and not set(named) - there


def test_fields_that_are_named_are_there():
    recipe = recipes.get("finetune")
    for path in DOCUMENTS:
        for key in re.findall(r"`((?:tuning|distillation|data|kept|kept_distillation)\.\w+)(?:=|`)", path.read_text()):
            part, name = key.split(".")
            assert hasattr(getattr(recipe, part), name), f"{path.name}: {key}"


def test_readme_is_short_and_says_whose_it_is():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 200
    top = readme.split("## Start")[0]
    assert "not Google's" in top
    for place in ("gdm-tipsv2.github.io", "huggingface.co/spaces/google/TIPSv2", "huggingface.co/google/tipsv2-b14"):
        assert place in top
    for command in (
        "\npip install -r requirements.txt -c constraints.txt && python app.py\n",
        "\npip install -r requirements-dev.txt -c constraints.txt && python -m pytest\n",
    ):
        assert command in readme


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_document_is_linked(path):
    linked = "".join(other.read_text("utf-8") for other in DOCUMENTS if other != path)
    assert path.name == "README.md" or path.name in linked
