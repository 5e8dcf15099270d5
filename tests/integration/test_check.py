"""`mlade check`: every problem with its path, and what the processor will do when there is none."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from processor.demo.data import FIELDS, MODEL_PATH
from tests import models
from tests.commands import Done, mlade, mlade_here

ROOT = Path(__file__).parents[2]
GONE = object()
BASE: dict[str, Any] = {
    "id": "line-1",
    "broker": {"url": "mqtt://127.0.0.1:1883"},
    "sources": [{"name": "imu", "topics": ["wearable/+/imu"], "fields": list(FIELDS), "time": "ts"}],
    "model": {"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
    "filter": {"rules": [{"name": "ambiguous", "measure": "confidence", "band": {"min": 0.4, "max": 0.6}}]},
    "bridges": [{"type": "files", "path": "accepted"}],
}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the working configuration with some paths set to something else, or removed."""
    configuration = copy.deepcopy(BASE)
    for path, value in changes.items():
        *steps, last = (int(step) if step.isdecimal() else step for step in re.findall(r"\w+", path))
        node: Any = configuration
        for step in steps:
            node = node[step] if isinstance(step, int) else node.setdefault(step, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return configuration


def write(directory: Path, configuration: object, **files: str) -> str:
    """Write a configuration and the files beside it, by their names with _ for the dot; return its path."""
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text)
    path = directory / "processor.yaml"
    path.write_text(configuration if isinstance(configuration, str) else json.dumps(configuration))
    return str(path)


def problems(done: Done) -> list[str]:
    """Return the lines of a refusal, having seen that it is one and nothing else."""
    assert (done.code, done.out) == (2, ""), done
    assert "Traceback" not in done.err
    return done.err.splitlines()


SOURCE = {"name": "other", "topics": ["other"], "fields": list(FIELDS)}
RULE = {"name": "r", "measure": "confidence"}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    # What is changed, and by its path what is said.
    "no id": ({"id": GONE}, {"id": "this key is required"}),
    "bad id": ({"id": "line 1"}, {"id": 'found "line 1", expected 1 to 64 of the letters'}),
    "number for an id": ({"id": 7}, {"id": "put it in quotes"}),
    "unknown key": ({"sauces": []}, {"sauces": 'unknown key; did you mean "sources"?'}),
    "unknown key inside": ({"broker.ulr": "x"}, {"broker.ulr": 'unknown key; did you mean "url"?'}),
    "bad URL scheme": ({"broker.url": "http://x"}, {"broker.url": 'found "http://x", expected a broker\'s address'}),
    "bad port": ({"broker.url": "mqtt://x:99999"}, {"broker.url": "expected a broker's address"}),
    "no such protocol": ({"broker.protocol": 4}, {"broker.protocol": "found 4, expected 5 or 3.1.1"}),
    "two passwords": (
        {"broker.password": "x", "broker.password_file": "y"},
        {"broker.password_file": "give password or password_file, not both"},
    ),
    "no password file": ({"broker.password_file": "nowhere"}, {"broker.password_file": "cannot be read"}),
    "TLS files without TLS": ({"broker.tls": {"ca": "x"}}, {"broker.tls.ca": "needs mqtts:// or wss://"}),
    "key without certificate": (
        {"broker.tls": {"key": "x"}, "broker.url": "mqtts://x"},
        {"broker.tls.key": "a private key needs its certificate"},
    ),
    "no CA file": (
        {"broker.tls": {"ca": "nowhere"}, "broker.url": "mqtts://x"},
        {"broker.tls.ca": "cannot be used: No such file"},
    ),
    "bad duration": ({"broker.session_expiry": "1 hour"}, {"broker.session_expiry": 'found "1 hour", expected a dur'}),
    "bad size": ({"broker.max_payload": "1MB"}, {"broker.max_payload": 'found "1MB", expected a size in bytes'}),
    "large size": ({"broker.max_payload": "1GiB"}, {"broker.max_payload": "found 1GiB, expected 1B to 256MiB"}),
    "long delay": ({"model.batch": {"max_delay": "1m"}}, {"model.batch.max_delay": "found 1m, expected 0s to 10s"}),
    "no sources": ({"sources": []}, {"sources": "1 or more entries"}),
    "a source's name twice": (
        {"sources": [BASE["sources"][0], {**SOURCE, "name": "imu"}]},
        {"sources[1].name": "'imu' is used twice"},
    ),
    "bad topic filter": ({"sources[0].topics": ["a/#/b"]}, {"sources[0].topics": "has a # that is not its whole last"}),
    "quality of service 2": ({"sources[0].qos": 2}, {"sources[0].qos": "expected 0 or 1"}),
    "shared windows": (
        {"sources[0].topics": ["$share/g/wearable/+/imu"]},
        {"sources[0].topics[0]": "$share needs model.window.size 1"},
    ),
    "another number of fields": (
        {"sources": [BASE["sources"][0], {**SOURCE, "fields": ["a", "b"]}]},
        {"sources[1].fields": "found 2, but sources[0] has 6"},
    ),
    "a field twice": ({"sources[0].fields": [*FIELDS[:5], "ax"]}, {"sources[0].fields": 'each field once; "ax"'}),
    "bad stream": ({"sources[0].stream": "{device}"}, {"sources[0].stream": 'found "{device}", expected {topic}'}),
    "a level the topic has not": (
        {"sources[0].stream": "{topic[3]}"},
        {"sources[0].stream": 'topics of "wearable/+/imu" have the levels {topic[0]} to {topic[2]}'},
    ),
    "no model": ({"model.path": "nowhere.onnx"}, {"model.path": "there is no model at"}),
    "no ONNX model": ({"model.path": "text.onnx"}, {"model.path": "is no ONNX model"}),
    "model elsewhere": ({"model.path": "ftp://x/y.onnx"}, {"model.path": "expected a file, https://"}),
    "too often": ({"model.refresh": "100ms"}, {"model.refresh": "found 100ms, expected 1s to 36500d"}),
    "other channels": (
        {"sources[0].fields": ["a", "b"]},
        {"sources[0].fields": "the sources give 2 channels (a, b) in windows of 20 readings: give 6 fields"},
    ),
    "another size": (
        {"model.window.size": 50},
        {"model.window.size": "[N, 6, 20] (batch, channels, time); the sources give 6 channels (ax, ay"},
    ),
    "other labels": (
        {"model.output": {"labels": ["a", "b"]}},
        {"model.output.labels": "the output of motions.onnx has"},
    ),
    "truth for a number": ({"model.window.step": True}, {"model.window.step": "found true, expected a whole number"}),
    "no filter": ({"filter": GONE}, {"filter": "this key is required"}),
    "no filter file": ({"filter": "nowhere.yaml"}, {"filter": "nowhere.yaml cannot be read: No such file"}),
    "filter that is no YAML": ({"filter": "text.onnx"}, {"filter": "text.onnx: line 1, column"}),
    "reversed band": (
        {"filter.rules[0].band": {"min": 0.9, "max": 0.1}},
        {"filter.rules[0].band": "min 0.9 is greater than max 0.1"},
    ),
    "unknown label": (
        {"filter.rules[0].where": {"labels": ["wolking"]}},
        {"filter.rules[0].where.labels[0]": 'unknown label "wolking"; did you mean "walking"?'},
    ),
    "unknown field": (
        {"filter.rules[0].where": {"fields": {"bx": {"min": 0}}}},
        {"filter.rules[0].where.fields.bx": 'unknown field "bx"'},
    ),
    "measure without": ({"filter.rules": [{**RULE, "measure": "value"}]}, {"filter.rules[0].measure": "has no value"}),
    "bridge of no type": ({"bridges": [{"path": "x"}]}, {"bridges[0]": "the key type is required"}),
    "bridge of unknown type": ({"bridges": [{"type": "kafka"}]}, {"bridges[0]": 'found "kafka", expected type to be'}),
    "a hub without identity": ({"bridges": [{"type": "iothub"}]}, {"bridges[0]": "expected exactly one of"}),
    "a hub's missing file": (
        {"bridges": [{"type": "iothub", "connection_string_file": "nowhere"}]},
        {"bridges[0].connection_string_file": "nowhere cannot be read: No such file"},
    ),
    "a bridge's name twice": (
        {"bridges": [{"type": "mqtt"}, {"type": "files", "path": "x", "name": "mqtt"}]},
        {"bridges[1].name": "'mqtt' is used twice"},
    ),
    "bad address": ({"http": {"listen": "9464"}}, {"http.listen": 'found "9464", expected host:port'}),
    "bad prefix": ({"topic_prefix": "a/+"}, {"topic_prefix": 'found "a/+", expected the first levels'}),
}


@pytest.mark.parametrize(("changes", "expected"), BROKEN.values(), ids=list(BROKEN))
def test_says_what_is_wrong_and_where(
    changes: dict[str, Any], expected: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and for each mistake one line with its path; nothing else."""
    config = write(tmp_path, changed(changes), text_onnx="no: model: at all")
    lines = problems(mlade_here(capsys, "check", "-c", config))
    assert [line.split(": ")[0] for line in lines] == list(expected)
    for line, said in zip(lines, expected.values(), strict=True):
        assert said in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id: [line-1\nsources: x\n", "processor.yaml: line 2, column"),
        ("id: &anchor line-1\n", "processor.yaml: line 1, column 5: the anchor"),
        ("- id: line-1\n", "processor.yaml: found a list, expected a mapping"),
        ("just text", 'processor.yaml: found "just text", expected a mapping'),
        ("\x01", "processor.yaml: line 1, column 1: the character U+0001 is not allowed"),
    ],
)
def test_says_where_a_file_is_no_configuration(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A syntax error has its line and column, and the file's name."""
    (line,) = problems(mlade_here(capsys, "check", "-c", write(tmp_path, text)))
    assert expected in line


def test_an_empty_file_lacks_what_every_configuration_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keys without a default are asked for, all of them."""
    lines = problems(mlade_here(capsys, "check", "-c", write(tmp_path, "")))
    assert lines == [f"{key}: this key is required" for key in ("id", "sources", "model", "filter")]


def test_no_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that does not exist is the user's to mend."""
    (line,) = problems(mlade_here(capsys, "check", "-c", str(tmp_path / "nowhere.yaml")))
    assert line.endswith("nowhere.yaml: cannot be read: No such file or directory")


def test_a_mistake_in_the_environment_names_its_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables are judged like the file, all at once, and only they are said to be at fault."""
    monkeypatch.setenv("MLADE_BROKER__RECEIVE_MAXIMUM", "many")
    monkeypatch.setenv("MLADE_SOURCES", '[{"name": "imu"')
    monkeypatch.setenv("MLADE_BROKR__URL", "mqtt://x")
    monkeypatch.setenv("MLADE_MODEL__PATH__X", "y")
    lines = problems(mlade_here(capsys, "check", "-c", write(tmp_path, changed({"id": "a b"}))))
    assert lines[0].startswith('MLADE_BROKR__URL: unknown key brokr; did you mean "broker"?')
    assert lines[1] == "MLADE_MODEL__PATH__X: model.path is no mapping here; set model.path as a whole instead"
    assert lines[2].startswith("id: ")
    assert "MLADE" not in lines[2]
    assert lines[3:] == [
        'broker.receive_maximum: found "many", expected a whole number (set by MLADE_BROKER__RECEIVE_MAXIMUM)',
        'sources: found "[{\\"name\\": \\"imu\\"", expected a list (set by MLADE_SOURCES)',
    ]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes in the configuration hide none in the filter's file, in the model, or between the two."""
    changes = {"id": GONE, "http": {"listen": "x"}, "model.window.size": 50, "filter": "f.yaml"}
    rules = "rules:\n  - {name: a, measure: margn}\n  - {name: b, band: {min: 1, max: 0}}\n"
    lines = problems(mlade_here(capsys, "check", "-c", write(tmp_path, changed(changes), f_yaml=rules)))
    assert [line.split(": ")[0] for line in lines] == [
        "http.listen",
        "id",
        "filter.rules[0].measure",
        "filter.rules[1].band",
        "filter.rules[1].band",
        "model.window.size",
    ]


def test_filter_and_model_are_compared_in_a_configuration_that_is_wrong_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the model knows is known although the rest is not right."""
    changes = {
        "sources[0].topics": ["a#"],
        "filter.rules[0].where": {"labels": ["flying"], "fields": {"q": {"min": 1}}},
    }
    lines = problems(mlade_here(capsys, "check", "-c", write(tmp_path, changed(changes))))
    assert [line.split(": ")[0] for line in lines] == [
        "sources[0].topics",
        "filter.rules[0].where.labels[0]",
        "filter.rules[0].where.fields.q",
    ]


def test_a_password_is_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in an error nor in the report."""
    broken = write(tmp_path, changed({"broker": {"url": "mqttt://bob:hunter2@x", "password": ["hunter2"]}}))
    done = mlade_here(capsys, "check", "-c", broken)
    assert [line.split(": ")[0] for line in problems(done)] == ["broker.url", "broker.password"]
    assert "hunter2" not in done.err
    right = mlade_here(capsys, "check", "-c", write(tmp_path, changed({"broker.url": "mqtt://bob:hunter2@x"})))
    assert right.code == 0
    assert "hunter2" not in right.out


def test_tells_what_the_processor_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Topics, model, windows, rules and bridges, each in a line; ok at the end."""
    changes = {
        "sources": [BASE["sources"][0], {**SOURCE, "topics": ["mlade/line-2/x"]}],
        "filter.rules[0].where": {"labels": ["walking"]},
        "filter.rules[0].sample": 0.5,
    }
    done = mlade_here(capsys, "check", "-c", write(tmp_path, changed(changes)))
    assert (done.code, done.err) == (0, "")
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in done.out.splitlines() if "  " in line)
    assert lines["source imu"].startswith("wearable/+/imu at QoS 1, json, stream {topic}, time from ts")
    assert "nothing comes from mlade/line-2/x" in done.out
    assert lines["windows"].startswith("20 readings of one stream, every 10 readings, whatever the gaps")
    assert lines["model input"] == (
        'ax, ay, az, gx, gy, gz in 20 readings become "input" float32 [N, 6, 20] as NCT (batch, channels, time)'
    )
    assert lines["labels"] == "badminton, running, standing, walking"
    assert lines["execution"].startswith("batched: ")
    assert lines["rule ambiguous"] == (
        "where {labels: [walking]}, measure confidence, band {min: 0.4, max: 0.6}, sample 0.5"
    )
    assert lines["samples to"] == f"files: {tmp_path / 'accepted'}"
    assert done.out.endswith("\nok\n")


def test_tells_who_we_are_at_a_hub_without_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The SDK is not needed for that."""
    text = "HostName=plant.azure-devices.net;DeviceId=line-1;ModuleId=mlade;SharedAccessKey=Z2VoZWlt"
    bridge = {"type": "iothub", "connection_string": text}
    done = mlade_here(capsys, "check", "-c", write(tmp_path, changed({"bridges": [bridge]})))
    assert "iothub: as module mlade of line-1 at plant.azure-devices.net" in done.out
    assert "Z2VoZWlt" not in done.out


def test_what_mlade_s_properties_apply_to_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else every twin would be rejected, one after the other."""
    text = "HostName=plant.azure-devices.net;DeviceId=line-1;SharedAccessKey=Z2VoZWlt"
    bridge = {"type": "iothub", "connection_string": text, "legacy": {"field": "temperature", "label": "odd"}}
    told = problems(mlade_here(capsys, "check", "-c", write(tmp_path, changed({"bridges": [bridge]}))))
    assert [line.partition(":")[0].strip() for line in told if "bridges" in line] == [
        "bridges[0].legacy.label",
        "bridges[0].legacy.field",
    ]


@pytest.mark.parametrize(
    ("filter_document", "note"),
    [
        ({"rules": []}, "it has no rules; nothing is accepted"),
        ({"enabled": False, "rules": [RULE]}, "it is not enabled; nothing is accepted"),
    ],
)
def test_notes_a_filter_that_accepts_nothing(
    filter_document: dict[str, Any], note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is allowed, and said."""
    done = mlade_here(capsys, "check", "-c", write(tmp_path, changed({"filter": filter_document})))
    assert done.code == 0
    assert note in done.out


def test_a_model_whose_rows_differ_in_company_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How it is run instead stands in the report."""
    path = models.write(models.company_differs(), tmp_path)
    changes = {"sources[0].fields": ["a"], "model": {"path": str(path)}, "filter.rules": [{"name": "audit"}]}
    done = mlade_here(capsys, "check", "-c", write(tmp_path, changed(changes)))
    assert done.code == 0, done.err
    assert "one by one" in done.out


@pytest.mark.parametrize("name", ["ambiguous", "peak-hours", "recommended"])
def test_the_example_filters_are_accepted(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the configuration beside them."""
    monkeypatch.setenv("MLADE_FILTER", f"examples/{name}.yaml")
    done = mlade_here(capsys, "check", "-c", str(ROOT / "config" / "processor.yaml"))
    assert (done.code, done.err) == (0, "")


def test_the_examples_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """What users copy from config/ works from a checkout as it is."""
    done = mlade_here(capsys, "check", "-c", str(ROOT / "config" / "processor.yaml"))
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", ["run", "check"])
def test_run_and_check_refuse_the_same(command: str, tmp_path: Path) -> None:
    """As processes: exit 2, the same lines, nothing started."""
    changes = {"filter.rules[0].where": {"labels": ["flying"]}, "model.window.size": 50}
    config = write(tmp_path, changed({**changes, "broker.url": "mqtts://x", "broker.tls": {"ca": "nowhere"}}))
    lines = problems(mlade(command, "-c", config))
    assert [line.split(": ")[0] for line in lines] == ["broker.tls.ca", "model.window.size"]
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("arguments", [["check"], ["check", "-c"], ["chekc"], ["filter", "set", "-c", "x"], []])
def test_usage_errors_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With a hint and without a traceback."""
    done = mlade_here(capsys, *arguments)
    assert done.code == 2
    assert "Usage: mlade" in done.err or "Error: " in done.err
    assert "Traceback" not in done.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution's."""
    assert re.fullmatch(r"mlade \d+\.\d+\.\d+\S*\n", mlade_here(capsys, "--version").out)
