"""The memory of this process: how it is returned to the operating system, and how much of it was used at most.

Does not belong here: what is kept in memory (`clever/pull.py`, `sync/landing.py`).
"""

import ctypes
import re
from functools import cache
from pathlib import Path

import pyarrow

# Of malloc.h.
_M_MMAP_THRESHOLD = -3
# glibc's own value, at first: it raises it to 32 MB as soon as blocks of that size have been freed.
_LARGE_BYTES = 128 * 1024


@cache
def give_back_large_blocks() -> None:
    """From now on large blocks come from the system, and are given back to it as soon as they are free.

    By default glibc keeps what is freed and cuts it up. Bodies and columns of megabytes then find no room between what is left of the ones
    before, page after page: a million students took 490 MB instead of 290 just to be read.
    """
    libc = ctypes.CDLL(None)
    # Other C libraries have no such setting, and no such trouble.
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())


def peak_mb() -> int:
    """The most memory that this process has had resident so far, in MB; 0 where the system does not tell (this is no Linux).

    PostgreSQL's processes are not in it. Not `ru_maxrss`: a process inherits that from whoever started it, however large that was.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0
