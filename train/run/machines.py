"""Accelerators by name: how fast they multiply and what they cost to rent, for the days and the money of a run.

Rates are the makers' for dense bfloat16. Prices are list prices on demand of the year that is named, in dollars an hour
and chip; they fall, nobody who rents 512 pays them, and they were not looked up again: `python -m train simulate
--price` takes yours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A chip. `peak`: bfloat16 operations a second; `price`: dollars an hour; `node`: chips that fail together."""

    title: str
    peak: float
    price: float
    node: int
    priced: str

    def days(self, operations: float, chips: int, utilisation: float) -> float:
        """How long so many operations take on so many chips that reach the share `utilisation` of their peak."""
        return operations / (chips * self.peak * utilisation) / 86400

    def dollars(self, days: float, chips: int) -> float:
        return days * 24 * chips * self.price


MACHINES = {
    "v5e": Machine("TPU v5e", 197e12, 1.20, 4, "Google Cloud, 2024"),
    "a100": Machine("A100 40 GB", 312e12, 32.77 / 8, 8, "AWS p4d.24xlarge, 2023"),
    "h100": Machine("H100 SXM", 989e12, 98.32 / 8, 8, "AWS p5.48xlarge, 2023"),
}
