"""A model of the Hugging Face Hub -> a folder in the local Hub cache. Safetensors, JSON and tokenizer files, no code.

from tipsv2.download import download
folder = download(find("tipsv2-b14"))
"""

from __future__ import annotations

import threading
from pathlib import Path

from tipsv2.catalogue import BUNDLED, DPT, ModelError, ModelInfo

HUB_PATTERNS = ("*.json", "*.safetensors", "tokenizer*")
REACH_SECONDS = 4.0  # to learn whether the Hub answers at all


def download(info: ModelInfo, progress: bool = True) -> Path:
    """The folder of a Hub model in the local cache, with everything in it. progress: show the Hub's bar.

    Raises ModelError: within five seconds when the Hub does not answer, else when the download stops on the way; what
    has come stays and the next call goes on from there.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from tqdm.auto import tqdm

    class Silent(tqdm):
        def __init__(self, *args, **kwargs):
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

    instead = "give the folder of a copy" if info.name in DPT else f"the bundled encoder {BUNDLED} needs no download"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{info.location} is not on this machine and HF_HUB_OFFLINE is set: {instead}.")
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
        raise ModelError(f"{info.location} is not on this machine and the Hub cannot be reached: {instead}.")
    try:
        # By branch, not by the sha just read: only a branch leaves the reference that finds it again without a network.
        folder = snapshot_download(
            info.location, allow_patterns=list(HUB_PATTERNS), etag_timeout=3, tqdm_class=None if progress else Silent
        )
    except (OSError, ValueError) as error:  # connection lost on the way, disk full, no permission
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"The download of {info.location} stopped ({reason}): try again, it goes on where it ended; {instead}."
        ) from error
    return Path(folder)
