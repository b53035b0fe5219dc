"""A model of the Hugging Face Hub -> a folder in the local Hub cache. Safetensors, JSON and tokenizer files, no code.

from tipsv2.checkpoints.download import download
folder = download(find("tipsv2-b14"))
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import DPT, ModelError, ModelInfo, snapshot
from tipsv2.checkpoints.model_files import outdated

HUB_PATTERNS = ("*.json", "*.safetensors", "tokenizer*")
REACH_SECONDS = 4.0  # to learn whether the Hub answers at all


def download(info: ModelInfo, progress: bool | Callable[[int, int], None] = True) -> Path:
    """The folder of a Hub model in the local cache, with everything in it.

    progress: show the Hub's bar, or a function that is told (bytes done, bytes in all) as they come; what it raises
        ends the download and reaches the caller.
    Raises ModelError: within five seconds when the Hub does not answer, else when the download stops on the way (files
    that came whole stay), or when the Hub itself has it in a form that cannot be opened.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    there = snapshot(info)
    here = (
        "is on this machine only in its first form (April to June 2026), which needs code that does not run here,"
        if there and outdated(there)
        else "is not on this machine"
    )
    instead = (
        "give the folder of a copy"
        if info.name in DPT
        else f"the bundled encoder {bundled.default()} needs no download"
    )
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{info.location} {here} and HF_HUB_OFFLINE is set: {instead}.")
    # A thread of its own, since neither a name server that never answers nor the Hub's retries obey a request's
    # timeout.
    answer: dict[str, object] = {}

    def ask() -> None:
        try:
            answer["sha"] = HfApi().model_info(info.location, timeout=REACH_SECONDS - 1).sha
        except Exception as error:
            answer["error"] = error

    thread = threading.Thread(target=ask, daemon=True, name="hub-reach")
    thread.start()
    thread.join(REACH_SECONDS)
    error = answer.get("error")
    if isinstance(error, GatedRepoError):
        raise ModelError(f"{info.location} asks for its terms to be accepted on the Hub: log in there, or {instead}.")
    if isinstance(error, RepositoryNotFoundError):
        raise ModelError(f"The Hub has no model {info.location}, or it is private: check the name; {instead}.")
    if "sha" not in answer:
        raise ModelError(f"{info.location} {here} and the Hub cannot be reached: {instead}.")
    raised: list[BaseException] = []  # what `progress` raised is not a failed download

    def report(done: int, total: int) -> None:
        try:
            if callable(progress):
                progress(done, total)
        except BaseException as error:
            raised.append(error)
            raise

    bars = None if progress is True else _bars(report if callable(progress) else None)
    try:
        # By branch, not by the sha just read: only a branch leaves the reference that finds it again without a network.
        folder = snapshot_download(info.location, allow_patterns=list(HUB_PATTERNS), etag_timeout=3, tqdm_class=bars)
    except Exception as error:  # connection lost on the way, disk full, no permission: each library has its own
        if error in raised:
            raise
        reason = re.sub(r"hf_\w+", "hf_…", str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise ModelError(
            f"The download of {info.location} stopped ({reason}): try again, files that came whole are kept; {instead}."
        ) from error
    if outdated(Path(folder)):  # never "get it again": that is what was done
        raise ModelError(
            f"The Hub has {info.location} only in its first form (April to June 2026), which needs code that does not "
            f"run here: {instead}."
        )
    return Path(folder)


def _bars(report: Callable[[int, int], None] | None) -> type:
    """A class of bars that draws nothing and tells `report` of the bytes."""
    from tqdm.auto import tqdm

    class Bars(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            self.bytes = kwargs.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if report and self.bytes and self.n:
                report(int(self.n), int(self.total or 0))

    return Bars
