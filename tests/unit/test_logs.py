"""The log: one event a line, for people and for machines, and a repeated one does not flood it."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.clock import ManualClock
from processor.logs import AT_ONCE, LIMITED, PER_SECOND, JsonFormatter, LimitingHandler, LineFormatter, one_line


def record(message: str, *arguments: object) -> logging.LogRecord:
    """Return a record as a logger makes it."""
    return logging.LogRecord("mlade", logging.WARNING, __file__, 1, message, arguments, None)


@given(st.text())
def test_an_event_is_one_line(topic: str) -> None:
    """Whatever came from outside: no line breaks, nothing that a terminal obeys; time with offset, level, message."""
    line = LineFormatter().format(record("Dead letter from %s.", topic))
    assert line.splitlines() == [line]
    assert "\x1b" not in line
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d WARNING Dead letter from ", line)


def test_a_defect_keeps_its_traceback() -> None:
    """For the report; below its line."""
    try:
        raise RuntimeError("broken")  # noqa: TRY301 - the simplest defect
    except RuntimeError:
        defect = record("Please report it.")
        defect.exc_info = sys.exc_info()
    first, second, *_, last = LineFormatter().format(defect).splitlines()
    assert first.endswith("WARNING Please report it.")
    assert (second, last) == ("Traceback (most recent call last):", "RuntimeError: broken")


def test_one_line_leaves_text_as_it_is() -> None:
    """What is not a control character is shown."""
    assert one_line("Förderband 3 → °C [bold]") == "Förderband 3 → °C [bold]"
    assert one_line("a\nb\r\x9b\u2028") == "a b\\r\\x9b\\u2028"


@given(st.text(), st.booleans())
def test_an_event_is_one_json_object(topic: str, broken: bool) -> None:
    """In ASCII, on a line of its own, with a defect's traceback inside."""
    event = record("Dead letter from %s.", topic)
    if broken:
        event.exc_info = (RuntimeError, RuntimeError("broken"), None)
    line = JsonFormatter().format(event)
    assert line.isascii()
    assert line.splitlines() == [line]
    read = json.loads(line)
    assert read["message"] == f"Dead letter from {topic}."
    assert (read["level"], read["logger"]) == ("warning", "mlade")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["time"])
    assert read.get("exception") == ("RuntimeError: broken" if broken else None)
    assert "left_out" not in read


class Log:
    """A logger whose handler writes here, at a time that the test sets."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.clock = ManualClock()
        self.handler = LimitingHandler(self.clock.monotonic)
        self.handler.setFormatter(formatter)
        self._stream = io.StringIO()
        self.handler.setStream(self._stream)
        self._logger = logging.Logger("mlade")  # noqa: LOG001 - nobody else has it
        self._logger.addHandler(self.handler)

    def tell(self, number: int) -> None:
        """Log an event, at one place in the code whatever the number."""
        self._logger.warning("Refused number %d.", number)

    def tell_otherwise(self) -> None:
        """Log an event of another kind."""
        self._logger.warning("Something else.")

    def tell_in_detail(self, number: int) -> None:
        """Log a debug event."""
        self._logger.debug("Number %d.", number)

    def tell_limited(self, number: int) -> None:
        """Log an event whose number is limited already."""
        self._logger.warning("Number %d.", number, extra=LIMITED)

    def lines(self) -> list[str]:
        """Return what was written since the last call."""
        written = self._stream.getvalue().splitlines()
        self._stream.seek(0)
        self._stream.truncate()
        return written


@pytest.fixture
def log() -> Iterator[Log]:
    """Return a log of messages alone."""
    made = Log(LineFormatter())
    yield made
    made.handler.close()


def test_what_repeats_is_left_out_and_counted(log: Log) -> None:
    """The first ones; from then on one now and then, the newest, with how many there were in between."""
    for number in range(100):
        log.tell(number)
    assert [line.split(" WARNING ")[1] for line in log.lines()] == [f"Refused number {n}." for n in range(AT_ONCE)]
    log.clock.advance(1 / PER_SECOND)
    log.tell(100)
    (line,) = log.lines()
    assert line.endswith(f" WARNING Refused number 100. ({100 - AT_ONCE} more like it were left out)")
    log.clock.advance(AT_ONCE / PER_SECOND)
    for number in range(20):
        log.tell(number)
    assert len(log.lines()) == AT_ONCE


def test_the_last_of_many_is_written_when_its_time_has_come(log: Log) -> None:
    """Though no other follows: the newest is how things stand."""
    for number in range(100):
        log.tell(number)
    log.lines()
    log.handler.catch_up()
    assert log.lines() == []
    log.clock.advance(1 / PER_SECOND)
    log.handler.catch_up()
    (line,) = log.lines()
    assert line.endswith(f" WARNING Refused number 99. ({99 - AT_ONCE} more like it were left out)")
    log.handler.catch_up()
    assert log.lines() == []


def test_a_flood_of_one_kind_does_not_hide_another(log: Log) -> None:
    """Each has its own count."""
    for number in range(100):
        log.tell(number)
    log.lines()
    log.tell_otherwise()
    assert len(log.lines()) == 1


def test_what_was_held_back_is_written_at_the_end() -> None:
    """With its number; in JSON under a key of its own."""
    log = Log(JsonFormatter())
    for number in range(100):
        log.tell(number)
    log.lines()
    log.handler.close()
    (line,) = log.lines()
    assert json.loads(line)["message"] == "Refused number 99."
    assert json.loads(line)["left_out"] == 99 - AT_ONCE


def test_debug_events_and_those_limited_already_are_written_as_they_come(log: Log) -> None:
    """Who asks for all gets all."""
    for number in range(100):
        log.tell_in_detail(number)
        log.tell_limited(number)
    assert len(log.lines()) == 200
