"""tipsv2.prompts: the lists are whole and well formed.

python -m pytest tests/test_prompts.py
"""

import hashlib

import pytest

from tipsv2.prompts import CLASS_LISTS, TEMPLATES


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("tips9", 9), ("clip80", 80)])
def test_templates(name, count):
    frames = TEMPLATES[name]
    assert len(frames) == len(set(frames)) == count
    assert all(frame.count("{}") == 1 and frame.replace("{}", "").count("{") == 0 for frame in frames)


def test_clip80_is_the_published_set():
    """SHA-256 of OpenAI's eighty lines, sorted and joined by newlines, as they stand in their notebook."""
    digest = hashlib.sha256("\n".join(sorted(TEMPLATES["clip80"])).encode()).hexdigest()
    assert digest == "a8a4822f2921936e2ef07cf2e7a5df69be9532aab2f3f4880156bb03563e2467"


@pytest.mark.parametrize("name", CLASS_LISTS)
def test_class_lists(name):
    names = CLASS_LISTS[name]
    assert len(set(names)) == len(names) and all(word == word.strip() and word for word in names)


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("ade20k150", 150, "f9dbd8a75a0722c971d8c82db76dc205e06cb422d98153f4e5bbf90408ef5438"),
        ("context59", 59, "cd808465f06a16169edc25580073f0eda347e64f06cc1c2e24acd0b237f6497d"),
        ("voc20", 20, "7d877f185c807bc51b4cfb4f4202fc0b4e1c6724b782ba245fe36f8d254f0ad7"),
        ("cocostuff171", 171, "8ea44449837dceb30923012b201fe0152adc612160d0d040c9cfcd77e95f6801"),
        ("cityscapes19", 19, "5995d02d6c574d515fa02371c8c2b5367f55cba8a732fed0567427c093f95adf"),
    ],
)
def test_benchmark_lists_are_the_published_ones(name, count, digest):
    """SHA-256 of the names as their sources write them, in their order (which numbers the classes), joined by newlines.

    The names with a space that their source writes without one are joined first.
    """
    joined = {"potted plant": "pottedplant", "tv monitor": "tvmonitor", "dining table": "diningtable"}
    names = CLASS_LISTS[name]
    if name in ("voc20", "context59"):
        names = [joined.get(word, word) for word in names]
    assert len(names) == count
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == digest
