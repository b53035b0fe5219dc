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


def test_known_counts():
    assert len(CLASS_LISTS["voc20"]) == 20 and len(CLASS_LISTS["cityscapes19"]) == 19
