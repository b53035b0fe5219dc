"""What the flags decide before the page is built: where training is on, who may log in, what is shared.

python -m pytest tests/test_launch.py
"""

import pytest

from demos import launch
from demos.backend.settings import ARGUMENTS, is_loopback, logins
from demos.ui import page

HOME = {"training": True, "public": False, "share": False}
LOGIN = ["--auth", "ann:secret"]


class Page:
    """Serves nothing."""

    def warm_up(self, download=False):
        pass


@pytest.fixture
def started(monkeypatch):
    """What the page was built with and served with, by the flags and the environment."""

    def start(*flags, **environment):
        for name in ("SPACE_ID", "GRADIO_SERVER_NAME", "GRADIO_SHARE", "KAGGLE_KERNEL_RUN_TYPE", ARGUMENTS):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for lasting in (
            "few_arenas",
            "few_kernels",
            "own_folder",
        ):  # else for all tests after this one
            monkeypatch.setattr(launch, lasting, lambda: None)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # as run() does, but taken back
        built, served = [], {}
        monkeypatch.setattr(
            page,
            "build",
            lambda *given: built.append(given[3]) or Page(),
        )
        monkeypatch.setattr(launch, "launch", lambda page, **options: served.update(options))
        launch.run(["train"], argv=[*flags])
        (settings,) = built
        return {"training": settings.training, "public": settings.public, "share": served["share"]}, served

    return start


@pytest.mark.parametrize(
    "flags, environment, expected",
    [
        ([], {}, HOME),
        (["--host", "127.0.0.1"], {}, HOME),
        (["--host", "localhost"], {}, HOME),
        (["--host", "::1"], {}, HOME),
        ([], {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, HOME),  # where gradio shares what nobody asked to be shared
        (["--host", "0.0.0.0"], {}, HOME | {"training": False}),
        (["--host", "::"], {}, HOME | {"training": False}),
        (["--host", "192.0.2.7"], {}, HOME | {"training": False}),
        (["--host", "lab-machine"], {}, HOME | {"training": False}),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}, HOME | {"training": False}),
        (["--share"], {}, {"training": False, "public": True, "share": True}),
        ([], {"GRADIO_SHARE": "True"}, {"training": False, "public": True, "share": True}),
        ([], {"SPACE_ID": "a/b"}, {"training": False, "public": True, "share": False}),
        (["--share", "--training", *LOGIN], {}, {"training": True, "public": True, "share": True}),
        (["--host", "0.0.0.0", "--training", *LOGIN], {}, HOME),
        (["--host", "0.0.0.0", *LOGIN], {}, HOME | {"training": False}),
        (["--no-training"], {}, HOME | {"training": False}),
    ],
)
def test_training_is_on_where_no_other_machine_comes(started, capsys, flags, environment, expected):
    decided, served = started(*flags, **environment)
    assert decided == expected
    assert served["max_file_size"] == (launch.MAX_ZIP if expected["training"] else launch.MAX_UPLOAD)
    assert "can start training runs" not in capsys.readouterr().err


def test_training_for_everybody_is_warned_of(started, capsys):
    started("--share", "--training")
    assert capsys.readouterr().err.count("--auth USER:PASSWORD") == 1


def test_logins_come_from_flags_and_a_file(started, tmp_path):
    people = tmp_path / "people.txt"
    people.write_text("# who may come in\n\n bob : pass:word \ncarol:ü\n", "utf-8")
    served = started("--auth", "ann:a:b c", "--auth-file", str(people))[1]
    assert served["auth"] == [("ann", "a:b c"), ("bob", " pass:word"), ("carol", "ü")]
    assert started()[1]["auth"] is None


@pytest.mark.parametrize(
    "flags, content, told",
    [
        (["--auth", "hunter2"], None, "a login is USER:PASSWORD"),
        (["--auth", ":hunter2"], None, "a login is USER:PASSWORD"),
        (["--auth", "hunter2:"], None, "a login is USER:PASSWORD"),
        (["--auth", "a:hunter2", "--auth", "a:hunter3"], None, "The user 'a' has two passwords"),
        ([], "a:b\nhunter2\n", "line 2: a login is USER:PASSWORD"),
        ([], "# nobody\n", "names nobody"),
        ([], b"\xff\xfe\x00", "it is no text in UTF-8"),
        (["--auth-file", "/nowhere/at/all"], None, "cannot be read: No such file or directory"),
    ],
)
def test_a_bad_login_is_one_sentence_without_the_password(started, tmp_path, capsys, flags, content, told):
    if content is not None:
        (tmp_path / "people").write_bytes(content if isinstance(content, bytes) else content.encode())
        flags = ["--auth-file", str(tmp_path / "people")]
    with pytest.raises(SystemExit) as raised:
        started(*flags)
    said = capsys.readouterr().err
    assert raised.value.code == 2 and told in said and "hunter" not in said and "Traceback" not in said


@pytest.mark.parametrize("host", ["", None, "0.0.0.0", "::", "localhost.evil.example", "127.0.0.1.evil.example", "lab"])
def test_what_is_not_surely_this_machine_is_not_loopback(host):
    assert not is_loopback(host)


def test_no_flags_are_no_logins():
    assert logins([], None) == []
