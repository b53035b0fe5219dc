"""tipsv2.network.text_cache: class lists come back from the disk, and only for the model, templates and texts they are
of.
"""

import os

import pytest
import torch
from conftest import make_model

from tipsv2.network import text_cache
from tipsv2.network.encoder import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TIPSV2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


def fresh(folder):
    return load(folder, device="cpu", dtype="float32")


def test_a_list_is_read_once(folder, tiny_folder, monkeypatch):
    first = fresh(tiny_folder).encode_text(["dog", "cat"], "tips9", keep=True)
    encoder = fresh(tiny_folder)
    monkeypatch.setattr(encoder, "embed_prompts", lambda prompts: pytest.fail("it was read again"))
    assert torch.equal(encoder.encode_text(["dog", "cat"], "tips9", keep=True), first)
    assert len(list(folder.glob("*"))) == 1


def test_nothing_is_kept_unasked(folder, tiny_folder):
    fresh(tiny_folder).encode_text(["a visitor's words"])
    assert not folder.exists()


def test_other_texts_templates_types_and_weights_are_others(folder, tiny_folder, tmp_path):
    import shutil

    encoder = fresh(tiny_folder)
    info, frames = encoder.info, ("{}",)
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    make_model(300, seed=1).save_pretrained(tmp_path / "weights")
    shutil.copyfile(tmp_path / "weights" / "model.safetensors", other / "model.safetensors")
    from tipsv2.checkpoints.catalogue import find

    keys = [
        text_cache.key_of(info, "float32", frames, ["dog", "cat"]),
        text_cache.key_of(info, "float32", frames, ["cat", "dog"]),
        text_cache.key_of(info, "float32", frames, ["dog cat"]),
        text_cache.key_of(info, "float32", ("a {}",), ["dog", "cat"]),
        text_cache.key_of(info, "bfloat16", frames, ["dog", "cat"]),
        text_cache.key_of(find(other), "float32", frames, ["dog", "cat"]),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == text_cache.key_of(info, "float32", frames, ["dog", "cat"])


def test_weights_written_over_are_others(folder, tiny_folder, tmp_path):
    import shutil

    from tipsv2.checkpoints.catalogue import find

    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run)
    before = text_cache.key_of(find(run), "float32", ("{}",), ["dog"])
    os.utime(run / "model.safetensors", ns=(1, 1))
    assert text_cache.key_of(find(run), "float32", ("{}",), ["dog"]) != before


def test_a_damaged_file_is_made_anew(folder, tiny_folder):
    rows = fresh(tiny_folder).encode_text(["dog"], keep=True)
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(b"half")
    assert torch.equal(fresh(tiny_folder).encode_text(["dog"], keep=True), rows)
    assert torch.equal(text_cache.read(file.stem), rows)


def test_the_oldest_go_first(folder, monkeypatch):
    monkeypatch.setattr(text_cache, "MOST_FILES", 2)
    for number, name in enumerate("abc"):
        text_cache.write(name, torch.zeros(1, 2))
        os.utime(folder / f"{name}.safetensors", (number, number))
    text_cache.write("d", torch.zeros(1, 2))
    assert sorted(file.stem for file in folder.glob("*")) == ["c", "d"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, tiny_folder):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TIPSV2_CACHE", str(tmp_path / "file"))
    assert fresh(tiny_folder).encode_text(["dog"], keep=True).shape == (1, 48)
