"""The calibrate command: label maps, an encoder -> verdict.json beside its weights, and what its verdicts are worth.

python -m tipsv2 calibrate scenes:val --model opentips-nano --unlike photos
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

MOST = 20  # pictures of a data set, by default


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `calibrate` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "calibrate",
        run,
        "Fit what “here” and “not here” mean for an encoder to label maps, and write verdict.json beside its weights.",
        "calibrate scenes:val --model opentips-nano --unlike photos\n"
        "  python -m tipsv2 calibrate folder:held folder:street/val,names=street.txt,first=0,void=11",
    )
    parser.add_argument(
        "data", nargs="+", help="scenes:val, folder:FOLDER of your own labelled pictures, or LAYOUT:FOLDER"
    )
    parser.add_argument(
        "--model", default="auto", help="auto, opentips-nano, google/tipsv2-b14, a folder, ... (default: auto)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, on a CPU int8 (default: auto)"
    )
    parser.add_argument("--limit", type=int, default=MOST, help="pictures of each data set (default: %(default)s)")
    parser.add_argument(
        "--resolution", type=int, help="short side in pixels that the network sees (default: as trained)"
    )
    parser.add_argument(
        "--unlike", nargs="+", default=[], metavar="DIR",
        help="folders of pictures of a kind the encoder has never seen, photographs for one of drawings: on such a "
        "picture it then says “unknown” (default: it answers on any picture)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for verdict.json (default: the model's own, if it is a folder)"
    )


def run(options: argparse.Namespace) -> None:
    """The calibrate command. Raises ValueError or OSError with one sentence for whoever typed it."""
    from tipsv2.evaluation import as_text
    from tipsv2.evaluation.familiarity import fit_familiar, pictures_in
    from tipsv2.evaluation.layouts import open_data
    from tipsv2.evaluation.segmentation.calibration import calibrate
    from tipsv2.network.encoder import load
    from tipsv2.scenes.splits import is_scenes

    started = time.perf_counter()
    for name in options.data:
        if not is_scenes(name):
            open_data("segmentation", name)  # before the model: wrong data should not cost its loading
    for folder in options.unlike:
        pictures_in(folder)
    encoder = load(options.model, options.device, options.dtype)
    if options.out is None and encoder.info.source not in ("bundled", "folder", "run"):
        raise ValueError(f"{encoder.info.name} has no folder of its own: say where verdict.json goes with --out DIR.")
    fitted, figures = calibrate(encoder, options.data, options.resolution, options.limit)
    if options.unlike:
        familiar = fit_familiar(encoder, options.data, options.unlike, options.resolution)
        fitted = replace(fitted, familiar=familiar)
    folder = options.out or Path(encoder.info.location)
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in figures.items():
        print(f"{name}, each half judged by what was fitted to the other\n{as_text(numbers)}\n")
    if fitted.familiar is not None:
        numbers = fitted.familiar.figures or {}
        print(f"kinds of pictures, each fifth judged by what was fitted to the others\n{as_text(numbers)}\n")
    print(f"written to {fitted.save(folder)} in {time.perf_counter() - started:.0f} s")
