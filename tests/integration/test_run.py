"""The whole path: a plant's messages over a real broker, someone else's model, samples out."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sqlite3
import struct
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests import models
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

FIELDS = ["ax", "ay", "az", "gx", "gy", "gz"]
START = 1_790_000_000  # seconds since the Unix epoch; 2026


def readings(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (count, 6) values."""
    return np.random.default_rng(seed).normal(scale=2, size=(count, 6))


def payload(moment: float, values: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Return one reading as a plant writes it."""
    return json.dumps({"ts": moment, **dict(zip(FIELDS, values.tolist(), strict=True)), "unit": "g"})


def source(topic: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a source of the six fields."""
    return {"name": "imu", "topics": [topic], "fields": FIELDS, "time": "ts", **more}


def band(low: float, high: float, name: str = "band") -> dict[str, Any]:
    """Return a filter of one rule."""
    return {"rules": [{"name": name, "measure": "confidence", "band": {"min": low, "max": high}}]}


def counted(client: Client, processor: ProcessorProcess, messages: int) -> dict[str, Any]:
    """Wait until the processor has counted so many messages, and return its metrics."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        metrics: dict[str, Any] = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
        if metrics["counters"]["messages"] >= messages:
            return metrics
    pytest.fail(f"{metrics['counters']} instead of {messages} messages\n{processor.log()}")


def state(client: Client, processor: ProcessorProcess) -> dict[str, Any]:
    """Return the next answer on the filter's state topic."""
    answer: dict[str, Any] = json.loads(client.wait_for(f"{processor.root}/filter/state").payload)
    return answer


def command(client: Client, processor: ProcessorProcess, name: str) -> dict[str, Any]:
    """Send a command and return its answer."""
    client.publish(f"{processor.root}/command", json.dumps({"command": name, "id": name}))
    answer: dict[str, Any] = json.loads(client.wait_for(f"{processor.root}/command/response").payload)
    assert (answer["command"], answer["id"]) == (name, name)
    return answer


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
def test_accepts_what_an_independent_script_accepts(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, protocol: object
) -> None:
    """Windows of several streams, another's CNN: the same windows, ids, scores and labels as numpy computes."""
    size, step, count, streams = 20, 7, 150, 4
    path = models.write(models.cnn(size=size), tmp_path)
    window = {"size": size, "step": step, "max_gap": "5s"}
    processor = make_processor(
        sources=[source("acceptance/+/imu", stream="watch-{topic[1]}")],
        model={"path": str(path), "window": window},
        filter=band(0.3, 0.5),
        broker={"url": make_processor.url, "protocol": protocol},
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    values = {stream: readings(count, stream) for stream in range(streams)}
    # Every 50 readings a pause that empties the windows.
    times = [START + number * 0.1 + 10 * (number // 50) for number in range(count)]
    for number, moment in enumerate(times):
        for stream in range(streams):
            client.publish(f"acceptance/{stream}/imu", payload(moment, values[stream][number]))
    counted(client, processor, count * streams)
    assert command(client, processor, "flush")["status"] == "ok"
    assert processor.stop() == 0

    session = ort.InferenceSession(str(path))
    expected = {}
    for stream in range(streams):
        for end in range(size, count + 1):
            begin_of_run = (end - 1) // 50 * 50
            place = end - begin_of_run
            if place < size or (place - size) % step:
                continue
            window_values = values[stream][end - size : end]
            (row,) = session.run(["probabilities"], {"x": window_values.T[None].astype(np.float32)})[0]
            if 0.3 <= float(row.max()) <= 0.5:
                moments = np.array([round(times[i] * 1e6) * 1000 for i in range(end - size, end)], "<i8")
                digest = hashlib.sha256()
                for text in (processor.configuration["id"], "imu", "default", f"watch-{stream}"):
                    digest.update(struct.pack("<I", len(text)) + text.encode())
                digest.update(moments.tobytes() + window_values.astype("<f8").tobytes())
                expected[digest.hexdigest()[:32]] = (float(row.max()), models.ACTIVITIES[int(row.argmax())])
    assert len(expected) > 10
    events = {event["id"]: event for event in processor.events()}
    assert events.keys() == expected.keys()
    for identifier, (score, label) in expected.items():
        data = events[identifier]["data"]
        assert data["selection"]["score"] == pytest.approx(score, abs=1e-6)
        assert data["inference"]["label"] == label
        assert data["selection"]["rule"] == "band"
        assert data["model"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_filter_takes_effect_at_its_place_in_the_stream(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Readings sent before the change are judged by the old filter, those after it by the new one: to the message."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("place/imu")], model={"path": str(path)}, filter={"rules": [{"name": "old"}]}
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    values = readings(1000)
    changes = {100: "a", 101: "b", 555: "c"}
    for number in range(1000):
        if number in changes:
            client.publish(f"{processor.root}/filter", json.dumps({"rules": [{"name": changes[number]}]}), retain=True)
        client.publish("place/imu", payload(START + number, values[number]))
    counted(client, processor, 1000)
    command(client, processor, "flush")
    client.publish(f"{processor.root}/filter", "", retain=True)
    processor.stop()
    rules = {event["time"]: event["data"]["selection"] for event in processor.events()}
    assert len(rules) == 1000
    expected = ["old"] * 100 + ["a"] + ["b"] * 454 + ["c"] * 445
    assert [rules[moment]["rule"] for moment in sorted(rules)] == expected
    revisions = [rules[moment]["filter_revision"] for moment in sorted(rules)]
    assert revisions == [1] * 100 + [2] + [3] * 454 + [4] * 445


WRONG = [
    (b"rules: [{name: a, measure: confidence, band: {min: 0.9, max: 0.1}}]", ["rules[0].band"]),
    (b"rules: [{name: a, colour: red}]", ["rules[0].colour"]),
    (b"rules: [{name: a}, {name: a}]", ["rules[1].name"]),
    (b"rules: [{name: 'a b'}]", ["rules[0].name"]),
    (b"rules: [{name: a, measure: certainty}]", ["rules[0].measure"]),
    (b"rules: [{name: a, sample: 1.5}]", ["rules[0].sample"]),
    (b"rules: [{name: a, measure: probability, label: unheard-of}]", ["rules[0].label"]),
    (b"rules: [{name: a, where: {fields: {nx: {min: 1}}}}]", ["rules[0].where.fields.nx"]),
    (b"schedule: {timezone: Mars/Olympus}\nrules: []", ["schedule.timezone"]),
    (b"schedule: {weekly: [{days: [mon], from: '25:00', to: '26:00'}]}", ["schedule.weekly[0].from"]),
    (b"schedule: {cron: [{cron: '61 * * * *', duration: 1h}]}", ["schedule.cron[0].cron"]),
    (b"enabled: maybe", ["enabled"]),
    (b"rules: [{name: a", [""]),
    (b"\xff\xfe\x00", [""]),
    (b"a: &x 1\nb: *x", [""]),
    (b"enabled: true\nenabled: false", [""]),
    (b"[]", [""]),
    (b"x" * 70_000, [""]),
    (
        b"rules: [{name: a, sample: 2}, {name: b, measure: confidence, band: {min: 1, max: 0}}, {name: a}]",
        ["rules[0].sample", "rules[1].band", "rules[2].name"],
    ),
    (
        (
            b"rules:\n"
            b"- {name: c, where: {labels: [none], fields: {zz: {min: 1}}, streams: ['a/#/b']}}\n"
            b"- {name: c, measure: value}\n"
        ),
        [
            "rules[0].where.labels[0]",
            "rules[0].where.fields.zz",
            "rules[0].where.streams[0]",
            "rules[1].name",
            "rules[1].measure",
        ],
    ),
]


def test_a_wrong_filter_is_answered_with_every_error_and_changes_nothing(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Each kind of wrong: `rejected`, the errors' paths, the old filter and its revision still in force."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(sources=[source("wrong/imu")], model={"path": str(path)}, filter=band(0.2, 0.9))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    before = state(client, processor)
    assert (before["status"], before["revision"], before["source"]) == ("applied", 1, "file")
    for wrong, paths in WRONG:
        client.publish(f"{processor.root}/filter", wrong, retain=True)
        answer = state(client, processor)
        assert answer["status"] == "rejected", wrong
        assert {error["path"] for error in answer["errors"]} >= set(paths), (wrong, answer["errors"])
        assert all(error["message"] for error in answer["errors"])
        assert answer["sha256"] == hashlib.sha256(wrong).hexdigest()
        assert (answer["revision"], answer["active"]) == (1, before["active"])
    good = json.dumps(band(0.25, 0.75)).encode()
    client.publish(f"{processor.root}/filter", good, retain=True)
    assert (applied := state(client, processor))["status"] == "applied"
    assert (applied["revision"], applied["source"], applied["errors"]) == (2, "topic", [])
    assert applied["active"]["rules"][0]["band"] == {"min": 0.25, "max": 0.75}
    client.publish(f"{processor.root}/filter", good, retain=True)
    assert state(client, processor) == applied, "the same document again changes nothing and is answered again"
    client.publish(f"{processor.root}/filter", b"", retain=True)
    back = state(client, processor)
    assert (back["status"], back["revision"], back["source"]) == ("applied", 3, "file")
    assert back["active"] == before["active"]


def test_the_last_good_filter_and_a_pause_survive_a_restart(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Revisions go on, also after a kill; what was paused stays paused."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("survive/imu")], model={"path": str(path)}, filter=band(0.2, 0.9, "file")
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/filter/state")
    client.subscribe(f"{processor.root}/command/response")
    processor.start()
    state(client, processor)
    client.publish(f"{processor.root}/filter", json.dumps(band(0.3, 0.8, "topic")))  # not retained
    assert state(client, processor)["revision"] == 2
    assert command(client, processor, "pause")["paused"] is True
    processor.kill()
    processor.start()
    answer = state(client, processor)
    assert (answer["revision"], answer["source"]) == (2, "topic")
    assert answer["active"]["rules"][0]["name"] == "topic"
    client.publish("survive/imu", payload(START, readings(1)[0]))
    report = command(client, processor, "status")
    while report["counters"]["windows"] < 1:
        report = command(client, processor, "status")
    assert report["by_reason"] == {"disabled": 1}
    assert command(client, processor, "resume")["paused"] is False
    client.publish(f"{processor.root}/filter", json.dumps(band(0.3, 0.7, "next")))
    assert state(client, processor)["revision"] == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_nothing_acknowledged(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit 0 within 5 s; what the broker was told is in files or outbox, the rest comes at the next start."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source(f"stop/{number.name}")],
        model={"path": str(path)},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "files", "path": "./accepted"}, {"type": "mqtt"}],
    )
    client, listener = mqtt_client(), mqtt_client()
    listener.subscribe(f"{processor.root}/#")
    processor.start()
    values = readings(3000, 7)
    for moment, row in enumerate(values):
        client.publish(f"stop/{number.name}", payload(START + moment, row))
        if moment == 1500:
            begun = time.monotonic()
            assert processor.stop(number) == 0
            assert time.monotonic() - begun < 5
    assert not list((processor.directory / "accepted").glob("*/.*part"))
    offline = [m for m in listener.received() if m.topic.endswith("/status")]
    assert offline[-1].payload == b"offline"
    connection = sqlite3.connect(processor.directory / "state" / "mlade.db")
    waiting = {row[0] for row in connection.execute("SELECT id FROM outbox")}
    connection.close()
    before = {event["id"] for event in processor.events()} | waiting
    assert before
    processor.start()
    counted(listener, processor, 3000 - len(before))
    command_client = mqtt_client()
    command_client.subscribe(f"{processor.root}/command/response")
    command(command_client, processor, "flush")
    processor.stop()
    events = processor.events()
    assert len({event["id"] for event in events}) == len(events) == 3000


def test_garbage_is_a_dead_letter_and_the_next_message_is_not_affected(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Each kind of bad payload is kept with its reason, acknowledged, and told on its topic."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("garbage/+")],
        model={"path": str(path)},
        filter={"rules": [{"name": "all"}]},
        broker={"url": make_processor.url, "max_payload": "2KiB"},
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    good = payload(START, readings(1)[0])
    bad = {
        b"": "decode",
        b"not json": "decode",
        b"\xff\xff": "decode",
        b'{"ts": 1, "ax": 1}': "field",
        good.replace('"ts": 1790000000', '"ts": "soon"').encode(): "time",
        good.replace('"ts": 1790000000', '"ts": 99999999999').encode(): "time",
        good.replace('"unit"', '"ax": 1e999, "unit"').encode(): "not_finite",
        b"[" * 1500: "decode",
        b"x" * 5000: "too_large",
    }
    for wrong, reason in bad.items():
        client.publish("garbage/1", wrong)
        letter = json.loads(client.wait_for(f"{processor.root}/deadletter").payload)
        assert letter["reason"] == reason, (wrong[:60], letter)
        assert letter["topic"] == "garbage/1"
    client.publish("garbage/1", good)
    metrics = counted(client, processor, 1)
    while not metrics["by_rule"]:
        metrics = counted(client, processor, 1)
    assert metrics["by_rule"] == {"all": 1}
    assert sum(metrics["dead_letters"].values()) == len(bad)


def test_own_topics_are_never_readings_and_commands_are_answered_where_asked(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Even a source that subscribes to everything; MQTT 5 response topics are honoured."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        topic_prefix="own/prefix",
        sources=[source("own/#"), source("own/+/imu", name="second"), source("own/#", name="third")],
        model={"path": str(path)},
        filter={"rules": [{"name": "all"}]},
        publish_inference=True,
        bridges=[{"type": "mqtt"}],
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    client.publish("own/a b/imu", payload(START, readings(1)[0]))
    sample = json.loads(client.wait_for(f"{processor.root}/accepted/all").payload)
    inference = client.wait_for(f"{processor.root}/inference/#")
    assert inference.topic == f"{processor.root}/inference/own/a%20b/imu"
    assert json.loads(inference.payload)["inference"] == sample["data"]["inference"]
    assert sample["data"]["readings"]["source"] == "imu"
    metrics = counted(client, processor, 1)
    assert metrics["by_source"] == {"imu": 1}, "the message that two sources match feeds the first, once"
    assert metrics["counters"]["readings"] == 1
    assert command(client, processor, "heartbeat")["status"] == "ok"
    client.publish(f"{processor.root}/command", "nonsense")
    assert json.loads(client.wait_for(f"{processor.root}/command/response").payload)["status"] == "error"


def test_health_endpoints_and_the_will(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Ready while connected; Prometheus can read the counters; a killed processor is offline."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(sources=[source("health/imu")], model={"path": str(path)}, filter=band(0, 1))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/status")
    processor.start()
    assert client.wait_for(f"{processor.root}/status").payload == b"online"
    port = re.findall("Health and metrics .* port ([0-9]+)", processor.log())[0]

    def readiness() -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:  # 503
            return dict(json.load(error))

    processor.wait_until(lambda: readiness() == {"ready": True, "waiting_for": []}, "ready")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        assert json.load(answer)["status"] == "ok"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "# TYPE mlade_windows_total counter" in text
    assert "mlade_broker_connected 1.0" in text
    processor.kill()
    assert client.wait_for(f"{processor.root}/status").payload == b"offline"


def test_a_killed_processor_goes_on_as_if_nothing_had_happened(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """SIGKILL in the middle of the load, three times: the samples are those of an undisturbed run, each once."""
    size, count = 10, 1500
    path = models.write(models.cnn(size=size), tmp_path)
    processor = make_processor(
        sources=[source("kill/+/imu")],
        model={"path": str(path), "window": {"size": size, "step": 3}},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "files", "path": "./accepted", "rotate": {"max_age": "50ms"}}],
    )
    client, listener = mqtt_client(), mqtt_client()
    processor.start()
    listener.subscribe(f"{processor.root}/metrics")
    values = readings(count, 3)
    for number, row in enumerate(values):
        client.publish(f"kill/{number % 3}/imu", payload(START + number, row))
        if number in (400, 800, 1200):
            processor.kill()
            processor.start()
    client.subscribe(f"{processor.root}/command/response")
    expected = {
        tuple(range(end - 3 * (size - 1), end + 1, 3))
        for stream in range(3)
        for place, end in enumerate(range(stream, count, 3), start=1)
        if place >= size and (place - size) % 3 == 0
    }

    def seen() -> set[tuple[int, ...]]:
        command(client, processor, "flush")
        begin = np.datetime64(START, "s")
        return {
            tuple(
                int((np.datetime64(text[:-1]) - begin) / np.timedelta64(1, "s"))
                for text in one["data"]["readings"]["times"]
            )
            for one in processor.events()
        }

    processor.wait_until(lambda: len(seen()) >= len(expected), "all windows")
    assert seen() == expected
    processor.stop()
