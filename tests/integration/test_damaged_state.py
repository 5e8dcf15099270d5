"""A state that is damaged, or cannot be written, as a running processor meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.database import FILE_NAME
from tests import models
from tests.integration.test_run import START, counted, payload, readings, source
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory
from tests.unit.test_database import damage


def test_a_file_damaged_in_use_is_said_and_set_aside_at_the_next_start(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """It ends with a sentence; a supervisor's restart goes on with a new file, and with what the broker kept."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("damaged/imu")], model={"path": str(path)}, filter={"rules": [{"name": "all"}]}
    )
    values = readings(20)
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    for _ in range(50):
        client.publish("damaged/imu", "no reading " * 1000)
    counted(client, processor, 50)
    assert processor.stop() == 0
    processor.start()
    client.publish("damaged/imu", payload(START, values[0]))
    while not json.loads(client.wait_for(f"{processor.root}/metrics").payload)["bridges"]["files"]["delivered"]:
        pass  # the bridge's write makes the pipeline's connection forget what it has read of the file
    damage(processor.directory / "state" / FILE_NAME)
    client.publish("damaged/imu", "no reading")
    assert processor.wait() == 1
    for number in range(1, 20):
        client.publish("damaged/imu", payload(START + number, values[number]))
    assert "is damaged" in processor.log()
    assert "start mlade again" in processor.log()
    processor.start()
    processor.wait_until(lambda: len({event["id"] for event in processor.events()}) == 20, "all samples")
    assert processor.stop() == 0
    assert "was set aside as" in processor.log()
    assert "Traceback" not in processor.log()
    processor.start()
    assert processor.stop() == 0
    assert processor.log().count("was set aside as") == 1


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot be written."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], check=False).returncode:  # noqa: S607
        pytest.skip("a file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)  # noqa: S607


def test_a_read_only_disk_is_said(make_processor: ProcessorFactory, tmp_path: Path, read_only_disk: Path) -> None:
    """It ends at once, and names the directory."""
    processor = make_processor(
        sources=[source("read-only/imu")],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        state_dir=str(read_only_disk),
    )
    processor.launch()
    assert processor.wait() == 1
    assert f"the state directory {read_only_disk} cannot be used: Read-only file system" in processor.log()
    assert "Traceback" not in processor.log()
