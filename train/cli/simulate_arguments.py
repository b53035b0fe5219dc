"""The flags of python -m train simulate; train/tools/simulate.py says what they may be."""

from __future__ import annotations

import argparse


def add_command(commands) -> None:
    """commands: the sub-parsers of argparse."""
    simulate = commands.add_parser(
        "simulate",
        help="a run of any size on paper, by the code that would run it: memory, start, order, resume, days, money",
        description="Run the order of the pairs, their shares and the resume over pairs without pictures, and compute "
        "the rest of the papers' run: days, money, dead nodes, bytes. A few minutes for 1e8 pairs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m train simulate --pairs 116e6 --shards 11600 --processes 512 --batch 8192\n"
        "  python -m train simulate --pairs 1e6,1e7 --processes 1,64,512 --orders shards --json\n"
        "  python -m train simulate --pairs 1e6 --processes 64 --tower b14 --machines h100 --price 2.5",
    )
    simulate.add_argument("--pairs", default="116e6", help="how many, or several with commas (default 116e6)")
    simulate.add_argument("--shards", default="11600", help="tars that hold them (default 11600)")
    simulate.add_argument("--processes", default="512", help="that train together, or several (default 512)")
    simulate.add_argument("--batch", default="8192", help="pairs a step, all processes together (default 8192)")
    simulate.add_argument("--orders", default="shards,table", help="the data as tar shards, as a table, or both")
    simulate.add_argument("--tower", choices=("b14", "l14", "so400m14", "g14"), default="g14", help="(default g14)")
    simulate.add_argument("--machines", default="v5e,a100,h100", help="a process has one (default v5e,a100,h100)")
    simulate.add_argument("--price", type=float, help="dollars an hour and chip (default: a list price on demand)")
    simulate.add_argument(
        "--utilisation", type=float, help="share of a chip's peak (default: the papers', from chips and days)"
    )
    simulate.add_argument("--workers", type=int, default=8, help="that read for a process (default 8)")
    simulate.add_argument("--pair-kb", type=float, default=50.0, help="a picture with its captions, kB (default 50)")
    simulate.add_argument("--disk-gb", type=float, default=1.0, help="a checkpoint's writing, GB a second (default 1)")
    simulate.add_argument(
        "--chip-mtbf-hours",
        type=float,
        default=50_700.0,
        help="hours between failures of one chip (default 50700: 419 in 54 days of 16384 H100, arXiv 2407.21783)",
    )
    simulate.add_argument(
        "--replace-minutes", type=float, default=10.0, help="until a dead node is noticed and replaced (default 10)"
    )
    simulate.add_argument("--save-minutes", type=float, help="another interval between checkpoints in the table")
    simulate.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
