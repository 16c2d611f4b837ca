"""How this process gets its memory: so that a pull of any length needs that of two pages, and no more because of how it is cut up.

Does not belong here: what is held in memory (`clever/pull.py`, `landing.py`).
"""

import ctypes
from functools import cache

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
