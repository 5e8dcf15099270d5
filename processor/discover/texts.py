"""Text that is no JSON: one number, or lines of values with something between them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Final

from processor.discover.look import MOST_FIELDS, MOST_RECORDS, Look, Record, unknown
from processor.discover.moments import is_moment
from processor.discover.trees import name

_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
_DELIMITERS: Final = (";", "\t", "|", ",", " ")
"""The first that is in all lines, equally often, counts: a line with semicolons and commas has these in its numbers."""
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
_NO_NUMBERS: Final = "text that is neither JSON nor numbers"
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def is_number_text(text: object) -> bool:
    """Whether a text is one number, in digits."""
    return isinstance(text, str) and _NUMBER.fullmatch(text) is not None


def look_at(payload: bytes) -> Look | None:
    """Return what a text payload looks like; None where it is no text."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if _UNPRINTABLE.search(text):
        return None
    if is_number_text(text):
        return Look("number", "number", [{"value": text.strip()}], 1)
    rows = _rows([line for line in text.splitlines() if line.strip()])
    return _of_rows(*rows) if rows else unknown("text", _NO_NUMBERS)


def _rows(lines: Sequence[str]) -> tuple[str, list[list[str]], int] | None:
    """Return the delimiter that is in all lines, equally often, their cells, and how many lines there are."""
    for delimiter in _DELIMITERS:
        try:
            rows = list(csv.reader(lines[: MOST_RECORDS + 1], delimiter=delimiter, skipinitialspace=True))
        except csv.Error:  # a cell that is too long
            return None
        width = len(rows[0]) if rows else 0
        if width > 1 and all(len(row) == width for row in rows):
            return (delimiter, rows, len(lines)) if width <= MOST_FIELDS else None
    return None


def _of_rows(delimiter: str, rows: Sequence[Sequence[str]], count: int) -> Look:
    """Return the readings in lines."""
    cells = [[cell.strip() for cell in row] for row in rows]
    width = len(cells[0])
    header = len(cells) > 1 and not any(map(_is_value, cells[0])) and len(set(cells[0])) == width and all(cells[0])
    names = tuple(cells[0]) if header else tuple(name(n) for n in range(width))
    body = cells[1:] if header else cells
    valued = sum(_is_value(cell) for row in body for cell in row)
    # Most of a reading is numbers; else a sentence, of which spaces and commas make columns, would be one.
    if not any(map(is_number_text, body[0])) or valued * 2 < len(body) * width:
        commas = any(_DECIMAL_COMMA.fullmatch(cell) for cell in body[0])
        problem = "its numbers have a decimal comma, and mlade reads a point" if commas else _NO_NUMBERS
        return unknown("text", problem)
    records: list[Record] = [
        {field: cell or None for field, cell in zip(names, row, strict=True)} for row in body[:MOST_RECORDS]
    ]
    return Look("csv", "lines", records, count - header, (delimiter, header, names))


def _is_value(cell: str) -> bool:
    return is_number_text(cell) or is_moment(cell)
