"""The bundled image-text data set: drawn scenes with pixel labels and captions of three granularities."""

from tipsv2.scenes.backgrounds import STUFF
from tipsv2.scenes.geometry import depth, normals
from tipsv2.scenes.scene import LARGEST, SPLITS, Scene, Split, draw, draw_one, held_out, names, some_nouns, split
from tipsv2.scenes.sprites import SEEN_STYLES, STYLES, UNSEEN_STYLE, chosen_styles, nouns

__all__ = [
    "LARGEST",
    "SEEN_STYLES",
    "SPLITS",
    "STUFF",
    "STYLES",
    "UNSEEN_STYLE",
    "Scene",
    "Split",
    "chosen_styles",
    "depth",
    "draw",
    "draw_one",
    "held_out",
    "names",
    "normals",
    "nouns",
    "some_nouns",
    "split",
]
