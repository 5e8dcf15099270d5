"""Several models in one processor, over a real broker: live filters, `kill -9`, commands, images beside the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from processor.recording import Writer
from processor.types import NS, Message
from tests import models
from tests.commands import Done, mlade_here
from tests.images import encoded, noise
from tests.integration.test_run import START, source
from tests.mqtt_client import Client, MqttClientFactory
from tests.plant import SIZE, measured, publish, reading, whole, windows
from tests.running import ProcessorFactory, ProcessorProcess

EXAMPLE = Path(__file__).parents[2] / "config" / "several-models.yaml"
WAVE = [-3.0, 4.0, -1.0, 2.0, 0.0]


def several(tmp_path: Path, site: str) -> dict[str, Any]:
    """Return a configuration of windows of motions, images and numbers; all are kept, of the numbers the high ones."""
    models.write(models.cnn(size=SIZE), tmp_path, "motions")
    models.write(models.image(), tmp_path, "colours")
    models.write(models.identity(1), tmp_path, "numbers")
    everything = {"rules": [{"name": "all"}]}
    high = {"rules": [{"name": "high", "measure": "value", "band": {"min": 1}}]}
    image = {"height": 8, "width": 12}
    return {
        "models": {
            "motions": {
                "path": str(tmp_path / "motions.onnx"),
                "window": {"size": SIZE, "step": SIZE},
                "filter": everything,
            },
            "eyes": {
                "path": str(tmp_path / "colours.onnx"),
                "temperature": 40,
                "output": {"labels": ["red", "green", "blue"]},
                "filter": everything,
            },
            "numbers": {"path": str(tmp_path / "numbers.onnx"), "filter": high},
        },
        "sources": [
            source(f"{site}/imu") | {"model": "motions"},
            {"name": "eye", "model": "eyes", "topics": [f"{site}/eye"], "format": "image", "image": image},
            {"name": "weight", "model": "numbers", "topics": [f"{site}/+"], "format": "number"},
        ],
    }


def of(processor: ProcessorProcess, name: str) -> list[dict[str, Any]]:
    """Return the events of one source."""
    return [event for event in processor.events() if event["data"]["readings"]["source"] == name]


def weigh(client: Client, site: str) -> None:
    """Publish a few numbers, two of them high."""
    for number in WAVE:
        client.publish(f"{site}/weight", str(number))


def command(processor: ProcessorProcess, capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run a command for a processor."""
    return mlade_here(capsys, *arguments, "-c", str(processor.file))


def test_a_live_filter_and_a_kill_are_each_models_own(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One model's filter changes, and the others' windows go on; so after `kill -9`, with every filter as it was."""
    processor = make_processor(**several(tmp_path, "several"))
    processor.start()
    client = mqtt_client()
    publish(client, "several/imu", range(SIZE + 2))
    weigh(client, "several")
    client.publish("several/eye", encoded(noise(8, 12)))
    processor.wait_until(lambda: len(processor.events()) == 4, "samples of all")
    wanted = tmp_path / "low.yaml"
    wanted.write_text("rules: [{name: low, measure: value, band: {max: -1}}]")
    done = command(processor, capsys, "filter", "set", str(wanted), "--model", "numbers")
    assert (done.code, done.out) == (0, "applied, revision 2 from the topic: rules low\n")
    weigh(client, "several")
    processor.wait_until(lambda: len(processor.events()) == 6, "those of the new filter")
    publish(client, "several/imu", range(SIZE + 2, 2 * SIZE + 1))
    processor.wait_until(lambda: measured(processor, 'mlade_messages_total{source="imu"}') == 2 * SIZE + 1, "taken")
    processor.kill()
    publish(client, "several/imu", range(2 * SIZE + 1, 3 * SIZE))  # the broker keeps them
    processor.start()
    weigh(client, "several")
    processor.wait_until(lambda: len(processor.events()) == 10, "samples of all")
    assert sorted(windows(of(processor, "imu"))) == whole(range(3 * SIZE))
    kept = [
        (event["data"]["readings"]["values"][0][0], event["data"]["selection"]) for event in of(processor, "weight")
    ]
    assert [value for value, _ in kept] == [4, 2, -3, -1, -3, -1]
    assert [(one["rule"], one["filter_revision"]) for _, one in kept] == [("high", 1)] * 2 + [("low", 2)] * 4
    assert len({event["id"] for event in processor.events()}) == 10
    names = {(event["data"]["readings"]["source"], event["data"]["model"]["slot"]) for event in processor.events()}
    assert names == {("imu", "motions"), ("eye", "eyes"), ("weight", "numbers")}
    for name, revision in (("motions", 1), ("eyes", 1), ("numbers", 2)):
        assert measured(processor, f'mlade_filter_revision{{model="{name}"}}') == revision
    assert processor.stop() == 0
    assert "no longer configured" not in processor.log()


def test_the_commands_know_them(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`check` and `status` show all of them, `filter` wants to know which."""
    processor = make_processor(**several(tmp_path, "commands"))
    done = command(processor, capsys, "check")
    assert done.code == 0, done.err
    lines = [line.split("  ")[0] for line in done.out.splitlines()]
    assert {f"model of {name}" for name in ("motions", "eyes", "numbers")} < set(lines)
    assert {"rule high of numbers", "windows of motions", "source weight"} < set(lines)
    processor.start()
    client = mqtt_client()
    publish(client, "commands/imu", range(SIZE))
    weigh(client, "commands")
    processor.wait_until(lambda: measured(processor, 'mlade_windows_total{model="numbers"}') == len(WAVE), "judged")

    def counted() -> dict[str, Any]:
        done = command(processor, capsys, "status", "--json")
        assert done.code == 0, done.err
        body: dict[str, Any] = json.loads(done.out)
        return body

    processor.wait_until(lambda: counted()["metrics"]["counters"]["windows"] == len(WAVE) + 1, "told")
    told = counted()
    assert told["filter"] is None
    assert {name: state["revision"] for name, state in told["filters"].items()} == {
        "motions": 1,
        "eyes": 1,
        "numbers": 1,
    }
    figures = told["metrics"]["models"]
    assert [figures[name]["counters"]["windows"] for name in ("motions", "eyes", "numbers")] == [1, 0, len(WAVE)]
    assert "filter_revision" not in told["metrics"]
    shown = command(processor, capsys, "status").out
    assert "filter of numbers" in shown
    assert "accepted by high of numbers" in shown
    which = command(processor, capsys, "filter", "get")
    assert which.code == 2
    assert "there are several models; choose one of motions, eyes, numbers" in " ".join(which.err.split())
    nosuch = command(processor, capsys, "filter", "get", "--model", "nosuch")
    assert nosuch.code == 2
    assert "no model is called 'nosuch'" in " ".join(nosuch.err.split())
    got = command(processor, capsys, "filter", "get", "--model", "numbers")
    assert yaml.safe_load(got.out)["rules"][0]["name"] == "high"


def test_a_wrong_file_is_told_with_its_keys(
    make_processor: ProcessorFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each model, all at once: where it does not fit its sources, and where its filter does not fit it."""
    wrong = several(tmp_path, "wrong")
    wrong["models"]["motions"]["window"]["size"] = SIZE + 1
    wrong["models"]["numbers"]["filter"] = {"rules": [{"name": "a", "measure": "confidence"}]}
    wrong["models"]["eyes"]["filter"] = {"rules": [{"name": "a", "nosuch": 1}]}
    processor = make_processor(**wrong)
    done = command(processor, capsys, "check")
    assert done.code == 2
    paths = [line.partition(": ")[0] for line in done.err.splitlines()]
    assert "models.motions.window.size" in paths
    assert "models.numbers.filter.rules[0].measure" in paths
    assert "models.eyes.filter.rules[0].nosuch" in paths
    assert "set models.motions.window.size to 5" in done.err
    processor.launch()
    assert processor.wait() == 2
    assert "models.numbers.filter.rules[0].measure" in processor.log()


def test_models_come_and_go(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path) -> None:
    """What was kept of one that left is dropped, and said; the others' windows go on."""
    whole_file = several(tmp_path, "leaving")
    processor = make_processor(**whole_file)
    processor.start()
    client = mqtt_client()
    publish(client, "leaving/imu", range(3))
    client.publish(f"{processor.root}/models/numbers/filter", "rules: []", retain=True)
    processor.wait_until(lambda: measured(processor, 'mlade_filter_revision{model="numbers"}') == 2, "applied")
    processor.wait_until(lambda: measured(processor, "mlade_readings_total") == 3, "taken")
    assert processor.stop() == 0
    rest = {name: one for name, one in whole_file["models"].items() if name != "numbers"}
    processor.configure(models=rest, sources=whole_file["sources"][:2])
    processor.start()
    assert "The model 'numbers' is no longer configured" in processor.log()
    publish(client, "leaving/imu", range(3, SIZE))
    processor.wait_until(lambda: len(processor.events()) == 1, "a window over both")
    assert windows(processor.events()) == whole(range(SIZE))
    assert processor.stop() == 0
    client.publish(f"{processor.root}/models/numbers/filter", "", retain=True)


def test_a_replay_is_of_all_or_of_one(
    make_processor: ProcessorFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each message is one model's; their sums are those of the recording. `suggest` wants to know which."""
    recording = tmp_path / "rec.jsonl"
    writer = Writer(recording)
    messages = [Message("replay/imu", reading(number).encode(), arrival=(START + number) * NS) for number in range(12)]
    numbers = [Message("replay/weight", str(value).encode(), arrival=(START + 20) * NS) for value in WAVE * 4]
    writer.write([*messages, *numbers, Message("elsewhere", b"", arrival=(START + 21) * NS)])
    writer.close()
    processor = make_processor(**several(tmp_path, "replay"))
    out = tmp_path / "events.jsonl"
    done = command(processor, capsys, "replay", str(recording), "--json", "--out", str(out))
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert (told["messages"], told["readings"], told["windows"], told["accepted"]) == (33, 32, 22, 10)
    assert told["by_rule"] == {"all": 2, "high": 8}
    assert told["models"]["numbers"]["by_reason"]["band"] == 12
    assert [told["models"][name]["messages"] for name in ("motions", "eyes", "numbers")] == [13, 0, 20]
    assert len(out.read_text().splitlines()) == 10
    assert "Model numbers" in done.err
    one = command(processor, capsys, "replay", str(recording), "--json", "--model", "numbers")
    alone, before = json.loads(one.out.splitlines()[-1]), told["models"]["numbers"]
    assert {**alone, "seconds": 0} == {**before, "seconds": 0}
    wanted = tmp_path / "f.yaml"
    wanted.write_text("rules: []")
    for arguments in (
        ["replay", str(recording), "--filter", str(wanted)],
        ["suggest", str(recording), "--target", "4"],
    ):
        refused = command(processor, capsys, *arguments)
        assert refused.code == 2
        assert "there are several models" in refused.err
    found = command(processor, capsys, "suggest", str(recording), "--target", "4", "--model", "numbers")
    assert found.code == 0, found.err
    assert "keeps 4 of 20 windows" in found.out


def test_the_example_is_right(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path) -> None:
    """config/several-models.yaml, with models where it says they are."""
    example = yaml.safe_load(EXAMPLE.read_text())
    models.write(models.cnn(), tmp_path, "motions")
    models.write(models.identity(1, output="score"), tmp_path, "bearing")
    filter_ = {"rules": [{"name": "all"}]}
    for name, keys in example["models"].items():
        keys["path"] = str(tmp_path / f"{name}.onnx")
    example["models"]["motions"]["filter"] = filter_
    example["models"]["bearing"]["output"] = {"kind": "score"}
    topics = [text for one in example["sources"] for text in one["topics"]]
    processor = make_processor(models=example["models"], sources=example["sources"])
    processor.start()
    client = mqtt_client()
    client.publish(topics[1].replace("+", "7"), "0.95")
    client.publish(topics[1].replace("+", "7"), "0.2")
    processor.wait_until(lambda: len(processor.events()) >= 1, "the odd one")
    assert processor.events()[0]["data"]["selection"]["rule"] == "odd"
    assert processor.stop() == 0


def test_a_live_model_is_its_slots_alone(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another model judges for one of them; the others' windows go on. `reload_model` is answered for all together."""
    configured = several(tmp_path, "exchanged")
    processor = make_processor(**configured)
    twice = models.graph("twice (float[N, 1] x) => (float[N, 1] y) { y = Add (x, x) }")
    models.write(twice, processor.directory, "twice")
    processor.start()
    client = mqtt_client()
    publish(client, "exchanged/imu", range(SIZE - 1))
    weigh(client, "exchanged")
    processor.wait_until(lambda: len(processor.events()) == 2, "samples of the first model")
    done = command(processor, capsys, "model", "set", "twice.onnx", "--model", "numbers")
    assert done.code == 0, done.err
    assert done.out.startswith("applied, revision 2 from the topic: twice")
    weigh(client, "exchanged")
    publish(client, "exchanged/imu", [SIZE - 1])
    processor.wait_until(lambda: len(processor.events()) == 5, "samples of both")
    assert windows(of(processor, "imu")) == whole(range(SIZE))
    judged = [event["data"] for event in of(processor, "weight")]
    assert [(one["inference"]["value"], one["model"]["name"]) for one in judged] == [
        (4, "numbers"), (2, "numbers"), (8, "twice"), (4, "twice"),
    ]  # fmt: skip
    assert measured(processor, 'mlade_model_revision{model="numbers"}') == 2
    assert measured(processor, 'mlade_model_revision{model="motions"}') == 1
    client.subscribe(f"{processor.root}/command/response")
    client.publish(f"{processor.root}/command", json.dumps({"command": "reload_model", "id": 1}))
    answer = json.loads(client.wait_for(f"{processor.root}/command/response").payload)
    assert answer["status"] == "ok"
    assert {name: (one["revision"], one["changed"]) for name, one in answer["models"].items()} == {
        "motions": (1, False), "eyes": (1, False), "numbers": (2, False),
    }  # fmt: skip
    processor.kill()
    processor.start()
    shown = command(processor, capsys, "status").out
    assert "model of numbers" in shown
    got = command(processor, capsys, "model", "get", "--model", "numbers")
    assert "path: twice.onnx" in got.out
    refused = command(processor, capsys, "model", "get")
    assert refused.code == 2
    done = command(processor, capsys, "model", "set", "--clear", "--model", "numbers")
    assert done.code == 0, done.err
    weigh(client, "exchanged")
    processor.wait_until(lambda: len(processor.events()) == 7, "samples of the first model again")
    names = [event["data"]["model"]["name"] for event in of(processor, "weight")]
    assert (names.count("numbers"), names.count("twice")) == (4, 2)
