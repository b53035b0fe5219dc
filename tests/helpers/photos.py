"""Small collections of pictures with captions: every picture is another colour, and its caption says its number."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size=(40, 30)) -> Image.Image:
    """One colour a number (blue is the number), with a darker left half."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:] = (40 + 20 * (number % 10), 40 + 2 * number, number)
    pixels[:, : size[0] // 2, :2] //= 2
    return Image.fromarray(pixels)


def encoded(number: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, kind)
    return buffer.getvalue()


def number_of(image) -> int:
    """Which picture it was, of a PIL image or of [3, S, S] in [0, 1]."""
    pixels = np.asarray(image)
    return int(pixels[0, 0, 2]) if pixels.dtype == np.uint8 else round(float(pixels[2].mean() * 255))


def folder(path: Path, count: int) -> Path:
    """NAME.png with NAME.txt."""
    path.mkdir(parents=True)
    for i in range(count):
        (path / f"{i:03}.png").write_bytes(encoded(i))
        (path / f"{i:03}.txt").write_text(f"picture number {i}")
    return path


def tar(path: Path, numbers, change=None) -> Path:
    """A shard of img2dataset's layout; `change` may edit {ending: bytes} of a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for i in numbers:
            about = {
                "caption": f"picture number {i}",
                "key": f"{i:09}",
                "url": "http://example.org",
                "status": "success",
            }
            files = {"png": encoded(i), "txt": f"picture number {i}".encode(), "json": json.dumps(about).encode()}
            for ending, data in (change(i, files) if change else files).items():
                info = tarfile.TarInfo(f"{i:09}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return path


def shards(path: Path, *sizes: int) -> Path:
    """Tars of so many pictures each, numbered on."""
    start = 0
    for k, size in enumerate(sizes):
        tar(path / f"{k:05}.tar", range(start, start + size))
        start += size
    return path
