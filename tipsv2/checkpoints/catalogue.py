"""A model name -> where its weights are: bundled with the project, on the Hugging Face Hub, or in a local folder.

Sizes of the Hub family: github.com/google-deepmind/tips README and the model cards (weights Apache-2.0). Weights are
safetensors only; nothing is unpickled and no code out of a model folder ever runs. Light: no torch in here.

    from tipsv2.checkpoints.catalogue import available, find, is_cached
"""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.model_files import (
    DPT_TYPE,
    OUTDATED,
    ModelError,
    num_parameters,
    outdated,
    read_config,
    read_json,
    vision_sizes,
)
from tipsv2.files import recover

AUTO_HUB = "tipsv2-b14"  # what "auto" takes when it is already on this machine
CHECKPOINT = "state.safetensors"  # in checkpoints/step-<number>/ of a run


@dataclass(frozen=True)
class ModelInfo:
    """What is known about an encoder, or about one with DPT heads, before its weights are read."""

    name: str
    title: str
    source: str  # "bundled" | "hub" | "folder" | "run": a training run's model | "checkpoint": it at an earlier step
    location: str  # a path or a Hub id
    parameters: str  # "86M + 110M": vision + text (or + heads), or one total
    width: int  # D of the embeddings, 0 if unknown
    resolution: int  # training pixels, 0 if unknown
    trained_on: str  # one sentence
    download_mb: int  # 0 if local
    licence: str
    knows: tuple[str, ...] = ()  # kinds of pictures, of bundled.PHOTOGRAPHS and DRAWINGS; () where nobody has said


def _hub(name: str, size: str, parameters: str, width: int, download_mb: int) -> ModelInfo:
    return ModelInfo(
        name=name,
        title=f"TIPSv2 {size}",
        source="hub",
        location=f"google/{name}",
        parameters=parameters,
        width=width,
        resolution=448,
        trained_on="116 million web images with their alt-texts and synthetic captions (WebLI), by Google DeepMind.",
        download_mb=download_mb,
        licence="Apache-2.0",
        knows=(bundled.PHOTOGRAPHS,),
    )


# Download sizes: parameters in float32.
HUB = {
    info.name: info
    for info in (
        _hub("tipsv2-b14", "B/14", "86M + 110M", 768, 780),
        _hub("tipsv2-l14", "L/14", "303M + 184M", 1024, 1950),
        _hub("tipsv2-so400m14", "So400m/14", "412M + 448M", 1152, 3440),
        _hub("tipsv2-g14", "g/14", "1.1B + 389M", 1536, 6100),
    )
}
DPT = {  # the same vision encoders with heads and without text, for tipsv2.analysis.depth
    info.name: replace(info, trained_on="The encoder as its namesake; the heads on NYU Depth v2 and ADE20K.")
    for info in (
        _hub("tipsv2-b14-dpt", "B/14 with DPT heads", "86M + 72M", 768, 632),
        _hub("tipsv2-l14-dpt", "L/14 with DPT heads", "304M + 102M", 1024, 1623),
        _hub("tipsv2-so400m14-dpt", "So400m/14 with DPT heads", "413M + 120M", 1152, 2132),
        _hub("tipsv2-g14-dpt", "g/14 with DPT heads", "1.1B + 185M", 1536, 5282),
    )
}


def find(name: str | Path) -> ModelInfo:
    """Resolve a name: "auto" (tipsv2-b14 if already downloaded, else `bundled.default`), a bundled name, today's or an
    old one, a Hub family or DPT name with or without "google/", any other Hub "owner/name", or the path of a model
    folder, of a run or of a finished run's checkpoint.

    Touches neither the network nor the weights. Raises ModelError with the near names on anything else.
    """
    text = bundled.current_name(str(name).strip())
    if text == "auto":
        return HUB[AUTO_HUB] if is_cached(HUB[AUTO_HUB]) else find(bundled.default())
    if text in bundled.names():
        return _bundled(text)
    if info := (HUB | DPT).get(text.removeprefix("google/")):
        return info
    path = Path(os.path.expanduser(text))  # Path's own raises on "~" and an unknown user
    if text.endswith(".npz") or path.suffix in (".bin", ".pt", ".pth", ".safetensors"):
        hint = "python -m tipsv2 convert makes such a folder from the official .npz pair"
        raise ModelError(
            f"'{text}' is a weight file: give the folder with config.json and tokenizer around it ({hint})."
        )
    for folder in (path, path / "model") if text else ():
        recover(folder)  # a training may have been killed while it put a new one in its place
    if text and os.path.isdir(path):
        return _checkpoint(path) or _folder(path / "model" if _is_run(path) and (path / "model").is_dir() else path)
    if _is_hub_id(text):
        return ModelInfo(
            text, text, "hub", text, parameters="unknown", width=0, resolution=0,
            trained_on="Unknown: see its page on the Hub.", download_mb=0, licence="see the Hub",
        )  # fmt: skip
    known = [info.name for info in (*available(), *DPT.values())]
    near = difflib.get_close_matches(text, [*known, "auto"], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"give a folder, a Hub id, or one of {', '.join(known)}."
    raise ModelError(f"There is no model or folder '{text[:100]}': {hint}")


def _is_hub_id(text: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def available() -> list[ModelInfo]:
    """The encoders a menu should offer: the bundled ones first, then the Hub family from small to large."""
    return [*map(_bundled, bundled.names()), *HUB.values()]


def is_cached(info: ModelInfo) -> bool:
    """Can it be loaded without the network? Looks at the disk only."""
    folder = cached_folder(info) if info.source == "hub" else Path(info.location)
    return folder is not None and not _missing_parts(folder)


def cached_folder(info: ModelInfo) -> Path | None:
    """The complete snapshot of a Hub model in the local Hub cache (HF_HUB_CACHE), or None. No network. One in the
    release's first form counts as none, so that it is downloaded anew.
    """
    folder = snapshot(info)
    return None if folder is None or _missing_parts(folder) else folder


def snapshot(info: ModelInfo) -> Path | None:
    """Where the local Hub cache has what is there of a Hub model, complete or not; None without its config.json."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(info.location, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def fetch(info: ModelInfo, progress: bool = True) -> Path:
    """The folder with the weights of `info`, downloaded from the Hub if it is not on the disk yet. A checkpoint's is
    the one of its run's model, over which `tipsv2.checkpoints.weights.turn_back` lays the earlier weights.

    progress: show the Hub's progress bar. Raises ModelError within five seconds when the Hub does not answer.
    """
    if info.source == "checkpoint":
        folder = Path(info.location).resolve().parent.parent / "model"
    elif info.source != "hub":
        folder = Path(info.location)
    else:
        from tipsv2.checkpoints.download import download

        folder = cached_folder(info) or download(info, progress)
    if missing := _missing_parts(folder):
        raise ModelError(f"The model folder '{folder}' cannot be used: {missing}.")
    return folder


def _missing_parts(folder: Path) -> str:
    """What keeps a folder from being a loadable encoder or DPT model, as half a sentence; empty if nothing."""
    if not folder.is_dir():
        return "it does not exist"
    if not (folder / "config.json").is_file():
        return "it has no config.json"
    if outdated(folder):
        return f"it {OUTDATED}"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(map(str, read_json(index)["weight_map"].values())))
        except (ModelError, KeyError, AttributeError, TypeError):
            return "its model.safetensors.index.json cannot be read"
        if lost := [shard for shard in shards if not (folder / shard).is_file()]:
            return f"it lacks {lost[0]}"
    elif not (folder / "model.safetensors").is_file():
        if any(any(folder.glob(pattern)) for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")):
            return "it holds pickled weights only, which may run code when opened: save them as safetensors"
        return "it has no model.safetensors"
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return ""
    with suppress(ModelError):
        read_config(folder, DPT_TYPE)
        return ""  # heads read no text
    return "it has no tokenizer.json"


def resolution_of(folder: Path, config: dict) -> int:
    """The short side in pixels at which a model folder's encoder is at its best, 0 where it does not say: `size` in
    preprocessor_config.json, else the training resolution in config.json, which is that of its position table.
    """
    try:
        sides = read_json(folder / "preprocessor_config.json")["size"].values()
        side = min(sides)
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        side = 0
    return side if type(side) is int and side > 0 else vision_sizes(config)[1]


def _bundled(name: str) -> ModelInfo:
    about = bundled.about(name)
    return replace(
        _folder(bundled.MODELS_FOLDER / name), name=name, title=about.title or f"{name} (bundled)", source="bundled",
        trained_on=about.trained_on, licence="Apache-2.0", knows=about.knows,
    )  # fmt: skip


def _is_run(folder: Path) -> bool:
    """A folder of `python -m train`: its model/ is called after the run, since every run's is called "model"."""
    return (folder / "recipe.json").is_file()


def _checkpoint(path: Path) -> ModelInfo | None:
    """checkpoints/step-<number> of a finished run: its model at an earlier step."""
    model, step = path.resolve().parent.parent / "model", path.name[5:]
    if not (path.name.startswith("step-") and step.isdigit() and (path / CHECKPOINT).is_file() and model.is_dir()):
        return None
    run = _folder(model)
    name = f"{run.name}@{int(step)}"
    return replace(run, name=name, title=name, source="checkpoint", location=str(path))


def _folder(path: Path) -> ModelInfo:
    try:
        config = read_config(path)
    except ModelError:
        config = {}  # a menu lists it all the same; loading it says what is wrong
    run = path.parent if path.name == "model" and _is_run(path.parent) else None
    name = (run or path).resolve().name
    return ModelInfo(
        name=name,
        title=name,
        source="run" if run else "folder",
        location=str(path),
        parameters=_rounded(num_parameters(path)),
        width=vision_sizes(config)[0],
        resolution=resolution_of(path, config),
        trained_on=f"By the run in {run}, see its recipe.json." if run else "Unknown: a local folder.",
        download_mb=0,
        licence="yours",
    )


def _rounded(count: int) -> str:
    """4300000 -> "4.3M"; 0 -> "unknown"."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g}{unit}"
    return str(count) if count else "unknown"
