"""Flags and launch, shared by app.py and by every tab that runs alone. Imports nothing heavy before the flags are read.

python app.py --help
python -m demos.ask --port 7870
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend import space
from demos.backend.heap import few_arenas, few_kernels
from demos.backend.scratch import own_folder
from demos.backend.settings import ARGUMENTS, Settings, is_loopback, login, logins, num_bytes, on_space

if TYPE_CHECKING:
    import gradio as gr

WEB = Path(__file__).parent / "ui" / "web"
MAX_UPLOAD = "20mb"
MAX_ZIP = "500mb"  # of images to train on


def parser(program: str | None = None) -> argparse.ArgumentParser:
    """The command line of the explorer."""
    flags = argparse.ArgumentParser(
        prog=program,
        description="The TIPSv2 explorer: type words, see which patches of an image they light up.",
        epilog="example: python app.py --model google/tipsv2-b14 --model runs/dog --port 8000 --inbrowser",
    )
    add = flags.add_argument
    add(
        "--model",
        action="append",
        metavar="NAME",
        help="encoder shown first: a name, a Hub id or a folder (default: the bundled one); give it twice to open "
        "Compare with two",
    )
    add("--runs", default="runs", metavar="DIR", help="training runs; finished ones are offered (default: ./runs)")
    add(
        "--training",
        action=argparse.BooleanOptionalAction,
        help="may visitors start training runs (default: only where no other machine can reach the page: no on a "
        "Hugging Face Space, with --share, and on a --host but this machine's own)",
    )
    add(
        "--auth",
        type=login,
        action="append",
        default=[],
        metavar="USER:PASSWORD",
        help="ask for a login; give it once for each person. Others on this machine can read it in the list of "
        "processes: see --auth-file",
    )
    add("--auth-file", metavar="FILE", help="the same from a file with a line USER:PASSWORD for each person")
    add("--memory", type=num_bytes, metavar="SIZE", help="for loaded models, such as 6GB (default: most of the free)")
    add("--device", default="auto", help="cpu, cuda, cuda:1 or mps (default: the fastest one found)")
    add("--host", help="address to listen on; 0.0.0.0 for every machine in the network (default: 127.0.0.1)")
    add(
        "--hostname",
        action="append",
        metavar="NAME",
        help="a name the page is reached by, such as explorer.example.org behind a proxy; requests that call the "
        "server by a name it does not know are refused (known: localhost, addresses, --host, share links, Spaces)",
    )
    add("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    add("--share", action="store_true", help="also open a temporary public link through gradio.live")
    add("--inbrowser", action="store_true", help="open the page in the default browser once it is up")
    return flags


def launch(page: gr.Blocks, **options) -> tuple:
    """Serve a page of `demos.ui.page.build`; options and what comes back as in gradio's `Blocks.launch`. hostnames:
    names it is reached by besides this machine's own, see `--hostname`.
    """
    from starlette.middleware import Middleware

    from demos.server.doorway import Doorway, own_names
    from demos.ui.theme import theme

    host = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME")
    names = own_names(host, bool(options.get("share")), options.pop("hostnames", None) or ())
    settings = dict(
        app_kwargs=dict(middleware=[Middleware(Doorway, page=page, names=names)]),
        run_history=False,  # with it comes a route that writes to buckets of the Hub
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css_paths=[WEB / "style.css", *sorted(WEB.glob("tab-*.css"))],  # the common layout, then what one tab adds
        favicon_path=WEB / "favicon.svg",
        footer_links=["api", "settings"],
        max_file_size=MAX_UPLOAD,
        state_session_capacity=200,
        ssr_mode=False,  # one process, no Node: the same page here and in a Space
        _frontend=False,  # else Gradio looks at the page itself, and gives up after three seconds
        show_error=False,  # an unforeseen error stays in the console, visitors see "Error" without its insides
    )
    page.watch()
    return page.launch(**(settings | options))


def run(tabs: Sequence[str], program: str | None = None, argv: Sequence[str] | None = None) -> None:
    """Read the flags, build the page with these tabs and serve it until Ctrl-C."""
    flags = parser(program)
    if argv is None:
        argv = [*shlex.split(os.environ.get(ARGUMENTS, "")), *sys.argv[1:]]
    given = flags.parse_args(argv)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    few_arenas()
    few_kernels()
    own_folder()
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # its transfers cannot be cancelled; before the Hub is imported

    space.prepare()

    from tipsv2.checkpoints.catalogue import ModelError, find

    try:
        everybody = logins(given.auth, given.auth_file)
    except ValueError as error:
        flags.error(str(error))
    models = given.model or ["auto"]
    try:
        for name in models:
            find(name)  # before the seconds that importing gradio takes
    except ModelError as error:
        flags.error(str(error))

    from demos.ui.page import build

    host = given.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    share = given.share or os.environ.get("GRADIO_SHARE", "").lower() == "true"
    public = on_space() or share
    alone = not public and is_loopback(host)
    training = given.training if given.training is not None else alone
    if training and not alone and not everybody:
        print(
            "Whoever reaches this page can start training runs on this machine: --auth USER:PASSWORD asks for a login.",
            file=sys.stderr,
        )
    page = build(tabs, models, given.device, Settings(Path(given.runs), training, given.memory, public))
    if on_space():
        page.warm_up(download=True)
    else:
        threading.Thread(target=page.warm_up, daemon=True).start()
    launch(
        page,
        server_name=host,
        server_port=given.port,
        share=share,  # never None, for which gradio decides: a hosted notebook would be shared, its visitors at home
        hostnames=given.hostname,
        inbrowser=given.inbrowser,
        max_file_size=MAX_ZIP if training else MAX_UPLOAD,
        auth=everybody or None,
    )
