"""Exported towers against the encoder they came from; the README of an exported folder, run as it stands.

python -m pytest tests/test_export.py
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DATA

import tipsv2
from tipsv2.__main__ import main
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.sharing import exportable
from tipsv2.sharing.export import NEEDED, export, opened

IMAGE = DATA.parents[1] / "assets" / "examples" / "scene_1.png"
PHRASES = ["a banana", "A small GEAR at the bottom left", "犬"]


@pytest.fixture(scope="module")
def nano():
    return tipsv2.load("opentips-nano", "cpu", "float32")


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The tiny encoder with the network as transformers has it; `tiny_encoder`'s is laid out for the CPU."""
    return tipsv2.load(tiny_folder, "cpu", "float32", fast=False)


@pytest.fixture(scope="module")
def nano_onnx(tmp_path_factory):
    """The bundled encoder through the command line, any size."""
    for name in NEEDED:
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("exported") / "nano"
    assert main(["export", "opentips-nano", str(out)]) == 0
    return out


@pytest.mark.parametrize("side", [4, 16, 32])
@pytest.mark.parametrize("size", [(4, 4), (16, 16), (32, 32), (1, 1), (7, 30), (45, 3), (32, 33), (1, 128)])
def test_the_two_products_are_the_antialiased_resize(side, size):
    table = torch.randn(1, 1 + side * side, 8, generator=torch.Generator().manual_seed(side))
    grid = table[:, 1:].reshape(1, side, side, 8).permute(0, 3, 1, 2)
    wanted = F.interpolate(grid, size=size, mode="bilinear", align_corners=False, antialias=True)
    found = exportable.resized_positions(table, *size)
    assert torch.equal(found[:, 0], table[:, 0])
    assert torch.allclose(found[:, 1:], wanted.flatten(2).transpose(1, 2), atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 224, 224), (3, 126, 168), (1, 308, 112), (2, 14, 14)])
def test_onnxruntime_sees_what_the_encoder_sees(nano, nano_onnx, shape):
    count, *size = shape
    pixels = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(size[0]))
    ours, theirs = nano.encode_pixels(pixels), opened(nano_onnx / "vision.onnx")(pixels.numpy())
    for wanted, found in zip(ours.values(), theirs, strict=True):
        assert found.shape == wanted.shape and np.abs(found - wanted.numpy()).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("texts", [PHRASES, ["a"], ["gear " * 100, "a gear"]])
def test_onnxruntime_reads_what_the_encoder_reads(nano, nano_onnx, texts):
    tokens = nano.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="np")
    (found,) = opened(nano_onnx / "text.onnx")(tokens["input_ids"], tokens["attention_mask"])
    assert np.abs(found - nano.embed_prompts(texts).numpy()).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def from_readme(folder, out, more="") -> None:
    """Run the code of the folder's README there, in a process of its own, with a picture and phrases of ours."""
    code = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    code = code.replace('"image.png"', repr(str(IMAGE))).replace('["a banana", "a gear"]', repr(PHRASES))
    code += f"\n{more}np.savez({str(out)!r}, cls=cls, caption_cls=caption_cls, maps=maps)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_maps(encoder, folder, out, more=""):
    from_readme(folder, out, more)
    seen = encoder.encode_pixels(tipsv2.images.to_tensor(tipsv2.images.open_image(IMAGE), side(encoder))[None])
    maps = torch.einsum("hwd,qd->qhw", F.normalize(seen["values"][0], dim=-1), encoder.encode_text(PHRASES))
    with np.load(out) as found:
        assert np.abs(found["maps"] - maps.numpy()).max() < 1e-4
        assert np.abs(found["cls"] - seen["cls"].numpy()).max() < 1e-4
        assert np.abs(found["caption_cls"] - seen["caption_cls"].numpy()).max() < 1e-4


def side(encoder):
    return (encoder.info.resolution,) * 2


@pytest.mark.slow
def test_the_readme_finds_phrases_without_torch(nano, nano_onnx, tmp_path):
    names = {path.name for path in nano_onnx.iterdir()}
    assert {"vision.onnx", "text.onnx", "tokenizer.json", "tokenizer_config.json", "model.json", "README.md"} <= names
    more = "import sys\nassert not {'torch', 'transformers', 'tipsv2'} & set(sys.modules)\n"
    check_maps(nano, nano_onnx, tmp_path / "found.npz", more)


@pytest.mark.slow
def test_model_json_says_what_goes_in_and_out(nano, nano_onnx):
    about = json.loads((nano_onnx / "model.json").read_text("utf-8"))
    assert (about["patch_size"], about["width"], about["resolution"], about["size"]) == (14, 192, 224, None)
    assert about["temperature"] == pytest.approx(float(nano.model.temperature.detach()))
    import onnxruntime

    for tower in ("vision", "text"):
        session = onnxruntime.InferenceSession(nano_onnx / about[tower]["file"])
        assert [entry.name for entry in session.get_inputs()] == list(about[tower]["inputs"])
        assert [entry.name for entry in session.get_outputs()] == list(about[tower]["outputs"])
    assert max(about["difference"].values()) < 1e-4


@pytest.mark.slow
def test_torch_export_of_any_size(plain, tiny_encoder, tmp_path):
    export(plain, tmp_path / "out", "torch", progress=False)
    assert "interpolate_pos_encoding" not in vars(plain.model.vision_model.embeddings)
    vision = opened(tmp_path / "out" / "vision.pt2")
    for shape in ((1, 3, 56, 56), (2, 3, 28, 98)):
        pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        for wanted, found in zip(tiny_encoder.encode_pixels(pixels).values(), vision(pixels.numpy()), strict=True):
            assert np.abs(found - wanted.numpy()).max() < 1e-4
    check_maps(tiny_encoder, tmp_path / "out", tmp_path / "found.npz")


@pytest.mark.slow
def test_onnx_of_one_size(plain, tmp_path):
    pytest.importorskip("onnxscript")
    about = export(plain, tmp_path / "out", "onnx", (28, 70), progress=False)
    assert about["size"] == [28, 70] and max(about["difference"].values()) < 1e-4
    vision = opened(tmp_path / "out" / "vision.onnx")
    assert vision(np.zeros((3, 3, 28, 70), np.float32))[2].shape == (3, 2, 5, 48)
    with pytest.raises(Exception, match="Got: 56 Expected: 28"):
        vision(np.zeros((1, 3, 56, 70), np.float32))


@pytest.mark.slow
def test_a_wrong_export_is_not_written(plain, tmp_path, monkeypatch):
    right = exportable.resize_matrix
    monkeypatch.setattr(exportable, "resize_matrix", lambda *arguments: right(*arguments).flip(1))
    with pytest.raises(ModelError, match="differ from the encoder"):
        export(plain, tmp_path / "out", "torch", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "50"], "multiples of the patch, 14 px"),
        (["--size", "0"], "multiples of the patch"),
        (["--size", "14x14x14"], "as 448 or 336x448"),
        (["--size", "-14"], "as 448 or 336x448"),
    ],
)
def test_sentences(tiny_folder, tmp_path, capsys, arguments, words):
    assert main(["export", str(tiny_folder), str(tmp_path / "out"), "=".join(arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_sentence(plain, tiny_encoder, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OSError, match="exists already"):
        export(plain, tmp_path)
    if any(key.endswith(".packed") for key in tiny_encoder.model.state_dict()):  # not where oneDNN cannot
        with pytest.raises(ModelError, match="fast=False"):
            export(tiny_encoder, tmp_path / "out")
    for name in NEEDED[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match="pip install onnxscript onnxruntime"):
        export(plain, tmp_path / "out")
