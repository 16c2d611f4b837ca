"""The characters that nobody can see or type, and that an imported username therefore must not have (R8.2).

Belongs here: which characters these are. Does not belong here: which columns are checked (`faults.sql`). Control characters are not among
them: they are removed from every text (R4.5).
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

# Format characters, private use, line and paragraph separators, and spaces other than the one on the keyboard.
_CATEGORIES = frozenset({"Cf", "Co", "Zl", "Zp", "Zs"})
_TYPED = " \N{IDEOGRAPHIC SPACE}"
# Characters of other categories that are shown as nothing: fillers, joiners, variation selectors and the empty braille pattern.
_SHOWN_AS_NOTHING = (
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
)


@cache
def invisible() -> str:
    """A regular expression of PostgreSQL that matches a text with one of these characters."""
    found = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in _CATEGORIES}
    found = (found | {*_SHOWN_AS_NOTHING}) - {ord(each) for each in _TYPED}
    return "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _ranges(sorted(found))) + "]"


def _ranges(codes: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for code in codes:
        if first is None or last is None or code != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = code
        last = code
    if first is not None and last is not None:
        yield first, last
