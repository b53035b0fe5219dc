"""EfficientNet-Lite, an ImageNet classifier that says what stands where: class scores at every position of its last
feature map. For evaluation only; pure torch, and as fast as it is small (Lite2: 6 M parameters).

    classifier = open_classifier("foundations/efficientnet-lite2")     # or timm/tf_efficientnet_lite2.in1k
    scores = classifier(pixels)                                        # [B, 3, H, W] in [0, 1] -> [B, 1000, h, w]

A classifier that ends in a mean over positions and a linear layer can be read position by position: the linear layer of
the mean is the mean of the linear layers. EfficientNet-Lite (Google, tensorflow/tpu, Apache-2.0) is EfficientNet
without squeeze-and-excitation and with ReLU6; like all from TensorFlow it pads at the end what an even stride leaves
over. Names of weights are timm's (`tf_efficientnet_lite2`), whose own files open here and the other way round.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

KINDS = {  # timm's name -> factors on width and depth of EfficientNet-B0, size it was trained at
    "tf_efficientnet_lite0": (1.0, 1.0, 224),
    "tf_efficientnet_lite1": (1.0, 1.1, 240),
    "tf_efficientnet_lite2": (1.1, 1.2, 260),
    "tf_efficientnet_lite3": (1.2, 1.4, 300),
    "tf_efficientnet_lite4": (1.4, 1.8, 380),
}
STAGES = (  # of B0: blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
STRIDE = 32  # pixels a position of the last feature map
MEAN, DEVIATION = 127 / 255, 128 / 255  # of pixels in [0, 1]: trained on (pixel - 127) / 128
WEIGHTS = "model.safetensors"
IN_A_BLOCK = {  # names of the package efficientnet_pytorch -> timm's
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
IN_A_NARROW_BLOCK = {"depthwise_conv": "conv_dw", "project_conv": "conv_pw"}  # the first, which widens nothing
OUTSIDE = {"bn0": "bn1", "bn1": "bn2", "fc": "classifier"}


class EfficientNetLite(nn.Module):
    """Class scores of every position."""

    def __init__(self, kind: str = "tf_efficientnet_lite2", classes: int = CLASSES):
        """kind: one of KINDS. Weights are random until a state is loaded."""
        super().__init__()
        self.kind = kind
        wide, deep, self.size = KINDS[kind]
        self.conv_stem = Conv(3, STEM, 3, 2)
        self.bn1 = _norm(STEM)
        stages, channels = [], STEM
        for number, (count, kernel, stride, expansion, out) in enumerate(STAGES):
            ends = number in (0, len(STAGES) - 1)  # Lite scales the depth of neither the first nor the last stage
            out, count = _scaled(out, wide), count if ends else math.ceil(count * deep)
            blocks = []
            for k in range(count):
                blocks.append(Block(channels, out, kernel, 1 if k else stride, expansion))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = Conv(channels, HEAD, 1)
        self.bn2 = _norm(HEAD)
        self.classifier = nn.Linear(HEAD, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: [B, 3, H, W] in [0, 1], any size -> scores before softmax [B, classes, h, w], h = ceil(H / 32).

        Their mean over h and w is what the classifier says of the image.
        """
        features = self.features(pixels)
        return F.conv2d(features, self.classifier.weight[:, :, None, None], self.classifier.bias)

    def features(self, pixels: Tensor) -> Tensor:
        """pixels: as in forward -> [B, 1280, h, w]."""
        hidden = F.relu6(self.bn1(self.conv_stem((pixels - MEAN) / DEVIATION)))
        return F.relu6(self.bn2(self.conv_head(self.blocks(hidden))))


class Block(nn.Module):
    """Widen, mix each channel over a neighbourhood, narrow; added to what came in where the shapes allow."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.adds = stride == 1 and channels == out
        if expansion == 1:  # timm's names differ where nothing is widened
            steps = [("conv_dw", "bn1", Conv(wide, wide, kernel, stride, wide)), ("conv_pw", "bn2", Conv(wide, out, 1))]
        else:
            steps = [
                ("conv_pw", "bn1", Conv(channels, wide, 1)),
                ("conv_dw", "bn2", Conv(wide, wide, kernel, stride, wide)),
                ("conv_pwl", "bn3", Conv(wide, out, 1)),
            ]
        self.steps = [(conv, norm) for conv, norm, _ in steps]
        for name, norm, conv in steps:
            self.add_module(name, conv)
            self.add_module(norm, _norm(conv.out_channels))

    def forward(self, hidden: Tensor) -> Tensor:
        before = hidden
        for place, (conv, norm) in enumerate(self.steps, 1):
            hidden = getattr(self, norm)(getattr(self, conv)(hidden))
            if place < len(self.steps):  # narrow features stay linear
                hidden = F.relu6(hidden)
        return before + hidden if self.adds else hidden


class Conv(nn.Conv2d):
    """A convolution without bias whose output has ceil(side / stride) positions; an odd padding is larger at the end,
    as TensorFlow's "SAME" has it.
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        pads = []
        for side, kernel, stride in zip(hidden.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            whole = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [whole // 2, whole - whole // 2]
        return super().forward(F.pad(hidden, pads) if any(pads) else hidden)


def open_classifier(name: str | Path, field: str = "--classifier") -> EfficientNetLite:
    """The classifier of a folder or a Hub id, float32, in evaluation mode, nothing in it learns.

    field: names the argument in errors. Raises ValueError if there is none, or it is another network.
    """
    try:
        about = json.loads(_file(name, "config.json").read_text("utf-8"))
        kind = about.get("architecture")
        if kind not in KINDS:
            raise ValueError(
                f"{field}={str(name)!r} is {kind or about.get('model_type') or 'of an unknown kind'}: choose an "
                "EfficientNet-Lite, such as foundations/efficientnet-lite2 or timm/tf_efficientnet_lite2.in1k."
            )
        state = load_file(_file(name, WEIGHTS))
    except ValueError as error:
        if str(error).startswith(field):
            raise
        raise ValueError(f"{field}={str(name)!r} has a config.json that cannot be read: get it again.") from error
    except Exception as error:  # the Hub's, safetensors' and the system's own
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{field}={str(name)!r} cannot be opened ({reason}); python -m train foundations makes one."
        ) from error
    return filled(EfficientNetLite(kind, about.get("num_classes", CLASSES)), state, f"{field}={str(name)!r}")


def filled(network: EfficientNetLite, state: dict[str, Tensor], title: str) -> EfficientNetLite:
    """`network` with every weight from `state`, frozen. Raises ValueError, beginning with `title`, if one is missing or
    does not fit.
    """
    own = network.state_dict()
    wrong = sorted(
        key
        for key in own.keys() | state.keys()
        if not key.endswith("num_batches_tracked")
        and (key not in own or key not in state or own[key].shape != state[key].shape)
    )
    if wrong:
        raise ValueError(f"{title} holds another network: {len(wrong)} weights do not fit, such as {wrong[0]}.")
    network.load_state_dict(state, strict=False)
    return network.float().eval().requires_grad_(False)


def from_package(kind: str, state: dict[str, Tensor]) -> EfficientNetLite:
    """The network from a state dict in the names of the package efficientnet_pytorch. Raises ValueError as `filled`."""
    network = EfficientNetLite(kind)
    blocks = [(f"blocks.{s}.{k}", block) for s, stage in enumerate(network.blocks) for k, block in enumerate(stage)]
    renamed = {}
    for key, value in state.items():
        first, *rest = key.replace("._", ".").removeprefix("_").split(".")
        if first == "blocks" and int(rest[0]) < len(blocks):
            place, block = blocks[int(rest[0])]
            part = (IN_A_NARROW_BLOCK if len(block.steps) == 2 else IN_A_BLOCK).get(rest[1], rest[1])
            renamed[".".join([place, part, *rest[2:]])] = value
        else:
            renamed[".".join([OUTSIDE.get(first, first), *rest])] = value
    return filled(network, renamed, f"the package of {kind}")


def save(network: EfficientNetLite, folder: Path) -> None:
    """As timm's folders are on the Hub, which timm and transformers' TimmWrapperModel open as well."""
    about = {
        "architecture": network.kind,
        "num_classes": network.classifier.out_features,
        "num_features": HEAD,
        "pretrained_cfg": {
            "input_size": [3, network.size, network.size],
            "interpolation": "bicubic",
            "mean": [MEAN] * 3,
            "std": [DEVIATION] * 3,
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # TensorFlow's


def _scaled(channels: int, factor: float) -> int:
    """A width times a factor, as a multiple of 8 that is not below nine tenths of it (EfficientNet's rule)."""
    whole = max(8, int(channels * factor + 4) // 8 * 8)
    return whole + 8 if whole < 0.9 * channels * factor else whole


def _file(name: str | Path, file: str) -> Path:
    """A file of a folder or, for what is no folder here, of a model on the Hub."""
    folder = Path(name).expanduser()
    if folder.is_dir() or len(folder.parts) != 2:
        return folder / file
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(str(name), file))
