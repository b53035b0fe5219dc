"""What the server keeps in memory for a visitor: counted whole, of a size that can be shown, and bounded.

python -m pytest tests/test_kept.py
"""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from demos.ask.work import patch_at
from demos.backend import studio
from demos.backend.cache import VisitorCache
from demos.backend.studio import LONGEST, MOST, Studio, open_shown, shown_size
from demos.segment import truth as segmentation_truth
from tipsv2.images import MAX_SIDE, ImageError, open_image


def saved(folder, name, size, value=128):
    path = folder / f"{name}.png"
    Image.new("L", size, value).save(path)
    return path


def header_only(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(1, 50_000_000), (50_000_000, 1), (MAX_SIDE + 1, 2)])
def test_a_strip_is_refused_by_its_header(size):
    tracemalloc.start()
    with pytest.raises(ImageError, match="a side has 65,535 at most"):
        open_image(header_only(*size))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert open_image(np.zeros((MAX_SIDE, 2), np.uint8)).size == (2, MAX_SIDE)


def test_an_image_of_a_program_is_kept_at_the_size_it_is_shown_at(tmp_path, tiny_folder, monkeypatch):
    assert shown_size(3000, 2000) == (2508, 1672) and 2508 * 1672 <= MOST < 2509 * 1673
    assert shown_size(1, 60_000) == (1, LONGEST) and shown_size(200, 100) == (200, 100)
    monkeypatch.setattr(studio, "MOST", 15_000)
    own = Studio(str(tiny_folder), "cpu")
    seen = own.encode("a", own.encoder(), saved(tmp_path, "large", (300, 200)))
    assert seen.given == (300, 200) and seen.image.size == (150, 100) and seen.features.size == (100, 150)
    grids = sum(each.nbytes for each in (seen.features.patches, seen.features.values))
    assert seen.num_bytes >= 4 * 150 * 100 + grids


def test_one_visitor_keeps_their_share_and_no_more(tmp_path, tiny_folder, monkeypatch):
    size = (400, 300)
    studios = Studio(str(tiny_folder), "cpu")
    one = studios.encode("other", studios.encoder(), saved(tmp_path, "other", size)).num_bytes
    monkeypatch.setattr(studio, "KEEP_OF_ONE", 3 * one + one // 2)
    monkeypatch.setattr(studio, "KEEP_BYTES", 5 * one + one // 2)
    own = Studio(str(tiny_folder), "cpu")
    own.encode("other", own.encoder(), saved(tmp_path, "other", size))
    for number in range(8):
        own.encode("hungry", own.encoder(), saved(tmp_path, f"h{number}", size, number))
    whose = [visitor for visitor, _ in own._seen.keys()]
    assert whose.count("hungry") == 3 and whose.count("other") == 1
    for number in range(2):
        own.encode("last", own.encoder(), saved(tmp_path, f"last{number}", size, 99 + number))
    assert {visitor for visitor, _ in own._seen.keys()} == {"hungry", "last"}  # who asked for nothing longest went


def test_a_cache_learns_what_has_grown_and_leaves_out_what_is_too_large():
    class Thing:
        num_bytes = 3

    cache, things = VisitorCache(2, 10, 12), [Thing() for _ in range(4)]
    for number in range(3):
        cache.keep("a", number, things[number])
    assert cache.keys() == [("a", 1), ("a", 2)] and cache.get("a", 0) is None  # two of one visitor
    assert cache.get("a", 1) is things[1]
    things[1].num_bytes = 8
    cache.keep("a", 1, things[1])
    assert cache.keys() == [("a", 1)]  # 8 and 3 are more than 10
    cache.keep("b", 0, things[3])
    assert cache.keys() == [("a", 1), ("b", 0)]
    things[3].num_bytes = 5
    cache.keep("b", 0, things[3])
    assert cache.keys() == [("b", 0)]  # 13 are more than 12, and "a" has asked for nothing longest
    things[3].num_bytes = 11
    cache.keep("b", 0, things[3])
    assert cache.keys() == [] and cache.get("b", 0) is None
    cache.keep("a", 0, things[0])
    cache.keep("b", 1, things[2])
    cache.drop(lambda key: key == 1)
    assert cache.keys() == [("a", 0)]
    cache.forget("a")
    assert cache.keys() == []


def test_a_mask_is_kept_as_small_as_its_image(tmp_path, monkeypatch):
    monkeypatch.setattr(studio, "MOST", 15_000)
    path, image = saved(tmp_path, "mask", (300, 200), 2), saved(tmp_path, "image", (30, 20))
    truth = segmentation_truth.uploaded(str(path), 1, "", ["a", "b"], np.zeros((2, 3), np.uint8), str(image))
    assert truth.labels.dtype == np.int16 and truth.labels.shape == (100, 150) and (truth.labels == 1).all()


def test_a_point_is_in_the_pixels_of_the_file(tmp_path):
    image, given = open_shown(saved(tmp_path, "large", (3000, 2000)))
    assert image.size == (2508, 1672) and given == (3000, 2000)
    assert patch_at((2999, 1999), given[::-1], (4, 6)) == (3, 5) == patch_at((3000, 2000), given[::-1], (4, 6))
    assert patch_at((0, 0), given[::-1], (4, 6)) == (0, 0)
    for point in ((3001, 0), (0, -0.1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="outside the image, which has 3000 × 2000 pixels"):
            patch_at(point, given[::-1], (4, 6))
