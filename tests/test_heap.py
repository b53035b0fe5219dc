"""What a server gives back to the system.

python -m pytest tests/test_heap.py
"""

import subprocess
import sys
from pathlib import Path

import pytest

BEFORE_AND_AFTER = """
from pathlib import Path
from demos.backend import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

heap.few_arenas()
blocks = [bytes(100_000) for _ in range(1000)]
last = bytes(100_000)  # above them all: what lies below does not go back by itself
blocks.clear()
before = resident()
heap.give_back()
print(before - resident())
"""


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_freed_memory_goes_back_to_the_system():
    run = subprocess.run([sys.executable, "-c", BEFORE_AND_AFTER], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 50
