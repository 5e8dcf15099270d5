"""`mlade discover` on a real broker: five families mixed, a configuration that runs unchanged, and silence."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import numpy as np
import pytest

from processor import settings
from tests import models
from tests.accounts import password_file, refusing_broker
from tests.commands import command_line, environment, mlade_here
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
LABELS = ("good", "worn")


def messages(number: int) -> Iterator[tuple[str, bytes]]:
    """Yield what a plant sends at a time: five families of topics, and what belongs to none."""
    now = time.time()
    moment = datetime.fromtimestamp(now, UTC).isoformat()
    wave = [round(math.sin(number / 7 + channel), 4) for channel in range(4)]
    for machine in (7, 8, 12):
        body = {"ts": round(now * 1000), "seq": number, "press": {"force": wave[0], "stroke": wave[1]}, "unit": "kN"}
        yield f"plant/{machine}/press", json.dumps(body).encode()
    for line in ("a", "b"):
        yield f"lines/{line}/flow", f"{moment};{wave[0]};{wave[1]};{wave[2]}\r\n".encode()
        yield f"lines/{line}/temp", f"{20 + wave[3]:.2f}".encode()
    yield "env/hall", msgpack.packb({"time": now, "temp": wave[0], "hum": wave[1], "co2": wave[2], "dust": wave[3]})
    value = {"ns=2;s=Speed": {"Value": wave[0], "SourceTimestamp": moment}, "ns=2;s=Mode": {"Value": "auto"}}
    message = {"DataSetWriterId": 1, "Payload": value}
    yield "opcua/m1", json.dumps({"MessageType": "ua-data", "Messages": [message]}).encode()
    yield "accelerometer", np.array([wave], "<f4").tobytes()
    yield "mlade/other/metrics", b"{}"
    yield "notes", b"hello, operator"


@contextmanager
def running(client: Client) -> Iterator[None]:
    """Run the plant meanwhile."""
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.is_set():
            for topic, payload in messages(number):
                client.publish(topic, payload, qos=0)
            number += 1
            stop.wait(0.01)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def plant(mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory) -> Iterator[Mosquitto]:
    """Run a broker with a plant on it."""
    broker = mosquitto_factory()
    with running(mqtt_client(broker=broker)):
        yield broker


def test_what_it_writes_runs_unchanged(
    plant: Mosquitto, mqtt_client: MqttClientFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of five families mixed, the one that fits the model feeds it, and samples come out."""
    model = models.write(models.cnn(channels=2, size=10, labels=LABELS), tmp_path)
    file = tmp_path / "plant.yaml"
    done = mlade_here(
        capsys, "discover", "--broker", plant.url, "--seconds", "2.5", "--model", str(model), "-o", str(file)
    )
    assert done.code == 0, done.err
    text = file.read_text()
    (source,) = settings.load(file).sources
    assert (source.topics, source.fields) == (["plant/+/press"], ["/press/force", "/press/stroke"])
    assert (source.time, source.time_unit) == ("ts", "ms")
    assert "path: model.onnx" in text
    assert "gives probabilities of good, worn" in text
    for filters, format_ in {
        "lines/+/flow": "csv",
        "lines/+/temp": "number",
        "env/hall": "msgpack",
        "opcua/m1": "opcua",
        "accelerometer": "binary",
    }.items():
        assert f"  #   topics: [{filters}]\n  #   format: {format_}\n" in text
        assert filters in done.out
    assert "mlade/other" not in text + done.out
    assert mlade_here(capsys, "check", "-c", str(file)).code == 0
    listener = mqtt_client(broker=plant)
    listener.subscribe("mlade/line-1/accepted/#")
    process = subprocess.Popen(
        command_line("run", "-c", str(file)),
        env=environment(MLADE_HTTP__LISTEN="127.0.0.1:0"),
        stderr=subprocess.PIPE,
    )
    try:
        event = json.loads(listener.wait_for("mlade/line-1/accepted/+", timeout=PATIENCE).payload)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()
    assert event["data"]["readings"]["fields"] == ["/press/force", "/press/stroke"]
    assert len(event["data"]["readings"]["values"]) == 10
    assert event["subject"].startswith("plant/")


def test_the_page_shows_what_it_does(
    plant: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line of docs/discover.md, but for numbers; the README's lines are among them."""
    models.write(models.cnn(channels=2, size=50, labels=LABELS), tmp_path, "press")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "discover.md").read_text()
    printed, written = re.findall(r"^```(?:yaml)?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command, shown = printed.removeprefix("$ mlade ").split("\n", 1)
    options = command.replace("mqtt://broker.plant.example", plant.url).split()
    done = mlade_here(capsys, *options, "--seconds", "2.5")
    assert masked(shown) <= masked(done.out)
    assert masked(written) <= masked(Path("plant.yaml").read_text())
    readme = (ROOT / "README.md").read_text()
    _, _, excerpt = readme.partition(f"$ mlade {command}\n")
    assert masked(excerpt.partition("   …\n")[0]) <= masked(shown)


def masked(text: str) -> set[str]:
    """Return a text's lines without numbers, further spaces, and what does not fit in."""
    lines = {re.sub(r"hex .*|-?[0-9][0-9.,:T+-]*", "N", " ".join(line.split())) for line in text.splitlines()}
    return {line[:50] if line.startswith("{") else line for line in lines}


def test_without_a_model_only_that_is_missing(
    plant: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration goes to stdout, and everything for people to stderr."""
    done = mlade_here(capsys, "discover", "--broker", plant.url, "--seconds", "1")
    monkeypatch.chdir(tmp_path)
    Path("plant.yaml").write_text(done.out)
    checked = mlade_here(capsys, "check", "-c", "plant.yaml")
    assert checked.code == 2
    assert checked.err == f"model.path: there is no model at {tmp_path}/model.onnx: give the path of an ONNX file\n"
    assert "mlade check -c plant.yaml" in done.err
    assert "the path of your model among them" in done.err


def test_on_a_terminal_the_table_grows_until_ctrl_c(plant: Mosquitto, tmp_path: Path) -> None:
    """What was heard until then is concluded and written."""
    file = tmp_path / "plant.yaml"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command_line("discover", "--broker", plant.url, "--seconds", "600", "-o", str(file)),
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", COLUMNS="120"),
    )
    os.close(theirs)
    shown = b""
    try:
        while b"plant/+/press (3)" not in shown:
            assert select.select([ours], [], [], PATIENCE)[0], shown.decode()
            shown += os.read(ours, 65_536)
        assert not file.exists()
        process.send_signal(signal.SIGINT)
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                shown += os.read(ours, 65_536)
            except OSError:  # the process has ended
                break
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "Active: press." in shown.decode()
    assert settings.load(file).sources[0].topics == ["plant/+/press"]


def test_a_model_that_nothing_fits_is_told(
    plant: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is missing; what `mlade check` says then is the same."""
    model = models.write(models.cnn(channels=9, size=30), tmp_path)
    file = tmp_path / "plant.yaml"
    done = mlade_here(
        capsys, "discover", "--broker", plant.url, "--seconds", "1", "--model", str(model), "-o", str(file)
    )
    assert done.code == 0
    told = "Nothing that was heard fits the model model.onnx, which wants 9 channels in windows of 30 readings"
    assert told in done.out
    assert "press has 2 fields (/press/force, /press/stroke): 7 missing" in done.out
    checked = mlade_here(capsys, "check", "-c", str(file))
    assert checked.code == 2
    assert "sources[0].fields: the model model.onnx wants" in checked.err


def test_silence_is_told(
    mosquitto_factory: MosquittoFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, what to do, and no file."""
    file = tmp_path / "plant.yaml"
    broker = mosquitto_factory()
    done = mlade_here(capsys, "discover", "--broker", broker.url, "--seconds", "0.2", "-o", str(file))
    assert done.code == 1
    assert "Nothing came on # in 0 s." in done.out
    assert not file.exists()


def test_without_a_broker_it_says_so(mosquitto_factory: MosquittoFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a sentence; the same where the broker's access list hides everything."""
    broker = mosquitto_factory()
    broker.stop()
    done = mlade_here(capsys, "discover", "--broker", broker.url)
    assert done.code == 2
    assert "No connection to the broker" in done.err
    hiding = refusing_broker(mosquitto_factory, account=("listener", "secret"), topic="#")
    url = hiding.url.replace("//", "//listener:secret@")
    done = mlade_here(capsys, "discover", "--broker", url)
    assert done.code == 2
    assert "does not let us subscribe to #" in done.err


def test_what_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is anything listened to before every option is right."""
    file = tmp_path / "plant.yaml"
    file.write_text("mine")
    done = mlade_here(capsys, "discover", "--broker", "http://x", "--topic", "a/#/b", "-o", str(file))
    assert done.code == 2
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["--broker", "--topic", "--output"]
    assert "exists already" in done.err
    assert file.read_text() == "mine"


def test_a_password_is_used_and_not_written(
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of a URL the user is written; of a password's file its path, so that the configuration runs as it is."""
    users = {"users": password_file(listener="secret")}
    broker = mosquitto_factory("allow_anonymous false\npassword_file users\n", files=users)
    sensor = mqtt_client(broker=broker, account=("listener", "secret"))
    sensor.publish("plant/7/press", b'{"force": 3.1}', retain=True)
    secret, file = tmp_path / "password", tmp_path / "plant.yaml"
    secret.write_text("secret\n")
    url = broker.url.replace("//", "//listener:secret@")
    done = mlade_here(capsys, "discover", "--broker", url, "--seconds", "0.3")
    assert done.code == 0
    assert "secret" not in done.out + done.err
    assert f"broker:\n  url: {broker.url}\n  username: listener\n" in done.out
    assert "MLADE_BROKER__PASSWORD" in done.err
    command = ["discover", "--broker", broker.url, "--seconds", "0.3", "-o", str(file)]
    user = ["--broker-username", "listener", "--broker-password-file", str(secret)]
    assert mlade_here(capsys, *command, *user).code == 0
    assert settings.load(file).password == "secret"  # noqa: S105 - a test's
