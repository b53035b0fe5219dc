"""What dead nodes cost a run that saves every so often: the expected time of it all, and the best interval.

J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation Computer
Systems 22 (2006) 303-312: failures come by an exponential law, also while a checkpoint is written and while the run
starts again. Without the higher orders it is J. W. Young's rule (CACM 17(9), 1974), sqrt(2 x save x mtbf).
All times in one unit, whichever that is.
"""

from __future__ import annotations

import math


def expected_time(work: float, interval: float, save: float, restart: float, mtbf: float) -> float:
    """Expected time of a run of `work` that would take so long without failures and checkpoints (Daly 2006, Sec. 3).

    interval: work between two checkpoints; save: that writing one takes; restart: from a failure until the run goes on
    from the last one; mtbf: mean time between failures of all nodes together. Infinite where nothing ever gets done.
    """
    try:
        once = math.expm1(
            (interval + save) / mtbf
        )  # expected failures until an interval and its checkpoint come through
        return mtbf * math.exp(restart / mtbf) * once * work / interval
    except OverflowError:
        return math.inf


def best_interval(save: float, mtbf: float) -> float:
    """The work between checkpoints with the least expected time (Daly 2006, eq. 37)."""
    if save >= 2 * mtbf:
        return mtbf
    part = save / (2 * mtbf)
    return math.sqrt(2 * save * mtbf) * (1 + math.sqrt(part) / 3 + part / 9) - save


def lost_a_failure(interval: float, save: float, restart: float) -> float:
    """Expected time that one failure costs where failures are rare: half of what lies between saves, and the start."""
    return (interval + save) / 2 + restart
