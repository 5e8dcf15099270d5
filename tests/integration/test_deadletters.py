"""`mlade deadletters`: what could not be processed, beside the running processor and after it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests import models
from tests.commands import mlade_here
from tests.integration.test_run import source
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory

BAD = [b"not json", b'{"ts": 1}', b"\xff\x00\xff"]


def test_dead_letters_can_be_listed_shown_and_exported(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With topic, reason and payload; the export is a recording."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(sources=[source("letters/+")], model={"path": str(path)}, filter={"rules": []})
    config = ("-c", str(processor.file))
    assert mlade_here(capsys, "deadletters", "list", *config).code == 1, "there is no state yet"
    client = mqtt_client()
    client.subscribe(f"{processor.root}/deadletter")
    processor.start()
    for wrong in BAD:
        client.publish("letters/7", wrong)
        client.wait_for(f"{processor.root}/deadletter")
    listed = mlade_here(capsys, "deadletters", "list", *config)
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all("letters/7" in line for line in lines)
    assert "field" in lines[1]
    assert len(mlade_here(capsys, "deadletters", "list", "-n", "2", *config).out.splitlines()) == 2
    shown = mlade_here(capsys, "deadletters", "show", "2", *config)
    assert '{"ts": 1}' in shown.out
    assert "ff 00 ff" in mlade_here(capsys, "deadletters", "show", "3", *config).out
    assert mlade_here(capsys, "deadletters", "show", "99", *config).code == 1
    assert processor.stop() == 0
    out = tmp_path / "letters.jsonl"
    assert mlade_here(capsys, "deadletters", "export", "-o", str(out), *config).code == 0
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    assert [base64.b64decode(one["payload"]) for one in exported] == BAD
    assert all({"time", "topic", "qos", "payload", "reason"} <= one.keys() for one in exported)
