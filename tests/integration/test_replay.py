"""`mlade replay`: the figures, the samples, filters side by side, and what is said of bad input."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor import settings
from processor.assembly import open_model
from processor.filter import validate_filter
from processor.recording import Reader, Writer
from processor.replay import Candidate, Replay
from processor.types import Message
from tests import models, recordings
from tests.commands import Done, mlade_here

UNSURE = {"name": "unsure", "measure": "confidence", "band": {"max": 0.7}}
AUDIT = {"name": "audit", "sample": 0.1}
KEYS = ["messages", "readings", "windows", "accepted", "by_rule", "by_reason", "seconds"]
COUNT = 3000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three watches, 100 s."""
    return recordings.write(tmp_path_factory.mktemp("recording") / "rec.jsonl.gz", COUNT)


def replay(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run the command."""
    return mlade_here(capsys, "replay", *map(str, arguments))


def summary(done: Done) -> dict[str, Any]:
    """Return the JSON object on the last line."""
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return found


def test_the_summary_accounts_for_every_window(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract's keys and no others; windows are accepted by one rule or rejected for one reason."""
    found = summary(replay(capsys, recording, "-c", recordings.configuration(tmp_path, UNSURE, AUDIT), "--json"))
    assert list(found) == KEYS
    assert found["messages"] == COUNT
    assert found["readings"] == COUNT - COUNT // 97
    assert found["windows"] > 280
    assert found["by_rule"].keys() == {"unsure", "audit"}
    assert all(found["by_rule"].values())
    assert sum(found["by_rule"].values()) == found["accepted"]
    assert sum(found["by_reason"].values()) == found["windows"] - found["accepted"]
    assert found["by_reason"]["sampled_out"] == found["windows"] - found["accepted"]


def test_the_samples_are_written(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the files bridge does: an event a line, and as many as are counted."""
    config = recordings.configuration(tmp_path, UNSURE, AUDIT)
    plain, packed = tmp_path / "events.jsonl", tmp_path / "events.jsonl.gz"
    found = summary(replay(capsys, recording, "-c", config, "--json", "--out", plain))
    assert summary(replay(capsys, recording, "-c", config, "--json", "--out", packed))["accepted"] == found["accepted"]
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    events = [json.loads(line) for line in plain.read_text().splitlines()]
    assert len({event["id"] for event in events}) == len(events) == found["accepted"]
    assert Counter(event["data"]["selection"]["rule"] for event in events) == found["by_rule"]
    assert {event["type"] for event in events} == {"mlade.sample.v1"}


def test_what_is_printed_says_the_same(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: what came in, what was kept, by which rule, why not the rest, and how much a day that is."""
    config = recordings.configuration(tmp_path, UNSURE)
    found = summary(replay(capsys, recording, "-c", config, "--json"))
    done = replay(capsys, recording, "-c", config)
    assert f"{COUNT:,} messages" in done.out
    assert f"{found['accepted']} windows, " in done.out
    assert f"{found['by_reason']['band']}" in done.out
    assert f"dead letters: {COUNT // 97} decode" in done.out
    assert " a day" in done.out
    assert not done.err


def test_a_rule_that_keeps_nothing_is_named_in_full(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the reasons."""
    rule = {"name": "never-certain", "measure": "confidence", "band": {"max": 0.0}}
    done = replay(capsys, recording, "-c", recordings.configuration(tmp_path, rule))
    assert "never-certain  0  0.0%" in done.out


def test_another_filter_can_be_tried(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of the configuration's, which is left as it is."""
    other = tmp_path / "other.yaml"
    other.write_text("rules: [{name: all}]\n")
    config = recordings.configuration(tmp_path, UNSURE)
    found = summary(replay(capsys, recording, "-c", config, "--filter", other, "--json"))
    assert found["accepted"] == found["windows"] == found["by_rule"]["all"]


def test_filters_are_compared(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each gives what it gives alone, and what both keep is what is in both their samples."""
    config = recordings.configuration(tmp_path)
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(json.dumps({"rules": [UNSURE]}))
    b.write_text(json.dumps({"rules": [AUDIT, {"name": "low", "measure": "margin", "band": {"max": 0.2}}]}))
    alone = [summary(replay(capsys, recording, "-c", config, "--filter", one, "--json")) for one in (a, b)]
    ids = []
    for one in (a, b):
        out = tmp_path / "events.jsonl"
        replay(capsys, recording, "-c", config, "--filter", one, "--out", out)
        ids.append({json.loads(line)["id"] for line in out.read_text().splitlines()})
    done = replay(capsys, recording, "-c", config, "--filter", a, "--filter", b, "--json")
    found = summary(done)
    assert list(found) == [*KEYS, "filters", "overlap"]
    assert [one["name"] for one in found["filters"]] == [str(a), str(b)]
    for side, own in zip(found["filters"], alone, strict=True):
        assert {key: side[key] for key in side if key != "name"} == {key: own[key] for key in side if key != "name"}
    both = len(ids[0] & ids[1])
    assert 0 < both < min(map(len, ids))
    assert found["overlap"] == [[len(ids[0]), both], [both, len(ids[1])]]
    assert f"Both keep {both:,} " in done.err
    assert f"only {a} keeps {len(ids[0]) - both}, only {b} {len(ids[1]) - both}." in done.err


def test_samples_of_two_filters_do_not_go_into_one_file(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error."""
    config = recordings.configuration(tmp_path, UNSURE)
    done = replay(capsys, recording, "-c", config, "--filter", "a", "--filter", "b", "--out", tmp_path / "e.jsonl")
    assert done.code == 2
    assert "--out takes the samples of one filter" in done.err


def test_every_problem_of_every_filter_is_said(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the file and the path in it, whether it is wrong in itself or for this model."""
    config = recordings.configuration(tmp_path, UNSURE)
    a, b, none = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "none.yaml"
    a.write_text("rules: [{name: a, measure: confidence, band: {min: 1, max: 0}}, {name: b, sample: 2}]")
    b.write_text("rules: [{name: a, measure: probability, label: flying}]")
    done = replay(capsys, recording, "-c", config, "--filter", a, "--filter", b, "--filter", none)
    assert done.code == 2
    starts = (f"{a}: rules[0].band: ", f"{a}: rules[1].sample: ", f"{b}: rules[0].label: ", f"{none}: cannot be read")
    assert len(done.err.splitlines()) == len(starts)
    for line, start in zip(done.err.splitlines(), starts, strict=True):
        assert line.startswith(start)


def test_bad_recordings_are_said(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is none, by its number; an end that is missing, as a note."""
    config = recordings.configuration(tmp_path, UNSURE)
    text = gzip.decompress(recording.read_bytes())
    path = tmp_path / "rec.jsonl"
    path.write_bytes(text + b"{}\n")
    done = replay(capsys, path, "-c", config)
    assert done.code == 1
    assert f"{path}, line {COUNT + 1}: " in done.err
    path.write_bytes(text[:-9])
    done = replay(capsys, path, "-c", config, "--json")
    assert summary(done)["messages"] == COUNT - 1
    assert "the last line is cut off" in done.err
    assert replay(capsys, tmp_path / "none", "-c", config).code == 2
    path.write_bytes(b"")
    done = replay(capsys, path, "-c", config, "--json")
    assert summary(done)["windows"] == 0


def test_messages_are_bounded_as_they_are_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the connection would have skipped is a dead letter here, too, and what no source reads is not looked at."""
    config = recordings.configuration(tmp_path, UNSURE, broker={"max_payload": "200B"})
    path = tmp_path / "rec.jsonl"
    writer = Writer(path)
    good = next(recordings.messages(1))
    writer.write([good, replace(good, payload=good.payload.ljust(201)), replace(good, topic="other")])
    writer.close()
    done = replay(capsys, path, "-c", config, "--json")
    found = summary(done)
    assert (found["messages"], found["readings"]) == (3, 1)
    assert "dead letters: 1 too_large" in done.err
    assert "messages that no source reads: 1" in done.err


def test_filters_side_by_side_meet_the_same_failures(tmp_path: Path) -> None:
    """A model that fails on some windows fails on them for each filter, though it is asked once."""
    path = models.write(models.raising(), tmp_path)
    loaded = settings.build(
        {
            "id": "line-1",
            "sources": [{"name": "s", "topics": ["t"], "fields": ["x"]}],
            "model": {"path": str(path)},
            "filter": {},
        },
        tmp_path,
    ).slots[0]
    rules = {"rules": [{"name": "high", "measure": "value", "band": {"min": 2}}]}
    candidates = [Candidate("a", validate_filter({"rules": [{"name": "all"}]})), Candidate("b", validate_filter(rules))]
    run = Replay(loaded, open_model(loaded), candidates)
    batch = [Message("t", b'{"x": %d}' % number, 1, 0, 10**9) for number in (-9, 0, 1, 2, 3, 9)]
    outcomes = run.run(batch)
    assert [len(outcome.windows) for outcome in outcomes] == [4, 4]
    assert [side.accepted for side in run.sides] == [4, 2]
    assert run.overlap.tolist() == [[4, 2], [2, 2]]
    assert run.dead_letters == {"model": 2}


def test_the_windows_beside_samples_are_each_filters_own(tmp_path: Path) -> None:
    """Side by side, each sends what it sends alone: samples, and their neighbours with the model's answers."""
    (loaded,) = settings.load(recordings.configuration(tmp_path, UNSURE)).slots
    model = open_model(loaded)
    filters = [{"rules": [UNSURE | {"context": {"before": before, "after": 1}}]} for before in (1, 3)]
    candidates = [Candidate(str(at), validate_filter(one)) for at, one in enumerate(filters)]
    batch = list(recordings.messages(1500))

    def events(*tried: Candidate) -> list[list[bytes]]:
        run = Replay(loaded, model, tried, samples=True)
        parts = [run.run(batch[:700]), run.run(batch[700:])]
        return [[sample.event for part in parts for sample in part[side].outgoing] for side in range(len(tried))]

    together = events(*candidates)
    assert together == [events(candidate)[0] for candidate in candidates]
    assert len(together[0]) < len(together[1])


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """Ten times the messages, the same memory."""
    (loaded,) = settings.load(recordings.configuration(tmp_path, UNSURE, AUDIT)).slots
    model = open_model(loaded)
    candidates = [Candidate("a", validate_filter({"rules": [UNSURE]}))]

    def peak(name: str, count: int) -> int:
        path = recordings.write(tmp_path / name, count)
        run = Replay(loaded, model, candidates)
        tracemalloc.start()
        for messages in Reader(path):
            run.run(messages)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few = peak("few.jsonl", 2000)
    assert peak("many.jsonl", 20_000) < few + (1 << 20)
