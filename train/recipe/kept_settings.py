"""The fields of a recipe that trains on kept crops, a part of `train.recipe.settings.Recipe`. Every value is our
choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.objectives.term import Count, CountOrNone, Number, Positive, Share, ShareBelowOne, Weight

PREFIX = "kept:"


def is_kept(source: str) -> bool:
    """Does a recipe's data.source name kept folders?"""
    return source.startswith(PREFIX)


@dataclass(frozen=True)
class KeptCrops:
    """Training on what a frozen part of the vision tower gave: data.source=kept:FOLDER:CROPS,... (train/data/kept).

    Names reach the patches over a bridge (linear, GELU, linear) from the vectors of sfclip.text_teacher, a sentence
    encoder; `python -m train text --bridge` then teaches a text tower what comes out of it. All values are our choice.
    """

    digest: str = ""  # of the kept folders, the frozen part and all phrases; found when the run starts
    names: str = ""  # table of the classifier's names, as `python -m train foundations` writes it
    phrases: str = ""  # a file of further words for names: NAME<tab>word a line
    exclude: str = ""  # a file of words that no phrase may hold: they are kept to be asked
    own: Share = 0.5  # how often a name is said as it is listed, and not by any of its phrases
    hidden: Count = 1024  # width of the bridge
    bridge: str = ""  # a bridge to start from, bridge.safetensors of another run; empty: a new one
    bridge_rate: Weight = 3.3  # of the learning rate, for the bridge; 0 leaves it as it is
    blocks_rate: Weight = 1.0  # likewise, for the blocks and the norm: 0 trains the bridge alone
    scale_rate: Weight = 0.0  # likewise, for the scales of cosines and their biases
    softmax: Positive = 25.0  # scale of cosines where names are chosen among, as it is or starts
    binary: Positive = 25.0  # scale where a name is judged for itself, in patches and pictures
    bias: Number = -5.0  # what is added there
    noise: Weight = 0.15  # length of the noise on a sentence vector, whose length is 1
    centre: CountOrNone = 256  # crops whose mean feature the final norm's bias loses before the first step; 0: none
    values: Weight = 1.0  # what the losses of value features count, those of the final layer being 1; 0 leaves them out
    average: ShareBelowOne = (
        0.99  # decay of the running mean of what is trained, which is what is exported; 0: the last step
    )
