"""One file per term of the loss, the pure losses, and the objectives that add terms up over one shared pass.

A term (train/objectives/term.py) is its settings: a recipe lists them. A term's file loads no torch before its loss is
asked for, so that recipes can be read at once. `Objective` holds what terms train or average, so that its state_dict
is the run's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.objectives.objective import Objective

__all__ = ["Objective"]


def __getattr__(name: str):
    if name == "Objective":
        from train.objectives.objective import Objective

        return Objective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
