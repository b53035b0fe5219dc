"""Pictures of runs: over each other or end to end, every step behind the mean, and names that cover nothing."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from run_folders import logged, run_folder, short

from train.__main__ import main
from train.tools.curves import COLORS, SMOOTH, figure_of

STEPS = 40


@pytest.fixture
def runs(tmp_path):
    """Three runs of 40, 80 and 120 steps of four images; the second has a name that is long."""
    names = ("a", "a-run-with-a-long-name-" * 3, "c")
    for k, name in enumerate(names, 1):
        scores = [{"step": step, "miou_final": 0.1, "miou_values": 0.2} for step in (0, k * STEPS)]
        more = {"loss/self_distillation/dino": 0.5, "measured/self_distillation/cls_entropy": 3.0}
        lines = [scores[0], *logged(k * STEPS, **more), scores[1]]
        run_folder(tmp_path, name, short(k * STEPS), lines)
    return [tmp_path / name for name in names]


def panels(figure):
    return {axis.get_title().split("\n")[0]: axis for axis in figure.axes if axis.get_visible()}


def test_runs_lie_over_each_other_and_end_to_end_where_asked(runs):
    over, chain = (panels(figure_of(runs, chain)) for chain in (False, True))
    assert list(over) == ["contrastive web", "self distillation dino", "patch-text mIoU on drawn scenes"] == list(chain)
    for axes, starts in ((over, (0, 0, 0)), (chain, (0, 160, 480))):
        lines = axes["contrastive web"].get_lines()
        for k, start in enumerate(starts):
            raw, mean = [line for line in lines if line.get_color() == COLORS[k]]
            steps = np.arange(1, (k + 1) * STEPS + 1)
            np.testing.assert_allclose(raw.get_xdata(), (start + 4 * steps) / 1000)
            np.testing.assert_allclose(raw.get_ydata(), 2 / steps)
            np.testing.assert_allclose(mean.get_xdata(), raw.get_xdata()[SMOOTH - 1 :])
            assert mean.get_ydata()[0] == pytest.approx(np.mean(2 / steps[:SMOOTH]))
            assert raw.get_alpha() < 0.5 and mean.get_alpha() is None
        values = axes["patch-text mIoU on drawn scenes"].get_lines()
        solid = [line for line in values if line.get_linestyle() == "-" and line.get_marker() == "o"]
        for k, (line, start) in enumerate(zip(solid, starts, strict=True)):
            assert line.get_color() == COLORS[k] and set(line.get_ydata()) == {0.2}
            np.testing.assert_allclose(line.get_xdata(), [start / 1000, (start + 4 * (k + 1) * STEPS) / 1000])


def test_runs_of_before_are_drawn_as_those_of_now(runs):
    """Under the names that the numbers had until terms named their parts."""
    names = {"contrastive_web": "contrastive web", "patch": "self distillation patch", "cls_entropy": None}
    names |= {"distillation": "distillation patches", "distillation_final_coco": "kept distillation final coco"}
    names |= {"patch_labels_values": "patch labels values", "class_cls_a": "whole names class cls a", "lr": None}
    names |= {"soft_final_a": "soft names soft final a", "presence_values_a": "presence values a"}
    lines = [{"step": step, "loss": 2.0, **dict.fromkeys(names, 1.0)} for step in (1, 2)]
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(panels(figure_of(runs[:1]))) == {title for title in names.values() if title}


def test_names_stand_below_the_panels(runs, tmp_path):
    figure = figure_of(runs)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    texts = legend.get_texts()
    assert [text.get_text() for text in texts] == [run.name for run in runs]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])
    lowest = min(axis.get_tightbbox().y0 for axis in figure.axes if axis.get_visible())
    assert max(box.y1 for box in boxes) <= lowest
    assert min(box.x0 for box in boxes) >= 0 and max(box.x1 for box in boxes) <= figure.bbox.width
    (same,) = figure_of([runs[0], tmp_path / "c" / ".." / "a"]).legends
    assert [text.get_text() for text in same.get_texts()] == [str(runs[0]), f"{tmp_path}/c/../a"]


def test_many_runs_have_a_colour_each_and_one_panel_is_enough(runs):
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in logged(3)))
    (panel,) = panels(figure_of([runs[0]] * 9)).values()
    colors = [tuple(line.get_color()) for line in panel.get_lines()]
    assert len(colors) == len(set(colors)) == 9


def test_the_command(runs, tmp_path, capsys):
    given = ["curves", *map(str, runs), "--out", str(tmp_path / "c.png")]
    pictures = []
    for more in ([], ["--chain"]):
        assert main([*given, *more]) == 0
        pictures.append((tmp_path / "c.png").read_bytes())
    assert pictures[0] != pictures[1]
    (runs[0] / "metrics.jsonl").write_text("")
    assert main([*given[:2], *given[-2:]]) == 2
    assert "no step has been made yet" in capsys.readouterr().err
