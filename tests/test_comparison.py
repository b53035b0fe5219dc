"""Two encoders on a data set: the hand-computed difference, the paired interval, and the compare command on data."""

import json

import pytest
from miniatures import Wishful, build
from PIL import Image

from tipsv2.__main__ import main
from tipsv2.evaluation.segmentation.comparison import difference_bars, table
from tipsv2.evaluation.segmentation.zero_shot import measure


class Better(Wishful):
    """Takes the third class of the miniature for the first one, so that picture 9 is right."""

    def encode_pixels(self, pixels, only=None, layer=None):
        return super().encode_pixels(pixels.masked_fill((pixels * 255).round() == 149, 0.0))


def test_difference_equals_hand_computed_numbers(tmp_path):
    root = build(tmp_path, "ade20k")
    a, b = (measure(kind("ade20k", root), f"ade20k:{root}", progress=False) for kind in (Wishful, Better))
    numbers = table(a, b, ("one", "other"))
    # A as in miniatures.py; B: first class truth 10, guess 8 + 1, both 9; second as before; third in neither.
    row = numbers["miou"]["values, all"]
    assert (row["A"], row["B"], row["difference"]) == (0.5667, 0.9, 0.3333)
    assert numbers["per_class"] == {
        "wall": {"A": 0.8, "B": 0.9, "difference": 0.1},
        "building": {"A": 0.9, "B": 0.9, "difference": 0.0},
    }
    assert row["low"] < row["difference"] < row["high"]
    back = table(b, a, ("other", "one"))["miou"]["values, all"]
    assert (back["difference"], back["low"], back["high"]) == (-0.3333, -row["high"], -row["low"])
    same = table(a, a, ("one", "one"))["miou"]["values, all"]  # paired: drawn apart they would differ
    assert same["difference"] == same["low"] == same["high"] == 0
    assert json.loads(json.dumps(numbers)) == numbers


def test_other_images_are_not_compared(tmp_path):
    root = build(tmp_path, "ade20k")
    a, b = (measure(Wishful("ade20k", root), f"ade20k:{root}", limit=n, progress=False) for n in (9, 10))
    with pytest.raises(ValueError, match="different images"):
        table(a, b, ("one", "other"))


def test_bars_show_both_ends():
    rows = {f"class {n}": {"A": 0.5, "B": 0.0, "difference": (30 - n) / 60} for n in range(60)}
    rows["nobody finds"] = {"A": 0.0, "B": 0.0, "difference": 0.0}
    axes = difference_bars(rows, {"A": "teacher", "B": "student"}).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 50 and names[-1] == "class 0" and names[0] == "class 59"
    assert axes.get_title() == "B, student, minus A, teacher" and "10 classes in between" in axes.get_xlabel()
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2


@pytest.mark.slow
def test_command(tmp_path, tiny_folder, capsys):
    out = tmp_path / "out"
    arguments = ["compare", "--data", "scenes:val", "--limit", "3", "--device", "cpu", "--templates", "none"]
    models = [str(tiny_folder), str(tiny_folder)]
    assert main([*arguments, "--models", *models, "--features", "values,final", "--out", str(out), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    record = json.loads((out / "record.json").read_text("utf-8"))
    assert {name: record[name] for name in numbers} == numbers and len(record["encoders"]) == 2
    assert numbers["models"] == {"A": "tiny (values)", "B": "tiny (final)"}
    assert main(["evaluate", "segmentation", *arguments[1:], "--model", models[0], "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    for among in ("present", "all"):
        row = numbers["miou"][f"values, final, {among}"]
        assert row["A"] == alone["values"][f"miou_{among}"] and row["B"] == alone["final"][f"miou_{among}"]
    assert Image.open(out / "difference.png").width > 300 and (out / "A" / "partial").is_dir()
    assert main([*arguments, "--models", ",".join(models)]) == 0  # without --out nothing is written
    printed = capsys.readouterr().out
    assert "values, all" in printed and "difference" in printed and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "a", "--data", "scenes:val"], "two encoders"),
        (["dog.jpg", "--models", "a", "b", "--data", "scenes:val"], "leave one of them out"),
        (["--models", "a", "b"], "needs a picture and --queries, or --data"),
        (["--models", "a", "b", "--data", "ade20k:nowhere"], "lacks images/validation"),
        (["--models", "a", "b", "--data", "scenes:val", "--features", "a,b,c"], "one kind or two"),
        (["--models", "a", "b", "--data", "scenes:val", "--masks", "none"], "--masks belongs to a picture"),
        (["--models", "a", "b", "--data", "scenes:val", "--scale", "z"], "--scale belongs to a picture"),
        (["--models", "a", "b", "--data", "scenes:val", "--arrays", "a.npz"], "--arrays belongs to a picture"),
    ],
)
def test_sentences(capsys, arguments, words):
    assert main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err
