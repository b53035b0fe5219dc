"""The Train tab: what the page shows of a run, and one in a browser that starts from a zip and outlives its app.

python -m pytest tests/test_train_tab.py
"""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextvars import copy_context
from html import unescape
from pathlib import Path

import gradio as gr
import numpy as np
import psutil
import pytest
from PIL import Image
from run_folders import logged, pack, pairs, run_folder, shapes_zip, short, wait
from visiting import NEAR

from demos.backend import asking
from demos.backend.asking import REQUESTER
from demos.backend.owners import MACHINE
from demos.backend.settings import Settings
from demos.backend.studio import Studio
from demos.backend.turns import Gone
from demos.train import charts as train_charts
from demos.train import check as train_check
from demos.train import state as train_state
from demos.train import views as train_views
from demos.train.form import RunRequest
from demos.train.process import Jobs
from demos.train.tab import PARTS, TrainHandlers
from train.recipe.overrides import override

KEY = "0123456789abcdef"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def zipped(tmp_path):
    return shapes_zip(tmp_path)


@pytest.fixture
def tab(tiny_folder, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    return TrainHandlers(Studio(str(tiny_folder), device="cpu", runs=runs), Settings(runs=runs))


def test_curves_are_what_was_logged(tmp_path):
    lines = [*logged(400), {"step": 400, "miou_final": 0.25, "miou_values": 0.5}]
    run_folder(tmp_path, "a", short(400), lines)
    page = train_charts.curves(train_state.look(tmp_path, "a"))
    losses, rate, alignment = (json.loads(unescape(each)) for each in re.findall(r'data-plan="([^"]*)"', page))
    assert [name for name, *_ in losses["curves"]] == ["contrastive web", "chance"]
    _, steps, values = losses["curves"][0]
    assert steps[:3] == [3, 6, 9] and steps[-1] == 400 and len(steps) == 134
    np.testing.assert_allclose(values[0], np.mean([2, 1, 2 / 3]), rtol=1e-3)
    assert losses["curves"][1][2][0] == 1.5 and rate["curves"][0][2][-1] == 1e-4
    assert alignment["curves"] == [["final", [400], [0.25]], ["values", [400], [0.5]]]
    x, y = map(float, re.search(r'class="chance" points="([\d.]+),([\d.]+)', page).groups())
    top = max(values + [1.5]) * 1.05
    assert y == pytest.approx(train_charts.BOTTOM - 1.5 / top * (train_charts.BOTTOM - train_charts.TOP), abs=0.1)
    assert x == pytest.approx(train_charts.LEFT + 3 / 400 * (train_charts.RIGHT - train_charts.LEFT), abs=0.1)
    assert train_charts.curves(train_state.Look("a", "starting")) == ""


def test_the_film_is_cut_from_the_samples(tmp_path):
    folder = run_folder(tmp_path, "a", short(), logged(4))
    (folder / "samples").mkdir()
    rng = np.random.default_rng(0)
    for step in range(1, 21):
        tiles = np.repeat(np.repeat(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), 16, axis=0), 16, axis=1)
        tiles[16:32, :16] = (step, 0, 0)
        Image.fromarray(tiles).save(folder / "samples" / f"step-{step:07d}.png")
    words = [["a"], ["<b>", "b"], [], []]
    (folder / "samples" / "queries.json").write_text(json.dumps(words))
    page = train_views.film(train_state.look(tmp_path, "a"), 1)
    steps = [int(each) for each in re.findall(r"<li><span>(\d+)<", page)]
    assert steps[0] == 1 and steps[-1] == 20 and len(steps) == train_views.ROWS == len(set(steps))
    assert ">&lt;b&gt;</b>" in page and ">b</b>" in page and "<b><b>" not in page
    codes = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    for step, code in zip(steps, codes, strict=True):
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        assert strip.shape == (train_views.TILE, 5 * train_views.TILE, 3)
        assert tuple(strip[50, 50]) == (step, 0, 0)


@pytest.mark.parametrize("data, kind", [("scenes", "Scene"), ("photos", "Image")])
def test_the_film_says_what_it_shows(tmp_path, tab, data, kind):
    """As train/run/monitor.py writes it: fewer images than four, and each row of squares under a row of titles."""
    recipe = override(short(), [f"data.source={data}", "tuning.base=tiny"])
    scored = [{"step": 0, "miou_values": 0.5}, *logged(4), {"step": 4, "miou_values": 0.25}]
    folder = run_folder(tab.jobs.folder, "a", recipe, scored)
    (folder / "samples").mkdir()
    sheet = np.full((2 * 26, 80, 3), 255, np.uint8)  # two rows: ten pixels of titles above squares of sixteen
    sheet[10:26], sheet[36:52] = (10, 0, 0), (20, 0, 0)
    Image.fromarray(sheet).save(folder / "samples" / "step-0000000.png")
    (folder / "samples" / "queries.json").write_text(json.dumps([["a mug"], ["a spoon", "a fork"]]))
    look = train_state.look(tab.jobs.folder, "a")
    for row, words in ((0, ["a mug"]), (1, ["a spoon", "a fork"])):
        page = train_views.film(look, row)
        assert re.findall("<b [^>]*>([^<]*)</b>", page) == ["image", *words]
        assert ("an image it learns from" in page) == (data == "photos") != ("a drawn scene no run" in page)
        code = re.search(r'src="data:image/png;base64,([^"]*)"', page)[1]
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        assert (strip == (10 * (row + 1), 0, 0)).all()
    seen = dict(zip(PARTS, tab.watch(NEAR, "a", 3, None, True, KEY), strict=True))  # the run looked at before had four
    assert seen["scene"]["choices"] == [(f"{kind} 1", 0), (f"{kind} 2", 1)] and seen["scene"]["value"] == 1
    assert "a fork" in seen["film"]
    assert ("what is forgotten" in seen["curves"]) == (data == "photos")
    assert "mIoU on scenes</dt><dd>0.500 → 0.250" in seen["head"]


@pytest.mark.parametrize(
    "last, note",
    [
        ("step 4: patch-text mIoU on drawn scenes final 0.1, values 0.2", "ended without a word"),
        ("step 4, the last: loss 0.750", "ended without a word"),
        ("2 images could not be used: a.png: it is empty.", "ended without a word"),
        ("photos is no folder.", "photos is no folder."),
    ],
)
def test_what_every_run_says_is_no_reason_of_its_end(tmp_path, last, note):
    run_folder(tmp_path, "a", short(), logged(4), log=f"finetune\n{last}\n")
    look = train_state.look(tmp_path, "a")
    assert look.state == "failed" and note in look.note


def test_what_came_from_outside_is_escaped(tmp_path):
    log = "<script>alert(1)</script> is no folder"
    run_folder(tmp_path, "a", log=log)
    look = train_state.look(tmp_path, "a")
    bad = "<img src=x>"
    found = train_check.Checked(bad, 2, 1, ((bad, bad),), (bad,), bad, None, 0)
    page = train_views.head(look) + train_views.log(look) + train_views.checked(found) + train_views.command([bad])
    assert "<script" not in page and "<img" not in page and page.count("&lt;img") == 5


def test_a_page_is_sent_only_what_has_changed(tab):
    folder = run_folder(tab.jobs.folder, "a", short(), logged(2))
    watch = lambda seen, name="a": dict(zip(PARTS, tab.watch(NEAR, name, 0, seen, True, KEY), strict=True))  # noqa: E731
    first = watch(None)
    assert "step 2 of 4" in re.sub("<[^>]*>", " ", first["head"]).replace("  ", " ").replace("step  2", "step 2")
    assert first["resume"]["visible"] and not first["stop"]["visible"] and not first["timer"].active
    assert set(map(str, watch(first["seen"]).values())) == {str(gr.skip())}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(logged(3)[-1]) + "\n")
    os.utime(folder / "metrics.jsonl", (1, 1))
    more = watch(first["seen"])
    changed = {name for name, value in more.items() if str(value) != str(gr.skip())}
    assert changed == {"head", "curves", "timer", "seen"}
    shutil.rmtree(folder)
    gone = watch(more["seen"])
    assert 'data-state="unknown"' in gone["head"] and "was deleted" in gone["head"] and gone["runs"]["choices"] == ["a"]
    assert "No run yet" in watch(None, None)["head"]


@pytest.mark.slow
def test_check_counts_what_can_be_used(tab, zipped, tmp_path):
    files = pairs(4) | {"broken.png": b"no picture", "broken.txt": "broken"}
    found = tab.trainer.check(RunRequest("", None, data="zip"), pack(tmp_path / "mixed.zip", files), MACHINE)
    assert (found.rows, found.usable) == (5, 4) and found.picture.width > 600
    assert len(found.problems) == 1 and "broken.png" in found.problems[0]
    assert "mixed.zip: 1 of 5 rows cannot be used" in found.refusal and "tmp" not in str(found)
    assert dict(found.facts)["web"].startswith("5 captions")
    with pytest.raises(ValueError, match="nothing to check"):
        tab.trainer.check(RunRequest("", None, data="scenes"), None, MACHINE)


def test_a_check_ends_after_its_time_and_when_nobody_waits(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    sleeper = "import os, time\nopen('part', 'w').write(str(os.getpid()))\nos.replace('part', 'id')\ntime.sleep(300)"
    (tmp_path / "train" / "__main__.py").write_text(sleeper)
    monkeypatch.setattr(train_check, "ROOT", tmp_path)
    number = tmp_path / "id"

    def check(waits):
        REQUESTER.set(asking.Requester("a", "", waits))
        return train_check.check("photos", [], "photos", 10)

    with pytest.raises(Gone):
        copy_context().run(check, lambda: not number.exists())
    assert not psutil.pid_exists(int(number.read_text()))
    monkeypatch.setattr(train_check, "SECONDS", 0)
    with pytest.raises(ValueError, match="photos was not gone through"):
        copy_context().run(check, lambda: True)
    assert not psutil.pid_exists(int(number.read_text()))


# In a browser


class TestInABrowser:
    @pytest.fixture(scope="class")
    def runs(self, tmp_path_factory):
        return tmp_path_factory.mktemp("runs")

    @pytest.fixture(scope="class")
    def url(self, serving, tiny_folder, runs):
        yield from serving(["train"], tiny_folder, Settings(runs=runs))

    @pytest.fixture
    def expect(self):
        return pytest.importorskip("playwright.sync_api").expect

    def test_a_phone_a_bad_zip_and_a_run_that_is_deleted(self, visit, expect, runs, tmp_path):
        run_folder(runs, "mine", short(), logged(3), log="stopped after step 3; go on with --resume.")
        page = visit(width=400)
        expect(page.locator(".tips-run")).to_contain_text("3 of 4")
        expect(page.locator(".tips-curves figure")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.get_by_text("Zip", exact=True).click()
        bad = tmp_path / "bad.zip"
        bad.write_bytes(b"no zip")
        page.locator("input[type=file]").set_input_files(bad)
        expect(page.locator(".toast-body")).to_contain_text("damaged or no zip file")
        page.get_by_label("Steps").fill("0")
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".toast-body").last).to_contain_text("Upload a zip")
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete for good").click()
        expect(page.locator(".tips-empty")).to_contain_text("No run yet")
        assert not (runs / "mine").exists()

    def test_pictures_kept_apart_have_a_chart_and_a_word(self, visit, expect, runs):
        lines = logged(3)
        for line, (learned, held) in zip(lines, ((0.1, 0.1), (0.6, 0.2), (1.0, 0.2)), strict=True):
            line |= {"recall_learned": learned, "recall_held_out": held}
        folder = run_folder(runs, "split", short(), lines, log="stopped after step 3; go on with --resume.")
        page = visit()
        retrieval = page.locator(".tips-curves figure", has_text="Retrieval")
        for curve in ("learned from", "kept apart"):
            expect(retrieval).to_contain_text(curve)
        expect(page.locator(".tips-run")).to_contain_text("by heart: of those it learns from, 100 %")
        shutil.rmtree(folder)

    def test_a_client_of_the_api(self, url, runs):
        from gradio_client import Client

        run_folder(runs, "api", short(), logged(4), done=True)
        client = Client(url, verbose=False)
        told = client.predict(name="api", api_name="/run_status")
        assert (told["state"], told["step"], told["last"]["loss"]) == ("done", 4, 0.75)
        for endpoint, given, match in (
            ("/stop_run", dict(name="api"), "is not running"),
            ("/run_status", dict(name="../etc"), "cannot be called"),
            ("/start_run", dict(name="new", steps=10**9), "must lie between"),
            ("/resume_run", dict(name="api"), "nothing left to resume"),
            ("/delete_run", dict(name="nowhere"), "no run"),
        ):
            with pytest.raises(Exception, match=match):
                client.predict(**given, api_name=endpoint)
        assert "api" in client.predict(api_name="/list_runs")
        assert "api" not in client.predict(name="api", api_name="/delete_run") and not (runs / "api").exists()


def test_where_training_is_off_the_page_gives_the_command(serving, tiny_folder, browser):
    expect = pytest.importorskip("playwright.sync_api").expect
    served = serving(["train"], tiny_folder, Settings(training=False))
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.goto(next(served))
    expect(page.locator(".tips-instead")).to_contain_text("switched off", timeout=180_000)
    page.get_by_label("Steps").fill("33")
    page.get_by_label("Steps").press("Tab")
    expect(page.locator(".tips-command code")).to_contain_text("stages.0.steps=33", timeout=180_000)
    expect(page.get_by_role("button", name="Start")).to_have_count(0)
    context.close()
    next(served, None)


def serve_apart(tiny_folder, runs, port):
    """The app as a process of its own, which can be killed."""
    code = "from demos.launch import run; run(['train', 'compare', 'ask'])"
    given = ["--model", str(tiny_folder), "--runs", str(runs), "--port", str(port), "--device", "cpu"]
    app = subprocess.Popen([sys.executable, "-c", code, *given], cwd=ROOT, start_new_session=True)

    def up():
        assert app.poll() is None, "the app ended"
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", port)) == 0

    wait(up, 120)
    return app


def test_a_run_from_a_zip_outlives_its_app_and_opens_in_compare(browser, tiny_folder, zipped, tmp_path):
    """Started in a browser; the app is killed in the middle and started again, finds the run; it ends and opens."""
    expect = pytest.importorskip("playwright.sync_api").expect
    runs, samples = tmp_path / "runs", tmp_path / "runs" / "shapes-1" / "samples"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = serve_apart(tiny_folder, runs, port)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(120_000)
        expect.set_options(timeout=120_000)
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.locator(".tips-status[data-state=ready]")).to_be_visible()
        page.get_by_text("Zip", exact=True).click()
        page.locator("input[type=file]").first.set_input_files(zipped)
        expect(page.get_by_text("12 images")).to_contain_text("The batch is now 12")
        expect(page.get_by_text("Patches too", exact=True)).to_be_visible()  # without opening More
        page.get_by_label("Steps").fill("60")
        page.get_by_label("Name").fill("shapes-1")
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".tips-run[data-state=running]")).to_contain_text("of 60")
        expect(page.locator(".tips-curves figure").first).to_contain_text("contrastive web")
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        left = train_state.look(runs, "shapes-1")
        assert left.going, "it ended before the app was killed: give it more steps"
        page.close()
        app = serve_apart(tiny_folder, runs, port)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.locator(".tips-run")).to_contain_text("shapes-1")
        expect(page.locator(".tips-run[data-state=done]")).to_contain_text("60 of 60")
        expect(page.locator(".tips-film li").first).to_be_visible()
        page.get_by_role("button", name="Open in Compare").click()
        expect(page.locator(".tips-compare .key .a")).to_contain_text("tiny")
        expect(page.locator(".tips-compare .key .b")).to_contain_text("shapes-1")
        asked, own = json.loads((samples / "queries.json").read_text())[0], Image.open(samples / "image-0.png")
        expect(page.locator(".tips-queries:visible .token")).to_have_text(asked)
        image = page.locator(".tips-image:visible .image-frame img")
        assert image.evaluate("i => [i.naturalWidth, i.naturalHeight]") == list(own.size)
        page.get_by_role("tab", name="Train").click()
        page.get_by_role("button", name="Open in Ask").click()
        expect(page.locator(".tips-status[data-state=ready]")).to_contain_text("shapes-1")
    finally:
        context.close()
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        if process := train_state.process(runs / "shapes-1"):
            process.kill()
    from tipsv2.network.encoder import load

    made, base = load(runs / "shapes-1", device="cpu"), load(tiny_folder, device="cpu")
    words = ["a red circle"]
    assert not np.allclose(made.encode_text(words).float().numpy(), base.encode_text(words).float().numpy(), atol=1e-3)
    Jobs(runs).delete("shapes-1", MACHINE)
    assert not (runs / "shapes-1").exists()
