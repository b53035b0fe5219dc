"""Write scenes as webdataset tar shards: <index>.jpg, <index>.json (caption roles, objects), <index>.png (labels).

python -m train scenes --out scenes --count 10000 --size 224
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from tipsv2 import scenes
from tipsv2.files import whole_file

PER_SHARD = 1000


def write_shards(
    out: Path, count: int, size: int, seed: int = 0, styles=scenes.SEEN_STYLES, show: bool = True
) -> list[Path]:
    """Draw scenes seed .. seed + count - 1 into `out`/scenes-00000.tar and on, a process per core.

    A shard that is already there is kept: an interrupted command goes on. names.json holds what a label means,
    scenes.json what was asked for.
    Raises ValueError for a size or count out of range, unknown styles, or a folder in which something else is.
    """
    if count < 1:
        raise ValueError(f"--count {count}: ask for at least one scene.")
    styles = scenes.chosen_styles(styles, "--styles")
    scenes.draw(seed, size, styles)  # a bad size fails here, before any process starts
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, {"count": count, "size": size, "seed": seed, "styles": list(styles)})
    (out / "names.json").write_text(json.dumps(scenes.names(), ensure_ascii=False) + "\n")
    ranges = [
        (k, range(seed + k * PER_SHARD, seed + min(count, (k + 1) * PER_SHARD))) for k in range(-(-count // PER_SHARD))
    ]
    todo = [(k, r) for k, r in ranges if not _path(out, k).exists()]
    workers = min(os.cpu_count() or 1, len(todo))
    bar = tqdm(total=count, initial=count - sum(len(r) for _, r in todo), unit="scene", disable=not show)
    with bar:
        if workers <= 1:
            for k, seeds in todo:
                bar.update(_write(out, size, styles, k, seeds))
        else:
            with ProcessPoolExecutor(workers) as pool:
                for written in pool.map(partial(_write_star, out, size, styles), todo):
                    bar.update(written)
    return [_path(out, k) for k, _ in ranges]


def _claim(out: Path, asked: dict) -> None:
    """Keep what is asked for in `out`. Raises ValueError if its shards are of something else, or unknown."""
    record = out / "scenes.json"
    if any(out.glob("*.tar")):
        try:
            before = json.loads(record.read_text())
        except (OSError, ValueError):
            raise ValueError(f"{out} holds shards, and no {record.name} says of what; choose another --out.") from None
        if before.get("count", 1) % PER_SHARD == 0 and asked["count"] > before["count"]:
            before["count"] = asked["count"]  # shards that are whole may be followed by others
        if before != asked:
            was = ", ".join(f"{key}={before.get(key)}" for key in asked if before.get(key) != asked[key])
            raise ValueError(f"{out} holds scenes of another kind ({was}); choose another --out.")
    with whole_file(record) as part:
        part.write_text(json.dumps(asked) + "\n")


def _path(out: Path, shard: int) -> Path:
    return out / f"scenes-{shard:05d}.tar"


def _write_star(out: Path, size: int, styles: tuple[str, ...], job: tuple[int, range]) -> int:
    return _write(out, size, styles, *job)


def _write(out: Path, size: int, styles: tuple[str, ...], shard: int, seeds: range) -> int:
    with whole_file(_path(out, shard)) as part, tarfile.open(part, "w") as tar:
        for seed in seeds:
            for name, data in _files(seed, size, styles):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return len(seeds)


def _files(seed: int, size: int, styles: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    scene = scenes.draw(seed, size, styles)
    names = scenes.names()
    about = {**scene.captions, "seed": seed, "regions": scene.regions}
    about["objects"] = [names[len(scenes.STUFF) + o.noun] for o in scene.objects]
    yield f"{seed:012d}.jpg", _encode(Image.fromarray(scene.image), "JPEG", quality=92)
    yield f"{seed:012d}.json", json.dumps(about, ensure_ascii=False).encode()
    yield f"{seed:012d}.png", _encode(Image.fromarray(scene.labels.astype("uint16")), "PNG", compress_level=3)


def _encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
