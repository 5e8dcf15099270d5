"""`mlade model get` and `set`, and what `mlade status` says, against a running processor and a real broker."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import models
from tests.commands import Done, mlade_here
from tests.exchanging import FIELDS, held, tilted
from tests.mosquitto import Mosquitto
from tests.running import ProcessorFactory, ProcessorProcess

Command = Callable[..., Done]


@pytest.fixture(scope="module")
def running(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessorProcess]:
    """One connected processor with two models beside it."""
    with ExitStack() as cleanup:
        processor = ProcessorFactory(mosquitto, tmp_path_factory.mktemp("running"), cleanup)(
            sources=[{"name": "imu", "topics": ["unheard/+"], "fields": FIELDS}],
            model={"path": "first.onnx"},
            filter={"rules": [{"name": "all", "measure": "confidence"}]},
        )
        models.write(tilted(0.1), processor.directory, "first")
        models.write(tilted(0.2), processor.directory, "second")
        processor.start()
        yield processor


@pytest.fixture
def command(running: ProcessorProcess, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `mlade model …`, at first with the configuration's model in force."""

    def run(*arguments: str) -> Done:
        return mlade_here(capsys, "model", *arguments, "-c", str(running.file))

    assert run("set", "--clear").code == 0
    return run


def test_set_waits_for_the_model_and_get_prints_what_set_takes(command: Command, tmp_path: Path) -> None:
    """A path, or a whole document."""
    done = command("set", "second.onnx")
    assert done.code == 0, done
    assert re.match(r"applied, revision [0-9]+ from the topic: second, sha256 [0-9a-f]{12}…\n$", done.out), done
    shown = command("get").out
    assert shown.startswith(f"# revision {done.out.split()[2]}, applied, from the topic, since 2")
    document = tmp_path / "wanted.yaml"
    document.write_text(shown + "temperature: 2\n")
    assert command("set", str(document)).code == 0
    assert command("get").out.endswith("path: second.onnx\ntemperature: 2\n")
    assert command("set", "--clear").out.split(":")[1].startswith(" first")
    assert command("get").out.endswith("\npath: first.onnx\n")


def test_a_rejected_model_is_exit_1_with_every_reason(command: Command, running: ProcessorProcess) -> None:
    """And stays so when the same is wanted again."""
    for _ in range(2):
        done = command("set", "../elsewhere.onnx")
        assert (done.code, done.out.splitlines()[0].split(";")[0]) == (1, "rejected")
        assert done.out.splitlines()[1].startswith('path: found "../elsewhere.onnx", expected a file in')
    assert "# The last document, from the topic, was rejected:" in command("get").out
    running.wait_until(lambda: "mlade_model_rejected_total 2" in running.get("/metrics"), "counted")


def test_what_is_still_loading_is_exit_3(command: Command, running: ProcessorProcess) -> None:
    """It says where the answer will be."""
    with held(running.directory / "slow.onnx"):
        done = command("set", "slow.onnx", "--timeout", "1")
        assert done.code == 3
        assert f"is still loading after 1 s. What becomes of it is said on {running.root}/model/state" in done.err


def test_set_wants_one_thing(command: Command) -> None:
    """A usage error is exit 2."""
    assert command("set").code == 2
    assert command("set", "second.onnx", "--clear").code == 2


def test_status_and_metrics_name_the_model(
    command: Command, running: ProcessorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after a change: once, by its name and SHA-256."""
    assert command("set", "second.onnx").code == 0
    sha256 = hashlib.sha256((running.directory / "second.onnx").read_bytes()).hexdigest()
    out = mlade_here(capsys, "status", "-c", str(running.file)).out
    (row,) = [line for line in out.splitlines() if line.startswith("model ")]
    assert "from the topic: second, sha256 " + sha256[:12] in row
    info = [line for line in running.get("/metrics").splitlines() if line.startswith("mlade_model_info{")]
    assert info == [f'mlade_model_info{{name="second",sha256="{sha256}"}} 1.0']
