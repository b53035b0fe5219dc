"""EfficientNet-Lite against timm: its numbers, kept here, and timm itself where it is installed.

python -m pytest tests/test_efficientnet_lite.py
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from unimodal import in_the_packages_names

from train.foundations.efficientnet_lite import (
    KINDS,
    Conv,
    EfficientNetLite,
    filled,
    from_package,
    open_classifier,
    save,
)

PARAMETERS = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072, "lite3": 8_197_096, "lite4": 13_006_568}
TIMM = {  # timm 1.0.31, weights and picture as below: every 125th of the thousand scores
    "lite0": [0.4441, 3.0387, 1.8466, 0.7061, -0.8803, -2.4311, 1.5451, 0.3953],
    "lite2": [1.0993, 0.7387, -2.0478, -3.6152, -2.8311, -2.3084, -0.7133, 2.6302],
}


def weights(network):
    """Random, but the same ones everywhere, for the names of `network`, which are timm's."""
    random, state = np.random.RandomState(0), {}
    for key, value in sorted(network.state_dict().items()):
        noise = torch.from_numpy(random.standard_normal(tuple(value.shape)).astype("float32")) if value.ndim else value
        if value.ndim > 1:
            noise = noise * (2 / value[0].numel()) ** 0.5
        elif key.endswith("running_var"):
            noise = 1 + 0.3 * noise.abs()
        elif value.ndim:
            noise = 0.2 * noise + key.endswith("weight")
        state[key] = noise
    return state


@pytest.fixture(scope="module")
def networks():
    made = {short: EfficientNetLite(f"tf_efficientnet_{short}") for short in TIMM}
    return {short: filled(network, weights(network), short) for short, network in made.items()}


@pytest.fixture(scope="module")
def pixels():
    """Sides that no stride divides, so that padding shows."""
    return torch.from_numpy(np.random.RandomState(1).random_sample((1, 3, 75, 98)).astype("float32"))


@pytest.mark.parametrize("short", TIMM)
def test_the_mean_over_positions_is_what_timm_says_of_the_image(networks, pixels, short):
    scores = networks[short](pixels)
    assert scores.shape == (1, 1000, 3, 4)
    assert torch.allclose(scores.mean(dim=(2, 3))[0, ::125], torch.tensor(TIMM[short]), atol=1e-3)


@pytest.mark.parametrize("short", PARAMETERS)
def test_sizes_are_those_that_timm_lists(short):
    with torch.device("meta"):
        network = EfficientNetLite(f"tf_efficientnet_{short}")
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[short]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_timms(pixels, kind):
    timm = pytest.importorskip("timm", reason="timm is not installed; its numbers above are tested in any case")
    network = EfficientNetLite(kind).eval()
    theirs = timm.create_model(kind).eval()
    theirs.load_state_dict(weights(network))
    filled(network, theirs.state_dict(), kind)
    with torch.no_grad():
        expected = theirs.forward_features((pixels * 255 - 127) / 128)
        assert torch.allclose(network.features(pixels), expected, atol=1e-2, rtol=1e-3)
        assert torch.allclose(network(pixels).mean(dim=(2, 3)), theirs((pixels * 255 - 127) / 128), atol=1e-3)


def test_a_position_is_scored_by_what_is_around_it(networks):
    """The classifier applied by hand to one position; a change at one end does not reach the other."""
    network, picture = networks["lite0"], torch.rand(1, 3, 64, 640)
    changed = picture.clone()
    changed[..., 560:] = 0
    scores, features = network(picture), network.features(picture)
    by_hand = features[0, :, 1, 5] @ network.classifier.weight.T + network.classifier.bias
    assert torch.allclose(scores[0, :, 1, 5], by_hand, atol=1e-4)
    difference = (network(changed) - scores).abs().amax(dim=(0, 1, 2))
    assert difference[0] < 0.01 * difference[-1]


def test_the_names_of_the_package_and_a_folder_lead_to_the_same_network(networks, pixels, tmp_path):
    network = networks["lite2"]
    save(network, tmp_path / "lite2")
    again = open_classifier(tmp_path / "lite2")
    assert torch.equal(again(pixels), network(pixels)) and not any(p.requires_grad for p in again.parameters())
    package = in_the_packages_names(network)
    assert torch.equal(from_package("tf_efficientnet_lite2", package)(pixels), network(pixels))


def test_padding_is_tensorflows():
    """A kernel of one in its middle, at stride 2: output k reads input 2 k + 1 of an even side, 2 k of an odd one."""
    conv = Conv(1, 1, 3, 2)
    conv.weight.data = F.pad(torch.ones(1, 1, 1, 1), (1, 1, 1, 1))
    picture = torch.arange(6.0).expand(1, 1, 6, 6)
    assert conv(picture)[0, 0, 0].tolist() == [1, 3, 5]
    assert conv(picture[..., :5])[0, 0, 0].tolist() == [0, 2, 4]


def test_what_is_no_such_classifier_is_one_sentence(networks, tmp_path):
    folder = tmp_path / "lite0"
    save(networks["lite0"], folder)
    state, about = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())

    def refused(words):
        with pytest.raises(ValueError, match=words) as caught:
            open_classifier(folder)
        assert str(caught.value).startswith(f"--classifier='{folder}'") and "\n" not in str(caught.value)

    save_file({key: value for key, value in state.items() if key != "conv_head.weight"}, folder / "model.safetensors")
    refused("holds another network: 1 weights do not fit, such as conv_head.weight")
    (folder / "model.safetensors").write_bytes(b"no weights")
    refused("cannot be opened")
    (folder / "config.json").write_text(json.dumps(about | {"architecture": "resnet50"}))
    refused("is resnet50: choose an EfficientNet-Lite")
    (folder / "config.json").write_text("{")
    refused("config.json that cannot be read")
    (folder / "config.json").unlink()
    refused("cannot be opened .*; python -m train foundations makes one")
