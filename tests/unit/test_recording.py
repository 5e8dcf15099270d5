"""Recordings: written, read back, damaged."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import RecordingError
from processor.recording import Reader, Writer
from processor.types import Message

MICRO = 1000
TIME = 1_790_000_000_123_457_000
NAMES = ("rec.jsonl", "rec.jsonl.gz")
GOOD = b'{"time": 1790000000.25, "topic": "plant/7", "qos": 1, "payload": "MQ=="}'

messages = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(),
    st.integers(0, 2),
    st.integers(-(10**15), 4 * 10**15),
).map(lambda drawn: Message(*drawn[:3], arrival=drawn[3] * MICRO))


def numbered(count: int, size: int = 100) -> list[Message]:
    """Return messages of `size` bytes that differ."""
    return [Message("a/b", f"{number:>{size}}".encode(), 1, 0, TIME + number * MICRO) for number in range(count)]


def write(path: Path, *batches: list[Message]) -> None:
    """Write a recording."""
    writer = Writer(path)
    for batch in batches:
        writer.write(batch)
    writer.close()


def read(path: Path) -> tuple[list[Message], str]:
    """Return all messages of a recording, and what is said of its end."""
    reader = Reader(path)
    found = [message for batch in reader for message in batch]
    return found, reader.cut_off


@pytest.mark.parametrize("name", NAMES)
@given(wanted=st.lists(messages))
def test_what_was_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, name: str, wanted: list[Message]
) -> None:
    """Topics, payloads and QoS as they were, times to the microsecond."""
    path = tmp_path_factory.mktemp("recording") / name
    write(path, wanted[:1], wanted[1:])
    assert read(path) == (wanted, "")


def test_a_line_is_as_the_contract_says(tmp_path: Path) -> None:
    """Other programs read it, too: the four keys, and no nanoseconds."""
    path = tmp_path / "rec.jsonl"
    write(path, [Message("plant/ü", b"\xff\x00", 1, 9, TIME + 999)])
    line = json.loads(path.read_text())
    assert line == {
        "time": 1790000000.123457,
        "topic": "plant/ü",
        "qos": 1,
        "payload": base64.b64encode(b"\xff\x00").decode(),
    }


def test_other_peoples_recordings_are_read(tmp_path: Path) -> None:
    """Keys in any order, further keys, whole seconds, blank lines, no newline at the end."""
    path = tmp_path / "rec.jsonl"
    line = b'{"payload": "", "reason": "decode", "qos": 0, "topic": "t", "time": 1790000000, "more": [1]}'
    path.write_bytes(line + b"\r\n\n" + GOOD)
    found, cut_off = read(path)
    assert [(message.topic, message.payload, message.arrival) for message in found] == [
        ("t", b"", 1_790_000_000 * 10**9),
        ("plant/7", b"1", 1_790_000_000_250_000_000),
    ]
    assert cut_off == ""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"no json", "JSON is malformed"),
        (b"[1]", "Expected `object`"),
        (b'{"time": 1, "topic": "t", "payload": ""}', "missing required field `qos`"),
        (b'{"time": "now", "topic": "t", "qos": 0, "payload": ""}', "Expected `float`, got `str` - at `$.time`"),
        (b'{"time": 1e300, "topic": "t", "qos": 0, "payload": ""}', "$.time"),
        (b'{"time": 1, "topic": "t", "qos": 3, "payload": ""}', "$.qos"),
        (b'{"time": 1, "topic": "t", "qos": 0, "payload": "?"}', "$.payload"),
        (b'{"time": 1, "topic": "\xff", "qos": 0, "payload": ""}', "utf-8"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_line_is_named(tmp_path: Path, bad: bytes, said: str, name: str) -> None:
    """By file and number, with what is wrong and what was expected; what comes before it has been read."""
    path = tmp_path / name
    lines = [GOOD] * 20_000 + [b"", bad] + [GOOD] * 20_000
    text = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)
    batches: list[list[Message]] = []
    with pytest.raises(RecordingError) as raised:
        batches.extend(Reader(path))
    assert batches
    assert f"{path}, line 20002: " in str(raised.value)
    assert said in str(raised.value)
    assert 'expected {"time": ' in str(raised.value)


def test_the_last_line_may_be_cut_off(tmp_path: Path) -> None:
    """A full disk leaves half a line: it is left out, and said."""
    path = tmp_path / "rec.jsonl"
    write(path, numbered(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    found, cut_off = read(path)
    assert found == numbered(3)[:2]
    assert "the last line is cut off" in cut_off


def test_a_compressed_recording_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    """Whole messages from its start are read, and the missing end is said."""
    path = tmp_path / "rec.jsonl.gz"
    wanted = numbered(5000)
    write(path, wanted)
    whole = path.read_bytes()
    for end in range(12, len(whole) - 1, len(whole) // 50):
        path.write_bytes(whole[:end])
        found, cut_off = read(path)
        assert found == wanted[: len(found)]
        assert "is cut off" in cut_off
    assert len(found) > 4500


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """Not a traceback, and not silence."""
    path = tmp_path / "rec.jsonl.gz"
    write(path, numbered(5000))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    with pytest.raises(RecordingError, match=r"rec\.jsonl\.gz"):
        read(path)


def test_a_file_that_is_no_gzip_is_said(tmp_path: Path) -> None:
    """The name promises it."""
    path = tmp_path / "rec.jsonl.gz"
    path.write_bytes(GOOD + b"\n")
    with pytest.raises(RecordingError, match="Not a gzipped file"):
        read(path)


def test_nothing_is_an_empty_recording(tmp_path: Path) -> None:
    """It is read as such."""
    path = tmp_path / "rec.jsonl"
    write(path)
    assert read(path) == ([], "")


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    """It cannot be had again."""
    path = tmp_path / "rec.jsonl"
    write(path, numbered(1))
    with pytest.raises(RecordingError, match="not empty"):
        Writer(path)
    assert read(path) == (numbered(1), "")
    with pytest.raises(RecordingError, match="cannot be written"):
        Writer(tmp_path / "none" / "rec.jsonl")
    with pytest.raises(RecordingError, match="cannot be read"):
        Reader(tmp_path / "other.jsonl")


@pytest.mark.parametrize("name", NAMES)
def test_one_piece_of_a_recording_is_held_at_a_time(tmp_path: Path, name: str) -> None:
    """However long it is: while a message is looked at, no more than a piece beyond it was read."""
    path = tmp_path / name
    batch = numbered(1000, size=1000)
    write(path, *[batch] * 20)
    reader = Reader(path)
    assert reader.size == path.stat().st_size
    seen = 0
    for found in reader:
        seen += len(found)
        assert sum(len(message.payload) for message in found) <= 256 << 10
        if name == "rec.jsonl":
            assert reader.position <= (seen + 1) * 1500 + (256 << 10)
    assert seen == 20_000
    assert reader.position == reader.size


def test_a_line_may_be_longer_than_a_piece(tmp_path: Path) -> None:
    """As an image is."""
    path = tmp_path / "rec.jsonl"
    wanted = numbered(3, size=1 << 20)
    write(path, wanted)
    assert read(path) == (wanted, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_leaves_a_readable_recording(tmp_path: Path, name: str) -> None:
    """All that was written before the last flush."""
    path = tmp_path / name
    program = f"""
import os, signal
from pathlib import Path
from processor.recording import Writer
from tests.unit.test_recording import numbered
writer = Writer(Path({str(path)!r}))
writer.write(numbered(2000))
writer.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    found, cut_off = read(path)
    assert found == numbered(2000)
    assert bool(cut_off) == (path.suffix == ".gz")
