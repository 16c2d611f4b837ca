"""SPEC 12: what others wrote is shown in one line, with nothing hidden in it, and every name stays as it is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roster_pipeline.visible import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07A\x1b[2J", "\\x1b]0;owned\\x07A\\x1b[2J"),
        ("x\nSync 99: successful.", "x\\nSync 99: successful."),
        ("a\u2028b\x85c\rd\te", "a\\u2028b\\x85c\\rd\\te"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\u2066isolate\u2069 \u200f", "\\u2066isolate\\u2069 \\u200f"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_hidden_becomes_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("name", ["José O'Neil", "שלום", "李小龍", "𝒜lice", "نام\u200cها", "क्\u200dष", "👩\u200d👧", "C:\\new"])
def test_names_stay(name: str) -> None:
    assert visible(name) == name


@given(st.text())
def test_nothing_is_hidden_in_any_text(text: str) -> None:
    shown = visible(text)
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each not in "\u200c\u200d"]
    assert len(shown.splitlines()) <= 1
