"""A run's checkpoints as encoders: their weights are the run's at that step, and the slider of the Compare tab names
them.

python -m pytest tests/test_checkpoints.py
"""

import json
import shutil

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Tipsv2Model

from demos.backend.studio import Studio
from demos.compare.steps import Steps
from tipsv2 import load
from tipsv2.checkpoints.catalogue import ModelError, find


@pytest.fixture
def run(tmp_path, tiny_folder):
    """A finished run of 100 steps with checkpoints at 40 and 80, whose weights are other random ones."""
    folder = tmp_path / "runs" / "dog"
    shutil.copytree(tiny_folder, folder / "model")
    (folder / "recipe.json").write_text(json.dumps({"stages": [{"steps": 60}, {"steps": 40}]}))
    for step in (40, 80):
        keep(folder, step)
    return folder


def keep(folder, step, drop="", extra=()):
    """Write a checkpoint as train/run/checkpoint.py does: the network under objective.model, moments and the like
    beside it.
    """
    place = folder / "checkpoints" / f"step-{step:07d}"
    place.mkdir(parents=True)
    state = Tipsv2Model.from_pretrained(folder / "model").state_dict()
    torch.manual_seed(step)
    state = {key: value + 0.05 * torch.randn_like(value) for key, value in state.items()}
    kept = {f"objective.model.{key}": value for key, value in state.items() if not drop or drop not in key}
    kept |= {"optimizer.model.temperature.exp_avg": torch.zeros(1), "rng": torch.get_rng_state()}
    save_file(kept | dict(extra), place / "state.safetensors")
    return state


def features(folder, state, pixels):
    model = Tipsv2Model.from_pretrained(folder).eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return model.vision_model(pixels).last_hidden_state


def test_a_checkpoint_is_the_network_at_that_step(run):
    place = run / "checkpoints" / "step-0000040"
    info = find(place)
    assert (info.name, info.source, info.resolution) == ("dog@40", "checkpoint", 56)
    encoder = load(place, device="cpu", dtype="float32")
    state = {
        key.removeprefix("objective.model."): value
        for key, value in load_file(place / "state.safetensors").items()
        if key.startswith("objective.model.")
    }
    pixels = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    expected = features(run / "model", state, pixels)
    found = encoder.encode_pixels(pixels)
    torch.testing.assert_close(found["patches"].flatten(1, 2), expected[:, 2:], atol=1e-5, rtol=1e-4)
    assert encoder.temperature == pytest.approx(float(state["temperature"]))
    end = load(run, device="cpu", dtype="float32").encode_pixels(pixels)["patches"]
    assert (found["patches"] - end).abs().max() > 0.1


def test_what_a_run_does_not_train_comes_from_its_model(run):
    state = keep(run, 90, drop="text_model")
    encoder = load(run / "checkpoints" / "step-0000090", device="cpu", dtype="float32")
    whole = load(run, device="cpu", dtype="float32")
    assert torch.equal(encoder.encode_text(["a dog"]), whole.encode_text(["a dog"]))
    name = "vision_model.encoder.layers.0.norm1.weight"
    name = name if name in state else next(key for key in state if key.startswith("vision_model"))
    assert torch.equal(encoder.model.state_dict()[name], state[name])


def test_merged_parts_are_a_sentence(run):
    keep(run, 95, extra={"objective.model.vision_model.lora_A.default.weight": torch.zeros(2, 2)})
    with pytest.raises(ModelError, match=r"LoRA.*Use the run's model\.$"):
        load(run / "checkpoints" / "step-0000095")


def test_the_slider_names_the_encoder_of_a_step(run, tmp_path):
    studio = Studio(device="cpu", runs=run.parent)
    steps = Steps(studio)
    studio.choices()
    assert steps.of("dog") == {40: "dog@40", 80: "dog@80", 100: "dog"} == steps.of("dog@40")
    assert steps.of(studio.first) == {} == steps.of(None)
    shown = steps.track("dog")
    assert [shown[key] for key in ("visible", "minimum", "maximum", "step", "value")] == [True, 40, 100, 20, 100]
    assert "value" not in steps.track("dog@40") and not steps.track(studio.first)["visible"]
    assert [steps.slide(step, "dog@40") for step in (40, 60.1, 100)] == ["dog@40", "dog@80", "dog"]
    assert steps.slide(3, studio.first) == gr.skip()
    log = run / "metrics.jsonl"
    log.write_text('{"step": 90, "loss": 1.0}\n{"step": 90, "best_step": 40}\n')  # ended early: its model is step 40's
    assert steps.of("dog") == {40: "dog", 80: "dog@80"} and steps.track("dog")["value"] == 40
    log.unlink()
    with pytest.raises(ModelError, match="not on offer"):
        studio.encoder("dog@41")
    picture = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(picture)
    first, second = (studio.encode("a", studio.encoder(name), picture) for name in ("dog@40", "dog"))
    assert not torch.equal(first.features.patches, second.features.patches)
    assert studio.encode("a", studio.encoder("dog@40"), picture) is first
