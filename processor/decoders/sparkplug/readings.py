"""Readings of a batch, as they are found; what becomes of those that lack fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from processor.decoders.checks import Checks, Unusable
from processor.decoders.sparkplug.nodes import Party, Table
from processor.decoders.sparkplug.payloads import UNTOLD, Lack
from processor.source_sections import Source
from processor.types import Decoded, Failure, Flags, Floats, Request, Times

BEYOND: Final = 2**63
"""The first time, in ns since the Unix epoch, that has no place in 64 bits with a sign."""


class Readings:
    """Takes readings row by row."""

    def __init__(self, source: Source) -> None:
        """Begin with none, of a source."""
        self._names = source.fields
        self._missing = source.missing
        self._origin: list[int] = []
        self._times: list[int] = []
        self._keys: list[str] = []
        self._values: list[list[float]] = []
        self._absent: list[tuple[int, int]] = []  # row and column

    def add(self, origin: int, time: int, key: str, table: Table, party: Party) -> Unusable | None:
        """Add what a table says, or return why it is no reading.

        Args:
            origin: position of the payload.
            time: ns since the Unix epoch.
            key: of the stream.
            table: with a value for each field, or why there is none.
            party: whose table it is.
        """
        if time >= BEYOND:
            return Unusable("time", "a timestamp is after the year 2261; expected milliseconds since 1970")
        values = table.values.copy()
        for column, lack in sorted(table.lacking.items()):
            problem = self._problem(self._names[column], lack, party)
            if problem is not None:
                return problem
            if isinstance(self._missing, float):
                values[column] = self._missing
        if self._missing == "hold":
            self._absent += [(len(self._origin), column) for column in table.lacking]
        self._origin.append(origin)
        self._times.append(time)
        self._keys.append(key)
        self._values.append(values)
        return None

    def _problem(self, name: str, lack: Lack, party: Party) -> Unusable | None:
        """Return why a reading cannot be without a field; None where `missing` says what it is."""
        if not lack.missing:
            return Unusable("field", f"field {name!r} is {lack.why}; expected a number")
        if self._missing == "hold":
            return None
        if lack == UNTOLD and party.birth is None:
            return Unusable("birth", f"field {name!r} is not known, because the birth of {party.key} was not seen")
        if self._missing == "reject":
            why = f"not in the birth of {party.key}" if lack == UNTOLD else lack.why
            return Unusable("field", f"field {name!r} is {why}")
        return None

    def decoded(self, checks: Checks, arrivals: Times, failures: list[Failure], requests: Sequence[Request]) -> Decoded:
        """Return them all, but for those that cannot be, for which `failures` gets one for each payload.

        Args:
            checks: tell them.
            arrivals: (N,) of the payloads.
            failures: what was found before.
            requests: what is to be asked.
        """
        values: Floats = np.array(self._values, np.float64).reshape(-1, len(self._names))
        absent: Flags | None = None
        if self._absent:
            absent = np.zeros(values.shape, np.bool_)
            absent[tuple(np.array(self._absent).T)] = True
        origin, times = np.array(self._origin, np.int64), np.array(self._times, np.int64)
        decoded = checks.readings(origin, times, values, arrivals, failures, keys=self._keys, absent=absent)
        return replace(decoded, requests=requests) if requests else decoded
