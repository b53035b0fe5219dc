"""How an encoder comes to the page: downloads that are watched, shared and cancelled, and the handlers around them.
The Hub is a server on this machine that sends what it has, slowly where a test asks for it.

python -m pytest tests/test_loading.py
"""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import httpx2
import huggingface_hub
import pytest
from caller import Visitor
from huggingface_hub import constants

from demos.backend.studio import Studio
from demos.ui.loading import Loading, status_html
from tipsv2.checkpoints import download
from tipsv2.checkpoints.bundled import NANO
from tipsv2.checkpoints.catalogue import ModelError, find, is_cached

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_abcdefghijklmnop"
BUSY = 300.0  # seconds


class Hub:
    """An HTTP server with google/tipsv2-b14: the files of a folder. `gate`: bodies of weights stop half-way until it
    is set; `broken`: they end there.
    """

    def __init__(self, folder: Path):
        hub = self
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.gate, self.broken, self.sent = threading.Event(), False, []
        self.gate.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                repo = "/google/tipsv2-b14"
                if self.path.startswith(f"/api/models{repo}/tree/"):
                    tree = [
                        {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                        for name, data in hub.files.items()
                    ]
                    return self.send(json.dumps(tree).encode())
                if self.path.startswith(f"/api/models{repo}"):
                    return self.send(json.dumps({"_id": "0", "id": repo[1:], "sha": SHA, "siblings": []}).encode())
                name = Path(self.path.split("?")[0]).name
                if name not in hub.files:
                    return self.send(b"", 404)
                data = hub.files[name]
                self.send_response(200)
                self.send_header("ETag", f'"{name}"')
                self.send_header("X-Repo-Commit", SHA)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    half = len(data) // 2 if name == "model.safetensors" else len(data)
                    hub.sent.append(name)
                    self.wfile.write(data[:half])
                    self.wfile.flush()
                    hub.gate.wait(2 * BUSY)
                    if hub.broken and half < len(data):
                        self.close_connection = True
                        return self.connection.shutdown(2)
                    self.wfile.write(data[half:])

            def send(self, data, status=200):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *given: None  # a client that hangs up is what is tested
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(tiny_folder, tmp_path, monkeypatch):
    """The server, in the Hub's place for this process, with an empty cache."""
    served = Hub(tiny_folder)

    def here(request):
        """Ask the server on this machine, whatever host of the Hub is meant."""
        request.url = httpx2.URL(served.address + request.url.raw_path.decode())
        request.headers["Host"] = request.url.netloc.decode()
        # on a busy machine this server takes longer to answer than a person is kept waiting for the Hub
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), BUSY)

    monkeypatch.setattr(download, "REACH_SECONDS", BUSY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 5000)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.set_client_factory(lambda: httpx2.Client(event_hooks={"request": [here]}))
    yield served
    served.gate.set()
    huggingface_hub.set_client_factory(lambda: httpx2.Client())
    served.server.shutdown()


def until(condition, seconds=BUSY):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_bytes_are_told_as_they_come(hub, tiny_folder):
    hub.gate.clear()
    steps = Studio(str(tiny_folder), device="cpu").fetch("tipsv2-b14", "a")
    weights = len(hub.files["model.safetensors"])
    until(lambda: next(steps)[0] >= weights // 2)
    for _ in range(2):
        done, total = next(steps)
        assert weights // 2 <= done <= sum(map(len, hub.files.values())) - weights // 2 and total == 780e6
    hub.gate.set()
    list(steps)
    assert is_cached(find("tipsv2-b14"))


def test_the_line_follows_a_download_and_the_encoder_loads(hub, tiny_folder):
    hub.gate.clear()
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    watched = 0
    for line, cancel, wanted, failed in loading.fetch("tipsv2-b14", request=Visitor()):
        if "<progress" in line:
            watched += 1
            assert cancel["visible"] and "of 780 MB" in line and wanted == failed == gr.skip()
            hub.gate.set()
    assert watched and not cancel["visible"] and wanted == "tipsv2-b14" and failed is None
    assert loading.load(wanted, "tiny") == ("tipsv2-b14", "tipsv2-b14", None)
    assert "<b>TIPSv2 B/14</b>" in loading.status("tipsv2-b14") and is_cached(find("tipsv2-b14"))


def test_a_cancelled_download_leaves_nothing_half_loaded(hub, tiny_folder):
    hub.gate.clear()
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    steps = loading.fetch("tipsv2-b14", request=Visitor())
    until(lambda: "of 780 MB" in next(steps)[0])
    loading.cancel(Visitor("b"))  # somebody else's button
    assert next(steps)[1]["visible"]
    loading.cancel(Visitor())
    with pytest.warns(UserWarning, match="was cancelled"):
        *_, (line, cancel, wanted, failed) = steps
    assert not cancel["visible"] and wanted is None and "cancelled" in failed
    assert loading.load(None, "tiny", failed)[:2] == ("tiny", "tiny")
    assert not is_cached(find("tipsv2-b14")) and loading.studio.shelf.loaded("tipsv2-b14") is None
    job = loading.studio.downloads._jobs["tipsv2-b14"]
    hub.gate.set()
    until(lambda: not job.is_alive())
    assert job.error is None and not is_cached(find("tipsv2-b14"))
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    *_, (_, _, wanted, _) = loading.fetch("tipsv2-b14", request=Visitor())
    assert wanted == "tipsv2-b14" and is_cached(find(wanted))


@pytest.mark.slow
def test_the_last_choice_of_a_menu_wins_however_long_the_one_before_it_takes(hub, tiny_folder):
    hub.gate.clear()
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    first = loading.fetch("tipsv2-b14", "1", Visitor())
    beside = loading.fetch("tipsv2-b14", "2", Visitor())  # another menu of the page
    elsewhere = loading.fetch("tipsv2-b14", "1", Visitor("b"))
    until(lambda: all("of 780 MB" in next(each)[0] for each in (first, beside, elsewhere)))
    *_, (_, _, wanted, failed) = loading.fetch(NANO, "1", Visitor())
    assert (wanted, failed) == (NANO, None) and loading.load(wanted, "tiny")[1] == NANO
    # no toast, nothing to load, no word in the line; the button stays for the download beside it
    assert list(first) == [(gr.skip(), gr.update(visible=True), gr.skip(), gr.skip())]
    assert loading.load(None, NANO, None) == (gr.skip(), gr.skip(), None)
    assert loading.status(NANO, None, None) == gr.skip()
    hub.gate.set()
    for still in (beside, elsewhere):
        *_, (_, _, wanted, failed) = still
        assert (wanted, failed) == ("tipsv2-b14", None)
    loading.forget("a"), loading.forget("b")
    assert not loading._last


def test_two_visitors_share_a_download_and_one_may_leave(hub, tiny_folder):
    hub.gate.clear()
    studio = Studio(str(tiny_folder), device="cpu")
    first, second = studio.fetch("tipsv2-b14", "a"), studio.fetch("tipsv2-b14", "b")
    next(first), next(second)
    until(lambda: next(second)[0] > 0)
    studio.forget("a")  # closes the page
    with pytest.raises(ModelError, match="cancelled"):
        list(first)
    hub.gate.set()
    list(second)
    assert is_cached(find("tipsv2-b14"))
    assert hub.sent.count("model.safetensors") == 1


def test_a_download_that_was_cancelled_and_stalls_is_taken_up_again(hub, tiny_folder):
    hub.gate.clear()
    studio = Studio(str(tiny_folder), device="cpu")
    steps = studio.fetch("tipsv2-b14", "a")
    until(lambda: next(steps)[0] > 0)
    studio.downloads.cancel("a")
    with pytest.raises(ModelError, match="cancelled"):
        list(steps)
    again = studio.fetch("tipsv2-b14", "a")
    assert next(again)[0] > 0  # at once, although the Hub sends nothing
    hub.gate.set()
    list(again)
    assert is_cached(find("tipsv2-b14")) and hub.sent.count("model.safetensors") == 1


def test_a_visitor_who_leaves_ends_every_download(hub, tiny_folder):
    hub.gate.clear()
    studio = Studio(str(tiny_folder), device="cpu")
    both = [studio.fetch(name, "a") for name in ("tipsv2-b14", "tipsv2-l14")]  # two menus of one page
    for each in both:
        next(each)
    studio.forget("a")
    for each in both:
        with pytest.raises(ModelError, match="cancelled"):
            until(lambda each=each: next(each) is None)
    assert not studio.downloads._stops
    hub.gate.set()
    until(lambda: not any(job.is_alive() for job in studio.downloads._jobs.values()))


@pytest.mark.slow
def test_a_download_that_breaks_off_is_one_sentence_without_the_token(hub, tiny_folder, monkeypatch, capfd):
    monkeypatch.setattr(time, "sleep", lambda seconds, real=time.sleep: real(min(seconds, 0.01)))  # between retries
    hub.broken = True
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    with pytest.warns(UserWarning, match="stopped") as caught:
        *_, (_, cancel, wanted, failed) = loading.fetch("tipsv2-b14", request=Visitor())
    assert wanted is None and not cancel["visible"] and failed.endswith(".") and "\n" not in failed
    assert loading.load(None, "tiny", failed)[1] == "tiny"
    assert loading.status("tiny", failed).count("tiny") == 1
    told = failed + "".join(str(each.message) for each in caught) + "".join(capfd.readouterr())
    assert TOKEN not in told


def test_a_token_in_what_the_hub_says_is_not_passed_on(hub, tiny_folder, monkeypatch):
    def forbidden(*given, **rest):
        raise OSError(f"403 Forbidden: authorization Bearer {TOKEN}\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", forbidden)
    with pytest.raises(ModelError, match=r"stopped \(403 Forbidden: authorization Bearer hf_…\)") as error:
        list(Studio(str(tiny_folder), device="cpu").fetch("tipsv2-b14", "a"))
    assert TOKEN not in str(error.value)


def test_only_the_menu_downloads(hub, tiny_folder):
    studio = Studio(str(tiny_folder), device="cpu")
    with pytest.raises(ModelError, match=r"TIPSv2 B/14 is not on this machine yet \(780 MB\): choose it"):
        studio.encoder("tipsv2-b14")
    assert hub.sent == []


def test_programs_list_and_load(hub, tiny_folder):
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    before = {each["name"]: each for each in loading.models()}
    assert before["tipsv2-b14"]["where"] == "downloads 780 MB" and before[NANO]["where"] == "bundled"
    assert loading.get("tipsv2-b14", Visitor())["device"] == "cpu"
    after = {each["name"]: each for each in loading.models()}
    assert (after["tipsv2-b14"]["where"], after["tipsv2-b14"]["loaded"]) == ("on this machine", True)
    with pytest.raises(gr.Error, match="not on offer"):
        loading.get("/etc", Visitor())


def test_a_model_that_cannot_be_loaded_leaves_the_one_before(tiny_folder, monkeypatch):
    loading = Loading(Studio(str(tiny_folder), device="cpu"))
    assert loading.load("tiny", None) == ("tiny", "tiny", None)

    def damaged(*args, **kwargs):
        raise ModelError("The model in 'x' cannot be read: get it again.")

    monkeypatch.setattr("tipsv2.network.encoder.load", damaged)
    with pytest.warns(UserWarning, match="cannot be read"):
        menu, model, failed = loading.load(NANO, "tiny")
    assert (menu, model) == ("tiny", "tiny") and "<b>tiny</b>" in loading.status(model, failed)


def test_a_first_model_that_cannot_be_loaded_is_said_in_the_line(tmp_path):
    with pytest.raises(ModelError):
        Studio(str(tmp_path / "nothing"))
    loading = Loading(Studio(str(tmp_path)))
    with pytest.warns(UserWarning, match=r"config\.json"):
        _, model, failed = loading.load(loading.studio.first, None)
    line = loading.status(model, failed)
    assert model is None and 'data-state="failed"' in line and "config.json" in line


def test_the_line_names_size_resolution_device_and_dtype(tiny_folder):
    studio = Studio(str(tiny_folder), device="cpu")
    encoder = studio.encoder()
    line = re.sub(r"<[^>]+>", "|", status_html(studio, studio.first))
    for fact in (encoder.info.title, "trained at 56 px", "cpu", str(encoder.dtype).removeprefix("torch.")):
        assert fact in line


def test_a_menu_says_size_resolution_and_where(tiny_folder, monkeypatch):
    monkeypatch.setattr("demos.backend.studio.is_cached", lambda info: info.name == "tipsv2-l14")
    labels = {name: label for label, name in Studio(str(tiny_folder), device="cpu").choices()}
    assert labels["tipsv2-b14"] == "TIPSv2 B/14 · 86M+110M · 448 px · downloads 780 MB"
    assert labels["tipsv2-l14"] == "TIPSv2 L/14 · 303M+184M · 448 px · on this machine"
    assert labels["tiny"].startswith("tiny · ") and labels["tiny"].endswith("k · 56 px · local folder")
    assert labels[NANO].startswith("OpenTIPS nano (bundled) · ")


class TestInABrowser:
    @pytest.fixture
    def url(self, hub, serving, tiny_folder):
        yield from serving(["inside"], tiny_folder)

    def test_watch_a_download_cancel_it_and_get_it_after_all(self, visit, hub):
        expect = pytest.importorskip("playwright.sync_api").expect
        hub.gate.clear()
        page = visit(width=400)
        menu, name = page.locator(".tips-model input"), page.locator(".tips-status b")

        def choose():
            menu.click()
            page.get_by_role("option", name="TIPSv2 B/14").click()
            expect(page.locator(".tips-download progress")).to_be_visible()

        choose()
        expect(page.locator(".tips-status")).to_contain_text("of 780 MB")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".toast-body")).to_contain_text("was cancelled")
        expect(name).to_have_text("tiny")
        expect(menu).to_have_value(re.compile("tiny"))
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        page.locator(".tips-head h1").click()
        choose()
        hub.gate.set()
        expect(name).to_have_text("TIPSv2 B/14")
        expect(menu).to_have_value(re.compile("on this machine"))

    def test_another_choice_during_a_download_is_the_one_that_stays(self, visit, hub):
        expect = pytest.importorskip("playwright.sync_api").expect
        hub.gate.clear()
        page = visit()
        menu, name = page.locator(".tips-model input"), page.locator(".tips-status b")
        for title in ("TIPSv2 B/14", "OpenTIPS nano"):
            menu.click()
            page.get_by_role("option", name=title).click()
            if title == "TIPSv2 B/14":
                expect(page.locator(".tips-download progress")).to_be_visible()
        expect(name).to_have_text("OpenTIPS nano (bundled)")
        hub.gate.set()
        page.wait_for_timeout(1500)
        expect(name).to_have_text("OpenTIPS nano (bundled)")
        expect(menu).to_have_value(re.compile("nano"))
        expect(page.locator(".toast-body")).to_have_count(0)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
