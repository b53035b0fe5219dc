"""Fine-tuning: a trained encoder as the start of a run, and which part of it learns.

    python -m train finetune --base opentips-nano --data photos --out runs/mine
    python -m train finetune --base opentips-nano --data photos --out runs/mine tuning.part=last tuning.towers=vision
    python -m train finetune --base google/tipsv2-b14 --data photos --out runs/mine tuning.part=lora

Tokenizer, vocabulary, sizes and the image side are the base's. What does not learn keeps its bits, and is read from the
base again rather than kept in checkpoints. The result is a plain model folder: LoRA's updates are added to the weights,
and lie beside it as peft's adapter.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Tipsv2Model

from tipsv2.checkpoints.catalogue import CHECKPOINT, fetch, find, read_config, resolution_of
from tipsv2.checkpoints.weights import read_model, read_tokenizer, turn_back
from tipsv2.files import whole_folder
from train.network.towers import attend, freeze_layer_scale
from train.recipe.settings import PATCH, Recipe, Tower, Tuning, choose

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RATE = 0.06  # learning rate times width: 3e-4 at 192, where it was tried; 1 / width as in muP (arXiv 2203.03466)
ADAPTER = "default"  # peft's name for the one set of updates


def open_base(recipe: Recipe) -> tuple[Recipe, Tipsv2Model, PreTrainedTokenizerBase]:
    """The base in float32 with `recipe.tuning.part` of it set to learn, its tokenizer, and the recipe with its sizes.

    Raises ValueError (or ModelError, its kind) for a base that is not there, is damaged or has other patches, and for
    a part that it does not have.
    """
    tuning = recipe.tuning
    choose("tuning.part", tuning.part, "full", "last", "lora")
    choose("tuning.towers", tuning.towers, "both", "vision", "text")
    if recipe.tower != Tower():
        raise ValueError("tower.* sizes a new encoder; a base has its own sizes: leave tower.* out.")
    if recipe.distillation.weight:
        raise ValueError("distillation.weight teaches a new vision tower: use python -m train distill, not a base.")
    if recipe.sfclip.words != "own":
        raise ValueError("sfclip.words gives a new encoder its teacher's words; a base keeps its own: use words=own.")
    info = find(tuning.base)
    folder = fetch(info)
    config = read_config(folder)  # says so where it is another kind of model
    model, files = read_model(folder, torch.float32), sorted(folder.glob("*.safetensors"))
    if info.source == "checkpoint":  # the folder is of the run's last step
        earlier = Path(info.location) / CHECKPOINT
        turn_back(model, earlier)
        files.append(earlier)
    attend(model, recipe.attention)
    vision, text = model.config.vision_config, model.config.text_config
    if vision.patch_size != PATCH:
        raise ValueError(
            f"the base '{tuning.base}' has patches of {vision.patch_size} px, and training here cuts images into "
            f"patches of {PATCH} px: choose a base with those, such as opentips-nano or google/tipsv2-b14."
        )
    table = vision.image_size if isinstance(vision.image_size, int) else min(vision.image_size)
    side = resolution_of(folder, config) // PATCH * PATCH or table  # DINOv2's table is larger than what it is shown
    rate = RATE / vision.hidden_size
    recipe = replace(
        recipe,
        stages=tuple(
            replace(stage, size=stage.size or side, learning_rate=stage.learning_rate or rate)
            for stage in recipe.stages
        ),
        tuning=replace(tuning, digest=_digest(files)),
        tower=Tower(
            width=vision.hidden_size,
            vision_layers=vision.num_hidden_layers,
            text_layers=text.num_hidden_layers,
            heads=vision.num_attention_heads,
            vocabulary=text.vocab_size,
            table=table,
        ),
    )
    choose_parts(model, tuning)
    return recipe, model, read_tokenizer(folder, text.vocab_size)


def choose_parts(model: Tipsv2Model, tuning: Tuning) -> None:
    """Let `tuning.part` of the chosen towers learn and nothing else; LayerScale never does, as in pretraining.

    The temperature belongs to both towers and learns only with all of them. Raises ValueError for more layers than
    there are, modules that no block has, or LoRA without peft.
    """
    model.requires_grad_(False)
    towers = {
        "vision": (model.vision_model, model.vision_model.encoder.layer, model.vision_model.layernorm),
        "text": (model.text_model, model.text_model.encoder.layers, model.text_model.final_layer_norm),
    }
    chosen = towers if tuning.towers == "both" else {tuning.towers: towers[tuning.towers]}
    if tuning.part == "lora":
        _adapt(model, [blocks for _, blocks, _ in chosen.values()], tuning)
        return
    for name, (tower, blocks, norm) in chosen.items():
        if tuning.part == "full":
            tower.requires_grad_(True)
            continue
        if not 1 <= tuning.layers <= len(blocks):
            raise ValueError(
                f"tuning.layers={tuning.layers}, but the base's {name} tower has {len(blocks)} blocks: choose 1 to "
                f"{len(blocks)}" + (", or one tower with tuning.towers." if len(chosen) > 1 else ".")
            )
        blocks[-tuning.layers :].requires_grad_(True)
        norm.requires_grad_(True)
    model.temperature.requires_grad_(tuning.part == "full" and tuning.towers == "both")
    freeze_layer_scale(model)


def _adapt(model: Tipsv2Model, blocks: list[nn.ModuleList], tuning: Tuning) -> None:
    """Put a trained low-rank update beside linear layers of `blocks`; it starts at zero (LoRA, arXiv 2106.09685)."""
    try:
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and only LoRA needs it
    except ImportError:
        raise ValueError(
            "tuning.part=lora needs peft, which is not installed: pip install peft, or set tuning.part=last."
        ) from None
    if tuning.rank < 1:
        raise ValueError(f"tuning.rank={tuning.rank}: an update needs a rank of at least 1.")
    inside = {id(module) for tower in blocks for module in tower.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in model.named_modules() if id(module) in inside]
    kinds = sorted({name.rpartition(".")[2] for name in names})
    if tuning.modules != "all":
        wanted = [kind.strip() for kind in tuning.modules.split(",")]
        for kind in wanted:
            choose("tuning.modules", kind, "all", *kinds)
        names = [name for name in names if name.rpartition(".")[2] in wanted]
    inject_adapter_in_model(
        LoraConfig(r=tuning.rank, lora_alpha=tuning.alpha, target_modules=names), model, adapter_name=ADAPTER
    )


@torch.no_grad()
def plain_state(model: Tipsv2Model) -> dict[str, Tensor]:
    """The state of `model` as if it never had LoRA layers: their updates added to the weights, their names gone."""
    state = model.state_dict()
    plain = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):  # peft's; looking for its class would import it
            key = f"{name}.weight"
            plain[key] = plain[key] + module.get_delta_weight(ADAPTER).to(plain[key].dtype)
    return plain


def write_adapter(folder: Path, model: Tipsv2Model, tuning: Tuning) -> Path | None:
    """Write LoRA's updates alone, as peft has them: PeftModel.from_pretrained(Tipsv2Model.from_pretrained(BASE), place)
    opens them.

    Of a base that is a run's checkpoint there is none: plain transformers opens no such base. Raises OSError for a full
    disk.
    """
    from peft import get_peft_model_state_dict

    base = find(tuning.base)
    if base.source == "checkpoint":
        return None
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    config = copy.copy(model.peft_config[ADAPTER])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = tuning.base if base.source == "hub" else str(Path(base.location).resolve())
    config.auto_mapping = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    tensors = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    with whole_folder(folder) as part:
        config.save_pretrained(str(part))
        save_file(tensors, part / "adapter_model.safetensors", {"format": "pt"})
    return folder


def _digest(files: Sequence[Path]) -> str:
    """What tells one set of weights from another: SHA-256 over the files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()[:16]
