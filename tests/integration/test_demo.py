"""`mlade demo` as a user runs it: in a process of its own, with a real broker, to the last line."""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from processor.demo import workspace
from processor.demo.broker import CHOICE, HOST, candidates
from processor.demo.command import run_demo
from processor.demo.data import FIELDS, MODEL_PATH, WINDOW_SIZE
from processor.demo.summary import read_back
from processor.errors import MladeError

PATIENCE = 60.0
"""Seconds until a demo that should have ended counts as hung, on a busy machine."""


@contextmanager
def started(out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo; what it has not ended itself by the end of the block is killed."""
    command = [sys.executable, "-m", "processor", "demo", "--out", str(out), "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def configuration(out: Path) -> Any:  # noqa: ANN401 - YAML
    """Return what the demo's processor was told."""
    return yaml.safe_load((out / "processor.yaml").read_text())


def assert_nothing_runs(out: Path) -> None:
    """The broker does not listen any more, and the processor has given its state directory back."""
    port = int(configuration(out)["broker"]["url"].rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0
    with (out / "state" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def samples(out: Path) -> list[dict[str, Any]]:
    """Return the events in the files."""
    return [json.loads(line) for path in out.glob("accepted/date=*/*.jsonl") for line in path.read_text().splitlines()]


def confidence_of(event: Mapping[str, Any]) -> float:
    """Return what the model says of an event's own readings, by nothing but ONNX Runtime."""
    readings = event["data"]["readings"]
    assert readings["fields"] == list(FIELDS)
    window = np.array(readings["values"], np.float32)
    assert window.shape == (WINDOW_SIZE, len(FIELDS))
    session = onnxruntime.InferenceSession(MODEL_PATH, providers=["CPUExecutionProvider"])
    return float(session.run(["probabilities"], {"input": window.T[None]})[0].max())


def assert_kept_what_the_filters_say(out: Path, events: list[dict[str, Any]]) -> None:
    """Each sample's score is right, and in the band of the filter that was in force at its revision."""
    filters = {
        1: yaml.safe_load((out / "filter.yaml").read_text()),
        2: yaml.safe_load((out / "tightened.yaml").read_text()),
    }
    assert {event["data"]["selection"]["filter_revision"] for event in events} == {1, 2}
    assert len({event["id"] for event in events}) == len(events)
    for event in events:
        assert event["specversion"] == "1.0"
        assert event["type"] == "mlade.sample.v1"
        selection = event["data"]["selection"]
        (rule,) = (one for one in filters[selection["filter_revision"]]["rules"] if one["name"] == selection["rule"])
        confidence = confidence_of(event)
        assert event["data"]["inference"]["confidence"] == pytest.approx(confidence, abs=1e-5)
        if "band" in rule:
            assert selection["score"] == pytest.approx(confidence, abs=1e-5)
            assert rule["band"]["min"] <= selection["score"] <= rule["band"]["max"]
        else:
            assert selection["score"] is None


@pytest.fixture
def broken_mosquitto(tmp_path: Path) -> Path:
    """A directory for the PATH with a Mosquitto that cannot start."""
    binary = tmp_path / "bin" / "mosquitto"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho the libraries are gone\nexit 3\n")
    binary.chmod(0o755)
    return binary.parent


@pytest.mark.parametrize("choice", ["", "embedded"], ids=["mosquitto where there is one", "embedded"])
def test_demo_collects_what_its_filters_say(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole story, over either broker: readings in, filter changed half way, samples out, all accounted for."""
    monkeypatch.setenv(CHOICE, choice)
    uses_mosquitto = candidates()[0] is not None
    with started(tmp_path, "--seconds", "4") as demo:
        stdout, stderr = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, stderr
    (line,) = stdout.splitlines()
    result = json.loads(line)
    assert result.keys() == {"messages", "readings", "windows", "accepted", "by_rule", "seconds"}
    assert result["messages"] == result["readings"] > 100
    assert result["windows"] == 10 * (result["messages"] // 10 // 10 - 1)  # a watch's first window takes two steps
    assert result["accepted"] == sum(result["by_rule"].values()) > 0
    assert result["by_rule"].keys() == {"ambiguous", "audit"}
    assert result["seconds"] > 3.5  # the last reading is due one tick before the end, and may be late
    assert "applied as revision 2" in stderr
    assert "now ambiguous: confidence 0.45-0.60; audit: 2% of everything" in stderr
    assert configuration(tmp_path)["broker"]["protocol"] == (5 if uses_mosquitto else "3.1.1")
    events = samples(tmp_path)
    assert len(events) == result["accepted"]
    assert_kept_what_the_filters_say(tmp_path, events)
    assert_nothing_runs(tmp_path)


def test_ctrl_c_ends_early_with_the_summary(tmp_path: Path) -> None:
    """The first Ctrl-C stops the watches, not the story; an earlier demo's samples go, a user's file stays."""
    with workspace.prepare(tmp_path):
        (tmp_path / "accepted" / "date=2020-01-01").mkdir(parents=True)
        (tmp_path / "accepted" / "date=2020-01-01" / "old.jsonl").write_text("{}\n")
        (tmp_path / "notes.txt").write_text("mine")
    with started(tmp_path, "--seconds", "600") as demo:
        assert demo.stderr is not None
        assert any("msg/s" in line for line in demo.stderr)  # it plays
        demo.send_signal(signal.SIGINT)
        stdout, stderr = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, stderr
    result = json.loads(stdout)
    assert 0 < result["seconds"] < 600
    assert len(samples(tmp_path)) == result["accepted"]
    assert not (tmp_path / "accepted" / "date=2020-01-01").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_nothing_runs(tmp_path)


def test_sigterm_ends_everything_at_once(tmp_path: Path) -> None:
    """A demo that is told to end leaves no process behind and says why it ended."""
    with started(tmp_path, "--seconds", "600") as demo:
        log = tmp_path / "processor.log"
        deadline = time.monotonic() + PATIENCE
        while not (log.exists() and "Connected" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        demo.terminate()
        stdout, stderr = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not stdout
    assert "SIGTERM" in stderr
    assert_nothing_runs(tmp_path)


def test_broken_mosquitto_is_a_sentence_with_its_last_words(
    broken_mosquitto: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that was asked for by name and does not start is no reason for a traceback."""
    monkeypatch.setenv("PATH", f"{broken_mosquitto}:/usr/bin:/bin")
    monkeypatch.setenv(CHOICE, "mosquitto")
    assert run_demo(seconds=4, speed=10, out=tmp_path / "out", as_json=True) == 1
    assert "does not start" in (found := capsys.readouterr().err)
    assert "the libraries are gone" in found


def test_embedded_broker_steps_in_for_a_broken_mosquitto(
    broken_mosquitto: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for Mosquitto in particular: the demo runs."""
    monkeypatch.setenv("PATH", f"{broken_mosquitto}:/usr/bin:/bin")
    monkeypatch.delenv(CHOICE, raising=False)
    with started(tmp_path / "out", "--seconds", "1") as demo:
        _, stderr = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, stderr
    assert "Going on with the embedded broker" in stderr


def test_directory_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo removes only what a demo has made."""
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "precious").write_text("years of work")
    assert run_demo(seconds=4, speed=10, out=tmp_path, as_json=True) == 1
    assert "not made by a demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["accepted", "precious"]


def test_second_demo_in_one_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two demos would remove each other's state."""
    with workspace.prepare(tmp_path):
        assert run_demo(seconds=4, speed=10, out=tmp_path, as_json=True) == 1
    assert "Another demo is running" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "speed"), [(0.0, 10.0), (20.0, 0.0), (float("nan"), 10.0), (20.0, float("inf"))])
def test_seconds_and_speed_have_bounds(
    seconds: float, speed: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be played is a usage error."""
    assert run_demo(seconds=seconds, speed=speed, out=tmp_path / "out", as_json=True) == 2
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "no sample"),
        ("[]", "no sample"),
        ('{"id": "a", "data": {"selection": {"filter_revision": 2}}}', "revision 2 was never in force"),
        ('{"id": "a", "data": {"selection": {"filter_revision": 1, "rule": "r", "score": 0.8}}}', "outside the band"),
        ('{"id": "a", "data": {"selection": {"filter_revision": 1, "rule": "q", "score": 0.5}}}', "rule q is not in"),
    ],
)
def test_wrong_sample_is_found(line: str, complaint: str, tmp_path: Path) -> None:
    """Reading the samples back would notice, and says where."""
    folder = tmp_path / "date=2026-01-01"
    folder.mkdir()
    (folder / "x.jsonl").write_text(line + "\n")
    filters = {1: {"rules": [{"name": "r", "band": {"min": 0.4, "max": 0.7}}]}}
    with pytest.raises(MladeError, match=rf"x\.jsonl, line 1: .*{complaint}"):
        read_back(tmp_path, filters)
