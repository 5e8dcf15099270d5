"""docs/from-mlade.md: its configuration is one, and its filter is what MLADE's keys become."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from processor.assembly import build_computation, make_windows
from processor.checking import check
from processor.document import parse
from processor.filter import check_against, to_plain, validate_filter
from processor.legacy import KEYS, as_filter
from processor.settings import build
from processor.topics import encode_stream
from processor.types import INPUTS, NS, Message
from tests import models
from tests.unit.test_opcua_decoder import LONG, MLADE, NOW, PLC, SPECIAL

GUIDE = (Path(__file__).parents[2] / "docs" / "from-mlade.md").read_text()


def blocks(language: str) -> list[object]:
    """Return what stands in the guide's blocks of a language."""
    return [parse(text) for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)]


def test_the_guides_configuration_and_filter_fit_each_other() -> None:
    """And the filter is the one that is made of the twin beside it."""
    configuration, document = blocks("yaml")
    (twin,) = blocks("json")
    assert isinstance(configuration, dict)
    assert isinstance(twin, dict)
    settings = build(configuration, Path())
    assert settings.broker is None
    assert settings.legacy is not None
    made = validate_filter(as_filter(twin, settings.legacy.field, settings.legacy.label))
    assert to_plain(made) == to_plain(validate_filter(document))
    labels = settings.slots[0].model.output.labels or ()
    assert check_against(made, kind="score", labels=labels, fields=settings.sources[0].fields) == ()


def test_every_key_of_mlades_is_in_the_guide() -> None:
    """In the table."""
    assert all(f"| `{key}` |" in GUIDE for key in KEYS)


def test_the_guides_configuration_takes_mlades_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` accepts it with a model of 13 values; each node then has windows of its own, one for each new point."""
    for name in ("IOTHUBHOSTNAME", "DEVICEID", "MODULEID", "GATEWAYHOSTNAME", "MODULEGENERATIONID", "WORKLOADURI"):
        monkeypatch.setenv(f"IOTEDGE_{name}", "edge")  # as IoT Edge does; nothing asks it anything here
    monkeypatch.setenv("IOTEDGE_APIVERSION", "2019-01-30")
    configuration, _ = blocks("yaml")
    assert isinstance(configuration, dict)
    anomaly = models.graph(
        """anomaly (float[N, 13] x) => (float[N, 1] score)
        {
            scaled = MatMul (x, w)
            score = Sigmoid (scaled)
        }""",
        w=np.full((13, 1), 0.001, np.float32),
    )
    models.write(anomaly, tmp_path, configuration["model"]["path"].removesuffix(".onnx"))
    configuration["filter"] = {"rules": [{"name": "all"}]}
    path = tmp_path / "processor.yaml"
    path.write_text(yaml.safe_dump(configuration))
    ((slot, model, _, document),) = check(path).slots
    computation, _ = build_computation(slot, model, document, windows=make_windows(slot))
    accepted: dict[str, int] = {}
    for second in range(20):
        text = json.dumps(MLADE).replace("2021-10-20T09:2", f"2021-10-{second + 1:02}T09:2")
        message = Message(INPUTS + "input1", text.encode(), arrival=NOW + second * NS)
        outcome = computation.run([message])
        assert outcome.taken.dead_letters == []
        for sample in outcome.samples:
            accepted[sample.stream] = accepted.get(sample.stream, 0) + 1
    once = [
        PLC + "AlternatingBoolean",
        PLC + "g=8a3ba9e8-7dbb-4e4c-9b1f-bfd4a1f0b3a1",
        SPECIAL,
        LONG,
        PLC + "FastUInt1",
    ]
    assert accepted == {
        **{encode_stream(f"input1/{node}"): 20 - 12 for node in once},
        encode_stream(f"input1/{PLC}SlowUInt1"): 40 - 12,  # it is in both DataSet messages
    }
