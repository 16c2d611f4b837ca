"""The columns of one page -> one validated frame, and its findings.

Belongs here: cleaning text (R4.5), the canonical form of dates and times (R4.9), and what a broken rule does to a row (R4.2). Does not
belong here: how a source's records become columns (`clever/columns.py`), and loading (`landing.py`). Texts are cleaned and validated by
column, without a loop over people.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import pandas as pd
import pandera.errors
import pyarrow
import pyarrow.compute as pc

from roster_pipeline import contracts
from roster_pipeline.source import times
from roster_pipeline.source.rules import finding
from roster_pipeline.source.vocabulary import Collection, Finding

STRING = pyarrow.string()

# A line break or a tab becomes a space. Every other control character is removed (R4.5).
_BREAKS = r"\r\n|[\t\n\x0b\x0c\r\x{85}\x{2028}\x{2029}]"
_CONTROLS = r"\p{Cc}"
# How a date or time is parsed, by the type of its column, and what stands for one that cannot be.
_PARSE: Mapping[str, Callable[[str], date | None]] = {"timestamptz": times.instant, "date": times.day}
_UNREADABLE = "unreadable"


class Frame(NamedTuple):
    """One page, ready to load.

    table: the columns of the resource's contract, and `rejected` (bool). A rejected row has only its Clever id, and last_modified
        if the source sent one; it counts as present (R4.6).
    findings: the broken rules, by Clever id.
    """

    table: pyarrow.Table
    findings: list[Finding]


def frame_of(collection: Collection, columns: pyarrow.Table, findings: Sequence[Finding]) -> Frame:
    """Clean and validate one page.

    Args:
        collection: the collection of the page.
        columns: the columns of the resource's contract, one row per record of the page.
        findings: the findings of the source. Those with severity `error` are of records that are not in `columns`.
    """
    findings = _with_readable_ids(findings)
    frame, broken = _validate(collection.resource, _parse_times(collection.resource, _clean(columns)))
    undecodable = sorted({each.clever_id for each in findings if each.severity == "error" and each.rule != "foreign_district"})
    if undecodable:
        rows = pyarrow.table({"clever_id": pyarrow.array(undecodable, STRING), "rejected": pyarrow.array([True] * len(undecodable))})
        frame = pyarrow.concat_tables([frame, rows], promote_options="default")
    return Frame(frame, [*findings, *broken])


def _with_readable_ids(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with ids as they are stored; "" where the text is no id, so that nobody knows what the record stands for (R4.8)."""
    if not findings:
        return []
    ids = clean_text(pyarrow.array([each.clever_id for each in findings], STRING))
    readable = pc.if_else(pc.fill_null(pc.match_substring_regex(ids, contracts.ID), False), ids, "").to_pylist()
    return [each._replace(clever_id=clever_id) for each, clever_id in zip(findings, readable, strict=True)]


def clean_text(values: pyarrow.Array) -> pyarrow.Array:
    """Text as it is stored (R4.5): NFC, trimmed, without control characters; blank is null. All other characters stay."""
    values = pc.replace_substring_regex(values, _BREAKS, " ")
    values = pc.replace_substring_regex(values, _CONTROLS, "")
    values = pc.utf8_trim_whitespace(pc.utf8_normalize(values, "NFC"))
    return pc.if_else(pc.equal(values, ""), pyarrow.scalar(None, STRING), values)


def _clean(columns: pyarrow.Table) -> pyarrow.Table:
    cleaned = [clean_text(values) if values.type == STRING else values for values in columns.columns]
    return pyarrow.table(cleaned, names=columns.column_names)


def _parse_times(resource: str, columns: pyarrow.Table) -> pyarrow.Table:
    """Every date and time in its one canonical form (R4.9). Any other value becomes `_UNREADABLE`, which breaks the rule of its column."""
    for column in contracts.columns(resource):
        if column.sql_type in _PARSE:
            texts = columns.column(column.name).to_pylist()
            values = pyarrow.array([text and _canonical(column.sql_type, text) for text in texts], STRING)
            columns = columns.set_column(columns.schema.get_field_index(column.name), column.name, values)
    return columns


def _canonical(sql_type: str, text: str) -> str:
    parsed = _PARSE[sql_type](text)
    return _UNREADABLE if parsed is None else parsed.isoformat()


def _validate(resource: str, table: pyarrow.Table) -> tuple[pyarrow.Table, list[Finding]]:
    model = contracts.RESOURCES[resource]
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    try:
        model.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as failure:
        # Its message and its cases hold values. Only the column, the rule and the number of the row are used.
        cases = failure.failure_cases[["column", "check", "index"]].drop_duplicates()
    else:
        return table.append_column("rejected", pyarrow.array([False] * len(table))), []
    if cases["index"].isna().any():
        raise AssertionError(f"a frame of {resource} does not have the columns and types of its contract")
    ids = frame["clever_id"].where(frame["clever_id"].str.fullmatch(contracts.ID.strip("^$")).fillna(False)).fillna("")
    findings: list[Finding] = []
    rejected = pd.Series(False, index=frame.index, dtype=pd.ArrowDtype(pyarrow.bool_()))
    for (column, check), rows in cases.groupby(["column", "check"])["index"]:
        positions = rows.astype(int)
        rule = contracts.rule_of(column, check)
        found = [finding(resource, str(each), rule) for each in ids[positions]]
        findings += found
        if found[0].severity == "error":
            rejected[positions] = True
        else:
            frame.loc[positions, column] = None
    frame["clever_id"] = ids
    frame["rejected"] = rejected
    frame.loc[rejected, [name for name in frame.columns if name not in ("clever_id", "rejected", "last_modified")]] = None
    return pyarrow.Table.from_pandas(frame, preserve_index=False), findings
