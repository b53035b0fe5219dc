"""tipsv2.checkpoints.catalogue: names, the local Hub cache, downloads and their failures. The Hub is a stubbed
transport.

python -m pytest tests/test_catalogue.py
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants

from tipsv2.checkpoints import bundled, download
from tipsv2.checkpoints.bundled import NANO
from tipsv2.checkpoints.catalogue import DPT, HUB, ModelError, available, fetch, find, is_cached
from tipsv2.network.encoder import load

ROOT = Path(__file__).parent.parent
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    """An empty Hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(monkeypatch):
    """Put the Hub online behind a handler: hub(handler) -> the list of requests it was sent."""

    def connect(handler) -> list[httpx2.Request]:
        requests = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            requests.append(request)
            return handler(request)

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
        return requests

    yield connect
    huggingface_hub.set_client_factory(lambda: httpx2.Client())


def lay_out(cache: Path, folder: Path, repo: str = "google/tipsv2-b14") -> Path:
    """Copy a model folder into a Hub cache as a download would leave it."""
    root = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / SHA)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(SHA)
    return root / "snapshots" / SHA


def serve(folder: Path, extra: tuple[str, ...] = (), repo: str = "google/tipsv2-b14"):
    """A Hub with one model, `repo`: the files of `folder` and some others."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | dict.fromkeys(extra, b"never fetched")

    def answer(request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path.startswith(f"/api/models/{repo}/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in files.items()]
            return httpx2.Response(200, json=tree)
        if path.startswith(f"/api/models/{repo}"):
            return httpx2.Response(200, json={"_id": "0", "id": repo, "sha": SHA, "siblings": []})
        if path.startswith(f"/{repo}/resolve/"):
            data = files[Path(path).name]
            headers = {"ETag": f'"{Path(path).name}"', "X-Repo-Commit": SHA, "Content-Length": str(len(data))}
            return httpx2.Response(200, headers=headers, content=data if request.method == "GET" else b"")
        return httpx2.Response(404)

    return answer


def sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?")), text
    return text


def test_hub_names():
    for name in ("tipsv2-b14", "google/tipsv2-b14"):
        info = find(name)
        assert (info.source, info.location, info.width, info.resolution) == ("hub", "google/tipsv2-b14", 768, 448)
    assert [HUB[name].width for name in HUB] == [768, 1024, 1152, 1536]
    other = find("someone/my-tips")
    assert (other.source, other.location) == ("hub", "someone/my-tips")


def test_names_with_heads():
    assert list(DPT) == [f"{name}-dpt" for name in HUB]
    for encoder, heads in zip(HUB.values(), DPT.values(), strict=True):
        assert find(heads.name) == find(heads.location) == heads and heads.location == f"{encoder.location}-dpt"
        assert (heads.width, heads.resolution) == (encoder.width, encoder.resolution)
    assert not {*DPT} & {info.name for info in available()}  # a menu of encoders does not offer them


def test_available_starts_with_the_bundled_one():
    infos = available()
    assert infos[0].name == bundled.default() and infos[0].source == "bundled" and infos[0].download_mb == 0
    assert [info.name for info in infos if info.source != "bundled"] == list(HUB)


def test_every_bundled_folder_is_offered_and_the_pair_only_if_it_is_there(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    assert [info.name for info in available()] == [NANO, *HUB]
    with pytest.raises(ModelError, match="no model or folder 'tips-nano'"):
        find("tips-nano")
    for name in ("zebra", "tips-nano-student", NANO, "tips-nano"):
        shutil.copytree(tiny_folder, tmp_path / name)
    (tmp_path / "half").mkdir()  # no config.json: no encoder
    infos = available()
    assert [info.name for info in infos] == [NANO, *bundled.PAIRS[NANO], "zebra", *HUB]
    assert all(is_cached(info) and info == find(info.name) for info in infos[:4])
    assert {info.source for info in infos[:4]} == {"bundled"} and len({info.title for info in infos[:4]}) == 4
    assert "TIPS" in find("tips-nano").trained_on and find("tips-nano").width == 48
    with pytest.raises(ModelError, match="did you mean tips-nano"):
        find("tips-nan0")


def test_folder(tiny_folder):
    info = find(tiny_folder)
    assert (info.source, info.location, info.width, info.resolution) == ("folder", str(tiny_folder), 48, 56)
    assert info == find(str(tiny_folder)) and is_cached(info)
    from transformers import Tipsv2Model

    count = sum(parameter.numel() for parameter in Tipsv2Model.from_pretrained(tiny_folder).parameters())
    assert info.parameters == f"{count / 1000:.3g}k"


@pytest.mark.parametrize(
    "name", ["opentips-nanno", "tipsv2_b14", "", "   ", "a/b/c", "../nowhere", "google/..", "x" * 300]
)
def test_unknown_names(name):
    with pytest.raises(ModelError) as error:
        find(name)
    assert "tips-" in sentence(error) or "tipsv2-" in sentence(error)


@pytest.mark.parametrize("name", ["runs/mine/model", "nope"])
def test_what_is_unlike_any_name_is_told_what_there_is(name):
    with pytest.raises(ModelError, match=f"no model or folder '{name}': give a folder, a Hub id, or one of opentips-"):
        find(name)


def test_near_names_come_first():
    with pytest.raises(ModelError, match=r"did you mean tipsv2-g14"):
        find("tipsv2-g15")


def test_weight_files_are_not_folders():
    with pytest.raises(ModelError, match="convert"):
        find("tips_v2_oss_b14_vision.npz")


def test_auto_takes_the_bundled_one_unless_b14_is_cached(hub_cache, tiny_folder):
    assert find("auto").name == bundled.default() and not is_cached(find("tipsv2-b14"))
    snapshot = lay_out(hub_cache, tiny_folder)
    assert find("auto").name == "tipsv2-b14" and is_cached(find("auto"))
    assert load("auto").info.width == 48
    (snapshot / "model.safetensors").unlink()  # as an interrupted download leaves it
    assert find("auto").name == bundled.default() and not is_cached(find("tipsv2-b14"))


def test_auto_loads_the_bundled_folder(hub_cache, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    assert not is_cached(find(NANO))
    with pytest.raises(ModelError, match="does not exist"):
        load("auto")
    shutil.copytree(tiny_folder, tmp_path / NANO)
    encoder = load("auto")
    assert encoder.info.name == NANO and encoder.info.source == "bundled" and encoder.info.width == 48


def test_hub_cache_from_the_environment(tiny_folder, tmp_path):
    """In a fresh process, where HF_HUB_CACHE is read as users set it; nothing is asked of the network."""
    lay_out(tmp_path, tiny_folder, "google/tipsv2-l14")
    code = (
        "from tipsv2.checkpoints.catalogue import *; import sys\n"
        "print([info.name for info in HUB.values() if is_cached(info)], 'torch' in sys.modules)"
    )
    environment = os.environ | {
        "HF_HUB_CACHE": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "['tipsv2-l14'] False", run.stderr


def test_sharded_folders_need_every_shard(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    from transformers import Tipsv2Model

    Tipsv2Model.from_pretrained(tiny_folder).save_pretrained(folder, max_shard_size="300KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and is_cached(find(folder))
    assert load(folder).info.width == 48
    shards[-1].unlink()
    assert not is_cached(find(folder))
    with pytest.raises(ModelError, match=f"lacks {shards[-1].name}"):
        fetch(find(folder))


@pytest.mark.parametrize(
    ("lost", "added", "words"),
    [
        ("config.json", (), "no config.json"),
        ("model.safetensors", (), "no model.safetensors"),
        ("model.safetensors", ("pytorch_model.bin",), "pickled weights only"),
        ("model.safetensors", ("weights.pt",), "pickled weights only"),
        ("tokenizer.json", (), "no tokenizer.json"),
    ],
)
def test_incomplete_folders(tiny_folder, tmp_path, lost, added, words):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / lost).unlink()
    for name in added:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ModelError) as error:
        load(folder)
    assert words in sentence(error)


# The Hub, through a stubbed transport


def test_download_takes_weights_tokenizer_and_json_only(hub_cache, hub, tiny_folder, capfd):
    extra = ("modeling_tips.py", "pytorch_model.bin", "tips.pt", "README.md", "demo.ipynb")
    requests = hub(serve(tiny_folder, extra))
    encoder = load("tipsv2-b14", dtype="float32")
    assert encoder.info.name == "tipsv2-b14" and encoder.info.width == 48
    fetched = {Path(request.url.path).name for request in requests if request.method == "GET"}
    assert fetched & {*extra} == set() and "model.safetensors" in fetched
    assert "Fetching" in capfd.readouterr().err
    asked = len(requests)
    assert is_cached(find("tipsv2-b14")) and load("auto").info.name == "tipsv2-b14"
    assert len(requests) == asked  # what is on the disk is not asked for again


def test_heads_are_downloaded_without_a_tokenizer(hub_cache, hub, tmp_path):
    """Only files are checked here: tests/test_dpt.py loads such a folder."""
    folder = tmp_path / "heads"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "tipsv2_dpt"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    info = find("tipsv2-so400m14-dpt")
    requests = hub(serve(folder, ("modeling_dpt.py",), info.location))
    assert not is_cached(info)
    assert sorted(path.name for path in fetch(info, progress=False).iterdir()) == ["config.json", "model.safetensors"]
    assert is_cached(info) and not any("modeling" in request.url.path for request in requests)
    (folder / "config.json").write_text(json.dumps({"model_type": "tipsv2"}))
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        fetch(find(folder))


def test_download_without_a_bar(hub_cache, hub, tiny_folder, capfd):
    hub(serve(tiny_folder))
    load("tipsv2-b14", progress=False)
    assert capfd.readouterr().err == ""


def test_pickled_hub_model_is_refused(hub_cache, hub, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    requests = hub(serve(folder))
    with pytest.raises(ModelError, match="safetensors"):
        load("tipsv2-b14", progress=False)
    assert not any("pytorch_model.bin" in request.url.path for request in requests)


def refused(request):
    raise httpx2.ConnectError("Connection refused", request=request)


def never_answers(request):
    threading.Event().wait(60)
    raise httpx2.ConnectTimeout("timed out", request=request)


@pytest.mark.parametrize("failure", [refused, never_answers, lambda request: httpx2.Response(503)])
def test_without_a_network_a_sentence_within_five_seconds(hub_cache, hub, failure, monkeypatch):
    assert download.REACH_SECONDS <= 4  # the fifth is for all else
    monkeypatch.setattr(download, "REACH_SECONDS", 1.3)
    hub(failure)
    start = time.monotonic()
    with pytest.raises(ModelError) as error:
        load("google/tipsv2-b14")
    assert time.monotonic() - start < 30  # a busy machine, but not the Hub's minute
    assert (
        "google/tipsv2-b14" in sentence(error) and bundled.default() in sentence(error) and "reached" in sentence(error)
    )


def test_offline_variable(hub_cache):
    with pytest.raises(ModelError) as error:  # conftest sets HF_HUB_OFFLINE
        load("google/tipsv2-b14")
    assert "HF_HUB_OFFLINE" in sentence(error) and bundled.default() in sentence(error)


def test_unknown_and_gated_repositories(hub_cache, hub):
    hub(lambda request: httpx2.Response(404, headers={"X-Error-Code": "RepoNotFound"}))
    with pytest.raises(ModelError, match="no model someone/nothing"):
        load("someone/nothing")
    hub(lambda request: httpx2.Response(403, headers={"X-Error-Code": "GatedRepo"}))
    with pytest.raises(ModelError, match="terms"):
        load("someone/gated")


def test_a_connection_lost_on_the_way(hub_cache, hub, tiny_folder):
    whole = serve(tiny_folder)

    def lose(request):
        if request.url.path.endswith("model.safetensors") and request.method == "GET":
            return httpx2.Response(403)
        return whole(request)

    hub(lose)
    with pytest.raises(ModelError) as error:
        load("tipsv2-b14", progress=False)
    assert "stopped" in sentence(error) and bundled.default() in sentence(error)
    hub(whole)
    assert load("tipsv2-b14", progress=False).info.width == 48


def test_config_of_another_model(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ModelError, match="type 'clip'"):
        load(folder)
    for content in ("{", "[]", "{}", "\x00"):
        (folder / "config.json").write_text(content)
        with pytest.raises(ModelError) as error:
            load(folder)
        assert "config.json" in sentence(error)
        assert find(folder).width == 0
