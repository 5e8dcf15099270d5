"""`mlade filter get`, `set` and `watch` against a running processor and a real broker."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from processor.demo.data import FIELDS, MODEL_PATH
from tests.commands import Done, command_line, environment, mlade, mlade_here
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

PARTS: dict[str, Any] = {
    "sources": [{"name": "imu", "topics": ["unheard/+"], "fields": list(FIELDS)}],
    "model": {"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
    "filter": {"rules": [{"name": "from-file", "measure": "confidence", "band": {"min": 0.4}}]},
}
TIGHTER = 'rules: [{name: "1e3", measure: margin, band: {max: 0.1}, tags: {shift: "22:00", note: "off, ä"}}]\n'
WRONG = "rules: [{name: a, measure: confidence, band: {min: 0.9, max: 0.1}}, {name: a, measure: entorpy}]\n"


@pytest.fixture(scope="module")
def running(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessorProcess]:
    """One connected processor for the tests that leave it running."""
    with ExitStack() as cleanup:
        processor = ProcessorFactory(mosquitto, tmp_path_factory.mktemp("running"), cleanup)(**PARTS)
        processor.start()
        yield processor


class Commands:
    """The filter commands for one processor, in this process."""

    def __init__(self, processor: ProcessorProcess, capsys: pytest.CaptureFixture[str]) -> None:
        self._processor = processor
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Done:
        """Run `mlade filter …` for the processor."""
        return mlade_here(self._capsys, "filter", *arguments, "-c", str(self._processor.file))

    def set(self, text: str) -> Done:
        """Publish a document."""
        file = self._processor.directory / "wanted.yaml"
        file.write_text(text)
        return self("set", str(file))

    def revision(self) -> int:
        """Return which revision is in force."""
        found = re.match("# revision ([0-9]+),", self("get").out)
        assert found
        return int(found[1])


@pytest.fixture
def filter_command(running: ProcessorProcess, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The filter commands for `running`, where the file's filter is in force."""
    commands = Commands(running, capsys)
    assert commands("set", "--clear").code == 0
    return commands


def applied(revision: int, source: str = "topic", rule: str = "1e3") -> Done:
    """Return what `set` prints of an applied filter of one rule."""
    return Done(0, f"applied, revision {revision} from the {source}: rules {rule}\n", "")


def test_set_prints_the_answer_and_get_what_is_in_force(filter_command: Commands) -> None:
    """An applied filter has the next revision, and comes back as a document that can be set again."""
    before = filter_command.revision()
    assert filter_command("get").out.startswith(f"# revision {before}, applied, from the file, since 2")
    assert filter_command.set(TIGHTER) == applied(before + 1)
    shown = filter_command("get")
    assert shown.code == 0
    assert shown.out.startswith(f"# revision {before + 1}, applied, from the topic, since 2")
    assert filter_command.set(shown.out) == applied(before + 2)

    def document(out: str) -> list[str]:
        return [line for line in out.splitlines() if not line.startswith("#")]

    assert document(filter_command("get").out) == document(shown.out)


def test_history_tells_who_has_set_a_filter(
    filter_command: Commands, running: ProcessorProcess, mqtt_client: MqttClientFactory
) -> None:
    """As `user@host`; nobody has to give a name."""
    filter_command.set(TIGHTER)
    client = mqtt_client()
    client.subscribe(f"{running.root}/filter/history")
    newest = json.loads(client.wait_for(f"{running.root}/filter/history").payload)["revisions"][0]
    assert newest["filter"]["rules"][0]["name"] == "1e3"
    assert newest["user"] == f"{getpass.getuser()}@{socket.gethostname()}"


def test_set_prints_every_error_of_a_rejected_filter(filter_command: Commands) -> None:
    """Exit 1, each error with its path; what was in force stays so, and `get` tells both."""
    before = filter_command.revision()
    done = filter_command.set(WRONG)
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0] == f"rejected; revision {before} stays in force"
    assert lines[1] == "rules[0].band: min 0.9 is greater than max 0.1"
    assert {line.split(": ")[0] for line in lines[2:]} == {"rules[1].name", "rules[1].measure"}
    shown = filter_command("get").out
    assert "# The last document, from the topic, was rejected:\n" in shown
    assert all(f"#   {line}\n" in shown for line in lines[1:])
    assert "name: from-file" in shown


def test_set_leaves_it_to_the_processor_what_a_filter_is(filter_command: Commands) -> None:
    """Also what is no YAML is sent, and answered."""
    done = filter_command.set("rules: [")
    assert (done.code, done.out.splitlines()[1].split(",")[0]) == (1, "line 2")


@pytest.mark.parametrize("way", ["--clear", "empty file"])
def test_clear_returns_to_the_filter_of_the_file(filter_command: Commands, way: str) -> None:
    """An empty document is a change like any other; once more, it changes nothing and is answered all the same."""
    before = filter_command.revision()
    filter_command.set(TIGHTER)
    for _ in range(2):
        done = filter_command("set", "--clear") if way == "--clear" else filter_command.set("")
        assert done == applied(before + 2, "file", "from-file")


def test_clear_after_a_rejection_is_answered(filter_command: Commands) -> None:
    """The file's filter has been in force all the time; the rejection is forgotten."""
    before = filter_command.revision()
    filter_command.set(WRONG)
    assert filter_command("set", "--clear") == applied(before, "file", "from-file")
    assert "rejected" not in filter_command("get").out


def test_the_same_document_twice_is_answered_twice(filter_command: Commands) -> None:
    """It changes nothing, and the answer says so by its revision."""
    assert filter_command.set(TIGHTER) == filter_command.set(TIGHTER)
    assert filter_command.set(WRONG) == filter_command.set(WRONG)


def test_set_reads_stdin(filter_command: Commands, running: ProcessorProcess) -> None:
    """As a process of its own, with - for the file."""
    before = filter_command.revision()
    done = mlade("filter", "set", "-", "-c", str(running.file), stdin=TIGHTER.encode())
    assert done == applied(before + 1)


def test_a_document_over_64_kib_is_refused_before_it_is_sent(
    filter_command: Commands, running: ProcessorProcess, mqtt_client: MqttClientFactory
) -> None:
    """Exit 2, and nothing stands on the topic."""
    done = filter_command.set("#" * 65_537)
    assert (done.code, done.out) == (2, "")
    assert "longer than the 65536 bytes" in done.err
    client = mqtt_client()
    client.subscribe(f"{running.root}/filter")
    client.subscribe(f"{running.root}/status")
    client.wait_for(f"{running.root}/status")
    assert client.received() == []
    assert filter_command.set("#" * 65_536).code == 1, "no longer than allowed: the processor's to judge"


def test_without_a_processor_the_document_waits_on_its_topic(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str], mqtt_client: MqttClientFactory
) -> None:
    """Exit 3 within the timeout; a processor that comes later takes it."""
    absent = make_processor(**PARTS)
    commands = Commands(absent, capsys)
    nothing = commands("get", "--timeout", "0.3")
    assert (nothing.code, nothing.out) == (3, "")
    assert f"Nothing stands on {absent.root}/filter/state" in nothing.err
    file = absent.directory / "f.yaml"
    file.write_text(TIGHTER)
    unanswered = commands("set", str(file), "--timeout", "0.3")
    assert (unanswered.code, unanswered.out) == (3, "")
    assert f"No answer from {absent.root} within 0.3 s; its status is absent." in unanswered.err
    client = mqtt_client()
    client.subscribe(f"{absent.root}/filter/state")
    absent.start()
    while json.loads(client.wait_for(f"{absent.root}/filter/state").payload)["source"] != "topic":
        pass
    assert commands("get").out.startswith("# revision 2, applied, from the topic")


def test_an_answer_to_someone_else_is_not_ours(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str], mqtt_client: MqttClientFactory
) -> None:
    """Only the answer with our document's digest counts, and none that was retained before we asked."""
    absent = make_processor(**PARTS)
    client = mqtt_client()
    digest = hashlib.sha256(TIGHTER.encode()).hexdigest()
    body = {"status": "applied", "revision": 9, "sha256": digest, "source": "topic", "errors": [], "active": {}}
    client.publish(f"{absent.root}/filter/state", json.dumps(body), retain=True)
    file = absent.directory / "f.yaml"
    file.write_text(TIGHTER)
    assert Commands(absent, capsys)("set", str(file), "--timeout", "0.3").code == 3


def test_another_document_s_answer_is_told_when_ours_does_not_come(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str], mqtt_client: MqttClientFactory
) -> None:
    """The processor is there, but keeps to what another has asked for."""
    absent = make_processor(**PARTS)
    client = mqtt_client()
    client.subscribe(f"{absent.root}/filter")
    body = {"status": "applied", "revision": 9, "sha256": "0", "source": "twin", "errors": [], "active": {}}

    def answer() -> None:
        client.wait_for(f"{absent.root}/filter")
        client.publish(f"{absent.root}/filter/state", json.dumps(body), retain=True)

    answering = threading.Thread(target=answer)
    answering.start()
    done = Commands(absent, capsys)("set", "--clear", "--timeout", "1")
    answering.join()
    assert done.code == 3
    assert "it said that revision 9, from the twin, is in force" in done.err


def test_garbage_on_the_state_topic_is_a_sentence(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str], mqtt_client: MqttClientFactory
) -> None:
    """What another client has published there ends no command with a traceback."""
    absent = make_processor(**PARTS)
    mqtt_client().publish(f"{absent.root}/filter/state", b'{"status": "applied"}', retain=True)
    done = Commands(absent, capsys)("get", "--timeout", "1")
    assert (done.code, done.out) == (3, "")
    assert "What stands on …/filter/state is no processor's" in done.err


def test_an_unreachable_broker_is_a_sentence(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 at once, for each command."""
    away = make_processor(**PARTS, broker={"url": "mqtt://127.0.0.1:1"})
    commands = Commands(away, capsys)
    for arguments in (["get"], ["set", "--clear"], ["watch"]):
        done = commands(*arguments)
        assert (done.code, done.out) == (3, "")
        assert done.err == "No connection to the broker mqtt://127.0.0.1:1: [Errno 111] Connection refused.\n"


def test_a_broker_that_refuses_us_is_a_sentence(
    mosquitto_factory: MosquittoFactory, make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to look at is said: the credentials."""
    broker = mosquitto_factory("allow_anonymous false")
    done = Commands(make_processor(**PARTS, on=broker), capsys)("get")
    assert done.code == 3
    assert "it refused us: Not authorized; check broker.username" in done.err


def test_the_environment_applies_to_all_commands(
    filter_command: Commands,
    running: ProcessorProcess,
    make_processor: ProcessorFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file for another broker and id is used for this one."""
    other = make_processor(**PARTS, broker={"url": "mqtt://127.0.0.1:1"})
    monkeypatch.setenv("MLADE_BROKER__URL", running.configuration["broker"]["url"])
    monkeypatch.setenv("MLADE_ID", running.configuration["id"])
    assert Commands(other, capsys)("get") == filter_command("get")


@pytest.fixture
def leaving(make_processor: ProcessorFactory) -> ProcessorProcess:
    """A connected processor that the test stops."""
    processor = make_processor(**PARTS)
    processor.start()
    return processor


@pytest.fixture
def watching(leaving: ProcessorProcess) -> Iterator[subprocess.Popen[str]]:
    """`mlade filter watch` as a process."""
    arguments = command_line("filter", "watch", "-c", str(leaving.file))
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as watch:
        yield watch
        watch.kill()


def test_watch_prints_a_line_for_each_change(
    leaving: ProcessorProcess, watching: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is so, then each change in its order, the processor's going included; Ctrl-C ends it with 0."""

    def next_line() -> str:
        """Return the next line without its time."""
        assert watching.stdout is not None
        time, _, rest = watching.stdout.readline().rstrip("\n").partition(" ")
        assert time.endswith("Z")
        return rest

    filter_command = Commands(leaving, capsys)
    assert {next_line(), next_line()} == {"online", "applied, revision 1 from the file: rules from-file"}
    filter_command.set(TIGHTER)
    assert next_line() == "applied, revision 2 from the topic: rules 1e3"
    filter_command.set(TIGHTER)  # no change, no line
    filter_command.set(WRONG)
    rejected = next_line()
    assert rejected.startswith("rejected, from the topic: rules[0].band: min 0.9 is greater than max 0.1; rules[1].")
    assert rejected.endswith("; revision 2 stays in force")
    leaving.stop()
    assert next_line() == "offline"
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=10)
    assert (watching.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_watch_goes_on_when_the_broker_comes_back(
    mosquitto_factory: MosquittoFactory, make_processor: ProcessorFactory, mqtt_client: MqttClientFactory
) -> None:
    """A lost connection is told on stderr and made again."""
    broker = mosquitto_factory()
    absent = make_processor(**PARTS, on=broker)
    mqtt_client(broker=broker).publish(f"{absent.root}/status", "online", retain=True)
    arguments = command_line("filter", "watch", "-c", str(absent.file))
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline().endswith(" online\n")
        broker.restart()
        assert watch.stderr.readline().startswith("Lost the broker")
        while not watch.stderr.readline().startswith("Connected to the broker"):
            pass
        mqtt_client(broker=broker).publish(f"{absent.root}/status", "offline", retain=True)
        assert watch.stdout.readline().endswith(" offline\n")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0


def test_a_file_that_does_not_exist_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, before anything else is looked at."""
    done = mlade_here(capsys, "filter", "set", str(tmp_path / "nowhere.yaml"), "-c", "x")
    assert done.code == 2
    assert "No such file or directory" in done.err
