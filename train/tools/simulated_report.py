"""What `python -m train simulate` has found, as tables for people."""

from __future__ import annotations

from tipsv2.evaluation import as_text
from train.run.cost import in_units


def report(results: dict) -> str:
    """`train.tools.simulate.run`'s dict as text: a table of the orders, then of each run its machines and failures."""
    blocks = ["The order, as it ran (an epoch shown in full, every pair ticked off):", as_text({"": _orders(results)})]
    for name, run in results["runs"].items():
        pairs, processes = map(int, name.split())
        blocks += [f"{pairs:,} pairs with {processes} processes, computed:", as_text(_summary(run))]
        blocks += [as_text({"machine": _machines(run)}), as_text({"save every": _failures(run)})]
    return "\n\n".join(block.strip("\n") for block in blocks)


def _orders(results: dict) -> dict[str, dict[str, str]]:
    rows = {}
    for name, order in results["orders"].items():
        pairs, processes, kind = name.split()
        start, epoch, others = order["start"], order["epoch"], order["others"]
        if others["counts"]:
            twice, missed = (others["counts"][key] / int(pairs) for key in ("twice", "left_out"))
            goes_on = f"{100 * twice:.2f} % twice, {100 * missed:.2f} % not"
        else:
            goes_on = "the same pairs" if others["same_step"] else "OTHER PAIRS"
        rows[f"{int(pairs):,} pairs, {processes} processes, {kind}"] = {
            "start s": f"{start['seconds']:.1f}",
            "of it import": f"{start['import_seconds']:.1f}",
            "CPU s": f"{start['cpu_seconds']:.1f}",
            "memory MB": f"{start['peak_mb']:.0f}",
            "of it import ": f"{start['import_mb']:.0f}",
            "shown": f"{epoch['shown']:,}",
            "twice": f"{epoch['twice']:,}",
            "left out": f"{epoch['left_out']:,}",
            "resumed alike": f"{order['resumed'] + start['as_shown']} of {order['sampled'] + 1}",
            "goes on with": f"{others['processes']} in {others['seconds']:.1f} s: {goes_on}",
        }
    return rows


def _summary(run: dict) -> dict[str, str]:
    work, size, failures = run["run"], run["bytes"], run["failures"]
    return {
        "the run": f"{work['tower']}, {work['steps']:,} steps, {work['images']:,} images, {work['epochs']:.1f} epochs, "
        f"{work['operations']:.2g} operations at {100 * work['utilisation']:.0f} % of the peak",
        "data": f"{_bytes(size['data'])}, read in all: {_bytes(size['read_of_a_table'])} of a table, "
        f"{_bytes(size['read_of_shards'])} of shards, which every worker reads",
        "checkpoint": f"{_bytes(size['checkpoint'])}, written in {failures['save_seconds']:.0f} s",
        "a node is lost": f"every {failures['hours_between']:,.0f} hours, then {failures['restart_seconds'] / 60:.0f} "
        f"minutes to start again; least is lost with a save every {failures['best_minutes']:.0f} minutes",
    }


def _machines(run: dict) -> dict[str, dict[str, str]]:
    return {
        f"{machine['chips']} x {machine['title']}": {
            "days": f"{machine['days']:,.1f}",
            "dollars": f"{machine['dollars']:,.0f}",
            "days with failures": f"{machine['days_with_failures']:,.2f}",
            "dollars ": f"{machine['dollars_with_failures']:,.0f}",
            "checkpoints": f"{machine['saves']:,.0f}",
            "written": _bytes(machine["bytes_written"]),
        }
        for machine in run["machines"].values()
    }


def _failures(run: dict) -> dict[str, dict[str, str]]:
    return {
        f"{interval['minutes']:.0f} minutes{' (best)' if name == 'best' else ''}": {
            "lost a failure, minutes": f"{interval['lost_a_failure_minutes']:.0f}",
            "lost of all time": f"{100 * interval['lost_share']:.2f} %",
            "written a day": _bytes(interval["bytes_written_a_day"]),
        }
        for name, interval in run["failures"]["by_interval"].items()
    }


def _bytes(number: float) -> str:
    return in_units(number, "B")
