"""Many visitors at once: everyone gets their own answers, and the command notices when somebody does not.

python -m pytest tests/test_visitors.py
"""

import os
from dataclasses import replace

import numpy as np
import pytest

from demos import visitors
from demos.visitors import Round, Visitor, crowd, growth, judge, main, table


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(["ask"], tiny_folder)


@pytest.fixture(scope="module")
def everyone(tiny_folder, tmp_path_factory):
    return visitors.visitors(tmp_path_factory.mktemp("visitors"), 4, 3, str(tiny_folder), "cpu")


def test_visitors_have_nothing_in_common(everyone):
    assert len({each.image.read_bytes() for each in everyone}) == 4
    assert len({query for each in everyone for query in each.queries}) == 12
    for who, each in enumerate(everyone):  # no answer could be mistaken for another
        for query, k in each.queries.items():
            assert judge(everyone, who, query, each.answers[k]) == "right"
            assert judge(everyone, who, query, each.answers[k - 1]) == "crossed"
            assert judge(everyone, who, query, everyone[who - 1].answers[k]) == "crossed"


def test_a_verdict_says_whose_answer_it_is(tmp_path):
    values = np.array([0.1, 0.2, 0.3, 0.4])[:, None, None] + np.zeros((4, 2, 3))
    both = [Visitor(tmp_path, {"a": 0, "b": 1}, values), Visitor(tmp_path, {"c": 2, "d": 3}, values + 0.5)]
    for value, verdict in ((0.1, "right"), (0.11, "right"), (0.2, "crossed"), (0.6, "crossed"), (0.5, "wrong")):
        assert judge(both, 0, "a", np.full((2, 3), value)) == verdict
    assert judge(both, 0, "a", np.full((3, 2), 0.1)) == "wrong"


@pytest.mark.slow
def test_four_visitors_at_once_get_their_own_answers(url, everyone):
    outcome = crowd(url, everyone, os.getpid())
    assert not outcome.errors and (outcome.crossed, outcome.wrong) == (0, 0)
    assert len(outcome.seconds) == 12 and outcome.megabytes > 100


@pytest.mark.slow
def test_crossed_answers_and_errors_are_noticed(url, everyone, tmp_path):
    swapped = [
        replace(everyone[0], answers=everyone[1].answers),
        replace(everyone[1], answers=everyone[0].answers),
        replace(everyone[2], answers=everyone[2].answers + 1),
        replace(everyone[3], image=tmp_path / "text.png"),
    ]
    swapped[3].image.write_text("no picture")
    outcome = crowd(url, swapped, None)
    assert (outcome.crossed, outcome.wrong, len(outcome.errors)) == (6, 3, 3)
    assert "not a picture" in outcome.errors[0] and outcome.megabytes is None


@pytest.mark.slow
def test_requests_one_after_the_other_and_the_memory_after_each(url, everyone):
    outcome, sizes = visitors.soak(url, everyone, os.getpid(), 8)
    assert len(outcome.seconds) == len(sizes) == 8 and not outcome.errors and (outcome.crossed, outcome.wrong) == (0, 0)
    assert sizes.min() > 100 and outcome.megabytes == sizes[-1]


@pytest.mark.parametrize("last, part", [(100, 0.0), (106, 0.06), (90, -0.1)])
def test_drift_is_of_the_last_tenth_against_the_first(last, part):
    sizes = np.concatenate([[90, 110] * 5, np.linspace(0, 500, 80), np.full(10, last)])
    assert visitors.drift(sizes) == pytest.approx(part)
    assert visitors.drift(np.zeros(0)) == 0


def test_the_table_and_the_memory():
    rounds = [Round([1.0, 2.0, 9.0], megabytes=500), Round([], ["no"], 1, 2, 440), Round([1.0], megabytes=520)]
    lines = table(rounds).splitlines()
    assert lines[1].split() == ["1", "3", "0", "0", "0", "2.00", "s", "8.30", "s", "500", "MB"]
    assert lines[2].split()[:5] == ["2", "0", "1", "1", "2"]
    assert growth(rounds) == pytest.approx(0.12) and growth([Round([1.0])]) == 0


@pytest.mark.slow
def test_the_command_starts_an_app_and_says_how_it_went(tiny_folder, capsys):
    flags = ["--visitors", "4", "--queries", "3", "--rounds", "1", "--rest", "0", "--model", str(tiny_folder)]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split()[:5] == ["1", "12", "0", "0", "0"] and "MB" in shown
    with pytest.raises(RuntimeError, match="did not start"), visitors.served("no-such-model", "cpu"):
        pass
