"""What the flags of app.py say, for every tab: `page.settings`. Light: no gradio, no torch.

A Space gives no flags; its variable TIPSV2_ARGS is read as if typed: "--memory 6GB --model google/tipsv2-l14".
"""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

ARGUMENTS = "TIPSV2_ARGS"
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def on_space() -> bool:
    """Does the app run as a Hugging Face Space, where anybody may visit it?"""
    return bool(os.environ.get("SPACE_ID"))


def is_loopback(host: str | None) -> bool:
    """Is this address or name one that only this machine reaches, such as 127.0.0.1, ::1 or localhost?"""
    name = (host or "").lower().removeprefix("[").removesuffix("]")
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@dataclass(frozen=True)
class Settings:
    """runs: folder of training runs, whose finished ones are offered as encoders (it need not exist).
    training: may visitors start runs?   memory: bytes for loaded encoders, None for a share of what is free.
    public: a Space or a shared link, through which everybody seems to sit at this machine; no path that somebody types
        is read there.
    """

    runs: Path | None = None
    training: bool = True
    memory: int | None = None
    public: bool = False


def login(text: str) -> tuple[str, str]:
    """ "USER:PASSWORD" -> both. Raises ArgumentTypeError, which does not repeat the password."""
    user, colon, password = text.partition(":")
    if not (colon and user.strip() and password):
        raise ArgumentTypeError("a login is USER:PASSWORD, with something on both sides of the colon.")
    return user.strip(), password


def logins(given: Sequence[tuple[str, str]], file: str | None) -> list[tuple[str, str]]:
    """Everybody who may log in: those of --auth, and a line each of a file, where empty lines and lines that begin with
    # are skipped. Raises ValueError, one sentence.
    """
    everybody = list(given)
    if file is not None:
        try:
            lines = Path(file).read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise ValueError(f"--auth-file {file} cannot be read: {reason}.") from None
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                try:
                    everybody.append(login(line.strip()))
                except ArgumentTypeError as error:
                    raise ValueError(f"--auth-file {file}, line {number}: {error}") from None
        if not everybody:
            raise ValueError(f"--auth-file {file} names nobody: write a line USER:PASSWORD for each person.")
    users = [user for user, _ in everybody]
    if twice := {user for user in users if users.count(user) > 1}:
        raise ValueError(f"The user '{min(twice)}' has two passwords: give each person one.")
    return everybody


def num_bytes(text: str) -> int:
    """ "6GB", "800 MB", "1.5e9" -> bytes; units are powers of 1000. Raises ArgumentTypeError."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    try:
        amount = int(float(match[1]) * UNITS[match[2]]) if match else 0
    except (ValueError, OverflowError):
        amount = 0
    if amount <= 0:
        raise ArgumentTypeError(f"'{text}' is no amount of memory: write something like 6GB or 800MB.")
    return amount
