"""The model card of an encoder, for the Hugging Face Hub: what it is, how to use it, how it was made, what it scores.

Evaluation records are the JSON that `python -m tipsv2 evaluate` prints or writes; their numbers become a table and the
card's model-index.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tipsv2.checkpoints.bundled import OLD_NAMES
from tipsv2.checkpoints.catalogue import HUB, ModelError, ModelInfo, num_parameters, read_config

PIPELINE = "zero-shot-image-classification"
TASKS = {"segmentation": "image-segmentation", "classification": PIPELINE, "depth": "depth-estimation"}
BESIDE = {"chance", "interval", "per_class", "versions", "seconds"}  # of a record: no score of the model


def read_record(path: str | Path, model: str) -> dict:
    """An evaluation record, from its file or the folder that holds record.json. Raises ModelError unless it is of
    `model`.
    """
    path = Path(path)
    file = path / "record.json" if path.is_dir() else path
    try:
        record = json.loads(file.read_text("utf-8"))
        task, data, name = (str(record[key]) for key in ("task", "data", "model"))
    except FileNotFoundError:
        raise ModelError(f"There is no file '{file}': give what python -m tipsv2 evaluate wrote.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"'{file}' is no evaluation record: give what python -m tipsv2 evaluate wrote.") from error
    if OLD_NAMES.get(name, name) != model:
        raise ModelError(f"'{file}' is of {name}, not of {model}: evaluate this model, or leave the file out.")
    command = " ".join(public(shlex.split(str(record.get("command", "")))))
    return record | {"task": task, "data": public(data), "command": command}


def scores(record: Mapping) -> Iterator[tuple[str, float, float | None]]:
    """(metric, value, chance or None) of a record: its floats, and those one level deeper as "values miou_present"."""
    chance = record.get("chance")
    if not isinstance(chance, dict):
        chance = {}
    for key, value in record.items():
        if key in BESIDE:
            continue
        inner = value if isinstance(value, dict) else {"": value}
        for name, number in inner.items():
            if isinstance(number, float):
                metric = name or key
                yield f"{key} {name}".strip(), number, chance.get(metric, chance.get(metric.split("_")[-1]))


def public(value: Any) -> Any:
    """A JSON value in which every path is reduced to its last name: a card names no folder of anybody's machine."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    if isinstance(value, str) and value:
        kind, colon, place = value.rpartition(":")  # "ade20k:/data/ADE", or a path alone
        kind, colon = ("", "") if len(kind) == 1 else (kind, colon)  # "C:\\photos"
        if place and (place[0] in "/~." or "\\" in place or os.path.exists(place)):
            return kind + colon + re.split(r"[/\\]", place.rstrip("/\\"))[-1]
    return value


def write_card(
    info: ModelInfo, folder: Path, repo: str, licence: str, recipe: Mapping | None, records: Sequence[Mapping]
) -> str:
    """The card of the model in `folder` as it will stand at `repo` ("owner/name"): YAML head and Markdown.

    recipe: a run's recipe.json, `public`; None where there is none.   records: of `read_record`.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name, source = repo.split("/")[1], (recipe or {}).get("data", {}).get("source", "")
    base = (recipe or {}).get("tuning", {}).get("base", "")
    results = [
        EvalResult(
            task_type=TASKS.get(record["task"], "image-feature-extraction"),
            task_name=record["task"],
            dataset_type=record["data"].split(":")[0],
            dataset_name=record["data"],
            metric_type=metric.replace(" ", "_"),
            metric_name=metric,
            metric_value=value,
        )
        for record in records
        for metric, value, _ in scores(record)
    ]
    head = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag=PIPELINE,
        tags=["tipsv2", "vision-language", "zero-shot-segmentation"],
        base_model=HUB[base.removeprefix("google/")].location if base.removeprefix("google/") in HUB else None,
        datasets=[source.removeprefix("hf:")] if source.startswith("hf:") else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    parts = [f"---\n{head.to_yaml()}\n---\n\n# {name}", _what(info, folder, recipe, base), _use(repo, info.resolution)]
    if recipe:
        parts.append(_made(recipe))
    if records:
        parts.append(_figures(records))
    return "\n\n".join(parts) + "\n"


def _what(info: ModelInfo, folder: Path, recipe: Mapping | None, base: str) -> str:
    config = read_config(folder)
    vision, text = config["vision_config"], config["text_config"]
    made = f"trained{f' from `{base}`' if base else ''} with" if recipe else "in the format of"
    lines = [
        f"A TIPSv2 image-text encoder of {num_parameters(folder) / 1e6:.1f} million parameters, {made} the TIPSv2 "
        "explorer and training package. Its patch embeddings line up with words: a phrase lights up the patches that "
        "show it.",
        info.trained_on if info.source == "bundled" else "",
        "\n".join(
            (
                "| | |",
                "|---|---|",
                f"| vision tower | {_tower(vision)}, patch {vision['patch_size']}, two CLS tokens |",
                f"| text tower | {_tower(text)}, {text['max_position_embeddings']} of {text['vocab_size']} tokens |",
                f"| input | RGB in [0, 1], no mean or standard deviation, {info.resolution} px |",
                "| weights | safetensors |",
            )
        ),
    ]
    return "\n\n".join(line for line in lines if line)


def _tower(config: Mapping) -> str:
    return f"{config['hidden_size']} wide, {config['num_hidden_layers']} layers, {config['num_attention_heads']} heads"


def _use(repo: str, side: int) -> str:
    return f"""## Use

With plain transformers:

```python
import torch
from transformers import AutoTokenizer, Tipsv2Model

model = Tipsv2Model.from_pretrained("{repo}", dtype="float32").eval()  # whatever it is stored in
tokenizer = AutoTokenizer.from_pretrained("{repo}")
tokens = tokenizer(["a dog", "a cat"], padding=True, return_tensors="pt")
pixels = torch.rand(1, 3, {side}, {side})  # your images, RGB in [0, 1]
with torch.no_grad():
    logits = model(tokens["input_ids"], pixels, tokens["attention_mask"]).logits_per_image
```

With the package, for maps, segmentation and the explorer:

```
python -m tipsv2 heatmap photo.jpg "a dog" --model {repo}
python app.py --model {repo}
```"""


def _made(recipe: Mapping) -> str:
    source = recipe.get("data", {}).get("source", "")
    command = f"python -m train {recipe.get('command', '')} --recipe {recipe.get('name', '')} --data {source}"
    columns = {"steps": "steps", "batch_size": "images a step", "size": "pixels", "learning_rate": "learning rate"}
    stages = recipe.get("stages", [])
    return "\n".join(
        (
            "## Training\n\nAll settings are in `recipe.json`; it is a run of\n",
            f"```\n{command} --out runs/mine\n```\n",
            f"| stage | {' | '.join(columns.values())} |",
            "|---" * (1 + len(columns)) + "|",
            *(
                f"| {number} | {' | '.join(str(stage.get(key, '')) for key in columns)} |"
                for number, stage in enumerate(stages, 1)
            ),
        )
    )


def _figures(records: Sequence[Mapping]) -> str:
    rows = [
        f"| {record['task']} | {record['data']} | {metric} | {value:.4g} | {'' if by is None else f'{by:.4g}'} |"
        for record in records
        for metric, value, by in scores(record)
    ]
    made = [f"    {record['command']}" for record in records if record["command"]]
    table = ["| task | data | metric | value | chance |", "|---|---|---|---|---|", *rows]
    return "\n".join(["## Figures", "", *table, *(["", "Made by", "", *made] if made else [])])
