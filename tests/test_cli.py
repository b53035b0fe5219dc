"""python -m tipsv2: files written, tables printed, and one sentence with exit status 2 when something is wrong.

python -m pytest tests/test_cli.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from tipsv2.__main__ import main
from tipsv2.analysis.heatmap import heatmap, patch_maps
from tipsv2.analysis.render import PALETTE, colorize
from tipsv2.analysis.segmentation import segment
from tipsv2.network.view import View

ROOT = Path(__file__).parent.parent


@pytest.fixture
def picture(tmp_path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


@pytest.fixture
def model(tiny_folder) -> list[str]:
    return ["--model", str(tiny_folder), "--device", "cpu", "--dtype", "float32"]


def test_heatmap_writes_maps_scores_and_overlays(picture, model, tmp_path, tiny_encoder, capsys):
    out = tmp_path / "deep" / "out"
    queries = ["a dog", "grass/../x", "狗"]
    assert main(["heatmap", str(picture), *queries, "--out", str(out), "--resolution", "42", *model]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "01_a_dog.png",
        "02_grass_x.png",
        "03_狗.png",
        "maps.npz",
        "scores.json",
    ]
    expected = heatmap(tiny_encoder, picture, queries, resolution=42)
    with np.load(out / "maps.npz", allow_pickle=False) as stored:
        assert np.allclose(stored["maps"], expected, atol=1e-6) and stored["queries"].tolist() == queries
    content = json.loads((out / "scores.json").read_text("utf-8"))
    assert (content["mode"], content["features"], content["resolution"]) == ("cosine", "values", 42)
    patches = patch_maps(tiny_encoder.look(picture, View(42)), tiny_encoder.encode_text(queries)).numpy()
    for row, grid in zip(content["scores"], patches, strict=True):
        assert row["peak"] == pytest.approx(grid.max(), abs=1e-5)
        assert row["mean"] == pytest.approx(grid.mean(), abs=1e-5)
        down, along = (np.array(grid.shape) * (row["y"] + 0.5, row["x"] + 0.5) / (40, 60)).astype(int)
        assert (down, along) == np.unravel_index(grid.argmax(), grid.shape)
    assert Image.open(out / "01_a_dog.png").size == (60, 40)
    printed = capsys.readouterr()
    assert "peak" in printed.out and "a dog" in printed.out and "cpu, float32" in printed.err


def test_heatmap_options_reach_the_maps(picture, model, tmp_path, tiny_encoder):
    options = [
        "--mode",
        "competing",
        "--features",
        "final",
        "--templates",
        "tips9",
        "--colormap",
        "magma",
        "--opacity",
        "1",
    ]
    assert main(["heatmap", str(picture), "dog", "cat", "--out", str(tmp_path / "out"), *options, *model]) == 0
    expected = heatmap(tiny_encoder, picture, ["dog", "cat"], "competing", "final", "tips9")
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        assert np.allclose(stored["maps"], expected, atol=1e-6) and np.allclose(
            stored["maps"].sum(axis=0), 1, atol=1e-5
        )
    # Competing maps are shares: their colours run from 0 to 1, so that two pictures can be compared.
    found = np.asarray(Image.open(tmp_path / "out" / "01_dog.png")).astype(int)
    assert np.abs(found - colorize(expected[0], "magma", 0, 1)).max() <= 8  # a step of the table at the most


@pytest.mark.parametrize(("argument", "background"), [(None, None), ("0.05", 0.05), ("photo, the", ["photo", "the"])])
def test_segment(picture, model, tmp_path, tiny_encoder, capsys, argument, background):
    out = tmp_path / "out"
    extra = ["--background", argument] if argument else []
    assert main(["segment", str(picture), "--classes", "dog, grass,,sky", "--out", str(out), *extra, *model]) == 0
    expected = segment(tiny_encoder, picture, ["dog", "grass", "sky"], background=background)
    content = json.loads((out / "shares.json").read_text("utf-8"))
    assert content["shares"] == pytest.approx(expected.shares) and content["classes"] == ["dog", "grass", "sky"]
    labels = Image.open(out / "labels.png")
    assert (
        labels.mode == "P"
        and (np.asarray(labels).astype(int) == np.where(expected.labels < 0, 255, expected.labels)).all()
    )
    first = int(np.asarray(labels)[0, 0])
    color = (0, 0, 0) if first == 255 else PALETTE[first]
    assert labels.convert("RGB").getpixel((0, 0)) == color
    assert Image.open(out / "overlay.png").size == (60, 40) and Image.open(out / "legend.png").size[0] > 20
    printed = capsys.readouterr().out
    assert all(name in printed for name in expected.shares)


def test_evaluate(model, capsys):
    arguments = ["evaluate", "segmentation", "--data", "scenes:style", "--limit", "2", "--templates", "none", *model]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 1 and "images: 100%" in printed.err
    numbers = json.loads(lines[0])
    assert (numbers["data"], numbers["images"], numbers["model"]) == ("scenes:style", 2, "tiny")
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert f"values miou_present  {numbers['values']['miou_present']:.4f}" in table
    assert main(["evaluate", "segmentation", "--data", "imagenet", *model]) == 2
    assert "imagenet" in capsys.readouterr().err


def test_convert(tmp_path, capsys):
    files = [str(DATA / "tiny_mlp_vision.npz"), str(DATA / "tiny_mlp_text.npz")]
    assert main(["convert", *files, str(tmp_path / "out"), "--heads", "4"]) == 0
    printed = capsys.readouterr().out
    assert (
        (tmp_path / "out" / "model.safetensors").exists()
        and "48 of 48 keys" not in printed
        and "--tokenizer" in printed
    )
    assert main(["convert", *files, str(tmp_path / "none")]) == 2
    assert "attention heads" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["heatmap", "nowhere.png", "dog"], "no file 'nowhere.png'"),
        (["heatmap", "{picture}", " "], "empty"),
        (["heatmap", "{picture}", "dog", "--mode", "competing"], "at least two"),
        (["heatmap", "{picture}", "dog", "--colormap", "nope"], "colormap 'nope'"),
        (["heatmap", "{picture}", "dog", "--opacity", "3"], "opacity"),
        (["heatmap", "{picture}", "dog", "--resolution", "-3"], "resolution"),
        (["heatmap", "{picture}", "dog", "--out", "{picture}"], "noise.png"),
        (["segment", "{picture}", "--classes", " , "], "at least one class"),
        (["segment", "{picture}", "--classes", "dog,dog"], "twice"),
        (["segment", "{picture}", "--classes", ",".join(f"dog {n}" for n in range(256))], "255"),
    ],
)
def test_sentences(picture, model, capsys, arguments, words):
    assert main([argument.replace("{picture}", str(picture)) for argument in arguments] + model) == 2
    printed = capsys.readouterr()
    last = printed.err.strip().splitlines()[-1]
    assert words in last and last.startswith("tipsv2: ") and "Traceback" not in printed.err


def test_unknown_model(picture, capsys):
    assert main(["heatmap", str(picture), "dog", "--model", "tipsv2-z99"]) == 2
    assert "did you mean" in capsys.readouterr().err


WRONG = {  # a command -> what it says
    "heatmap no.png dog": "no file 'no.png'",
    "segment no.png --classes a,b": "no file 'no.png'",
    "features no.png": "no file 'no.png'",
    "depth no.png": "no file 'no.png'",
    "compare no.png --models opentips-nano,opentips-nano --queries a": "no file 'no.png'",
    "verify opentips-nano --image no.jpg": "no file 'no.jpg'",
    "convert no.npz text.npz new": "no file 'no.npz'",
    "embed no --out new": "no file or folder 'no'",
    "embed no/*.tar --out new": "no file matches 'no/*.tar'",
    "search no dog": "'no' has no readable manifest",
    "evaluate segmentation --data folder:no": "no folder 'no'",
    "evaluate segmentation --data ade20k:no": "'no' lacks",
    "evaluate retrieval --data no/such/photos": "no file or folder 'no/such/photos'",
    "evaluate knn --data no": "no data set 'no'",
    "evaluate depth --data nyu:no": "'no' lacks",
    "compare --models opentips-nano opentips-nano --data ade20k:no": "'no' lacks",
    "heatmap {picture} dog --model nowhere": "no model or folder 'nowhere'",
    "segment {picture} --classes a,b --model nowhere": "no model or folder 'nowhere'",
    "features {picture} --model nowhere": "no model or folder 'nowhere'",
    "depth {picture} --model nowhere": "no model or folder 'nowhere'",
    "compare {picture} --models nowhere opentips-nano --queries a": "no model or folder 'nowhere'",
    "evaluate normals --data scenes:val --model nowhere": "no model or folder 'nowhere'",
    "embed scenes --out new --model nowhere": "no model or folder 'nowhere'",
    "export nowhere new": "no model or folder 'nowhere'",
    "convert nowhere new": "no model or folder 'nowhere'",
    "push nowhere a/b --licence mit": "no model or folder 'nowhere'",
    "verify nowhere": "no model or folder 'nowhere'",
}


def test_what_is_not_there_is_named_before_torch_is_imported(picture, tmp_path):
    """In a process in which torch cannot be imported: it alone takes seconds."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from tipsv2.__main__ import main\n"
        "for line in sys.argv[1:]:\n"
        "    status = main(line.split())\n"
        "    assert status == 2, line\n"
        "    print('--', file=sys.stderr)\n"
    )
    lines = [line.replace("{picture}", str(picture)) for line in WRONG]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code, *lines], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for line, words, said in zip(lines, WRONG.values(), run.stderr.split("--\n"), strict=False):
        assert said.startswith("tipsv2: ") and words in said, (line, said)


@pytest.mark.slow
def test_help_is_quick_and_shows_examples():
    """In a process of its own: --help must not import torch."""
    for command in ("heatmap", "segment", "features", "compare", "depth", "evaluate", "convert", "export", "push"):
        run = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "tipsv2", command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0 and f"python -m tipsv2 {command}" in run.stdout and "example" in run.stdout
        assert " torch\n" not in run.stderr and " transformers\n" not in run.stderr
    run = subprocess.run([sys.executable, "-m", "tipsv2", "paint"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "Traceback" not in run.stderr


def test_alone_it_shows_commands_with_examples(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert 'heatmap dog.jpg "a dog"' in printed and "evaluate" in printed
