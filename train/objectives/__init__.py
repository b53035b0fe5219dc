"""One file per recipe family: a module that turns a batch into a loss and measurements.

An objective holds everything that is trained or averaged, so that its state_dict is the run's state.
"""

from train.objectives.distill import Distillation
from train.objectives.pretrain import Pretraining

__all__ = ["Distillation", "Pretraining"]
