"""Training runs as they lie on the disk, and zips to start them from, for the tests of the Train tab."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from shapes import write

from train.recipe import recipes, settings
from train.recipe.overrides import override

# In the stead of `python -m train`: sleeps until it is asked to stop.
SLEEPER = """\
import signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
signal.signal(signal.SIGTERM, lambda *_: (print("stopped after step 1; go on with --resume."), sys.exit(0)))
(out / "ready").touch()
time.sleep(60)
"""


def shapes_zip(folder: Path) -> str:
    """A dozen small pictures with captions in one folder of a zip, as packing a folder makes it."""
    write(folder / "shapes", 12, size=56)
    return pack(folder / "shapes.zip", {f"shapes/{p.name}": p.read_bytes() for p in (folder / "shapes").iterdir()})


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def picture(seed=0, size=8):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def pairs(count=3):
    return {f"{k}.{end}": picture(k) if end == "png" else f"number {k}" for k in range(count) for end in ("png", "txt")}


def wait(until, seconds=30):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def run_folder(runs, name, recipe=None, lines=(), done=False, log="", **app):
    """A run as it lies on the disk."""
    folder = runs / name
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "log.txt").write_text(log)
    (folder / "app" / "command.json").write_text(json.dumps(["finetune", "--base", "tiny", "--out", str(folder)]))
    for file, content in app.items():
        (folder / "app" / f"{file}.json").write_text(json.dumps(content))
    if recipe:
        (folder / "recipe.json").write_text(json.dumps(settings.to_dict(recipe)))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text('{"model_type": "tipsv2"}')
    return folder


def logged(steps, **more):
    return [
        {
            "step": k,
            "loss": 3.0 / k,
            "loss/contrastive/web": 2.0 / k,
            "lr": 1e-4,
            "ln_batch": 1.5,
            "images_per_second": 8.0,
        }
        | more
        for k in range(1, steps + 1)
    ]


def short(steps=4):
    return override(recipes.get("finetune"), [f"stages.0.steps={steps}", "stages.0.batch_size=4"])
