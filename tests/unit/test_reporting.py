"""What is said of what cannot be processed: enough to act on, and no more, however much comes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from processor.types import Message
from tests.unit.test_pipeline import START, Line


def garbage(number: int) -> Message:
    """Return a message that is no reading."""
    return Message("imu/1", b"garbage", 1, number % 65_535 + 1, START, connection=1)


def test_a_flood_of_dead_letters_does_not_flood_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first few are told one by one, the others by their number; a thousand at once on their topic."""
    started = time.monotonic()
    line = Line(tmp_path)
    line.play(*[[garbage(100 * batch + number) for number in range(100)] for batch in range(30)])
    lines = [record.getMessage() for record in caplog.records]
    told = [text for text in lines if text.startswith("Dead letter from imu/1: ")]
    assert 10 <= len(told) <= 11 + time.monotonic() - started
    assert "90 more dead letters; mlade deadletters list shows them." in lines
    assert len(lines) <= 2 * len(told)
    published = [topic for topic, _ in line.source.published if topic.endswith("/deadletter")]
    assert 1000 <= len(published) <= 1001 + 100 * (time.monotonic() - started)
    assert len(line.source.acknowledged) == 3000
