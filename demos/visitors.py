"""Many visitors at once, each with questions about an image of their own: is every answer theirs, how long does it
take, does the server's memory stay where it was? Talks to a running explorer through gradio_client, as anybody could.

python -m demos.visitors --visitors 20 --queries 10 --rounds 3                    starts an app of its own
python -m demos.visitors --rounds 1 --hostile                  and again with one who sends 12,000 phrases at a time
python -m demos.visitors --rounds 0 --requests 1000            one after the other: does the memory stay flat?
python -m demos.visitors --url http://127.0.0.1:7860 --model opentips-nano --pid 4242
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 0.02  # of a cosine: two machines round differently, most of all in bfloat16
STEADY = 0.1  # part of the first round's memory that a later one may differ by
START = 180  # seconds an app may take to answer first
PATIENCE = 120  # seconds; a client's own five are a busy machine's blink
PHRASES = (150, "clip80")  # names that nobody knows yet, and templates: as much as one question may hold
SLOWER = 3  # times as long an answer may take while somebody is hostile, of 95 in 100
FLAT = 0.05  # part of the memory in the first tenth of the requests that the last tenth may differ by, in the mean
REST = 20  # seconds after a round: the server sees within fifteen that a client has gone, and forgets what it left


@dataclass
class Round:
    """What came back in one round."""

    seconds: list[float] = field(default_factory=list)  # of every answer
    errors: list[str] = field(default_factory=list)
    crossed: int = 0  # answers that are somebody else's, or to another question
    wrong: int = 0  # answers that are nobody's
    megabytes: float | None = None  # the server's memory after the round


@dataclass(frozen=True)
class Visitor:
    """One visitor: an image nobody else has, and what it answers when asked alone, to everybody's questions."""

    image: Path
    queries: dict[str, int]  # own question -> which of the answers it gets
    answers: np.ndarray  # [everybody's queries, h, w], cosines of the patches


def pictures(folder: Path, count: int) -> list[Path]:
    """`count` different images, of different sizes and shapes: coloured boxes on noise."""
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = rng.integers(150, 400, 2)
        pixels = rng.integers(0, 90, (height, width, 3))
        for _ in range(6):
            top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
            bottom, right = top + rng.integers(30, 120), left + rng.integers(30, 120)
            pixels[top:bottom, left:right] = rng.integers(0, 256, 3)
        paths.append(folder / f"visitor_{number}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths


def visitors(folder: Path, count: int, queries: int, model: str, device: str) -> list[Visitor]:
    """The visitors, their answers computed here, alone and without an app."""
    from tipsv2 import load
    from tipsv2.analysis.heatmap import patch_maps
    from tipsv2.scenes import nouns

    names = [noun.name for noun in nouns()]
    encoder = load(model, device)
    asked = [names[number % len(names)] for number in range(count * queries)]
    text = encoder.encode_text(asked)
    everyone = []
    for number, path in enumerate(pictures(folder, count)):
        answers = patch_maps(encoder.look(path), text).numpy()
        own = range(number * queries, (number + 1) * queries)
        everyone.append(Visitor(path, {asked[k]: k for k in own}, answers))
    return everyone


def judge(everyone: Sequence[Visitor], who: int, query: str, answer: np.ndarray) -> str:
    """Is an answer to visitor `who` "right", "crossed" (nearer to what another image or another question gets) or
    "wrong" (near to none)?
    """
    alike = {
        number: np.abs(visitor.answers - answer).max(axis=(1, 2))
        for number, visitor in enumerate(everyone)
        if visitor.answers.shape[1:] == answer.shape
    }
    least = min((float(distances.min()) for distances in alike.values()), default=np.inf)
    if least > TOLERANCE:
        return "wrong"
    return "right" if who in alike and alike[who][everyone[who].queries[query]] <= least else "crossed"


def visit(url: str, everyone: Sequence[Visitor], who: int, start: threading.Barrier) -> Round:
    """Open a session, wait for all the others, ask every question, write down what comes back."""
    from gradio_client import Client

    visitor, client, own = everyone[who], None, Round()
    try:
        client = Client(url, verbose=False, download_files=False, httpx_kwargs={"timeout": PATIENCE})
    except Exception as error:
        own.errors.append(f"no session: {error}")
    start.wait()
    for query in visitor.queries if client else ():
        question(client, everyone, who, query, own)
    if client:
        client.close()
    return own


def question(client, everyone: Sequence[Visitor], who: int, query: str, own: Round) -> None:
    """Ask one question of visitor `who`, and write down what comes back."""
    from gradio_client import handle_file

    given = dict(mode="cosine", features="values", templates="none")
    begun = time.monotonic()
    try:
        result = client.predict(image=handle_file(everyone[who].image), queries=[query], **given, api_name="/heatmap")
    except Exception as error:
        own.errors.append(f"{type(error).__name__}: {error}")
        return
    own.seconds.append(time.monotonic() - begun)
    (scores,) = result[1]
    verdict = judge(everyone, who, query, np.array(scores["patches"], np.float32))
    own.crossed += verdict == "crossed" or scores["query"] != query
    own.wrong += verdict == "wrong"


def soak(url: str, everyone: Sequence[Visitor], pid: int, count: int) -> tuple[Round, np.ndarray]:
    """`count` questions one after the other, every visitor's in a session of their own, then all again in new ones
    -> (what came back, the memory of process `pid` after each question, megabytes).
    """
    from gradio_client import Client

    own, sizes = Round(), []
    turns = itertools.cycle(range(len(everyone)))
    while len(sizes) < count:
        who = next(turns)
        client = Client(url, verbose=False, download_files=False, httpx_kwargs={"timeout": PATIENCE})
        for query in list(everyone[who].queries)[: count - len(sizes)]:
            question(client, everyone, who, query, own)
            sizes.append(resident(pid))
        client.close()
    own.megabytes = sizes[-1]
    return own, np.array(sizes)


def harass(url: str, image: Path, over: threading.Event) -> None:
    """One visitor who asks as much as they may, again and again, until `over`."""
    from gradio_client import Client, handle_file

    client, (count, templates) = Client(url, verbose=False, httpx_kwargs={"timeout": PATIENCE}), PHRASES
    try:
        for turn in range(1_000_000):
            names = ",".join(f"thing {turn * count + k}" for k in range(count))
            job = client.submit(handle_file(image), names, templates=templates, api_name="/segmentation")
            while not job.done():
                if over.wait(0.2):
                    return
    finally:
        client.close()


def crowd(url: str, everyone: Sequence[Visitor], pid: int | None, rest: float = 0) -> Round:
    """All visitors at once, each a new session; `rest` seconds later the memory of process `pid` is read."""
    start, together = threading.Barrier(len(everyone)), Round()
    with ThreadPoolExecutor(len(everyone)) as pool:
        for own in pool.map(lambda who: visit(url, everyone, who, start), range(len(everyone))):
            together.seconds += own.seconds
            together.errors += own.errors
            together.crossed += own.crossed
            together.wrong += own.wrong
    time.sleep(rest)
    together.megabytes = resident(pid) if pid else None
    return together


def resident(pid: int) -> float:
    """Megabytes of memory a process holds."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True).stdout) / 1024


@contextmanager
def served(model: str, device: str) -> Iterator[tuple[str, int]]:
    """An explorer of its own -> (url, process id). Raises RuntimeError with what it said if it does not come up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Files of its own: uploads are named by content, and an app that ends deletes what another may still need.
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory() as uploads:
        words = [sys.executable, "app.py", "--port", str(port), "--model", model, "--device", device]
        place = os.environ | {"GRADIO_TEMP_DIR": uploads}
        app = subprocess.Popen(words, cwd=ROOT, env=place, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + START
            while not _answers(url):
                if app.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"The app did not start: {said.read()[-2000:]}")
                time.sleep(0.25)
            yield url, app.pid
        finally:
            app.terminate()
            app.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/config", timeout=5).close()
    except OSError:
        return False
    return True


def table(rounds: Sequence[Round]) -> str:
    """A line per round."""
    lines = ["round  answers  errors  crossed  wrong   median      95 %   memory"]
    for number, turn in enumerate(rounds, 1):
        middle, late = np.quantile(turn.seconds, (0.5, 0.95)) if turn.seconds else (np.nan, np.nan)
        memory = "      –" if turn.megabytes is None else f"{turn.megabytes:4.0f} MB"
        lines.append(
            f"{number:5d}  {len(turn.seconds):7d}  {len(turn.errors):6d}  {turn.crossed:7d}  {turn.wrong:5d}  "
            f"{middle:6.2f} s  {late:6.2f} s  {memory}"
        )
    return "\n".join(lines)


def late(rounds: Sequence[Round]) -> float:
    """Seconds within which 95 of 100 answers came."""
    return float(np.quantile([seconds for turn in rounds for seconds in turn.seconds], 0.95))


def drift(sizes: np.ndarray) -> float:
    """Mean of the last tenth against the mean of the first tenth, 0 where they are equal."""
    tenth = max(1, len(sizes) // 10)
    return float(sizes[-tenth:].mean() / sizes[:tenth].mean() - 1) if len(sizes) else 0.0


def growth(rounds: Sequence[Round]) -> float:
    """The farthest a round's memory is from the first's, as a part of it; 0 where nobody could look."""
    sizes = [turn.megabytes for turn in rounds if turn.megabytes]
    return max((abs(size / sizes[0] - 1) for size in sizes), default=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every answer was right, memory stayed where it was and nobody hostile made others wait, else 1."""
    flags = argparse.ArgumentParser(prog="python -m demos.visitors", description=__doc__.partition("\n\n")[0])
    flags.add_argument("--url", help="an explorer that is running (default: start one)")
    flags.add_argument("--pid", type=int, help="with --url: its process, to watch its memory")
    flags.add_argument("--model", default="opentips-nano", help="the encoder it opens with (default: %(default)s)")
    flags.add_argument("--device", default="cpu", help="for an app started here, and for the expected answers")
    for name, value in (("visitors", 20), ("queries", 10), ("rounds", 3)):
        flags.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    flags.add_argument("--hostile", action="store_true", help="then as many rounds again with one hostile visitor")
    flags.add_argument("--requests", type=int, default=0, help="then so many one after the other, memory after each")
    flags.add_argument("--rest", type=float, default=REST, help="seconds between rounds (default: %(default)s)")
    given = flags.parse_args(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        everyone = visitors(folder, given.visitors, given.queries, given.model, given.device)
        url, pid = (given.url, given.pid) if given.url else stack.enter_context(served(given.model, given.device))
        rounds, slower = [crowd(url, everyone, pid, given.rest) for _ in range(given.rounds)], 0.0
        if given.hostile:
            over = threading.Event()
            hostile = threading.Thread(target=harass, args=(url, everyone[0].image, over))
            hostile.start()
            harassed = [crowd(url, everyone, None) for _ in range(given.rounds)]
            over.set()
            hostile.join()
            time.sleep(given.rest)
            harassed[-1].megabytes = resident(pid) if pid else None  # of what it asked for, nothing stays
            slower = late(harassed) / late(rounds)
            print(f"one hostile visitor: 95 of 100 answers within {slower:.1f} times the seconds without")
            rounds += harassed
        together, sizes = list(rounds), np.zeros(0)
        if given.requests and pid:
            alone, sizes = soak(url, everyone, pid, given.requests)
            rounds.append(alone)
            grown = f"{100 * drift(sizes):+.1f} %"
            print(f"{given.requests} requests: the last tenth's memory is the first's {grown}; now {sizes[-1]:.0f} MB")
    print(table(rounds))
    print(f"memory stays within {100 * growth(together):.1f} % of the first round's")
    for error in dict.fromkeys(error for turn in rounds for error in turn.errors):
        print(f"error: {error}", file=sys.stderr)
    complete = all(len(turn.seconds) == given.visitors * given.queries for turn in together)
    wrong = sum(len(turn.errors) + turn.crossed + turn.wrong for turn in rounds)
    return int(bool(wrong) or not complete or growth(together) > STEADY or slower > SLOWER or abs(drift(sizes)) > FLAT)


if __name__ == "__main__":
    sys.exit(main())
