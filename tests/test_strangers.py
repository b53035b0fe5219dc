"""A page on the network: three visitors from three addresses, one of whom sends what no page would.

python -m pytest tests/test_strangers.py
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image
from strangers import Stranger, handlers, usual

from demos.backend import belongings
from demos.backend.settings import Settings
from demos.train import process as train_process
from demos.ui.page import build

TABS = ("ask", "segment", "inside", "compare", "depth", "train")


def picture(color="red", size=(60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def served(tiny_folder, tmp_path_factory):
    """-> (page, address), with every tab and training on."""
    import socket

    from demos.launch import launch

    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = tmp_path_factory.mktemp("runs")
    page = build(TABS, str(tiny_folder), "cpu", Settings(runs))
    _, address, _ = launch(page, server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    with FileLock(runs / ".lock"), pytest.MonkeyPatch.context() as patch:  # somebody else starts a run all the time
        patch.setattr(train_process, "PATIENCE", 0)
        yield page, address
    page.close(verbose=False)
    os.environ.pop("GRADIO_TEMP_DIR")
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before


@pytest.fixture
def come(served):
    """Opens a visitor from an address."""
    there = []

    def opened(address="127.0.0.1"):
        there.append(Stranger(served[1], address))
        return there[-1]

    yield opened
    for each in there:
        each.close()


def with_files(page) -> list[tuple]:
    """(handler, place) of every input of the page that takes a file."""
    kinds = ("File", "Image", "UploadButton")
    found = []
    for function in handlers(page):
        places = [k for k, block in enumerate(function.inputs) if type(block).__name__ in kinds]
        found += [(function, place) for place in places]
    return found


def sent(function, place: int, value) -> list:
    data = [usual(block) for block in function.inputs]
    data[place] = value
    return data


def said(answer: dict) -> str:
    """What an answer tells the client, whole."""
    return json.dumps(answer["output"])


@pytest.mark.slow
def test_every_handler_refuses_every_path_but_ones_own(served, come, tmp_path):
    page, _ = served
    owner, thief = come("127.0.0.2"), come("127.0.0.3")
    theirs = owner.upload("theirs.png", picture("blue"))
    (function, place), *_ = [each for each in with_files(page) if each[0].name == "accept_upload"]
    kept = owner.ask(function._id, [{"path": theirs, "meta": {"_type": "gradio.FileData"}}])["output"]["data"][0][
        "path"
    ]
    assert Path(kept).is_file() and "visitors" in kept
    foreign = tmp_path / "private.png"
    foreign.write_bytes(picture("green"))
    link = belongings.uploads() / ("a" * 64) / "link.png"
    link.parent.mkdir()
    link.symlink_to(foreign)
    bad = [
        str(foreign), str(tmp_path / "nothing.png"), str(tmp_path), "/etc/passwd", "/dev/zero", str(link), theirs, kept,
        os.path.relpath(theirs), os.path.relpath(foreign), "../" * 12 + str(foreign).lstrip("/"), "", "a\0b",
        f"{belongings.uploads()}/../{foreign.name}", "http://127.0.0.1:9/a.png", "https://example.org/a.png",
        f"file://{foreign}", "~/a.png", "\ud800.png", "x" * 5000,
    ]  # fmt: skip
    whole = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in (str(foreign), theirs, kept)]
    values = [{"path": path} for path in bad] + whole
    for function, place in with_files(page):
        events = {}
        for value in values:
            joined = thief.join(function._id, sent(function, place, value)).raise_for_status().json()
            events[joined["event_id"]] = value
        answers = thief.answers(list(events))
        assert set(answers) == set(events), function.name
        for event, answer in answers.items():
            told = (function.name, events[event], answer["output"])
            assert answer["output"].get("error") == belongings.NOT_YOURS and not answer["success"], told
    assert len(with_files(page)) > 20


def test_ones_own_upload_is_taken_with_or_without_meta(served, come):
    page, _ = served
    visitor = come("127.0.0.2")
    path = visitor.upload("mine.png", picture("purple"))
    for function, place in with_files(page):
        if function.preprocess is False:
            answer = visitor.ask(function._id, sent(function, place, {"path": path}))
            assert answer["success"] and "visitors" in answer["output"]["data"][0]["path"], function.name


WRONG = [
    None, True, False, 0, -1, 1, 7, 10**9, -(10**30), 10**400, 0.5, float("nan"), float("inf"), float("-inf"), "", " ",
    "a", "0", "nan", "\ud83d", "\udc00 dog", "\0", "a\nb", "<script>alert(1)</script>", "x" * 5000, "../../etc/passwd",
    "http://127.0.0.1/", [], [[]], [None], [1, 2], ["a", "a"], ["\ud800"], [{}], ["x"] * 2000, {}, {"path": None},
    {"path": "/etc/passwd"}, {"path": ["/etc/passwd"]}, {"value": 1, "__type__": "update"}, {"a": float("nan")},
]  # fmt: skip


@pytest.mark.slow
def test_every_handler_answers_forty_wrong_values_in_a_sentence(served, come, capfd, caplog):
    page, _ = served
    visitor = come("127.0.0.3")
    path = visitor.upload("mine.png", picture("teal"))
    counts = dict.fromkeys(("sent", "sentences", "answers", "not joined"), 0)
    assert len(WRONG) >= 40
    for function in handlers(page):
        for number in range(0, len(WRONG), 20):
            joined = []
            for k, value in enumerate(WRONG[number : number + 20]):
                data = [usual(block) for block in function.inputs]
                for place, block in enumerate(function.inputs):
                    if type(block).__name__ == "File" and function.concurrency_id != "map":  # UMAP takes its time
                        data[place] = {"path": path}
                event = value
                if data:
                    data[(number + k) % len(data)] = value
                    event = WRONG[(number + 7 * k) % len(WRONG)]
                counts["sent"] += 1
                if function.queue:
                    answer = visitor.join(function._id, data, event)
                    assert answer.status_code == 200, (function.name, value, answer.text)
                    joined.append(answer.json()["event_id"])
                else:
                    answer = visitor.run(function._id, data, event)
                    assert answer.status_code in (200, 500) and "Traceback" not in answer.text
                    counts["answers" if answer.status_code == 200 else "sentences"] += 1
                    assert answer.status_code == 200 or answer.json()["error"], (function.name, value)
            answers = visitor.answers(joined) if joined else {}
            assert set(answers) == set(joined), function.name  # no stream was dropped
            for answer in answers.values():
                counts["answers" if answer["success"] else "sentences"] += 1
                assert answer["success"] or answer["output"]["error"], function.name
                assert "Traceback" not in said(answer)
    out, err = capfd.readouterr()
    failed = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    print(counts)
    assert not failed, sorted(set(failed))
    assert "Traceback" not in out + err
    assert counts["sent"] > 2000 and counts["sentences"] > counts["sent"] / 3


def test_a_request_that_no_handler_could_take_is_one_line(served, come, capfd, caplog):
    visitor = come()
    assert visitor.join(10**6, []).status_code == 400
    assert visitor.join(0, [], trigger_id=10**6).status_code == 400
    caplog.clear()
    visitor.session = "x" * 1000
    assert visitor.join(1, []).status_code == 400
    visitor.session = "\ud800"
    assert 400 <= visitor.join(1, []).status_code < 500
    assert visitor.http.post(f"{visitor.url}/gradio_api/queue/join", content=b"[" * 100_000).status_code >= 400
    assert visitor.http.post(f"{visitor.url}/gradio_api/queue/join", content=b" " * 5_000_000).status_code == 413
    assert visitor.http.get(f"{visitor.url}/gradio_api/deep_link?session_hash=a").status_code == 404
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert all("\n" not in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize(
    "host, status",
    [("localhost", 200), ("127.0.0.1:7860", 200), ("[::1]:7860", 200), ("192.168.1.4", 200), ("tips.localhost:1", 200),
     ("evil.example", 400), ("127.0.0.1.evil.example", 400), ("localhost.evil.example:7860", 400),
     ("a@127.0.0.1", 400), ("gradio.live", 400)],
)  # fmt: skip
def test_a_server_knows_its_names(served, come, host, status):
    visitor = come()
    assert visitor.http.get(f"{visitor.url}/config", headers={"host": host}).status_code == status


def test_names_that_are_given_and_those_of_a_link_and_a_space(monkeypatch):
    from demos.server.doorway import known_host, own_names

    assert not known_host("", set()) and not known_host(None, set())
    names = own_names("box.lan", share=True, given=["Explorer.example.org"])
    for host in ("box.lan:80", "explorer.example.org", "a1b2.gradio.live"):
        assert known_host(host, names) and not known_host(host, own_names(None, False))
    monkeypatch.setenv("SPACE_HOST", "me-tips.hf.space,tips.example.org")
    for host in ("me-tips.hf.space", "tips.example.org"):
        assert known_host(host, own_names("0.0.0.0", False))
    assert not known_host("other.hf.space", own_names("0.0.0.0", False))


def test_a_visitor_fills_neither_the_disk_nor_the_line(served, come, monkeypatch):
    page, _ = served
    visitor, other = come("127.0.0.7"), come("127.0.0.8")  # of both nothing is here yet
    monkeypatch.setattr(belongings, "QUOTA", belongings.weight("127.0.0.7") + 3000)
    content = os.urandom(2000)
    assert visitor.upload("a.png", content)
    refused = visitor.http.post(f"{visitor.url}/gradio_api/upload", files={"files": ("b.png", os.urandom(2000))})
    assert refused.status_code == 413 and "take" in refused.text
    assert other.upload("b.png", content)
    from demos.server import waiting

    monkeypatch.setattr(waiting, "MOST_OF_A_PAGE", 3)
    (load,) = [each for each in page.fns.values() if each.api_name == "load"]
    monkeypatch.setattr(page._queue, "get_events", lambda: time.sleep(0.001))  # nobody is served
    statuses = [visitor.join(load._id, ["x"]).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 503, 503] and other.join(load._id, ["x"]).status_code == 200


def test_a_picture_has_twenty_megabytes_whatever_training_allows(served, come, monkeypatch):
    from demos.server import gate

    page, _ = served
    visitor = come()
    monkeypatch.setattr(gate, "MAX_PICTURE", 5000)
    (function,) = [each for each in page.fns.values() if each.api_name == "heatmap"]
    path = visitor.upload("large.png", os.urandom(6000))
    answer = visitor.ask(function._id, sent(function, 0, {"path": path}))
    assert "make the picture smaller" in answer["output"]["error"] and not Path(path).exists()
    (zipped,) = [each for each in page.fns.values() if each.api_name == "start_run"]
    assert zipped.inputs[4].label == "zipped"


@pytest.mark.parametrize("point", [(-1, 5), (5, 41), (61, 5), (1e9, 0)])
def test_a_point_outside_the_picture_is_told(served, come, point):
    page, _ = served
    visitor = come()
    (function,) = [each for each in page.fns.values() if each.api_name == "similar_patches"]
    data = [usual(block) for block in function.inputs]
    data[0], data[1], data[2] = {"path": visitor.upload("p.png", picture())}, *point
    assert "outside the image, which has 60 × 40 pixels" in visitor.ask(function._id, data)["output"]["error"]
    data[1:3] = 60, 40
    assert visitor.ask(function._id, data)["success"]
