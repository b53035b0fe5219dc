"""A model folder or run -> a repository of the Hugging Face Hub with a generated model card; the push command.

python -m tipsv2 push runs/mine owner/mine --licence apache-2.0 --record out/segmentation --dry-run

The token is the one `hf auth login` stored or HF_TOKEN holds; it is neither asked for nor shown here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelError, ModelInfo, find
from tipsv2.checkpoints.model_files import without_auto_map
from tipsv2.sharing.model_card import public, read_record, write_card

if TYPE_CHECKING:
    import argparse

PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "preprocessor_config.json")


def prepare(
    model: str, repo: str, licence: str | None = None, records: Sequence[str] = ()
) -> tuple[dict[str, Path | bytes], ModelInfo]:
    """(path in the repository -> file or content, what the model is), whole and readable; nothing is sent.

    licence: a licence id of the Hub; None for the bundled encoder's own.
    records: files or folders of `python -m tipsv2 evaluate`.
    Raises ModelError: no local model, weights that do not load, a bad name, no licence, records of another model.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    if repo.count("/") != 1:
        raise ModelError("The repository is owner/name, of letters, digits, '-', '_' and '.': give it like that.")
    info = find(model)
    if info.source not in ("bundled", "folder", "run"):
        what = "is on the Hub already" if info.source == "hub" else "is a step of a run and no folder of its own"
        raise ModelError(f"'{model}' {what}: push takes a model folder or a finished run.")
    if licence is None and info.source != "bundled":
        raise ModelError("Say under which licence others may use it: --licence apache-2.0, mit, cc-by-4.0, ...")
    folder = Path(info.location)

    from tipsv2.network.encoder import load

    load(model, "cpu", "float32", fast=False)  # every weight and the tokenizer, or one sentence
    read = [read_record(path, info.name) for path in records]
    recipe = None
    if info.source == "run":
        try:
            recipe = public(json.loads((folder.parent / "recipe.json").read_text("utf-8")))
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(
                f"'{folder.parent / 'recipe.json'}' cannot be read: push its model folder alone."
            ) from error
    files: dict[str, Path | bytes] = {
        path.name: path for pattern in PATTERNS for path in sorted(folder.glob(pattern)) if path.is_file()
    }
    for name in files:
        if name.endswith("config.json") and (content := without_auto_map(folder / name)):
            files[name] = content
    if recipe:
        files["recipe.json"] = (json.dumps(recipe, indent=2, ensure_ascii=False) + "\n").encode()
    files["README.md"] = write_card(info, folder, repo, licence or "apache-2.0", recipe, read).encode()
    return files, info


def push(files: dict[str, Path | bytes], repo: str, private: bool = False) -> str:
    """Send `files` to `repo` in one commit and return its address; the repository is made where there is none.

    Raises ModelError in one sentence without a token, a right to write or a connection, and where `private` is asked
    of a repository that is public already.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"Nothing was pushed to {repo}, HF_HUB_OFFLINE is set: unset it.")
    api = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise ModelError(f"{repo} exists and is public: make it private there, or leave --private out.")
        adds = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repo, adds, commit_message="Model and card by python -m tipsv2 push")
    except LocalTokenNotFoundError:
        raise ModelError(f"Nothing was pushed to {repo}, the Hub does not know you: run hf auth login first.") from None
    except HfHubHTTPError as error:  # its own text may quote the request
        status = getattr(error.response, "status_code", 0)
        reason = {
            401: "the Hub does not know you: run hf auth login with a token that may write",
            403: "your token may not write there: take another name or another token",
        }.get(status, f"the Hub answered {status}: try again later")
        raise ModelError(f"Nothing was pushed to {repo}, {reason}.") from None
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):  # httpx, later httpx2
            raise
        raise ModelError(f"Nothing was pushed to {repo}, the Hub cannot be reached: try again later.") from None
    return str(address)


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `push` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "push",
        run,
        "Put a model folder or a run on the Hugging Face Hub, with a generated model card.",
        "push runs/mine owner/mine --licence apache-2.0 --dry-run\n"
        "  python -m tipsv2 push runs/mine owner/mine --licence mit --private --record out/ade20k out/voc",
    )
    parser.add_argument("model", help="a model folder or a run")
    parser.add_argument("repo", help="owner/name")
    parser.add_argument("--licence", metavar="ID", help="as the Hub calls it: apache-2.0, mit, cc-by-4.0, ...")
    parser.add_argument("--record", nargs="+", default=[], metavar="FILE", help="what evaluate wrote, for the figures")
    parser.add_argument("--private", action="store_true", help="only you and your organisation see it")
    parser.add_argument("--dry-run", action="store_true", help="send nothing; list the files")
    parser.add_argument("--card", metavar="FILE", help="write the model card there, too")


def run(options: argparse.Namespace) -> None:
    """The push command. Raises ValueError or OSError with one sentence for whoever typed it."""
    files, info = prepare(options.model, options.repo, options.licence, options.record)
    for name, content in files.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        print(f"{size:>14,}  {name}")
    if options.card:
        card = files["README.md"]
        Path(options.card).write_bytes(card if isinstance(card, bytes) else card.read_bytes())
        print(f"the card is in {options.card}")
    if options.dry_run:
        kind = "private" if options.private else "public"
        print(f"would go to {options.repo} ({kind}); nothing was sent")
    else:
        print(f"{info.name} is at {push(files, options.repo, options.private)}")
