"""A shadow beside the model, through a real broker: what it judges, what that keeps, and what survives."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor.demo.data import FIELDS, MODEL_PATH
from processor.recording import Writer
from processor.registry.fetched import PREFIX
from processor.types import Message
from tests import models, recordings
from tests.commands import mlade_here
from tests.integration import filters_again
from tests.mqtt_client import Client, MqttClientFactory
from tests.registry import Registry
from tests.running import ProcessorFactory, ProcessorProcess

COUNT = 1500
LABELS = ["badminton", "running", "standing", "walking"]
CANDIDATE = ["walking", "sitting", "running", "standing"]
RULES: list[dict[str, Any]] = [
    {"name": "differ", "measure": "disagreement", "band": {"min": 0.9}, "context": {"before": 1}},
    {"name": "nearest", "measure": "disagreement", "keep": {"share": 0.3, "of": "lowest", "over": 50}, "sample": 0.5},
    {"name": "unsure", "measure": "confidence", "band": {"max": 0.55}},
    {"name": "audit", "sample": 0.2},
]


def configuration(folder: Path, *rules: dict[str, Any], **shadow: object) -> dict[str, Any]:
    """Return the demo's model with a candidate beside it, on topics of the folder's."""
    candidate = models.write(models.cnn(size=20, labels=CANDIDATE), folder, "candidate")
    return {
        "sources": [{"name": "imu", "topics": [f"{folder.name}/+/imu"], "fields": list(FIELDS), "time": "ts"}],
        "model": {
            "path": str(MODEL_PATH),
            "window": {"size": 20, "step": 10, "max_gap": "5s"},
            "output": {"kind": "probabilities", "labels": LABELS},
            "shadow": {
                "path": str(candidate),
                "output": {"kind": "probabilities", "labels": CANDIDATE},
                **shadow,
            },
        },
        "filter": {"rules": list(rules)},
    }


def plant(folder: Path) -> list[Message]:
    """Return what three wearables publish, on the processor's topics."""
    found = recordings.messages(COUNT)
    return [
        replace(message, topic=message.topic.replace("wearable", folder.name))
        for message in found
        if message.payload != b"no json"
    ]


def metrics_when(
    client: Client, processor: ProcessorProcess, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the first metrics for which something holds."""
    while True:
        found: dict[str, Any] = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
        if holds(found):
            return found


def publish(client: Client, processor: ProcessorProcess, messages: Sequence[Message], before: int) -> dict[str, Any]:
    """Publish, and return the metrics when all was taken in and delivered."""
    for message in messages:
        client.publish(message.topic, message.payload)
    wanted = before + len(messages)
    return metrics_when(
        client,
        processor,
        lambda found: found["counters"]["messages"] == wanted and not found["outbox"]["samples"],
    )


def expected(processor: ProcessorProcess, messages: Sequence[Message], part: float) -> dict[str, tuple[str, float]]:
    """Return what an offline computation keeps: by id the rule and the chance."""
    recording = processor.directory / "rec.jsonl"
    writer = Writer(recording)
    writer.write(list(messages))
    writer.close()
    settings = json.loads(json.dumps(processor.configuration))
    settings["model"]["shadow"]["sample"] = part
    seen = list(filters_again.windows(recording, settings))
    kept = filters_again.select(seen, settings, settings["filter"]).kept
    assert 0 < sum(window.shadow is not None for window in seen) < len(seen)
    return {sample.window.id: (sample.rule, round(sample.probability, 9)) for sample in kept}


def samples(events: Sequence[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """Return samples, without the windows beside them: by id the rule and the chance."""
    chosen = [event for event in events if "context" not in event["data"]["selection"]]
    return {
        event["id"]: (event["data"]["selection"]["rule"], round(event["data"]["selection"]["probability"], 9))
        for event in chosen
    }


def test_what_the_models_disagree_on_is_kept_live_as_offline_and_in_a_replay(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The part is measured; the same windows come of plain Python, and of a replay beside the processor's state."""
    processor = make_processor(id="shadowed", **configuration(tmp_path, *RULES, cpu=0.6))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    messages = plant(tmp_path)
    told = publish(client, processor, messages, 0)["shadow"]
    status = mlade_here(capsys, "status", "-c", str(processor.file))
    exposed = processor.get("/metrics")
    assert processor.stop() == 0

    part = told["part"]
    assert 0 < part < 1
    offline = expected(processor, messages, part)
    live = processor.events()
    assert samples(live) == offline
    assert {"differ", "nearest", "audit"} <= {rule for rule, _ in offline.values()}
    judged = [event for event in live if "shadow" in event["data"]["inference"]]
    assert {event["data"]["selection"]["rule"] for event in judged} >= {"differ", "nearest"}
    for event in judged:
        model, shadow = event["data"]["inference"], event["data"]["inference"]["shadow"]
        p, q = model["probabilities"], shadow["probabilities"]
        apart = sum(abs(p.get(label, 0) - q.get(label, 0)) for label in {**p, **q}) / 2
        assert shadow["disagreement"] == pytest.approx(apart)
        assert (shadow["part"], shadow["model"]["name"]) == (part, "candidate")
        if event["data"]["selection"]["measure"] == "disagreement":
            assert event["data"]["selection"]["score"] == shadow["disagreement"]

    assert told["windows"] == sum(one["windows"] for one in told["by_label"].values()) > 0
    assert f"mlade_shadow_part {part}" in exposed
    assert f"candidate judged {told['windows']} windows, {part * 100:.4g} % of all; it agrees" in status.out

    out = tmp_path / "events.jsonl"
    arguments = (str(processor.directory / "rec.jsonl"), "-c", str(processor.file), "--out", str(out), "--json")
    done = mlade_here(capsys, "replay", *arguments)
    assert done.code == 0, done.err
    replayed = {event["id"]: event for event in map(json.loads, out.read_text().splitlines())}
    assert replayed == {event["id"]: event for event in live}
    summary = json.loads(done.out.splitlines()[-1])["shadow"]
    assert {**summary, "seconds": 0} == {**told, "seconds": 0}
    assert "it agrees with the model on" in done.err
    page = tmp_path / "r.html"
    assert mlade_here(capsys, "replay", *arguments[:3], "--report", str(page)).code == 0
    assert f"candidate judged {told['windows']:,} windows" in page.read_text()
    checked = mlade_here(capsys, "check", "-c", str(processor.file))
    assert f"{part * 100:.4g} % of all windows" in checked.out
    assert "shadow labels" in checked.out


def test_the_part_survives_a_kill_and_so_do_the_samples(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """What was measured is read, not measured again; the samples are those of an undisturbed run."""
    processor = make_processor(id="shadow-killed", **configuration(tmp_path, *RULES, cpu=0.6))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    messages = plant(tmp_path)
    half = len(messages) // 2
    part = publish(client, processor, messages[:half], 0)["shadow"]["part"]
    client.publish(messages[half].topic, messages[half].payload)
    processor.kill()
    client.received()
    processor.start()
    after = metrics_when(client, processor, lambda found: found["shadow"] is not None)
    assert after["shadow"]["part"] == part
    for message in messages[half + 1 :]:
        client.publish(message.topic, message.payload)
    offline = expected(processor, messages, part)
    processor.wait_until(lambda: samples(processor.events()).keys() >= offline.keys(), "all samples are delivered")
    assert processor.stop() == 0
    assert samples(processor.events()) == offline

    with closing(sqlite3.connect(processor.directory / "state" / "mlade.db")) as database, database:
        (kept,) = database.execute("SELECT value FROM meta WHERE key = 'model default shadow'").fetchone()
        ((model, shadow, _),) = json.loads(kept)
        slower = json.dumps([[model, shadow, [1.0, 8.0]]])
        database.execute("UPDATE meta SET value = ? WHERE key = 'model default shadow'", (slower,))
    client.received()
    processor.start()
    assert metrics_when(client, processor, lambda found: found["shadow"]["part"] != part)["shadow"]["part"] == 0.187


def test_a_shadow_that_fails_costs_nothing_but_its_answer(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """It is counted and said; the model's answers stand, and there is no dead letter."""
    values = models.graph("values (float[N, 1] x) => (float[N, 1] value) { value = Identity (x) }")
    processor = make_processor(
        sources=[{"name": "press", "topics": [f"{tmp_path.name}/press"], "format": "number", "fields": ["bar"]}],
        model={
            "path": str(models.write(values, tmp_path, "values")),
            "output": {"kind": "value"},
            "shadow": {"path": str(models.write(models.raising(), tmp_path, "fussy")), "sample": 1},
        },
        filter={"rules": [{"name": "differ", "measure": "disagreement", "band": {"min": 1}}, {"name": "all"}]},
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    readings = [0.0, 1.0, 9.0, 2.0, 30.0]
    found = publish(
        client, processor, [Message(f"{tmp_path.name}/press", str(value).encode()) for value in readings], 0
    )
    assert processor.stop() == 0
    assert (found["shadow"]["windows"], found["shadow"]["failures"], found["dead_letters"]) == (3, 2, {})
    assert found["by_rule"] == {"all": 5}
    assert [event["data"]["inference"].get("shadow", {}).get("value") for event in processor.events()] == [
        0.5, 1.5, None, 2.5, None,
    ]  # fmt: skip
    assert re.search("The shadow fussy failed on [12] of a batch's windows, where the model's answers", processor.log())


def test_without_a_shadow_its_measure_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to configure, by `check` and before a replay."""
    file = recordings.configuration(tmp_path, RULES[0])
    recording = recordings.write(tmp_path / "rec.jsonl", 10)
    for command in (("check",), ("replay", str(recording))):
        done = mlade_here(capsys, *command, "-c", str(file))
        assert done.code == 2
        assert "filter.rules[0].measure: there is no second model to disagree with; configure one, as" in done.err


def test_a_shadow_that_does_not_fit_is_told_beside_everything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `check`, with the path of its own key."""
    written = configuration(tmp_path, {"name": "r", "measure": "probability", "label": "flying"}, compare="labels")
    written["model"]["shadow"]["output"]["labels"] = ["a", "b", "c", "d"]
    (tmp_path / "wrong.yaml").write_text(json.dumps({"id": "line-1", **written}))
    done = mlade_here(capsys, "check", "-c", str(tmp_path / "wrong.yaml"))
    assert done.code == 2
    assert "model.shadow.output.labels: found a, b, c, d, and the model has badminton, running" in done.err
    assert 'filter.rules[0].label: unknown label "flying"' in done.err


def test_suggest_finds_the_band_of_disagreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the scores of the windows that the shadow judged."""
    written = configuration(tmp_path, {"name": "differ", "measure": "disagreement"}, sample=0.5)
    written["sources"][0]["topics"] = ["wearable/+/imu"]
    (tmp_path / "p.yaml").write_text(json.dumps({"id": "line-1", **written}))
    recording = recordings.write(tmp_path / "rec.jsonl", 3000)
    done = mlade_here(capsys, "suggest", str(recording), "-c", str(tmp_path / "p.yaml"), "--target", "20")
    assert done.code == 0, done.err
    assert "# Asked for: 20 of the recording. Set: the band of rule differ." in done.out
    kept = re.search("Replayed, it keeps ([0-9]+) of", done.out)
    assert kept is not None
    assert 18 <= int(kept[1]) <= 22
    assert "min: 0." in done.out


def test_a_shadow_comes_from_a_registry_and_says_how_it_is_read(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own keys first, then its annotations, then the model's keys."""
    content = models.cnn(size=20, labels=CANDIDATE).SerializeToString()
    as_annotated = {"model.output.labels": json.dumps(["walking", "sitting", "running", "badminton"])}
    registry.put("shadow/motions", "next", [("application/vnd.onnx.model", "motions.onnx", content)], {
        PREFIX + key.removeprefix("model."): value for key, value in as_annotated.items()
    })  # fmt: skip
    written = configuration(tmp_path, RULES[0], sample=0.5)
    written["model"]["shadow"] = {"path": f"oci://{registry.host}/shadow/motions:next", "sample": 0.5}
    file = tmp_path / "p.yaml"
    for own, expected in (({}, "walking, sitting, running, badminton"), ({"labels": CANDIDATE}, ", ".join(CANDIDATE))):
        written["model"]["shadow"]["output"] = own or None
        file.write_text(json.dumps({"id": "line-1", "state_dir": str(tmp_path / "state"), **written}))
        done = mlade_here(capsys, "check", "-c", str(file))
        assert done.code == 0, done.err
        assert f"shadow labels     {expected}" in done.out
    written["model"]["shadow"]["path"] = f"oci://{registry.host}/shadow/motions:gone"
    file.write_text(json.dumps({"id": "line-1", "state_dir": str(tmp_path / "state"), **written}))
    assert "model.shadow.path: " in mlade_here(capsys, "check", "-c", str(file)).err
