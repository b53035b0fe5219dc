"""tipsv2.files: killed at any moment, a folder that is replaced is there as it was or as it is to become.

python -m pytest tests/test_files.py
"""

import os
import sys

import pytest

from tipsv2.files import recover, whole_file, whole_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
NAMES = ("config.json", "model.safetensors")
CALLS = ("open", "os.", "shutil.")  # audit events of what touches the disk


def write(place, text):
    with whole_folder(place) as part:
        for name in NAMES:
            (part / name).write_text(text)


def content(place):
    return [(place / name).read_text() for name in NAMES]


def killed_before_call(number, act) -> bool:
    """Run act() in a fork that ends at once, without cleaning up, before its number-th call to the system. Whether it
    got that far.
    """
    child = os.fork()
    if not child:
        left = number

        def count(event, arguments):
            nonlocal left
            if event.startswith(CALLS):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(count)
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_folder_that_is_replaced_survives_a_kill_between_any_two_calls(tmp_path):
    seen, number = set(), 0
    while True:
        place = tmp_path / str(number) / "model"
        place.parent.mkdir()
        write(place, "old")
        killed = killed_before_call(number, lambda place=place: write(place, "new"))
        recover(place)
        recover(place)  # twice is once
        (state,) = {text for text in content(place)}  # never half of each
        seen.add(state)
        write(place, "newest")  # and what is left does not stand in the way of the next one
        assert content(place) == ["newest"] * 2
        assert [path.name for path in place.parent.iterdir()] == ["model"]
        if not killed:
            break
        number += 1
    assert seen == {"old", "new"} and number > 8


def test_a_file_that_is_replaced_survives_a_kill_between_any_two_calls(tmp_path):
    place, number = tmp_path / "record.json", 0

    def act():
        with whole_file(place) as part:
            part.write_text("new")

    while True:
        place.write_text("old")
        killed = killed_before_call(number, act)
        assert place.read_text() in ("old", "new")
        if not killed:
            break
        number += 1
    assert place.read_text() == "new" and number > 1


def test_a_reader_between_the_two_renames_finds_the_earlier_folder(tmp_path, monkeypatch):
    place, rename = tmp_path / "model", os.rename
    write(place, "old")
    seen = []

    def watched(source, target):
        if str(target).endswith("model") and not seen:
            seen.append("in between")
            recover(place)  # another process looks right now
            seen.extend(content(place))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    write(place, "new")
    assert seen == ["in between", "old", "old"] and content(place) == ["new"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_after_an_error_what_was_there_stays(tmp_path):
    write(tmp_path / "model", "old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "model") as part:
        (part / NAMES[0]).write_text("new")
        raise ZeroDivisionError
    assert content(tmp_path / "model") == ["old"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
