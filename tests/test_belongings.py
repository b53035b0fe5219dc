"""What a visitor leaves behind: whose files they are, when they go, and what Gradio keeps of a page.

python -m pytest tests/test_belongings.py
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from caller import Visitor
from PIL import Image

from demos.backend import belongings
from demos.export.files import Taken
from demos.ui import controls, export_row

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Gradio's folder, empty."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    return tmp_path / "files"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def uploaded(folder, name="dog.png", colour="red"):
    """An upload as Gradio stores it: in a folder called after its content."""
    path = folder / colour / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path)
    return path


def wait(until, seconds=20):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_what_two_visitors_made_lies_apart_and_goes_with_each(folder):
    path = uploaded(folder)
    copies = {who: controls.accept_upload({"path": str(path)}, Visitor(who))[0] for who in "ab"}
    assert copies["a"] != copies["b"] and "dog" in copies["a"] and path.exists()
    made = export_row.export(Taken("x", {"p": np.zeros((2, 2, 3), np.uint8)}, {}, {}), "png", "a")
    belongings.clear("a")
    assert not Path(copies["a"]).exists() and not made.exists()
    assert Path(copies["b"]).exists() and path.exists()  # the other one has uploaded it, too
    belongings.clear("b")
    assert files(folder) == []


def test_a_file_that_came_again_stays_for_the_question_in_the_queue(folder):
    path = uploaded(folder)
    belongings.received([path], "1.2.3.4")
    belongings.claim("first", path)
    belongings.received([path], "1.2.3.4")  # the same content from a second session, which has not been served yet
    belongings.clear("first")
    assert belongings.own(str(path), "second", "1.2.3.4") == path.resolve()
    belongings.claim("second", path)
    belongings.clear("second")
    assert not path.exists()


def test_only_uploads_can_be_claimed(folder, tmp_path):
    mine = tmp_path / "own.png"
    Image.new("RGB", (4, 4)).save(mine)
    deep = folder / "visitors" / "somebody" / "copy.png"
    deep.parent.mkdir(parents=True)
    deep.touch()
    elsewhere = tmp_path / "system" / "hosts"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    for path in (mine, deep, folder, elsewhere, folder / ".." / "own.png"):
        belongings.claim("a", path)
    belongings.clear("a")
    assert mine.exists() and deep.exists() and elsewhere.exists()


def test_a_wrong_claim_costs_nothing_outside_and_no_neighbour(folder, tmp_path):
    """Even if `claim` let everything in: what is deleted is looked at again, one file at a time."""
    elsewhere, upload = tmp_path / "system" / "hosts", uploaded(folder)
    elsewhere.parent.mkdir()
    elsewhere.touch()
    (upload.parent / "neighbour").touch()
    belongings._claims["a"] = dict.fromkeys((elsewhere, upload), 0.0)
    belongings.clear("a")
    assert elsewhere.exists() and (upload.parent / "neighbour").exists() and not upload.exists()


def test_examples_are_everybodys(folder):
    path = controls.keep(next((ROOT / "assets" / "examples").glob("*.png")))
    belongings.claim("a", path)  # as it is with every image that an encoder sees
    belongings.clear("a")
    assert Path(path).exists()


def test_an_example_is_written_once_and_stays_young(folder):
    example = next((ROOT / "assets" / "examples").glob("*.png"))
    path = Path(controls.keep(example))
    path.write_bytes(b"marked")
    before = path.stat().st_ctime
    time.sleep(0.05)
    assert controls.keep(example) == str(path)
    assert path.read_bytes() == b"marked" and path.stat().st_ctime > before


def test_an_example_that_many_click_at_once_is_whole(folder):
    example = next((ROOT / "assets" / "examples").glob("*.png"))
    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(controls.keep, [example] * 8))
    with Image.open(path) as image:
        image.load()
    assert files(folder) == [Path(path)]


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_an_app_takes_its_files_with_it(asked, tmp_path):
    code = (
        "import os, signal, time; from pathlib import Path; from demos.launch import own_folder\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "own_folder()\n"
        "place = Path(os.environ['GRADIO_TEMP_DIR']); (place / 'a').mkdir(); (place / 'a' / 'b').touch()\n"
        "print(place, flush=True); time.sleep(60)"
    )
    own = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"} | {"TMPDIR": str(tmp_path)}
    apps = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=own, stdout=-1, stderr=-3) for _ in range(2)]
    places = [Path(app.stdout.readline().decode().strip()) for app in apps]
    assert places[0] != places[1] and all((place / "a" / "b").exists() for place in places)
    apps[0].send_signal(asked)
    apps[0].wait(20)
    assert not places[0].exists() and places[1].exists()
    apps[1].send_signal(asked)
    apps[1].wait(20)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_given_stays(folder, monkeypatch):
    from demos.launch import own_folder

    own_folder()
    assert os.environ["GRADIO_TEMP_DIR"] == str(folder)


class TestWithAPage:
    @pytest.fixture
    def url(self, serving, tiny_folder, folder, monkeypatch):
        monkeypatch.setattr(belongings, "AWAY", 2)
        folder.mkdir()
        yield from serving(["inside"], tiny_folder)

    def test_a_visitor_who_leaves_takes_files_and_session_along(self, visit, folder, tmp_path, monkeypatch):
        expect = pytest.importorskip("playwright.sync_api").expect
        left, depart = [], belongings.depart
        monkeypatch.setattr(belongings, "depart", lambda *given, **rest: (left.append(given), depart(*given, **rest)))
        first, second = visit(), visit()
        for page, colour in ((first, "red"), (second, "blue")):
            page.get_by_label("Remove Image").locator("visible=true").click()
            page.locator(".tips-image:visible input[type=file]").set_input_files(uploaded(tmp_path, colour=colour))
            expect(page.locator(".tips-inside")).to_be_visible()
        rooms = folder / "visitors"
        wait(lambda: len(list(rooms.iterdir())) == 2)
        wait(lambda: len([path for path in files(folder) if path.name == "dog.png"]) == 4)
        first.context.close()
        wait(lambda: len(list(rooms.iterdir())) == 1, seconds=60)
        ((blocks, who),) = left
        wait(lambda: len(blocks.state_holder.session_data) == 1)
        assert who not in blocks.state_holder.session_data
        assert len([path for path in files(folder) if path.name == "dog.png"]) == 2
        second.get_by_text("Clusters", exact=True).click()  # has all it needs
        expect(second.locator(".tips-inside.clusters")).to_be_visible()
