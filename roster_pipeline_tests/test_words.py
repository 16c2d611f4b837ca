"""Plain English everywhere: no file uses a word that docs/glossary.md says to avoid.

Belongs here: reading the two tables of the glossary, and searching the repository for their words: names, comments, docstrings, literals,
SQL, pages, configuration and file names. Does not belong here: which words those are.

`python -m roster_pipeline_tests.test_words [FOLDER]` prints what it finds, and counts by folder.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
SUFFIXES = {".py", ".sql", ".md", ".yaml", ".yml", ".toml", ".mako", ".c", ".in", ".service", ".example", ".env", ".dockerignore", ""}
HIDDEN = {".ci", ".github"}  # other folders with a dot are not ours: .git, .venv, caches
NOT_OURS = {"LICENSE", ".env", ".coverage", Path(__file__).name}  # and this one, whose tests need the words


class Word(NamedTuple):
    """A row of the table of words to avoid."""

    avoid: str
    instead: str
    pattern: re.Pattern[str]


class Hit(NamedTuple):
    """A word to avoid, and where it is. Line 0 is the file's name."""

    file: str
    line: int
    found: str
    word: Word

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.found!r} -> {self.word.instead}"


def _table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of the glossary, without its own first two lines."""
    section = GLOSSARY.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def _pattern(text: str) -> re.Pattern[str]:
    """A space stands for an underscore and a line break too; nothing but a letter may join the word to another one."""
    text = text.replace(" ", r"[ _\n]+")
    return re.compile(rf"(?<![A-Za-z])(?:{text})(?![A-Za-z])", re.IGNORECASE | re.MULTILINE)


def words() -> list[Word]:
    return [Word(avoid, instead, _pattern(found_by.strip("`"))) for avoid, instead, found_by in _table("Words to avoid")]


def _stored() -> re.Pattern[str]:
    """The names that stay: one word only where it ends a quoted name, anything longer anywhere."""
    names = [name for cell, *_ in _table("Stored names that stay") for name in re.findall(r"`([^`]+)`", cell)]
    assert names
    alternatives = [rf"(?<=[\"'`.]){name}(?=[\"'`])" if name.isalpha() else rf"\b{re.escape(name)}(?!\w)" for name in names]
    return re.compile("|".join(alternatives))


WORDS = words()
ANY_WORD = _pattern("|".join(found_by.strip("`") for _, _, found_by in _table("Words to avoid")))
STORED = _stored()


def files() -> Iterator[Path]:
    """Every text file that people write."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if any(part.startswith(".") and part not in HIDDEN for part in parts[:-1]) or "__pycache__" in parts:
            continue
        if path.is_file() and path.suffix in SUFFIXES and path.name not in NOT_OURS:
            yield path


def _plain(text: str, *, is_glossary: bool) -> str:
    """The text without stored names, comment signs and indentation, so that a phrase over two lines is found; lines stay lines."""
    if is_glossary:
        before, rest = text.split("\n## Words to avoid\n")
        table, after = rest.split("\nThese stay,")
        text = before + re.sub(r"[^\n]", "", table) + re.sub(r"`[^`\n]*`|\*\*[^*\n]*\*\*", "", after)
    text = STORED.sub("", text)
    text = re.sub(r"^[ \t]*(?:#+|--+|//|>|\*|-)?[ \t]*|[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)


def search(text: str, *, is_glossary: bool = False) -> Iterator[tuple[int, str, Word]]:
    """Every word to avoid: its line, what was found, and the row of the table."""
    plain = _plain(text, is_glossary=is_glossary)
    if not ANY_WORD.search(plain):  # One pass over a clean file, instead of one for each word.
        return
    for word in WORDS:
        for found in word.pattern.finditer(plain):
            yield plain.count("\n", 0, found.start()) + 1, " ".join(found[0].split()), word


def hits(path: Path) -> list[Hit]:
    """The words to avoid in one file, in the order of its lines."""
    name = str(path.relative_to(ROOT))
    in_name = [(0, found, word) for _, found, word in search(path.name)]
    in_text = search(path.read_text(encoding="utf-8"), is_glossary=path == GLOSSARY)
    return [Hit(name, line, found, word) for line, found, word in sorted([*in_name, *in_text], key=lambda each: each[:2])]


def _folders() -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for path in files():
        folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    return folders


@pytest.mark.parametrize("folder", _folders())
def test_no_word_to_avoid(folder: str) -> None:
    """A folder without those under it."""
    found = [hit for path in _folders()[folder] for hit in hits(path)]
    assert not found, "\n".join(map(str, found))


def test_where_a_word_is_found() -> None:
    """In names, across lines of a comment, in any case; not inside of another word, and not where it is stored."""
    text = "def take_in():\n    # a page that is taken\n    # in whole\n    isWanted = 'SETTLED'\n"
    assert [(line, found.lower()) for line, found, _ in sorted(search(text), key=lambda each: each[0])] == [
        (1, "take_in"),
        (2, "taken in"),
        (4, "wanted"),
        (4, "settled"),
    ]
    assert not list(search("counts['touched'], `counts.touched`, ops.settled, settled_since, frozen=True, frozenset(), comet, tellurium"))
    assert [found for _, found, _ in search("touched = 1")] == ["touched"]


def test_the_tables_are_read() -> None:
    """Every row has all its cells, and no pattern matches what is to be used instead."""
    assert len(WORDS) >= 40
    for word in WORDS:
        assert word.avoid
        assert word.instead
        assert not word.pattern.search(word.instead.split(" (")[0]), word
        assert not word.pattern.search("")


def main(folder: str = "") -> None:
    """Print every hit of a folder and those under it, then counts by folder."""
    counts: Counter[str] = Counter()
    for path in files():
        for hit in hits(path):
            if hit.file.startswith(folder):
                sys.stdout.write(f"{hit}\n")
                counts[str(Path(hit.file).parent)] += 1
    sys.stdout.writelines(f"{count:6} {name}\n" for name, count in sorted(counts.items()))
    sys.stdout.write(f"{counts.total():6} in all\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
