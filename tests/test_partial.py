"""tipsv2.evaluation.shared.partial, record and layouts: nothing is lost or mixed, records say what was run."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tipsv2.evaluation.layouts import open_data
from tipsv2.evaluation.shared.partial import Partial
from tipsv2.network.encoder import load
from tipsv2.records import bootstrap, fingerprint, identity, versions


def test_what_was_added_is_there_after_a_kill(tmp_path):
    partial = Partial(tmp_path, {"model": "a"}, chunk=2)
    for number in range(5):
        partial.add(f"a/b {number}.jpg", table=np.full((2, 2), number), score=np.float32(number))
    again = Partial(tmp_path, {"model": "a"}, chunk=2)  # the fifth was in no full chunk
    assert list(again) == [f"a/b {number}.jpg" for number in range(4)] and "a/b 4.jpg" not in again
    assert again["a/b 3.jpg"]["table"].tolist() == [[3, 3], [3, 3]] and again["a/b 3.jpg"]["score"] == 3
    again.add("a/b 4.jpg", table=np.zeros((2, 2)), score=np.float32(9))
    again.flush()
    assert len(Partial(tmp_path, {"model": "a"})) == 5


def test_numbers_stay_numbers_and_arrays_may_stay_on_the_disk(tmp_path):
    for keep in (True, False):
        partial = Partial(tmp_path / str(keep), {}, chunk=2, keep=keep)
        for name in "abc":  # the third is in no chunk yet
            partial.add(name, x=np.full((2, 3), ord(name), np.float16), score=np.float64(ord(name)))
        for again in (partial, Partial(tmp_path / str(keep), {}, keep=keep)):
            assert list(again) == ["a", "b", "c"][: len(again)] and "b" in again and set(again["b"]) == {"x", "score"}
            assert again["b"]["score"].shape == () and float(again["b"]["score"]) == 98
            assert again["b"]["x"].dtype == np.float16 and (again["b"]["x"] == 98).all()
        assert isinstance(partial["b"], dict) == keep and isinstance(partial["c"], dict)


def test_leaving_the_block_writes_and_slow_samples_are_written_at_once(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        with Partial(tmp_path, {}) as partial:
            partial.add("a", x=np.zeros(1))
            assert "a" not in Partial(tmp_path, {})
            raise KeyboardInterrupt
    assert "a" in Partial(tmp_path, {})
    monkeypatch.setattr("tipsv2.evaluation.shared.partial.SECONDS", -1)
    partial.add("b", x=np.zeros(1))
    assert "b" in Partial(tmp_path, {})


def test_half_a_chunk_on_the_disk_is_not_read(tmp_path):
    partial = Partial(tmp_path, {}, chunk=1)
    partial.add("a", x=np.zeros(1))
    (tmp_path / "000001.part").write_bytes(b"half")
    assert list(Partial(tmp_path, {})) == ["a"]


def test_other_settings_are_refused(tmp_path):
    Partial(tmp_path, {"model": "a", "size": 1})
    with pytest.raises(ValueError, match="another model: choose another --out"):
        Partial(tmp_path, {"model": "b", "size": 1})


def test_bootstrap_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap(400, lambda weights: float(np.average(values, weights=weights)), 2000)
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.03)
    assert high == pytest.approx(values.mean() + error, abs=0.03)
    assert np.isnan(bootstrap(1, lambda weights: 0.0)).all()


def test_an_interval_holds_its_number_where_every_resampling_is_lower():
    def kinds(weights):  # 100 samples of a kind of their own: a resampling sees 63 of them
        return float((weights > 0).mean())

    low, high = bootstrap(100, kinds)
    assert high < 0.75
    low, high = bootstrap(100, kinds, centred=True)
    assert low < 1 < high and high - low == pytest.approx(4 * 0.031, abs=0.02)  # sd of the share seen: 0.031


def test_fingerprint_tells_data_apart():
    prints = {fingerprint(n, c) for n, c in ((["a", "b"], ()), (["ab"], ()), (["b", "a"], ()), (["a"], ("b",)))}
    assert len(prints) == 4 and fingerprint(["a", "b"]) in prints


def test_identity_tells_weights_apart(tmp_path, tiny_folder):
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    one, other = (identity(load(where, device="cpu", dtype="float32")) for where in (tiny_folder, folder))
    assert one["weights"] == other["weights"] and one["location"] != other["location"]
    weights = load_file(folder / "model.safetensors")
    changed = max(weights, key=lambda name: weights[name].numel())
    save_file(weights | {changed: weights[changed] + 0.01}, folder / "model.safetensors", {"format": "pt"})
    assert identity(load(folder, device="cpu", dtype="float32"))["weights"] != one["weights"]


def test_versions_name_what_counts():
    import torch

    assert versions()["torch"] == torch.__version__ and "commit" in versions()


def test_data_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no data set 'nowhere'"):
        open_data("segmentation", "nowhere")
    with pytest.raises(ValueError, match="none of the trees that are known"):
        open_data("segmentation", str(tmp_path))
