"""What the app offers: runs under their own names, folders that come and go, and a retrained model read anew.

python -m pytest tests/test_offer.py
"""

import os
import re
import shutil
import sys
import types
from argparse import ArgumentTypeError
from pathlib import Path

import gradio as gr
import pytest

from demos.backend.settings import num_bytes
from demos.backend.studio import Studio
from demos.launch import parser
from demos.ui.page import picker
from tipsv2.checkpoints.bundled import NANO
from tipsv2.checkpoints.catalogue import ModelError, available, find


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def finish(runs, tiny_folder):
    """finish("dog") -> the model/ of a finished run of this name."""

    def finished(name):
        model = shutil.copytree(tiny_folder, runs / name / "model")
        (runs / name / "recipe.json").write_text("{}")
        return model

    return finished


def offered(studio):
    return [name for _, name in studio.choices()][len(available()) :]  # after the bundled and the released ones


def test_a_run_is_called_after_its_folder(finish, tiny_folder):
    model = finish("dog")
    for given in (model, model.parent):
        info = find(given)
        assert (info.name, info.source, info.location) == ("dog", "run", str(model))
    assert find(tiny_folder).source == "folder"


def test_finished_runs_are_on_offer_and_deleted_ones_are_not(runs, finish):
    studio = Studio(runs=runs)
    assert offered(studio) == []
    finish("dog")
    (runs / "half").mkdir()  # a run that is not done yet
    finish("chain/generation-1")
    assert offered(studio) == ["chain-generation-1", "dog"]
    assert studio.encoder("dog").info.name == "dog" and studio.info("dog").resolution == 56
    shutil.rmtree(runs / "dog")
    assert offered(studio) == ["chain-generation-1"]
    with pytest.raises(ModelError, match="'dog' is not on offer"):
        studio.encoder("dog")


def test_a_run_that_was_opened_by_hand_goes_with_its_folder(runs, finish):
    studio = Studio(str(finish("first")), runs=runs)
    assert studio.add(finish("dog")) == "dog" and studio.add(finish("deep/in/cat")) == "deep-in-cat"
    assert studio.add(runs / "first") == "first" and offered(studio) == ["first", "dog", "deep-in-cat"]
    shutil.rmtree(runs)
    assert offered(studio) == ["first"]  # the page was opened with it


def test_folders_of_one_name_get_names_of_their_own(tmp_path, runs, finish, tiny_folder):
    studio = Studio(str(tiny_folder), runs=runs)
    other = shutil.copytree(tiny_folder, tmp_path / "elsewhere" / "tiny")
    assert [studio.add(other), studio.add(other), studio.add(tiny_folder)] == ["tiny-2", "tiny-2", "tiny"]
    assert studio.add(finish("dog")) == "dog" == studio.add(runs / "dog")
    assert offered(studio) == ["tiny", "tiny-2", "dog"]
    assert studio.encoder("tiny-2") is not studio.encoder("tiny")
    studio.remove("tiny-2")
    studio.remove(NANO)  # only folders come and go
    assert offered(studio) == ["tiny", "dog"] and NANO in [name for _, name in studio.choices()]
    assert studio.add(other) == "tiny-2"


def test_a_folder_that_holds_no_encoder_is_not_added(tmp_path):
    studio = Studio()
    with pytest.raises(ModelError, match=r"no config\.json"):
        studio.add(tmp_path)
    with pytest.raises(ModelError):
        studio.add(tmp_path / "nowhere")
    assert offered(studio) == []


def test_weights_written_anew_are_read_anew(runs, finish):
    model = finish("dog")
    studio = Studio(runs=runs)
    before = studio.encoder("dog")
    picture = Path(__file__).parent.parent / "assets" / "examples"
    picture = next(iter(sorted(picture.glob("*.png"))))
    studio.encode("a", before, picture, 56)
    assert studio.encoder("dog") is before
    os.utime(model / "model.safetensors", ns=(1, 1))
    after = studio.encoder("dog")
    assert after is not before and not studio._seen.keys()


def test_flags():
    given = parser().parse_args(["--model", "a", "--model", "b", "--memory", "6GB", "--no-training"])
    assert (given.model, given.memory, given.training, given.runs) == (["a", "b"], 6_000_000_000, False, "runs")
    assert parser().parse_args([]).training is None
    assert [num_bytes(text) for text in ("800MB", "1.5 gb", "2GiB", "1e9")] == [
        800_000_000,
        15 * 10**8,
        2 * 10**9,
        10**9,
    ]
    for text in ("x", "-1GB", "0", "1.2.3GB", "", "1e999"):
        with pytest.raises(ArgumentTypeError, match="6GB"):
            num_bytes(text)


def test_what_is_no_name_is_one_sentence(runs, finish):
    finish("dog")
    studio = Studio(NANO, runs=runs)
    for name in ("dog@²", "dog@", "@1", picker(studio, "A").preprocess(5), picker(studio, "A").preprocess(["dog"])):
        with pytest.raises(ModelError, match="not on offer here"):
            studio.info(name)


def test_several_models_open_in_their_order(tiny_folder):
    studio = Studio([str(tiny_folder), NANO, str(tiny_folder)])
    assert studio.first == "tiny" and studio.opening == ("tiny", NANO)


def test_a_released_encoder_goes_by_its_hub_id_too(tiny_folder):
    studio = Studio([str(tiny_folder)])
    assert studio.info("google/tipsv2-b14") == studio.info("tipsv2-b14")
    with pytest.raises(ModelError, match="not on offer"):
        studio.info("google/tiny2")


class TestInABrowser:
    """Two open pages and a tab that stands for Train: it finishes runs and hands them over."""

    @pytest.fixture
    def url(self, serving, finish, runs, tiny_folder, monkeypatch):
        def tab(page):
            names = gr.State(None)
            for label, given in (("Compare them", ["dog", NANO]), ("Ask it", ["dog"]), ("Nothing", [])):
                event = gr.Button(label).click(lambda given=given: given, None, names)
                page.open_in(event, "inside" if label == "Ask it" else "compare", names)
            done = gr.Button("Finish").click(lambda: [page.studio.add(finish("dog")), None][1], None, None)
            page.refresh(done)

        stand_in = types.ModuleType("demos.stand_in")
        stand_in.TITLE, stand_in.tab = "Runs", tab
        monkeypatch.setitem(sys.modules, "demos.stand_in", types.ModuleType("demos.stand_in"))
        monkeypatch.setitem(sys.modules, "demos.stand_in.tab", stand_in)
        yield from serving(["stand_in", "inside", "compare"], tiny_folder)

    def test_a_run_reaches_every_menu_and_opens_where_it_is_wanted(self, visit):
        expect = pytest.importorskip("playwright.sync_api").expect
        page, other = visit(), visit()
        page.get_by_role("button", name="Nothing").click()
        page.get_by_role("button", name="Finish").click()
        for each in (page, other):  # the other page asks when its menu is opened
            each.locator(".tips-model input").click()
            expect(each.get_by_role("option", name="dog · ")).to_be_visible()
            each.locator(".tips-head h1").click()
        expect(page.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")
        page.get_by_role("button", name="Compare them").click()
        expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")
        for side, name in (("a", "dog"), ("b", "nano")):
            expect(page.locator(f".tips-side-{side} input").first).to_have_value(re.compile(name))
        expect(page.locator(".tips-status b")).to_have_text("tiny")
        page.get_by_role("tab", name="Runs").click()
        page.get_by_role("button", name="Ask it").click()
        expect(page.get_by_role("tab", name="Inside")).to_have_attribute("aria-selected", "true")
        expect(page.locator(".tips-status b")).to_have_text("dog")
        expect(page.locator(".tips-model input")).to_have_value(re.compile("dog"))


def test_a_run_that_vanishes_under_the_look_hides_no_other(runs, finish, monkeypatch):
    finish("dog")
    finish("cat")

    def gone(place):
        if Path(place).parent.name == "cat":
            raise ModelError("it is gone")
        return find(place)

    monkeypatch.setattr("demos.backend.offer.find", gone)
    assert "dog" in (names := [info.name for info in Studio(runs=runs).offer.infos()]) and "cat" not in names
