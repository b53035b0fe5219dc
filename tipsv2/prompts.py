"""Prompt templates and class lists: data only, each with its source.

A template holds "{}" where the name goes; a set of templates is averaged on the unit sphere by Encoder.encode_text.
"""

from __future__ import annotations

# The nine of TIPSv2's zero-shot segmentation (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, after
# TCL).
_TIPS9 = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)

# The eighty of CLIP's zero-shot ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb): most of them
# are a frame with either article, so they are written as frames; the order does not matter to an average.
_BOTH_ARTICLES = (
    "a bad photo of {} {{}}.",
    "a sculpture of {} {{}}.",
    "a low resolution photo of {} {{}}.",
    "a rendering of {} {{}}.",
    "graffiti of {} {{}}.",
    "a cropped photo of {} {{}}.",
    "a tattoo of {} {{}}.",
    "{} embroidered {{}}.",
    "a bright photo of {} {{}}.",
    "a dark photo of {} {{}}.",
    "a drawing of {} {{}}.",
    "{} plastic {{}}.",
    "a close-up photo of {} {{}}.",
    "a black and white photo of {} {{}}.",
    "a painting of {} {{}}.",
    "a pixelated photo of {} {{}}.",
    "a jpeg corrupted photo of {} {{}}.",
    "a blurry photo of {} {{}}.",
    "a photo of {} {{}}.",
    "a good photo of {} {{}}.",
    "{} {{}} in a video game.",
    "a doodle of {} {{}}.",
    "{} origami {{}}.",
    "a sketch of {} {{}}.",
    "{} toy {{}}.",
    "a rendition of {} {{}}.",
    "{} cartoon {{}}.",
    "art of {} {{}}.",
    "{} plushie {{}}.",
    "itap of {} {{}}.",
    "a photo of {} hard to see {{}}.",
    "a photo of {} clean {{}}.",
    "a photo of {} dirty {{}}.",
    "a photo of {} cool {{}}.",
    "a photo of {} large {{}}.",
    "a photo of {} nice {{}}.",
    "a photo of {} weird {{}}.",
    "a photo of {} small {{}}.",
)
_CLIP80 = (
    *(frame.format(article) for frame in _BOTH_ARTICLES for article in ("a", "the")),
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "itap of my {}.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {"none": ("{}",), "tips9": _TIPS9, "clip80": _CLIP80}

CLASS_LISTS: dict[str, tuple[str, ...]] = {
    # PASCAL VOC's twenty object classes (host.robots.ox.ac.uk/pascal/VOC), spaced as English words.
    "voc20": (
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "dining table",
        "dog",
        "horse",
        "motorbike",
        "person",
        "potted plant",
        "sheep",
        "sofa",
        "train",
        "tv monitor",
    ),
    # The nineteen classes Cityscapes evaluates (github.com/mcordts/cityscapesScripts, helpers/labels.py).
    "cityscapes19": (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    # A dozen everyday surfaces and things, for a first look at any photograph; ours.
    "everyday": ("sky", "grass", "tree", "water", "road", "building", "person", "dog", "cat", "car", "food", "wall"),
}
