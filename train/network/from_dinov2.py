"""A DINOv2 checkpoint as the vision tower of a TIPSv2 encoder: what image-text training can start from.

    vision = vision_tower("facebook/dinov2-base")
    model = assemble(vision, Tipsv2TextConfig(hidden_size=768, vocab_size=32000))
    export(Path("runs/start"), model, tokenizer)      # then python -m train finetune --base runs/start

The two networks are the same one (transformers' modeling_tipsv2.py is made from Dinov2WithRegisters), with three
differences, and this is what becomes of them:

Pixels. TIPSv2 takes [0, 1]; mean and deviation are folded into the patch projection, exactly: weight / deviation, and
bias - sum of weight * mean / deviation over the kernel.

Positions. At another size than its table's TIPSv2 resizes the table bilinearly with antialiasing, DINOv2 bicubically
and without (with registers: with). So both are equal at one size, which `size` chooses; `vision_tower` gives a table
for it. Elsewhere DINOv2 ViT-S/14's own patches keep a cosine of 0.9998 (448 px, table of 518), 0.998 (224 px).

The second CLS. An additional token is an additional key in every attention, so no value of it leaves the others as
they were: a softmax weight cannot be zero, and a copy of the CLS token doubles the weight of the CLS token. Hence:
"shared", the second CLS *is* the first (num_register_tokens is 0): equal to DINOv2, 4e-5 apart in float32;
"own", a token that starts as a copy and can learn apart from it: patches keep a cosine of 0.998 on the mean and 0.981
at the least (ViT-S/14, photographs at 518 px), the two CLS are equal.
A checkpoint with registers keeps them, since it was trained with them: equal, and the first of them is the second CLS.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Tipsv2Config,
    Tipsv2Model,
    Tipsv2TextConfig,
    Tipsv2TextModel,
    Tipsv2VisionConfig,
    Tipsv2VisionModel,
)

from tipsv2.sharing.exportable import resize_matrix
from train.network.teachers import normalisation, open_model
from train.recipe.settings import choose

KINDS = ("dinov2", "dinov2_with_registers")
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # mean and deviation that every DINOv2 was trained with
SAME = (  # fields that both configurations have, and that mean the same
    "hidden_size num_hidden_layers num_attention_heads mlp_ratio hidden_act layer_norm_eps patch_size num_channels "
    "qkv_bias layerscale_value use_swiglu_ffn initializer_range"
).split()


def vision_tower(
    name: str, second_cls: str = "shared", size: int | tuple[int, int] = 0, field: str = "--vision"
) -> Tipsv2VisionModel:
    """The tower that gives what the DINOv2 called `name` gives, for pixels in [0, 1].

    Args:
        name: folder or Hub id of a `dinov2` or `dinov2_with_registers` checkpoint, of any size.
        second_cls: "shared" or "own", see above; a checkpoint with registers has its own in any case.
        size: pixels, of a square's side or (height, width), at which both are equal; 0 is that of the checkpoint's
            own table. A size gives a square table, as large as its longer side.
        field: names the argument in errors.
    Returns: float32, in evaluation mode, every weight learnable.
    Raises: ValueError for a model that is no DINOv2, lacks weights, or a size that its patches do not divide.
    """
    choose("second_cls", second_cls, "shared", "own")
    source = open_model(name, field, "vision", "pixel_values").float()
    if source.config.model_type not in KINDS:
        raise ValueError(
            f"{field}={name!r} is a {source.config.model_type} model: the vision tower can start from a DINOv2, with "
            "registers or without, such as facebook/dinov2-base."
        )
    scale, mean, deviation = normalisation(name, field, IMAGENET)
    return turned(source, second_cls, size, [m / scale for m in mean], [d / scale for d in deviation])


@torch.no_grad()
def turned(
    source: PreTrainedModel,
    second_cls: str = "shared",
    size: int | tuple[int, int] = 0,
    mean: list[float] = IMAGENET[0],
    deviation: list[float] = IMAGENET[1],
) -> Tipsv2VisionModel:
    """As `vision_tower`, from a Dinov2Model or Dinov2WithRegistersModel and what it wants subtracted from pixels in
    [0, 1] and what they are then divided by.
    """
    state = {key: value.clone() for key, value in source.state_dict().items()}
    cls = state["embeddings.cls_token"] + state["embeddings.position_embeddings"][:, :1]
    width = cls.shape[-1]
    registers = state.setdefault(
        "embeddings.register_tokens", cls.clone() if second_cls == "own" else cls.new_zeros(1, 0, width)
    )
    state.setdefault("embeddings.mask_token", cls.new_zeros(1, width))  # a checkpoint may come without
    projection = "embeddings.patch_embeddings.projection"
    weight = state[f"{projection}.weight"]
    mean, deviation = (torch.tensor(values).expand(weight.shape[1]).view(-1, 1, 1) for values in (mean, deviation))
    state[f"{projection}.weight"] = weight / deviation
    state[f"{projection}.bias"] -= (weight.double() * (mean / deviation)).sum(dim=(1, 2, 3)).float()
    table = state["embeddings.position_embeddings"] = _positions(source, size)
    config = Tipsv2VisionConfig(
        **{key: getattr(source.config, key) for key in SAME},
        image_size=round((table.shape[1] - 1) ** 0.5) * source.config.patch_size,
        num_register_tokens=registers.shape[1],
    )
    tower = Tipsv2VisionModel._from_config(config)
    tower.load_state_dict(state)
    return tower.eval().requires_grad_(True)


def assemble(
    vision: Tipsv2VisionModel, text: Tipsv2TextConfig | Tipsv2TextModel, temperature: float | None = None
) -> Tipsv2Model:
    """An encoder of a vision tower and a text tower: its weights, or a new one of this configuration.

    temperature: to start from; None for transformers' own. Raises ValueError where the two are not equally wide.
    """
    config = text if isinstance(text, Tipsv2TextConfig) else text.config
    if config.hidden_size != vision.config.hidden_size:
        raise ValueError(
            f"the text tower is {config.hidden_size} wide and the vision tower {vision.config.hidden_size}: choose two "
            "of the same width."
        )
    given = {} if temperature is None else {"temperature_init_value": temperature}
    sizes = {f"{kind}_config": _nameless(tower) for kind, tower in (("vision", vision.config), ("text", config))}
    both = Tipsv2Config(**sizes, **given)
    model = Tipsv2Model._from_config(both)
    model.vision_model.load_state_dict(vision.state_dict())
    if isinstance(text, Tipsv2TextModel):
        model.text_model.load_state_dict(text.state_dict())
    return model.eval()


def _nameless(config) -> dict:
    """A tower's configuration without the place it was read from, which is nobody else's business."""
    return {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}


def _positions(source: PreTrainedModel, size: int | tuple[int, int]) -> Tensor:
    """The table [1, 1 + n * n, D] with which TIPSv2's positions at `size` are the source's.

    For a square it is what the source interpolates for it, and read as it is. For h x w patches it starts from that of
    n x n, n the longer side, and is moved by the least (in squares) that makes its resized grid the right one.
    """
    own = source.embeddings.position_embeddings
    if not size:
        return own.clone()
    patch = source.config.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    if height % patch or width % patch or min(height, width) < patch:
        raise ValueError(f"size={size}: height and width must be multiples of the patch, {patch} px.")
    side = max(height, width) // patch
    table = _interpolated(source, side, side)
    if height != width:
        wanted = _interpolated(source, height // patch, width // patch)[0, 1:].unflatten(0, (-1, width // patch))
        rows, columns = (resize_matrix(side, pixels // patch, own).double() for pixels in (height, width))
        grid = table[0, 1:].unflatten(0, (side, side)).double()
        short = wanted.double() - torch.einsum("ha,wb,abd->hwd", rows, columns, grid)
        grid += torch.einsum("ah,bw,hwd->abd", torch.linalg.pinv(rows), torch.linalg.pinv(columns), short)
        table = torch.cat([table[:, :1], grid.float().flatten(0, 1)[None]], dim=1)
    return table


def _interpolated(source: PreTrainedModel, rows: int, columns: int) -> Tensor:
    """The source's positions [1, 1 + rows * columns, D], by its own interpolation."""
    patch, width = source.config.patch_size, source.config.hidden_size
    like = torch.empty(1, 1 + rows * columns, width)
    return source.embeddings.interpolate_pos_encoding(like, rows * patch, columns * patch).clone()
