"""Freed memory is returned to the system, on Linux with glibc."""

import subprocess
import sys

_HOLES = """
import sys
from pathlib import Path
import pyarrow
from roster_pipeline.process_memory import give_back_large_blocks

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

if sys.argv[1] == "with the setting":
    give_back_large_blocks()
    give_back_large_blocks()
    assert pyarrow.default_memory_pool().backend_name == "system"
body = b"x" * (30 * 2**20)
del body
blocks = [b"x" * 2**20 for _ in range(64)]
before = megabytes()
del blocks[::2]
print(before - megabytes())
"""


def test_large_blocks_are_returned() -> None:
    """Every second of 64 blocks is freed. By default, glibc keeps that memory if larger blocks were freed before."""

    def returned(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", _HOLES, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert returned("with the setting") >= 30
    assert returned("by default") <= 2
