"""When a run ends early, and which sample's weights it leaves: functions of what metrics.jsonl holds, so that a resumed
run decides alike.

What counts is recall among pairs that the run keeps apart (train/run/recall.py), after its first step: what it began
with is no result of it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping


def over(held: Mapping[int, float], patience: int) -> bool:
    """Whether none of the last `patience` samples was better than the best before them; never where it is 0.

    held: step -> recall, in order.
    """
    values = [recall for step, recall in held.items() if step]
    return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])


def best(held: Mapping[int, float], among: Container[int] | None = None) -> int | None:
    """The step of the best sample, the first of equal ones; of the steps `among` only, if given. None without any."""
    steps = [step for step in held if step and (among is None or step in among)]
    return max(steps, key=lambda step: held[step], default=None)
