"""The commands in docs/ run, and print what the page shows."""

from __future__ import annotations

import json
import re
import shlex
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from processor.demo.data import MODEL_PATH
from tests import models, recordings
from tests.commands import Done, mlade_here
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.plant import measured
from tests.registry import Registry
from tests.running import ProcessorFactory

DOCS = Path(__file__).parents[2] / "docs"
STEPS = re.compile(
    r"^ +(mlade (?:check|run|status|filter set) .*?)(?: +#.*)?$|`(mlade (?:check|run) .*?)`", re.MULTILINE
)
"""Commands on a page that tells how to begin, in a block or in a sentence."""


class Command(NamedTuple):
    """A command as a page shows it."""

    line: str
    output: list[str]


def blocks(page: str, language: str) -> list[str]:
    """Return a page's fenced blocks."""
    found = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", (DOCS / page).read_text(), re.MULTILINE)
    return [text for named, text in found if named == language]


def commands(page: str) -> list[Command]:
    """Return the commands of a page, each with the lines that follow it."""
    found: list[Command] = []
    for line in "".join(blocks(page, "")).splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), []))
        else:
            found[-1].output.append(line)
    return found


def run(capsys: pytest.CaptureFixture[str], line: str) -> Done:
    """Run a command with what it writes into a file, as a shell does."""
    words, _, target = line.partition(" > ")
    program, *arguments = shlex.split(words)
    if program == "cat":
        return Done(0, "".join(Path(name).read_text() for name in arguments), "")
    assert program == "mlade"
    done = mlade_here(capsys, *arguments)
    if target:
        Path(target).write_text(done.out)
        return done._replace(out="")
    return done


def test_choosing_a_filter_goes_as_the_page_says(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """From recording to setting, in one directory.

    What is recorded here for a second takes the place of the page's ten minutes for that one command; for
    those after it, ten minutes are made.
    """
    page = "choose-a-filter.md"
    (filter_,) = blocks(page, "yaml")
    base = json.loads(recordings.configuration(tmp_path).read_text())
    broker = mosquitto_factory()
    parts = {key: base[key] for key in ("id", "sources", "model")}
    processor = make_processor(on=broker, filter="filter.yaml", **parts)
    (processor.directory / "filter.yaml").write_text(filter_)
    monkeypatch.chdir(processor.directory)
    processor.start()
    client = mqtt_client(broker=broker)
    ran = []
    for line, output in commands(page):
        expected = [text.rstrip() for text in output]
        if " record " in line:
            recorded = threading.Event()

            def publish(recorded: threading.Event = recorded) -> None:
                for message in recordings.messages(10**6):
                    if recorded.is_set():
                        return
                    client.publish(message.topic, message.payload)

            publisher = threading.Thread(target=publish)
            publisher.start()
            done = run(capsys, line.replace("--seconds 600", "--seconds 0.5"))
            recorded.set()
            publisher.join()
            shown = [_masked(text) for text in (done.err + done.out).splitlines()]
            expected = [_masked(text) for text in expected]
            (processor.directory / "monday.jsonl.gz").unlink()
            recordings.write(processor.directory / "monday.jsonl.gz", 60_000, watches=10)
        else:
            done = run(capsys, line)
            shown = [text.rstrip() for text in (done.err + done.out).splitlines()]
        assert done.code == 0, done.err
        assert shown == expected, line
        ran.append(line.split()[1])
    assert ran == ["record", "replay", "suggest", "fewer.yaml", "suggest", "replay", "filter"]
    share = yaml.safe_load(Path("share.yaml").read_text())["rules"][0]["keep"]
    assert f"{{share: {share['share']}, of: {share['of']}}}" in (DOCS / page).read_text()
    assert Path("monday.html").stat().st_size > 1_000_000


@pytest.mark.parametrize("page", ["../README.md", "start.md"])
def test_a_plant_is_plugged_in_as_the_page_says(
    page: str,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its configuration and filter, with another broker and a model of the test's, and the commands in their order."""
    text = (DOCS / page).read_text().partition("Plug it into your plant")[2]
    configuration, filter_ = [
        yaml.safe_load(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)[:2]
    ]
    del configuration["broker"]
    processor = make_processor(**configuration | {"id": f"plant-{len(page)}"})
    monkeypatch.chdir(processor.directory)
    window = configuration["model"]["window"]
    fields = configuration["sources"][0]["fields"]
    models.write(models.cnn(channels=len(fields), size=window["size"], labels=["ok", "worn"]), Path(), "press")
    Path("filter.yaml").write_text(json.dumps(filter_))
    Path("tighter.yaml").write_text(json.dumps(filter_ | {"rules": filter_["rules"][:1]}))
    ran = []
    for line in STEPS.findall(text):
        command = "".join(line)
        if command.split()[1] == "run":
            processor.start()
            client = mqtt_client()
            for number in range(window["size"]):
                reading = {"ts": 1_790_000_000 + number / 10, **dict.fromkeys(fields, 0.5)}
                client.publish("plant/7/press", json.dumps(reading))
            processor.wait_until(lambda: measured(processor, "mlade_windows_total") == 1, "a window")
        else:
            done = run(capsys, command)
            assert (done.code, done.err) == (0, ""), command
        ran.append(command.split()[1])
    assert ran == ["check", "run", *(["status"] if "README" in page else []), "filter"]


def test_the_hub_is_connected_as_the_page_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As far as there is no hub: its bridge is taken, and `check` says who we are in the page's words."""
    text = (DOCS / "iothub.md").read_text().partition("## Who we are")[0]
    found = re.findall(r"^    ```(yaml)?\n((?:(?!    ```).*\n)*)    ```$", text, re.MULTILINE)
    (bridge,) = [yaml.safe_load(block) for language, block in found if language]
    (said,) = [block.strip() for language, block in found if block.strip().startswith("samples to")]
    hub, device = re.findall(r"--hub-name (\S+) --device-id (\S+)", text)[0]
    key = "SharedAccessKey=c2VjcmV0"
    (tmp_path / "iothub.txt").write_text(f"HostName={hub}.azure-devices.net;DeviceId={device};{key}\n")
    base = json.loads(recordings.configuration(tmp_path).read_text())
    (tmp_path / "hub.yaml").write_text(json.dumps(base | bridge))
    done = mlade_here(capsys, "check", "-c", str(tmp_path / "hub.yaml"))
    assert (done.code, done.err) == (0, "")
    assert said in done.out.splitlines()


def _masked(text: str) -> str:
    return re.sub(r"[0-9][0-9,.]*( [KM]iB| bytes|B)?", "N", text)


def test_models_go_into_a_registry_and_are_shown_as_the_page_says(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the demo's model; what is measured is another figure each time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    Path("motions.onnx").write_bytes(MODEL_PATH.read_bytes())
    ran = []
    for line, output in commands("models.md"):
        done = run(capsys, line.replace("plants.azurecr.io", registry.host))
        assert (done.code, done.err) == (0, "")
        shown = re.sub("sha256:[0-9a-f]{64}", "sha256:DIGEST", done.out.replace(registry.host, "plants.azurecr.io"))
        lines = [_masked(text) if text.startswith("µs") else text for text in shown.splitlines()]
        assert lines == [_masked(text) if text.startswith("µs") else text for text in output if text], line
        ran.append(line.split()[2])
    assert ran == ["push", "show"]
