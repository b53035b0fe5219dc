"""Who asks, and whose a run is: through a served page, from several addresses, as browsers and programs talk to it.

python -m pytest tests/test_train_owners.py
"""

import inspect
import json
import os
import shutil

import gradio as gr
import pytest
from run_folders import SLEEPER, logged, run_folder, short, wait
from visiting import NEAR, Visitor

from demos.backend.owners import MACHINE, RECORD, Identity, at_machine, identity_of, owner_of, write_owner
from demos.backend.settings import Settings
from demos.train import process as train_process
from demos.train import state as train_state
from demos.train.tab import PARTS

KEYS = {name: f"{name}-only-{name}-knows-this" for name in ("ann", "bob")}
FORM = {"Learn from": "scenes", "Steps": 4, "Batch": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(serving, tiny_folder, runs, tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    (project / "train").mkdir()
    (project / "train" / "__main__.py").write_text(SLEEPER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_process, "ROOT", project)
        yield from serving(["train"], tiny_folder, Settings(runs=runs))


@pytest.fixture
def near(url, runs):
    """The page of somebody at the machine; what still runs in the end is ended."""
    yield Visitor(url)
    for name in train_state.names(runs):
        if process := train_state.process(runs / name):
            process.kill()
            wait(lambda gone=process: not gone.is_running())
        shutil.rmtree(runs / name)


@pytest.fixture
def ann(url):
    return Visitor(url, forwarded="192.0.2.7", key=KEYS["ann"])


@pytest.fixture
def bob(url):
    return Visitor(url, address="127.0.0.2", forwarded="192.0.2.8", key=KEYS["bob"])


def watched(visitor, name=None):
    return dict(zip(PARTS, visitor.call("watch", {"Run": name}), strict=True))


def begin(visitor, runs, name):
    visitor.call("start", FORM | {"Name": name})
    assert not visitor.said
    wait((runs / name / "ready").exists)


# Who is asking


@pytest.mark.parametrize("handler", ["start", "check"])
@pytest.mark.parametrize(
    "visitor, home",
    [
        (dict(), True),
        (dict(address="127.0.0.3"), True),
        (dict(forwarded="192.0.2.7"), False),
        (dict(address="127.0.0.2", forwarded="192.0.2.7"), False),  # no proxy that uvicorn believes
        (dict(forwarded="127.0.0.1"), False),  # says of itself that it is at home
    ],
)
def test_only_who_sits_at_the_machine_names_a_folder_of_it(url, tmp_path, handler, visitor, home):
    asks = Visitor(url, **visitor)
    asks.call(handler, FORM | {"Learn from": "folder", "Folder or table": str(tmp_path / "none"), "Batch": 2})
    (told,) = asks.said
    assert ("There is no folder" in told) == home == ("only on the machine itself" not in told)


def test_the_hub_token_goes_with_runs_of_the_machine_only(near, ann, runs, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    for visitor, name, given in ((near, "near-1", True), (ann, "ann-1", False)):
        begin(visitor, runs, name)
        process = train_state.process(runs / name)
        assert ("HF_TOKEN" in process.environ()) == given
        near.call("stop", {"Run": name})
        wait(lambda gone=process: not gone.is_running())
    assert KEYS["ann"] not in (runs / "ann-1" / RECORD).read_text()


@pytest.mark.parametrize(
    "client, headers, home",
    [
        ("127.0.0.1", {"host": "localhost:7860"}, True),
        ("::1", {"host": "[::1]:7860"}, True),
        ("::ffff:127.0.0.1", {"host": "127.0.0.1"}, True),
        ("127.0.0.1", {"host": "evil.example:7860"}, False),  # a name that somebody lets point here
        ("127.0.0.1", {"host": "localhost.evil.example"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "localhost", "x-real-ip": "192.0.2.7"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=192.0.2.7"}, False),
        ("192.0.2.7", {"host": "localhost"}, False),
        ("testclient", {"host": "localhost"}, False),
        ("", {"host": "localhost"}, False),
    ],
)
def test_what_is_not_known_to_be_here_is_elsewhere(client, headers, home):
    request = gr.Request(session_hash="a", client={"host": client, "port": 1}, headers=headers)
    assert at_machine(request) == home == identity_of(request, None, public=False).machine
    assert not identity_of(request, None, public=True).machine  # through a shared link everybody seems to be here


def test_a_request_that_gradio_did_not_give_is_nobody():
    assert not at_machine(None) and identity_of(None, None, False) == Identity()
    assert identity_of(NEAR, None, False).machine


def test_every_handler_of_the_page_that_asks_for_the_request_gets_it(tiny_folder, runs):
    """Gradio fills parameters by their place and stops at `*rest`: what stands behind it never comes."""
    from app import TABS
    from demos.ui.page import build

    asking = []
    for handler in filter(lambda each: each.fn, build(TABS, str(tiny_folder), "cpu", Settings(runs=runs)).fns.values()):
        if any("Request" in str(each.annotation) for each in inspect.signature(handler.fn).parameters.values()):
            count = len(handler.inputs)
            given, *_ = gr.helpers.special_args(handler.fn, list(range(count)), request=NEAR)
            assert given.count(NEAR) == 1, handler.api_name
            asking.append(handler.api_name)
    assert {"start", "check", "stop", "resume", "delete", "watch", "asked", "compared", "start_run"} <= {*asking}


# Whose a run is


def test_a_run_of_others_is_as_if_it_were_not_there(near, ann, bob, runs):
    begin(ann, runs, "secret")
    with (runs / "secret" / "app" / "log.txt").open("a") as log:
        log.write("trained on ann's own pictures\n")
    own, others = watched(ann), watched(bob)
    assert "own pictures" in own["text"] and own["runs"]["choices"] == [["secret", "secret"]]
    assert "No run yet" in others["head"] and others["runs"]["choices"] == []
    for handler, label in [
        *((name, "Run") for name in ("watch", "stop", "resume", "delete", "compared", "asked")),
        *((name, "name") for name in ("run_status", "stop_run")),
    ]:
        answers = []
        for name in ("secret", "nobody"):
            try:
                answer = bob.call(handler, {label: name})
            except RuntimeError as error:
                answer = str(error)
            answers.append(json.dumps([answer, bob.said]).replace(name, "NAME"))
            assert "own pictures" not in answers[-1]
        assert answers[0].replace(KEYS["bob"], "") == answers[1].replace(KEYS["bob"], ""), handler
    assert bob.call("run_status", {"name": "secret"})[0]["state"] == "unknown"
    bob.call("start", FORM | {"Name": "mine"})
    assert "Somebody else's run is still going" in bob.said[0] and "secret" not in bob.said[0]
    assert train_state.look(runs, "secret").going
    near.call("stop", {"Run": "secret"})
    wait(lambda: not train_state.look(runs, "secret").going)
    bob.call("start", FORM | {"Name": "secret"})
    assert bob.said == ["There is a run 'secret' already: choose another name."]
    for visitor in (ann, near):
        assert "stopped after step 1" in watched(visitor, "secret")["text"]
    ann.call("delete", {"Run": "secret"})
    assert not ann.said and not (runs / "secret").exists()


@pytest.mark.slow
def test_a_browser_finds_its_run_again_and_no_other_does(url, near, runs):
    first = Visitor(url, forwarded="192.0.2.7")
    first.key = watched(first)["key"]
    assert len(first.key) >= 32 and not isinstance(watched(first)["key"], str)  # given once
    begin(first, runs, "again")
    for key, seen in ((first.key, True), (None, False), ("x" * 32, False)):
        later = Visitor(url, forwarded="192.0.2.99", key=key)  # a new page, from another network
        assert ("again" in str(watched(later)["runs"]["choices"])) == seen
    early = Visitor(url, forwarded="192.0.2.7")
    early.call("stop", {"Run": "again"})
    assert "There is no run 'again'" in early.said[0]


def test_in_a_browser_a_run_is_there_again_after_a_reload(browser, url, near, runs):
    expect = pytest.importorskip("playwright.sync_api").expect
    expect.set_options(timeout=120_000)
    contexts = [browser.new_context(extra_http_headers={"X-Forwarded-For": f"192.0.2.{k}"}) for k in (7, 8)]
    own, other = (context.new_page() for context in contexts)
    for page in (own, other):
        page.set_default_timeout(120_000)
    own.goto(url)
    expect(own.locator(".tips-status[data-state=ready]")).to_be_visible()
    expect(own.locator(".tips-empty")).to_contain_text("No run yet")
    own.get_by_label("Name").fill("mine")
    own.get_by_role("button", name="Start").click()
    expect(own.locator(".tips-run")).to_contain_text("mine")
    own.reload()
    expect(own.locator(".tips-run")).to_contain_text("mine")
    other.goto(url)
    expect(other.locator(".tips-status[data-state=ready]")).to_be_visible()
    expect(other.locator(".tips-empty")).to_contain_text("No run yet")
    for context in contexts:
        context.close()


def test_a_program_has_its_session_or_a_key(url, near, runs):
    program, other = Visitor(url, forwarded="192.0.2.7"), Visitor(url, forwarded="192.0.2.7")
    given = dict(data="scenes", batch=2, steps=4, key=KEYS["ann"])
    assert program.call("start_run", given | dict(name="by-key"))[0]["state"] == "starting"
    for visitor, key, state in ((program, "", "starting"), (other, "", "unknown"), (other, KEYS["ann"], "starting")):
        assert visitor.call("run_status", dict(name="by-key", key=key))[0]["state"] in (state, "running")
    with pytest.raises(RuntimeError, match="A key is a text of 16 to 200 letters"):
        other.call("run_status", dict(name="by-key", key="short"))
    wait((runs / "by-key" / "ready").exists)
    assert other.call("stop_run", dict(name="by-key", key=KEYS["ann"]))[0]["state"] in ("stopping", "stopped")


def test_a_zip_without_data_is_not_left_unread(url, near, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no matter what")
    with (tmp_path / "a.zip").open("rb") as file:
        (path,) = near.http.post("gradio_api/upload", files={"files": file}).json()
    upload = {"path": path, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(RuntimeError, match="say data='zip'"):
        near.call("start_run", {"zipped": upload, "name": "drawn"})
    with pytest.raises(RuntimeError, match="no zip file"):
        near.call("start_run", {"zipped": upload, "name": "drawn", "data": "zip"})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": 1, "marks": []}', '{"machine": true, "marks": 3}'])
def test_a_damaged_record_makes_nobody_an_owner(tmp_path, content):
    (tmp_path / "app").mkdir()
    assert owner_of(tmp_path).machine  # from a terminal
    ann = identity_of(None, KEYS["ann"], False)
    write_owner(tmp_path, ann)
    assert owner_of(tmp_path).may(ann) and owner_of(tmp_path).may(MACHINE) and not owner_of(tmp_path).machine
    assert not owner_of(tmp_path).may(identity_of(None, KEYS["bob"], False)) and not owner_of(tmp_path).may(Identity())
    (tmp_path / RECORD).write_text(content)
    owner = owner_of(tmp_path)
    assert not owner.machine and not owner.may(ann) and not owner.may(Identity()) and owner.may(MACHINE)


def test_what_a_visitor_has_trained_is_on_offer_to_nobody_else(near, ann, bob, runs, tiny_folder):
    folder = run_folder(runs, "private", short(), logged(4), done=True)
    shutil.rmtree(folder / "model")
    shutil.copytree(tiny_folder, folder / "model")
    write_owner(folder, identity_of(None, KEYS["ann"], True))
    for visitor in (near, ann, bob):
        assert "private" not in [each["name"] for each in visitor.call("models")[0]]
        with pytest.raises(RuntimeError, match="not on offer"):
            visitor.call("load", {"Encoder": "private"})
    bob.call("asked", {"Run": "private"})
    assert "There is no run 'private'" in bob.said[0]
    ann.call("asked", {"Run": "private"})
    chosen = ann.call("choose_1")[0]  # what the page does next
    assert chosen["value"].startswith("private~") and chosen["value"] in str(chosen["choices"])
    assert ann.call("load", {"Encoder": chosen["value"]})[0]["name"] == chosen["value"]
    for visitor, told in ((ann, True), (bob, False), (near, False)):
        assert (chosen["value"] in str(visitor.call("models"))) == told
    shutil.rmtree(folder)
    with pytest.raises(RuntimeError, match="not on offer"):
        near.call("models")
        ann.call("load", {"Encoder": chosen["value"]})
    folder.mkdir()


# With a login


class TestWithALogin:
    @pytest.fixture(scope="class")
    def runs(self, tmp_path_factory):
        return tmp_path_factory.mktemp("runs")

    @pytest.fixture(scope="class")
    def url(self, tiny_folder, runs):
        from demos.launch import launch
        from demos.ui.page import build

        page = build(["train"], str(tiny_folder), "cpu", Settings(runs=runs, public=True))
        people = [("ann", "a:b c"), ("bob", "pass")]
        _, address, _ = launch(page, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, auth=people)
        yield address
        page.close(verbose=False)

    def test_nobody_comes_in_without_one(self, url):
        stranger = Visitor(url)
        assert stranger.http.get("config").status_code == 401
        asked = dict(data=["a", ""], fn_index=0, session_hash="a")
        assert stranger.http.post("gradio_api/queue/join", json=asked).status_code == 401
        assert stranger.http.post("login", data=dict(username="ann", password="pass")).status_code == 400

    def test_a_name_is_who_somebody_is(self, url, runs):
        folder = run_folder(runs, "a", short(), logged(4))
        user = gr.Request(username="ann", session_hash="x")
        write_owner(folder, identity_of(user, None, True))
        ann, again, bob = (
            Visitor(url, login=(name, word), key=KEYS["ann"], forwarded="192.0.2.7")
            for name, word in (("ann", "a:b c"), ("ann", "a:b c"), ("bob", "pass"))
        )
        assert "step" in watched(ann, "a")["head"] and "a" in str(watched(again)["runs"]["choices"])
        assert 'data-state="unknown"' in watched(bob, "a")["head"] and watched(bob)["runs"]["choices"] == []
        write_owner(folder, identity_of(None, KEYS["ann"], True))  # whoever has had this browser before
        assert 'data-state="unknown"' in watched(ann, "a")["head"]
        os.remove(folder / RECORD)
        assert 'data-state="unknown"' in watched(again, "a")["head"]  # a shared page has nobody at the machine
