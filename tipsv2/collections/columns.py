"""Which column of a collection holds the images, which the captions of each role, which the masks.

find_columns("t.csv", {"Photo": "a.png", "alt": "a dog"}, {}, captions=True)   # {"image": "Photo", "web": "alt"}
"""

from __future__ import annotations

from collections.abc import Mapping

from tipsv2.collections.sources import WRITTEN
from tipsv2.collections.tar_samples import IMAGE_SUFFIXES

ROLES = ("web", "short", "detailed")
NAMES = {  # field -> columns it is looked for in, first found wins; compared in lower case
    "image": (
        "image", *IMAGE_SUFFIXES, "img", "file_name", "filename", "file", "image_path", "filepath", "path", "picture",
    ),
    "web": (
        "web", "caption", "captions", "text", "texts", "txt", "alt", "alt_text", "title", "sentence", "sentences",
        WRITTEN,
    ),
    "short": ("short", "short_caption", "short_captions", "caption_short"),
    "detailed": (
        "detailed", "detailed_caption", "detailed_captions", "long_caption", "long_captions", "caption_long",
        "recaption", "synthetic_caption", "description",
    ),
    "mask": ("mask", "label", "seg.png", "mask.png", "png"),
}  # fmt: skip
LINKS = ("url", "image_url", "img_url", "image_link", "photo_url")  # columns of addresses of images
ENDINGS = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)
WEB = ("http://", "https://")


def find_columns(name: str, seen: dict[str, object], given: Mapping[str, str], captions: bool) -> dict[str, str]:
    """Field (image, a role, mask) -> the column that holds it.

    name: of the collection, for sentences.   seen: every column -> one of its values.
    given: what the user says; the others are found by NAMES, images also by what they are.
    captions: is one needed. Raises ValueError, one sentence that names the columns.
    """
    listed = ", ".join(seen)
    for key, column in given.items():
        if column not in seen:
            raise ValueError(f"{name} has no column {column!r} (data.{key}); its columns are {listed}.")
    mapping, free = dict(given), {k: v for k, v in seen.items() if k not in given.values()}
    for key, names in NAMES.items():
        if key not in mapping:
            fits = _is_text if key in ROLES else _names_image
            lower = {column.lower().replace(" ", "_").replace("-", "_"): column for column in reversed(free)}
            choice = [lower[n] for n in names if n in lower and (free[lower[n]] is None or fits(free[lower[n]]))]
            if key == "web":  # a tar's X.what.txt
                choice += [column for column, value in free.items() if column.endswith(".txt") and _is_text(value)]
            if key == "image":  # whatever its name; an address last, of several the one that is called as images' are
                choice += [column for column, value in free.items() if _is_image(value) and not is_web(value)]
                choice += [lower[n] for n in LINKS if n in lower and is_web(free[lower[n]])]
                choice += [column for column, value in free.items() if _is_image(value)]
            if choice:
                mapping[key] = choice[0]
                del free[choice[0]]
    if "image" not in mapping:
        raise ValueError(f"{name} has no column of images; its columns are {listed}. Name it: data.image=COLUMN.")
    if captions and not any(role in mapping for role in ROLES):
        raise ValueError(
            f"{name} has images but no captions; its columns are {listed}. Name the column (data.web=COLUMN), put "
            "NAME.txt beside NAME.jpg, or write captions with python -m train caption."
        )
    return mapping


def is_web(value: object) -> bool:
    """Is it an address of the web?"""
    return isinstance(value, str) and value[:8].lower().startswith(WEB)


def _names_image(value: object) -> bool:
    """What a column that is called as images are may hold: also addresses, which need not end as files do."""
    return _is_image(value) or is_web(value)


def _is_image(value: object) -> bool:
    if isinstance(value, dict):
        return "bytes" in value
    return isinstance(value, bytes) or (isinstance(value, str) and value.lower().endswith(ENDINGS))


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str | dict) for v in value))
