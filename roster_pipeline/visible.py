"""Text that somebody else wrote, made safe to show (SPEC 12).

Belongs here: what is hidden in a text. Does not belong here: tables and colours (`commands/output.py`).

The application, a district or a colleague could otherwise move a terminal's cursor, write a line that looks like ours, or turn a name
around.
"""

import unicodedata

# Control, format, surrogate, private use, unassigned; line and paragraph separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Names are written with these: they join letters in Persian, Hindi and others, and parts of an emoji.
_JOINERS = {"\u200c", "\u200d"}


def visible(text: object) -> str:
    """The text in one line: control and direction characters, and line breaks, become escapes such as `\\x1b`."""
    return "".join(_escaped(each) if _is_hidden(each) else each for each in str(text))


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
