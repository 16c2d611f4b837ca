"""The memory of this process: returning it to the operating system, and the peak.

Does not belong here: what a pull keeps in memory (`clever/pull.py`, `sync/landing.py`).
"""

import ctypes
import re
from functools import cache
from pathlib import Path

import pyarrow

_M_MMAP_THRESHOLD = -3  # from malloc.h
# glibc starts with this value too, but raises it up to 32 MB when blocks of that size are freed. Setting it keeps it fixed.
_LARGE_BYTES = 128 * 1024


@cache
def give_back_large_blocks() -> None:
    """Makes malloc return large blocks to the operating system as soon as they are freed.

    By default glibc keeps freed blocks and splits them. The next page's bodies and columns, megabytes each, then do not fit into what is
    left, so memory grows page after page: reading a million students took 490 MB instead of 290.
    """
    libc = ctypes.CDLL(None)
    # Other C libraries do not have this setting, and do not need it.
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())


def peak_mb() -> int:
    """The peak resident memory of this process so far, in MB; 0 if the system has no /proc (not Linux).

    PostgreSQL's processes are not included. `ru_maxrss` would be wrong: a process inherits it from its parent.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0
