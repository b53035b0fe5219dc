"""TIPSv2 encoders from the command line: pictures and numbers into a folder.

python -m tipsv2 heatmap dog.jpg "a dog" "grass" --out out
python -m tipsv2 segment dog.jpg --classes "dog,grass,sky" --out out
python -m tipsv2 compare dog.jpg --models opentips-nano,google/tipsv2-b14 --queries "dog,grass" --out compare.png
python -m tipsv2 depth room.jpg --model google/tipsv2-b14-dpt --out room_depth.png
python -m tipsv2 features dog.jpg --model opentips-nano --out features.png
python -m tipsv2 evaluate segmentation --data scenes:val --model opentips-nano --json
python -m tipsv2 evaluate retrieval --data scenes:val --model opentips-nano --language de,fr
python -m tipsv2 calibrate scenes:val --model opentips-nano
python -m tipsv2 embed photos --out embedded --captions
python -m tipsv2 search embedded "a dog on grass" --out dogs.png
python -m tipsv2 convert VISION.npz TEXT.npz FOLDER --tokenizer tokenizer.model
python -m tipsv2 convert runs/mine/model official/mine
python -m tipsv2 export opentips-nano exported
python -m tipsv2 push runs/mine owner/mine --licence apache-2.0 --dry-run
python -m tipsv2 verify google/tipsv2-b14
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.analysis import depth_picture, feature_picture
from tipsv2.benchmark import inference as benchmark
from tipsv2.collections import embed_command, search
from tipsv2.evaluation import calibrate_command, side_by_side, verify
from tipsv2.evaluation import command as evaluation
from tipsv2.prompts import TEMPLATES
from tipsv2.sharing import convert, export, push

if TYPE_CHECKING:
    import numpy as np

    from tipsv2.network.encoder import Encoder

PROGRAM = "tipsv2" if Path(sys.argv[0]).name in ("tipsv2", "tipsv2.exe") else "python -m tipsv2"  # as it was called


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; 0 if it worked, 2 with one sentence on stderr if it did not."""
    parser = build_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        return 0
    try:
        evaluation.look(sys.argv[1:] if arguments is None else arguments)
        options = parser.parse_args(arguments)
        options.run(options)
    except (ValueError, OSError) as error:  # ImageError and ModelError are ValueErrors; OSError: nowhere to write
        print(f"tipsv2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tipsv2: stopped.", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__.replace("python -m tipsv2", PROGRAM),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable, summary: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {PROGRAM} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    heat = command(
        "heatmap",
        run_heatmap,
        "Show where in an image each phrase is: one overlay per phrase, maps.npz and scores.json.",
        'heatmap dog.jpg "a dog" "grass" --mode competing --out out',
    )
    heat.add_argument("image", help="a picture")
    heat.add_argument("queries", nargs="+", metavar="QUERY", help="a phrase, in quotes if it has several words")
    heat.add_argument(
        "--mode", choices=("cosine", "competing"), default="cosine", help="each phrase alone, or against the others"
    )
    heat.add_argument("--colormap", default="viridis", help="any colormap of matplotlib (default: %(default)s)")
    _add_encoder(heat)
    _add_picture(heat, templates="none")

    cut = command(
        "segment",
        run_segment,
        "Give every pixel one of the classes: overlay.png, labels.png, legend.png and shares.json.",
        'segment dog.jpg --classes "dog,grass,sky" --background "wall,floor" --out out',
    )
    cut.add_argument("image", help="a picture")
    cut.add_argument("--classes", required=True, metavar="NAMES", help="class names, separated by commas")
    cut.add_argument(
        "--background",
        metavar="NUMBER|NAMES",
        help="a cosine under which a pixel is background, words for it, or verdict: by the encoder's calibration",
    )
    cut.add_argument(
        "--protocol",
        choices=("whole", "slide"),
        default="whole",
        help="one pass, or windows, as in evaluate segmentation (default: %(default)s)",
    )
    cut.add_argument(
        "--resample",
        choices=("bicubic", "bilinear"),
        default="bicubic",
        help="bicubic as TIPSv2's protocol, bilinear as heatmap and the explorer (default: %(default)s)",
    )
    cut.add_argument("--sharp", action="store_true", help="let the edges follow the picture's")
    _add_encoder(cut)
    _add_picture(cut, templates="tips9")

    side_by_side.add_command(command)
    depth_picture.add_command(command)
    feature_picture.add_command(command)
    benchmark.add_command(command)
    evaluation.add_command(command)
    calibrate_command.add_command(command)
    convert.add_command(command)
    export.add_command(command)
    push.add_command(command)
    embed_command.add_command(command)
    search.add_command(command)
    verify.add_command(command)
    return parser


def run_heatmap(options: argparse.Namespace) -> None:
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.images import open_image

    image = open_image(options.image)  # before torch and the model: a wrong path should not cost their loading
    find(options.model)

    import numpy as np

    from tipsv2.analysis.heatmap import patch_maps, peak, query_rows, to_pixels
    from tipsv2.analysis.render import overlay
    from tipsv2.network.view import View

    encoder = _load(options)
    text, temperature = query_rows(encoder, options.queries, options.mode, options.templates)
    features = encoder.look(image, View(options.resolution))
    answers = patch_maps(features, text, options.features, temperature)
    maps = to_pixels(answers, features.size).numpy()
    # One range for all phrases, so that their pictures can be compared.
    low, high = (0.0, 1.0) if options.mode == "competing" else (float(maps.min()), float(maps.max()))
    pixels = np.asarray(image)
    pictures = [overlay(pixels, values, options.colormap, options.opacity, low, high) for values in maps]
    out = _folder(options.out)
    scores = []
    for number, (query, grid, picture) in enumerate(zip(options.queries, answers, pictures, strict=True), 1):
        top = peak(grid)
        x, y = top.at(features.size)
        scores.append({"query": query, "peak": top.score, "mean": float(grid.mean()), "x": x, "y": y})
        _save(picture, out / f"{number:02d}_{_slug(query)}.png")
    np.savez_compressed(out / "maps.npz", maps=maps, queries=np.array(options.queries))
    _write_json(out / "scores.json", {**_settings(options, encoder), "mode": options.mode, "scores": scores})
    wide = max(len("query"), *(len(query) for query in options.queries))
    print(f"{'query':<{wide}}    peak    mean   at (x, y)")
    for row in scores:
        print(f"{row['query']:<{wide}}  {row['peak']:6.3f}  {row['mean']:6.3f}   ({row['x']}, {row['y']})")
    print(f"written to {out}")


def run_segment(options: argparse.Namespace) -> None:
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.images import open_image

    image = open_image(options.image)
    find(options.model)

    import numpy as np
    from PIL import Image

    from tipsv2.analysis.render import PALETTE, legend, paint_labels
    from tipsv2.analysis.segmentation import VERDICT, background_rule, segment

    classes = _split(options.classes)
    if len(classes) > 255:
        raise ValueError(f"labels.png holds at most 255 classes, not {len(classes)}.")
    encoder = _load(options)
    result = segment(
        encoder,
        image,
        classes,
        options.templates,
        options.features,
        VERDICT if options.background == VERDICT else background_rule(options.background),
        options.resolution,
        windows=options.protocol == "slide",
        sharp=options.sharp,
        resample=options.resample,
    )
    painted = paint_labels(np.asarray(image), result.labels, opacity=options.opacity)
    out = _folder(options.out)
    _save(painted, out / "overlay.png")
    labels = Image.fromarray(np.where(result.labels < 0, 255, result.labels).astype(np.uint8))  # 255: background
    colors = [PALETTE[index % len(PALETTE)] for index in range(255)] + [(0, 0, 0)]
    labels.putpalette([channel for color in colors for channel in color])
    labels.save(out / "labels.png")
    _save(legend(result.classes, shares=[result.shares[name] for name in result.classes]), out / "legend.png")
    _write_json(out / "shares.json", {**_settings(options, encoder), "classes": classes, "shares": result.shares})
    wide = max(len(name) for name in result.shares)
    for name, share in sorted(result.shares.items(), key=lambda item: -item[1]):
        print(f"{name:<{wide}}  {100 * share:5.1f} %")
    print(f"written to {out}")


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="auto", help="auto, opentips-nano, google/tipsv2-b14, a folder, ... (default: auto)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, on a CPU int8 (default: auto)"
    )


def _add_picture(parser: argparse.ArgumentParser, templates: str) -> None:
    parser.add_argument("--out", default="out", metavar="DIR", help="folder to write (default: out)")
    parser.add_argument(
        "--features", choices=("values", "final"), default="values", help="which patch features (default: values)"
    )
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATES), default=templates, help="prompts per phrase (default: %(default)s)"
    )
    parser.add_argument(
        "--resolution", type=int, help="short side in pixels that the network sees (default: as trained)"
    )
    parser.add_argument("--opacity", type=float, default=0.6, help="of the colours, 0 to 1 (default: %(default)s)")


def _load(options: argparse.Namespace) -> Encoder:
    from tipsv2.network.encoder import load

    encoder = load(options.model, options.device, options.dtype)
    print(encoder, file=sys.stderr)
    return encoder


def _settings(options: argparse.Namespace, encoder: Encoder) -> dict:
    return {
        "image": Path(options.image).name,
        "model": encoder.info.name,
        "features": options.features,
        "templates": options.templates,
        "resolution": options.resolution or encoder.info.resolution,
    }


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text).strip("_")[:40] or "query"


def _folder(name: str) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
