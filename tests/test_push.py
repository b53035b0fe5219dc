"""tipsv2.sharing.push: what is sent to the Hub and what the card says. The Hub is a stubbed transport.

python -m pytest tests/test_push.py
"""

import base64
import json
import logging
import shutil

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import ModelCard, constants

from tipsv2.__main__ import main
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.sharing.model_card import public, scores
from tipsv2.sharing.push import prepare, push

TOKEN = "hf_" + "SecretSecretSecret"
RECORD = {
    "task": "segmentation", "data": "scenes:val", "model": "mine", "resolution": 56, "images": 500,
    "final": {"miou_present": 0.25}, "values": {"miou_present": 0.5}, "chance": {"miou_present": 0.125},
    "interval": {"miou_present": [0.4, 0.6]}, "per_class": {"dog": 0.75}, "seconds": 12.5,
    "command": "python -m tipsv2 evaluate segmentation --data scenes:val --out /home/somebody/out",
}  # fmt: skip


@pytest.fixture
def mine(tmp_path, tiny_folder):
    """A run called mine: model, recipe with private paths, and things that are nobody's business."""
    run = tmp_path / "mine"
    shutil.copytree(tiny_folder, run / "model")
    (run / "model" / "notes.txt").write_text("private")
    recipe = {
        "name": "nano", "command": "finetune", "tuning": {"base": "google/tipsv2-b14"},
        "data": {"source": "/home/somebody/photos"},
        "stages": [{"steps": 100, "batch_size": 32, "size": 224, "learning_rate": 0.001, "grounding": True}],
    }  # fmt: skip
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    return run


@pytest.fixture
def hub(monkeypatch):
    """hub(status=..., private=...) -> the list of requests the Hub was sent."""

    def connect(status=200, private=False, failure=None):
        requests = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            requests.append(request)
            path = request.url.path
            if failure:
                raise failure
            if status != 200:
                return httpx2.Response(status, json={"error": f"no {TOKEN}"})
            if path == "/api/repos/create":
                return httpx2.Response(200, json={"url": "https://huggingface.co/owner/mine"})
            if "/preupload/" in path:
                names = [file["path"] for file in json.loads(request.read())["files"]]
                files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
                return httpx2.Response(200, json={"files": files})
            if "/commit/" in path:
                return httpx2.Response(
                    200, json={"commitUrl": "https://huggingface.co/owner/mine/commit/1", "commitOid": "1"}
                )
            if path == "/api/models/owner/mine":
                return httpx2.Response(200, json={"id": "owner/mine", "private": private, "siblings": []})
            if path.startswith("/api/models/owner/mine"):
                return httpx2.Response(200, json={"id": "owner/mine", "sha": "1", "private": private, "siblings": []})
            return httpx2.Response(200, json={})

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
        return requests

    yield connect
    huggingface_hub.set_client_factory(lambda: httpx2.Client())


def committed(requests) -> dict[str, bytes]:
    """Path -> content of the one commit among the requests."""
    (commit,) = [request for request in requests if "/commit/" in request.url.path]
    lines = [json.loads(line) for line in commit.read().splitlines()]
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }


def test_one_commit_with_weights_tokenizer_recipe_and_card(mine, hub, tmp_path, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    requests = hub(private=True)
    arguments = ["push", str(mine), "owner/mine", "--licence", "mit", "--private"]
    assert main([*arguments, "--record", str(tmp_path / "record.json")]) == 0
    sent = committed(requests)
    expected = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "recipe.json",
        "README.md",
    }
    assert set(sent) == expected
    assert sent["model.safetensors"] == (mine / "model" / "model.safetensors").read_bytes()
    (made,) = [request for request in requests if request.url.path == "/api/repos/create"]
    asked = json.loads(made.read())
    assert asked["name"] == "mine" and (asked.get("private") is True or asked.get("visibility") == "private")
    assert made.headers["authorization"] == f"Bearer {TOKEN}"  # by huggingface_hub, which is who reads the token
    printed = capsys.readouterr()
    assert "huggingface.co/owner/mine" in printed.out
    everything = (
        printed.out + printed.err + caplog.text + "".join(content.decode("latin1") for content in sent.values())
    )
    assert TOKEN not in everything and "somebody" not in everything.replace(str(tmp_path), "")


def test_the_card(mine, tmp_path):
    files, _ = prepare(str(mine), "owner/mine", "mit", [str(tmp_path / "record.json")])
    text = files["README.md"].decode()
    card = ModelCard(text)
    assert (card.data.license, card.data.library_name, card.data.base_model) == (
        "mit",
        "transformers",
        "google/tipsv2-b14",
    )
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"final_miou_present": 0.25, "values_miou_present": 0.5}
    assert {result.dataset_name for result in card.data.eval_results} == {"scenes:val"}
    for line in (
        "| segmentation | scenes:val | values miou_present | 0.5 | 0.125 |",
        "| vision tower | 48 wide, 3 layers, 4 heads, patch 14, two CLS tokens |",
        "python -m train finetune --recipe nano --data photos --out runs/mine",
        "| 1 | 100 | 32 | 224 | 0.001 |",
        "    python -m tipsv2 evaluate segmentation --data scenes:val --out out",
        "python app.py --model owner/mine",
    ):
        assert line in text.splitlines()
    assert json.loads(files["recipe.json"])["data"]["source"] == "photos"
    code = text.split("```python\n")[1].split("```")[0].replace('"owner/mine"', repr(str(mine / "model")))
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (1, 2)


def test_the_lines_of_the_card_work_with_weights_in_half_precision(mine):
    from transformers import Tipsv2Model

    Tipsv2Model.from_pretrained(mine / "model").half().save_pretrained(mine / "model")
    text = prepare(str(mine), "owner/mine", "mit")[0]["README.md"].decode()
    names: dict = {}
    exec(text.split("```python\n")[1].split("```")[0].replace('"owner/mine"', repr(str(mine / "model"))), names)
    assert names["logits"].isfinite().all()


def test_dry_run_sends_nothing(mine, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    requests = hub()
    assert main(["push", str(mine), "owner/mine", "--licence", "mit", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not requests and "nothing was sent" in printed and "model.safetensors" in printed and "notes" not in printed
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".md"]  # nothing that was not asked for
    again = ["push", str(mine), "owner/mine", "--licence", "mit", "--dry-run", "--card", "card.md"]
    assert main(again) == 0 and ModelCard.load("card.md").data.eval_results is None


def test_the_bundled_encoder_brings_its_licence(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD | {"model": "tipsv2-nano"}))  # as it was called before
    files, _ = prepare("opentips-nano", "owner/nano", records=[str(tmp_path / "record.json")])
    text = files["README.md"].decode()
    assert ModelCard(text).data.license == "apache-2.0" and "never seen a photograph" in text
    assert "recipe.json" not in files and "## Training" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push", "{mine}", "mine", "--licence", "mit"], "owner/name"),
        (["push", "{mine}", "owner/mi ne", "--licence", "mit"], "owner/name"),
        (["push", "{mine}", "owner/mine"], "--licence"),
        (["push", "tipsv2-b14", "owner/mine", "--licence", "mit"], "on the Hub already"),
        (["push", "{mine}", "owner/mine", "--licence", "mit", "--record", "absent.json"], "no file 'absent.json'"),
        (
            ["push", "{mine}", "owner/mine", "--licence", "mit", "--record", "{mine}/recipe.json"],
            "no evaluation record",
        ),
        (["push", "{mine}/model/config.json", "owner/mine", "--licence", "mit"], "no model or folder"),
    ],
)
def test_sentences(mine, hub, capsys, arguments, words):
    requests = hub()
    assert main([argument.replace("{mine}", str(mine)) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error and error.startswith("tipsv2: ") and not requests


def test_records_of_another_model_and_broken_weights_are_refused(mine, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD | {"model": "other"}))
    with pytest.raises(ModelError, match="is of other, not of mine"):
        prepare(str(mine), "owner/mine", "mit", [str(tmp_path / "record.json")])
    weights = mine / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        prepare(str(mine), "owner/mine", "mit")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (dict(status=401), "hf auth login"),
        (dict(status=403), "may not write"),
        (dict(status=400), "answered 400"),
        (dict(failure=httpx2.ConnectError("refused")), "cannot be reached"),
        (dict(private=False), "exists and is public"),
    ],
)
def test_a_hub_that_refuses_is_one_sentence_without_the_token(hub, behaviour, words):
    requests = hub(**behaviour)
    with pytest.raises(ModelError) as error:
        push({"README.md": b"card"}, "owner/mine", private=True)
    assert words in str(error.value) and TOKEN not in str(error.value) and "\n" not in str(error.value)
    assert not any("/commit/" in request.url.path for request in requests)


def test_offline():
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        push({"README.md": b"card"}, "owner/mine")


def test_scores_and_paths():
    assert list(scores(RECORD)) == [("final miou_present", 0.25, 0.125), ("values miou_present", 0.5, 0.125)]
    assert list(scores({"r1": 0.5, "queries": 7, "chance": {"r1": 0.1}})) == [("r1", 0.5, 0.1)]
    retrieval = {"cls": {"i2t_r1": 0.5}, "chance": {"r1": 0.25}}
    assert list(scores(retrieval)) == [("cls i2t_r1", 0.5, 0.25)]
    paths = ["/x/y/photos/", "~/z", "hf:owner/data", "scenes:val", "C:\\x\\y", "ade20k:/data/ADE", "1e-4", "a: b", ""]
    kept = ["photos", "z", "hf:owner/data", "scenes:val", "y", "ade20k:ADE", "1e-4", "a: b", ""]
    assert public({"a": paths, "b": 3}) == {"a": kept, "b": 3}
