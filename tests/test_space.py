"""On a ZeroGPU Space, with a stub of the package `spaces` that keeps its contract: a decorated function runs elsewhere,
gets and returns only what can be pickled, and no exception of ours crosses.

python -m pytest tests/test_space.py
"""

import pickle
import sys
import time
import types

import pytest
import torch

from demos.backend import space
from demos.backend.settings import ARGUMENTS
from demos.backend.studio import WARM_UP, Studio
from tipsv2 import load
from tipsv2.network.encoder import Encoder


@pytest.fixture
def zero(monkeypatch):
    """The calls that went to a GPU worker, as (method, seconds asked for)."""
    calls = []

    def decorated(task, duration):
        def worker(*args, **kwargs):
            args, kwargs = pickle.loads(pickle.dumps((args, kwargs)))
            calls.append((args[2], duration(*args, **kwargs)))
            try:
                found = task(*args, **kwargs)
            except Exception as error:
                raise RuntimeError("ZeroGPU worker error") from error
            return pickle.loads(pickle.dumps(found))

        return worker

    stub = types.ModuleType("spaces")
    stub.GPU = lambda task=None, *, duration=None: lambda given: decorated(given, duration)
    monkeypatch.setitem(sys.modules, "spaces", stub)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    space._worker.cache_clear()
    yield calls
    space._worker.cache_clear()
    space._models.clear()
    space._read_again.clear()


@pytest.fixture
def picture(tmp_path):
    import numpy as np
    from PIL import Image

    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_only_forward_passes_go_to_the_worker_and_only_once(zero, tiny_folder, picture):
    own = load(tiny_folder, device="cpu")
    studio = Studio(str(tiny_folder), device="cpu")
    encoder = studio.encoder()
    first = studio.encode("a", encoder, picture)
    assert zero == [("encode_pixels", 20)]
    expected = own.encode_image(picture)
    torch.testing.assert_close(first.features.values, expected.values)
    assert studio.encode("a", encoder, picture) is first and len(zero) == 1
    torch.testing.assert_close(encoder.encode_text(["a dog", "sky"]), own.encode_text(["a dog", "sky"]))
    encoder.encode_text(["sky", "a dog"])
    assert zero[1:] == [("embed_prompts", 10)]
    layers = encoder.encode_layers(picture, [1])
    torch.testing.assert_close(layers[1].patches, own.encode_layers(picture, [1])[1].patches)
    assert zero[2:] == [("encode_layers", 60)]


def test_a_worker_that_does_not_know_the_model_loads_it(zero, tiny_folder, picture):
    encoder = Studio(str(tiny_folder), device="cpu").encoder()
    space._models.clear()  # forked before the encoder came
    found = encoder.encode_image(picture).patches
    torch.testing.assert_close(found, load(tiny_folder, device="cpu").encode_image(picture).patches)
    assert list(space._read_again) == ["Encoder tiny"]


def test_a_refusal_comes_back_as_its_sentence(zero, tiny_folder, picture):
    encoder = Studio(str(tiny_folder), device="cpu").encoder()
    with pytest.raises(ValueError, match="layer"):
        encoder.encode_layers(picture, [99])


@pytest.mark.slow
def test_the_budget_still_lets_go_of_lent_encoders(zero, tiny_folder):
    import gc

    studio = Studio(str(tiny_folder), device="cpu")
    studio.encoder()
    assert len(space._models) == 1
    studio.shelf.drop("tiny")
    gc.collect()
    assert len(space._models) == 0


def test_elsewhere_nothing_is_wrapped(tiny_folder, monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setitem(sys.modules, "spaces", None)  # an import would fail
    space.prepare()
    before = set(space._models)
    Studio(str(tiny_folder), device="cpu").encoder()
    assert set(space._models) == before


@pytest.mark.parametrize("on_space", [False, True])
def test_a_space_loads_its_models_first_and_trains_nothing(tiny_folder, monkeypatch, on_space):
    from demos import launch
    from demos.ui import page

    monkeypatch.delenv("SPACE_ID", raising=False)
    if on_space:
        monkeypatch.setenv("SPACE_ID", "someone/tips")
    monkeypatch.setenv(ARGUMENTS, f"--model {tiny_folder} --memory 2GB --device cpu")
    monkeypatch.setattr(sys, "argv", ["app.py"])
    for lasting in (
        "few_arenas",
        "few_kernels",
        "own_folder",
    ):  # else for all tests after this one
        monkeypatch.setattr(launch, lasting, lambda: None)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # as run() does, but taken back
    studios, served = [], []
    monkeypatch.setattr(page, "Studio", lambda *given: studios.append(Studio(*given)) or studios[-1])
    monkeypatch.setattr(launch, "launch", lambda page, **options: served.append(options))
    real = page.build
    settings = []
    monkeypatch.setattr(page, "build", lambda *given: settings.append(given[3]) or real(*given))
    warmed = []
    monkeypatch.setattr(Studio, "warm_up", lambda studio, download=False: warmed.append(download))
    launch.run(["inside"])
    (studio,) = studios
    assert served and studio.shelf.budget == 2_000_000_000
    for _ in range(100):  # at home another thread does it, while the page is served
        if not warmed:
            time.sleep(0.1)
    assert warmed == [on_space]  # only a Space downloads what nobody asked for
    assert (settings[0].public, settings[0].training) == (on_space, not on_space)


def test_the_first_visitor_finds_the_encoder_loaded(tiny_folder, monkeypatch):
    sizes, encode = [], Encoder.encode_image
    monkeypatch.setattr(Encoder, "encode_image", lambda *given, **rest: sizes.append(given[1].size) or encode(*given))
    studio = Studio([str(tiny_folder), "google/tipsv2-b14"], device="cpu")
    monkeypatch.setattr(studio.downloads, "follow", lambda *given: pytest.fail("nobody asked for a download"))
    studio.warm_up()
    assert studio.shelf.loaded("tiny") and sizes == [WARM_UP]


def test_no_name_that_somebody_types_is_read_as_a_path(tiny_folder, picture, monkeypatch, tmp_path):
    import shutil

    from tipsv2.checkpoints.catalogue import ModelError

    secret = shutil.copytree(tiny_folder, tmp_path / "secret")
    studio = Studio(str(tiny_folder), device="cpu")
    monkeypatch.setattr("tipsv2.network.encoder.load", lambda *given, **rest: pytest.fail("a path was read"))
    for name in (str(secret), f"{secret}@1", "../secret", "someone/else"):
        with pytest.raises(ModelError, match="not on offer"):
            studio.encoder(name)
        with pytest.raises(ModelError, match="not on offer"):
            list(studio.fetch(name, "a"))
