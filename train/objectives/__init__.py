"""One file per family of terms, and the objective that adds them up over one shared pass.

A term is a module: `forward(view, batch, stage)` -> {name: (weight, value)}, where weight 0 is only measured. It holds
everything it trains or averages, so that the objective's state_dict is the run's state.
"""

from train.objectives.objective import Objective

__all__ = ["Objective"]
