"""The network of a run: transformers' Tipsv2Model, sized by a recipe."""

from __future__ import annotations

from transformers import Tipsv2Config, Tipsv2Model

from train.recipe.settings import PATCH, Recipe


def build(recipe: Recipe, vocabulary: int) -> Tipsv2Model:
    """A randomly initialised encoder. LayerScale stays 1 and fixed: the original model has none (TIPS, JAX code)."""
    tower = recipe.tower
    config = Tipsv2Config(
        vision_config={
            "hidden_size": tower.width,
            "num_hidden_layers": tower.vision_layers,
            "num_attention_heads": tower.heads,
            "image_size": tower.table,
            "patch_size": PATCH,
        },
        text_config={
            "hidden_size": tower.width,
            "num_hidden_layers": tower.text_layers,
            "num_attention_heads": tower.heads,
            "intermediate_size": 4 * tower.width,
            "vocab_size": vocabulary,
        },
        temperature_init_value=recipe.temperature,
    )
    model = Tipsv2Model._from_config(config)
    attend(model, recipe.attention)
    freeze_layer_scale(model)
    return model


def attend(model: Tipsv2Model, attention: str) -> None:
    """Choose how `model` computes attention. Raises ValueError for what transformers does not know or cannot use."""
    try:
        model.set_attn_implementation(attention)
    except (ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"attention={attention!r} cannot be used ({reason}): choose eager or sdpa.") from error


def freeze_layer_scale(model: Tipsv2Model) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("lambda1"):
            parameter.requires_grad_(False)
