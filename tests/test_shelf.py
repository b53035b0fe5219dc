"""Encoders in memory: who goes first under a budget, and what is refused before it is read.

python -m pytest tests/test_shelf.py
"""

import shutil
import threading
from pathlib import Path

import pytest

from demos.backend import shelf
from demos.backend.studio import Studio
from tipsv2.checkpoints.bundled import NANO
from tipsv2.checkpoints.catalogue import HUB, ModelError, find, num_parameters


def weights(folder):
    return 4 * num_parameters(Path(folder))


@pytest.fixture
def three(tiny_folder, tmp_path, monkeypatch):
    """Three folders with the same encoder, in float32."""
    monkeypatch.setattr("tipsv2.network.encoder.native_bf16", lambda device: False)
    return [str(tiny_folder)] + [str(shutil.copytree(tiny_folder, tmp_path / name)) for name in ("two", "three")]


def in_memory(studio):
    return [name for _, name in studio.choices() if studio.shelf.loaded(name)]


def test_the_least_recently_used_goes_first(three):
    studio = Studio(three, device="cpu", memory=int(2.5 * weights(three[0])))
    for name in ("tiny", "two", "tiny", "three"):
        studio.encoder(name)
    assert in_memory(studio) == ["tiny", "three"]
    third = studio.encoder("three")
    studio.encoder("tiny")
    assert studio.encoders("two", "three")[1] is third  # both at once: "two" may not push the older "three" out
    assert in_memory(studio) == ["two", "three"]


def test_what_does_not_fit_is_said_before_it_is_read(three, monkeypatch):
    size = weights(three[0])
    studio = Studio(three, device="cpu", memory=int(1.5 * size))
    studio.encoder("tiny")
    with pytest.raises(ModelError, match="two needs 1 MB of memory, 1 MB are free for it beside tiny: start"):
        studio.encoders("tiny", "two")
    assert in_memory(studio) == ["tiny"]
    nano = weights(find(NANO).location)
    poor = Studio(["tipsv2-g14", three[0]], device="cpu", memory=nano // 2)
    monkeypatch.setattr("tipsv2.network.encoder.load", lambda *given, **rest: pytest.fail("it was read"))
    with pytest.raises(
        ModelError, match=r"g/14 needs 6\.1 GB of memory, \d+ MB are free for it: choose tiny, or start"
    ):
        list(poor.fetch("tipsv2-g14", "a"))  # before the download
    with pytest.raises(ModelError, match="larger --memory"):
        poor.encoder(NANO)


def test_nobody_goes_before_a_download_is_there(three, monkeypatch):
    """A download takes minutes and may fail: until then the loaded encoders answer."""
    studio = Studio(three, device="cpu", memory=int(2.5 * weights(three[0])))
    for name in ("tiny", "two"):
        studio.encoder(name)
    size = weights(three[0])
    monkeypatch.setattr(shelf, "weight_bytes", lambda info, device, kind: size)
    monkeypatch.setattr(studio.downloads, "follow", lambda info, visitor: iter([(1, 2), (2, 2)]))
    assert list(studio.fetch("tipsv2-b14", "a")) == [(1, 2), (2, 2)]
    assert in_memory(studio) == ["tiny", "two"]
    studio.encoder("three")  # loading it is another matter
    assert in_memory(studio) == ["two", "three"]


def test_without_a_budget_it_is_a_share_of_what_is_free(three, monkeypatch):
    size = weights(three[0])
    monkeypatch.setattr(shelf, "free_bytes", lambda device: size)
    studio = Studio(three, device="cpu")
    with pytest.raises(ModelError, match="needs"):
        studio.encoder("tiny")  # 80 % of it is not enough
    monkeypatch.setattr(shelf, "free_bytes", lambda device: 2 * size)
    studio.encoder("tiny")
    studio.encoder("two")  # 0.8 x (2 + 1 in memory) of them hold two
    assert in_memory(studio) == ["tiny", "two"]
    monkeypatch.setattr(shelf, "free_bytes", lambda device: 0)
    studio.encoder("three")  # 0.8 x 2 hold one
    assert in_memory(studio) == ["three"]


def test_bfloat16_takes_half(three, monkeypatch):
    full = shelf.weight_bytes(find(three[0]), "cpu")
    assert full == weights(three[0]) == Studio(three, device="cpu").encoder().nbytes
    monkeypatch.setattr("tipsv2.network.encoder.native_bf16", lambda device: True)
    assert shelf.weight_bytes(find(three[0]), "cpu") * 2 == full
    assert shelf.weight_bytes(HUB["tipsv2-g14"], "cpu") == pytest.approx(3.05e9, rel=0.01)


def test_a_container_has_less_than_its_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert shelf.free_bytes("cpu") > 10**8
    (tmp_path / "memory.stat").write_text("anon 300\nactive_file 100\ninactive_file 500\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert shelf.free_bytes("cpu") == 4600


def test_who_is_in_memory_answers_while_another_loads(three, monkeypatch):
    studio = Studio(three, device="cpu")
    ready = studio.encoder("tiny")
    begun, go_on, found = threading.Event(), threading.Event(), []
    load = studio.shelf._load

    def slowly(info):
        begun.set()
        assert go_on.wait(30)
        return load(info)

    monkeypatch.setattr(studio.shelf, "_load", slowly)
    loading = [threading.Thread(target=lambda: found.append(studio.encoder("two"))) for _ in range(2)]
    for thread in loading:
        thread.start()
    assert begun.wait(30)
    asking = threading.Thread(target=lambda: found.append(studio.encoder("tiny")))
    asking.start()
    asking.join(30)
    assert found == [ready]
    go_on.set()
    for thread in loading:
        thread.join(30)
    assert found[1] is found[2] is studio.encoder("two")  # loaded once for both


def test_weights_that_vanish_under_the_look_are_no_trouble(tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "going"))
    info = find(folder)
    (folder / "model-2.safetensors").symlink_to(tmp_path / "gone")
    assert shelf._stamp(info) == ()
