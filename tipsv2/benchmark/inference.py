"""python -m tipsv2 benchmark: what inference costs here, beside the straightforward path and the machine's own peak.

    python -m tipsv2 benchmark
    python -m tipsv2 benchmark --models opentips-nano --turns 9 --json
    python -m tipsv2 benchmark --search 1000000

The straightforward path is plain transformers (tipsv2/benchmark/straightforward.py). Both take turns (A B A B ...),
medians over the turns, so that a busy machine slows both. `of_matrix_rate` is the work of a forward pass per second,
over the rate at which this machine multiplies matrices of the shapes of the model's own linear layers in the number
type used, and `ratio_at_matrix_rate` what the ratio would be if everything ran at that rate. b14-random is TIPSv2 B/14
in its size
with random weights: what it costs does not depend on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

from tipsv2.benchmark.measuring import in_turns, matrix_rate, resident, timed

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import Tipsv2Model

    from tipsv2.benchmark.straightforward import Straightforward
    from tipsv2.network.encoder import Encoder

RANDOM = "b14-random"
SIZES = (224, 448, 896)
PHOTO = (1024, 768)  # width and height of the picture that is segmented
SOME = 64  # prompts that the straightforward path is timed on: padded, each takes as long as any other
MEMORY = (("ours", 448), ("straightforward", 448), ("ours", 896), ("straightforward", 896), ("ours", 1792))
STEPS = len(SIZES) + 5 + len(MEMORY)
ENCODED = ("cls", "caption_cls", "patches")  # what plain transformers gives


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `benchmark` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "benchmark",
        run,
        "Measure encoding, segmentation, text, queries and memory beside the straightforward path. Takes minutes.",
        "benchmark --models opentips-nano --turns 9 --json\n  python -m tipsv2 benchmark --search 1000000",
    )
    parser.add_argument(
        "--models", default=f"{RANDOM},opentips-nano", help=f"names, folders or {RANDOM} (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, on a CPU int8 (default: auto)"
    )
    parser.add_argument("--turns", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument(
        "--search", type=int, metavar="N", help="measure a search in so many made embeddings, and nothing else"
    )
    parser.add_argument("--width", type=int, default=384, help="of these embeddings (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")


def run(options: argparse.Namespace) -> None:
    """The benchmark command. Raises ValueError with one sentence for whoever typed it."""
    from tqdm.auto import tqdm

    from tipsv2.evaluation import as_text

    names = [name.strip() for name in options.models.split(",") if name.strip()]
    if options.turns < 1 or not names:
        raise ValueError("give at least one model and one turn: --models opentips-nano --turns 5.")
    if options.search is not None:
        from tipsv2.benchmark import search

        measured = search.measure(options.search, options.width, options.turns)
        print(json.dumps(measured) if options.json else search.report(measured))
        return
    results = {}
    with tqdm(total=len(names) * STEPS, unit="part", desc="benchmark") as bar:
        for name in names:
            results[name] = measure(name, options.device, options.dtype, options.turns, bar.update)
    if options.json:
        print(json.dumps(results))
    else:
        for name, numbers in results.items():
            print(f"{name}\n\n{as_text(numbers)}\n")


def measure(name: str, device: str = "auto", dtype: str = "auto", turns: int = 5, tick: Callable = int) -> dict:
    """All measurements of one model, seconds and ratios; `tick()` is called after each of `STEPS` parts."""
    from tipsv2.prompts import CLASS_LISTS

    ours, plain = open_both(name, device, dtype)
    # A random text tower takes all names for about the same: nothing could be told apart.
    text = unit_rows(150, ours) if name == RANDOM else ours.encode_text(list(CLASS_LISTS["ade20k150"]), "tips9")
    measured = speeds(ours, plain, text, turns, tick)
    memory = {}
    for who, size in MEMORY:
        memory[f"{who} {size}"] = peak(name, device, dtype, who, size)
        tick()
    return measured | {"peak_memory_mb": memory}


def speeds(ours: Encoder, plain: Straightforward, text: torch.Tensor, turns: int, tick: Callable) -> dict:
    """What both take for the same, and how well they agree. text: unit rows [C, D] that label maps are of."""
    import torch

    rows: dict = {"device": str(ours.device), "dtype": ours.precision,
                   "threads": torch.get_num_threads()}  # fmt: skip
    encoded = {}
    for size in SIZES:
        pixels = torch.rand(1, 3, size, size)
        work, rate = plain.operations(pixels), matrix_rate(ours, size)
        both = in_turns(lambda p=pixels: ours.encode_pixels(p, only=ENCODED), lambda p=pixels: plain.encode(p), turns)
        encoded[str(size)] = both | {
            "gigaflop": work / 1e9, "matrix_teraflops": rate / 1e12, "of_matrix_rate": work / both["ours"] / rate,
            "ratio_at_matrix_rate": both["straightforward"] / (work / rate),
        }  # fmt: skip
        tick()
    rows["encode"] = encoded
    pixels, photo = torch.rand(1, 3, 448, 448), photograph()
    others = {"value features, 448 px": in_turns(
        lambda: ours.encode_pixels(pixels, only=("values",)), lambda: plain.values(pixels), turns
    )}  # fmt: skip
    tick()
    others["sliding windows, 150 classes"] = in_turns(
        lambda: segment(ours, photo, text), lambda: plain.segment(photo, text), turns
    )
    tick()
    others |= reading(ours, plain, turns)
    tick()
    rows["other"] = others
    rows["follow_up"] = follow_up(ours, photo, turns)
    tick()
    rows["agreement"] = agreement(ours, plain, photo, text)
    tick()
    return rows


def open_both(name: str, device: str = "auto", dtype: str = "auto") -> tuple[Encoder, Straightforward]:
    """A model as `tipsv2.load` gives it, and in plain transformers; B/14 in size with random weights for `RANDOM`."""
    import torch

    from tipsv2.benchmark.straightforward import Straightforward
    from tipsv2.checkpoints.bundled import MODELS_FOLDER, NANO
    from tipsv2.checkpoints.catalogue import HUB, fetch, find
    from tipsv2.checkpoints.weights import read_model, read_tokenizer
    from tipsv2.network.encoder import INT8, Encoder, for_inference, load, pick_device, pick_dtype
    from tipsv2.network.view import window_sizes

    if name == RANDOM:
        where = pick_device(device)
        torch.manual_seed(0)
        model = random_model().to(where, pick_dtype(dtype, where))
        ours = Encoder(HUB["tipsv2-b14"], model, read_tokenizer(MODELS_FOLDER / NANO, 32000))
        for_inference(model, int8=dtype == INT8)
        torch.manual_seed(0)
        plain = random_model()
    else:
        ours, plain = load(name, device, dtype), read_model(fetch(find(name)), torch.float32)
    return ours, Straightforward(plain.to(ours.device).eval(), ours.tokenizer, *window_sizes(ours))


def random_model() -> Tipsv2Model:
    """Tipsv2Model of the size of B/14, float32."""
    from transformers import Tipsv2Config, Tipsv2Model

    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = Tipsv2Config(
        vision_config={**sizes, "patch_size": 14, "image_size": 448},
        text_config={**sizes, "intermediate_size": 3072, "vocab_size": 32000},
    )
    return Tipsv2Model._from_config(config, attn_implementation="sdpa").eval()


def unit_rows(count: int, encoder: Encoder) -> torch.Tensor:
    """Directions [count, D] that stand for texts."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, encoder.model.config.vision_config.hidden_size, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1)


def photograph() -> Image.Image:
    """A picture of the size of a photograph, always the same."""
    from PIL import Image

    from tipsv2.scenes import draw

    return Image.fromarray(draw(7, 1024).image).resize(PHOTO)


def segment(encoder: Encoder, image: Image.Image, text: torch.Tensor) -> torch.Tensor:
    """Sliding windows as the evaluation looks through them, text ready -> label map [H, W]."""
    from tipsv2.analysis.segmentation import label
    from tipsv2.network.view import look, windowed

    (features,) = look(encoder, [image], windowed(encoder, None, "bicubic"), only=("values",), device=None)
    return label(features, text).labels.cpu()


def reading(ours: Encoder, plain: Straightforward, turns: int) -> dict[str, dict[str, float]]:
    """150 classes in nine templates: the first time, and again in another process, from the disk."""
    from tipsv2.checkpoints.catalogue import cached_folder
    from tipsv2.prompts import CLASS_LISTS, TEMPLATES

    names = list(CLASS_LISTS["ade20k150"])
    prompts = [frame.replace("{}", name) for name in names for frame in TEMPLATES["tips9"]]

    def read(keep: bool = False) -> torch.Tensor:
        ours.forget_texts()
        return ours.encode_text(names, "tips9", keep)

    first = in_turns(read, lambda: plain.text(prompts[:SOME]), turns)
    whole = first["straightforward"] * len(prompts) / SOME
    rows = {"text, 150 classes x 9, first": {"ours": first["ours"], "straightforward": whole,
                                              "ratio": whole / first["ours"]}}  # fmt: skip
    before, info = os.environ.get("TIPSV2_CACHE"), ours.info
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIPSV2_CACHE"] = folder
        if info.source == "hub" and cached_folder(info) is None:  # random weights: the cache tells models by files
            plain.model.save_pretrained(f"{folder}/model")
            ours.info = dataclasses.replace(info, source="folder", location=f"{folder}/model")
        try:
            read(keep=True)
            again = statistics.median(timed(lambda: read(keep=True)) for _ in range(turns))
        finally:
            ours.info = info
            os.environ.pop("TIPSV2_CACHE") if before is None else os.environ.update(TIPSV2_CACHE=before)
    rows["text, from the disk"] = {"ours": again, "straightforward": whole, "ratio": whole / again}
    return rows


def follow_up(encoder: Encoder, image: Image.Image, turns: int) -> dict[str, float]:
    """Seconds of encoding a picture, and of asking it one phrase more: new to the encoder, and known."""
    from tipsv2.analysis.heatmap import maps

    features = encoder.look(image)
    fresh = iter(range(10**6))

    def ask(phrase: str) -> None:
        maps(features, encoder.encode_text([phrase]))

    took = {
        "encoding": lambda: encoder.look(image),
        "new phrase": lambda: ask(f"a red car number {next(fresh)}"),
        "known phrase": lambda: ask("a red car"),
    }
    for call in took.values():
        call()
    seconds = {name: statistics.median(timed(call) for _ in range(turns)) for name, call in took.items()}
    return seconds | {
        f"{name}, times cheaper": seconds["encoding"] / seconds[name] for name in ("new phrase", "known phrase")
    }


def agreement(ours: Encoder, plain: Straightforward, image: Image.Image, text: torch.Tensor) -> dict[str, float]:
    """How near to the straightforward path: the least cosine of a patch, and equal pixels of label maps."""
    import torch

    from tipsv2.images import to_tensor

    pixels = to_tensor(image, (448, 448))[None]
    patches = ours.encode_pixels(pixels, only=("patches",))["patches"].flatten(1, 2)
    cosines = torch.cosine_similarity(patches, plain.encode(pixels)[:, -patches.shape[1] :], dim=-1)
    same = segment(ours, image, text) == plain.segment(image, text)
    return {"least cosine of a patch": float(cosines.min()), "equal pixels of label maps": float(same.float().mean())}


def peak(name: str, device: str, dtype: str, who: str, size: int) -> float:
    """MB that encoding a picture of `size` pixels takes beyond the loaded model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (name, device, dtype, who, size))


def _peak(name: str, device: str, dtype: str, who: str, size: int) -> float:
    import torch

    ours, plain = open_both(name, device, dtype)
    encode = (lambda p: ours.encode_pixels(p, only=ENCODED)) if who == "ours" else plain.encode
    encode(torch.rand(1, 3, 56, 56))
    pixels = torch.rand(1, 3, size, size)
    if ours.device.type != "cuda":
        return round(resident(lambda: encode(pixels)) / 1e6)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encode(pixels)
    return round((torch.cuda.max_memory_allocated() - before) / 1e6)
