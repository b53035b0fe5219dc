"""tipsv2.evaluation.probing.probes: what a linear layer can learn it learns, what it cannot stays chance; nothing is
lost.
"""

import numpy as np
import pytest
import torch

from tipsv2.evaluation.layouts import Sample
from tipsv2.evaluation.probing import probes as probing
from tipsv2.evaluation.probing.probes import Recipe, enlarge, inputs, nearest
from tipsv2.evaluation.segmentation.linear import loss
from tipsv2.evaluation.shared.partial import Partial

CLASSES, WIDTH = 4, 16
RECIPE = Recipe(CLASSES, loss, lambda truth: truth >= 0, batch_norm=True)


def stored(count: int, seed: int, noise: bool = False, sizes=((5, 6),)) -> Partial:
    """Images whose every patch is the direction of its class and a little noise, or noise alone."""
    directions = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    rng = np.random.default_rng(seed)
    store = Partial(None, {})
    for number in range(count):
        h, w = sizes[number % len(sizes)]
        labels = np.repeat(np.repeat(rng.integers(CLASSES, size=(1, w)), h, 0), 4, 0).repeat(4, 1)
        shown = rng.integers(CLASSES, size=(h, w)) if noise else labels[::4, ::4]
        patches = directions[shown] * 2 + rng.normal(size=(h, w, WIDTH)) * 0.2 + 3
        store.add(
            f"{seed} {number}",
            patches=patches.astype(np.float16),
            cls=np.zeros(WIDTH, np.float16),
            grid=np.array([h, w]),
            truth=labels,
        )
    return store


def right(probe, store) -> float:
    """Part of the patches whose class the probe finds."""
    found = []
    for name in store:
        guess = probe(inputs(torch.from_numpy(store[name]["patches"])[None], None))[0].argmax(0).numpy()
        found.append((guess == store[name]["truth"][2::4, 2::4]).mean())
    return float(np.mean(found))


def test_what_is_separable_is_learnt_and_noise_is_chance(monkeypatch):
    monkeypatch.setattr(probing, "RATE", 0.02)  # to be quick
    train, held_out = stored(64, 1), stored(20, 2)
    assert right(probing.train(train, list(train), RECIPE, 12, progress=False), held_out) > 0.99
    train, held_out = stored(64, 3, noise=True), stored(40, 4, noise=True)
    assert right(probing.train(train, list(train), RECIPE, 12, progress=False), held_out) == pytest.approx(
        0.25, abs=0.06
    )


def test_a_killed_training_goes_on_to_the_same_probe(tmp_path, monkeypatch):
    train = stored(40, 1, sizes=((5, 6), (4, 4)))
    whole = probing.train(train, list(train), RECIPE, 4, file=tmp_path / "whole.safetensors", progress=False)
    saved = probing._save

    def dies(file, probe, optimizer, epochs):
        saved(file, probe, optimizer, epochs)
        if epochs == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(probing, "_save", dies)
    with pytest.raises(KeyboardInterrupt):
        probing.train(train, list(train), RECIPE, 4, file=tmp_path / "part.safetensors", progress=False)
    monkeypatch.setattr(probing, "_save", saved)
    again = probing.train(train, list(train), RECIPE, 4, file=tmp_path / "part.safetensors", progress=False)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    # and what is finished is not trained again
    monkeypatch.setattr(probing, "_save", lambda *_: pytest.fail("trained again"))
    probing.train(train, list(train), RECIPE, 4, file=tmp_path / "part.safetensors", progress=False)


def test_every_epoch_sees_every_image_once_in_its_own_order():
    names = [str(k) for k in range(70)]
    grids = {name: (1, int(name) % 2) for name in names}
    first, second = (list(probing._batches(names, grids, epoch)) for epoch in (0, 1))
    for batches in (first, second):
        assert sorted(name for batch in batches for name in batch) == sorted(names)
        assert [len(b) for b in batches].count(16) == 4 and all(len({grids[n] for n in b}) == 1 for b in batches)
    assert first != second


def test_enlarging_and_the_layer_commute():
    """So that it may be the outputs that are enlarged, where DINOv2's head enlarges the features."""
    torch.manual_seed(0)
    probe, features = probing.Probe(WIDTH, 7, batch_norm=False), torch.randn(2, WIDTH, 5, 3)
    assert torch.allclose(enlarge(probe(features)), probe(enlarge(features)), atol=1e-5)


def test_the_class_token_stands_beside_every_patch():
    patches, cls = torch.randn(2, 3, 4, 5), torch.randn(2, 5)
    entered = inputs(patches, cls)
    assert entered.shape == (2, 10, 3, 4)
    assert torch.equal(entered[1, :, 2, 3], torch.cat([patches[1, 2, 3], cls[1]]))


def test_nearest_takes_the_pixel_at_the_centre():
    truth = np.arange(7 * 10).reshape(7, 10)
    small = nearest(truth, (3, 4))
    for row in range(3):
        for column in range(4):
            assert small[row, column] == truth[int((row + 0.5) * 7 / 3), int((column + 0.5) * 10 / 4)]
    assert np.array_equal(nearest(truth[..., None].repeat(3, 2), (14, 20))[::2, ::2, 1], truth)


def test_collected_once_and_kept_before_a_damaged_file(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "BATCH_SIZE", 2)
    images = np.random.default_rng(0).integers(0, 256, (5, 56, 56, 3), dtype=np.uint8)

    def damaged():
        raise ValueError("'4.png' is damaged")

    samples = [Sample(str(k), image, lambda: np.zeros((56, 56), np.int64)) for k, image in enumerate(images)]
    broken = [*samples[:4], Sample("4", images[4], damaged)]
    settings = {"a": 1}
    with pytest.raises(ValueError, match="damaged"):
        probing.collect(tiny_encoder, broken, "final", 56, Partial(tmp_path, settings, keep=False), progress=False)
    store = Partial(tmp_path, settings, keep=False)
    assert list(store) == ["0", "1", "2", "3"]
    seen = []
    monkeypatch.setattr(probing, "encode", lambda *given, do=probing.encode: seen.extend(given[1]) or do(*given))
    probing.collect(tiny_encoder, samples, "final", 56, store, progress=False)
    assert len(seen) == 1 and len(store) == 5
    expected = tiny_encoder.encode_image(images[2])
    assert np.allclose(store["2"]["patches"], expected.patches, atol=2e-3, rtol=1e-3)
    assert np.allclose(store["2"]["cls"], expected.cls, atol=2e-3, rtol=1e-3)
    assert store["2"]["truth"].shape == (16, 16) and store["2"]["grid"].tolist() == [4, 4]


def test_features_of_a_kind(tiny_encoder):
    image = np.random.default_rng(0).integers(0, 256, (28, 56, 3), dtype=np.uint8)
    expected = tiny_encoder.encode_image(image, 28)
    assert torch.equal(probing.encode(tiny_encoder, [image], "values", 28)[0][0], expected.values)
    layers = tiny_encoder.encode_layers(image, [2], 28)
    assert torch.equal(probing.encode(tiny_encoder, [image], "layer:2", 28)[0][0], layers[2].patches)


def test_sentences(monkeypatch):
    train = stored(4, 1)
    with pytest.raises(ValueError, match="epochs=0"):
        probing.train(train, list(train), RECIPE, 0)
    unknown = Partial(None, {})
    unknown.add("a", **{**train["1 0"], "truth": np.full((20, 24), -1)})
    with pytest.raises(ValueError, match="None of the 1 training images has a known pixel"):
        probing.train(unknown, ["a"], RECIPE, 1, progress=False)
    assert probing.planned(train, list(train)) == 2000  # one step an epoch
    monkeypatch.setattr(probing, "STEPS", 5)
    assert probing.planned(train, list(train)) == 10
    with pytest.raises(ValueError, match="'b.png' is 5 x 4 pixels, but its truth is 4 x 5"):
        probing.read(Sample("b.png", np.zeros((4, 5, 3), np.uint8), lambda: np.zeros((5, 4))))
