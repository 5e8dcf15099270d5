"""A running processor whose model comes from a real registry: a tag that moves, a registry that goes away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.exchanging import FIELDS, ModelTopic, tilted
from tests.mqtt_client import MqttClientFactory
from tests.registry import Registry, RegistryFactory
from tests.running import ProcessorFactory, ProcessorProcess

ONNX = "application/vnd.onnx.model"


def push(registry: Registry, tilt: float, tag: str = "stable", *, channels: int = 2, **annotations: str) -> str:
    """Put a model under a tag, and return its manifest's digest."""
    content = tilted(tilt, channels=channels).SerializeToString()
    own = {f"dev.mlade.model.{key.replace('_', '.')}": value for key, value in annotations.items()}
    return registry.put("models/motions", tag, [(ONNX, "motions.onnx", content)], own)


Make = Callable[..., tuple[ProcessorProcess, ModelTopic]]


@pytest.fixture
def make(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory) -> Make:
    """Make a running processor with a model."""

    def started(path: str, **model: Any) -> tuple[ProcessorProcess, ModelTopic]:  # noqa: ANN401 - JSON
        processor = make_processor(
            sources=[{"name": "imu", "topics": ["unheard"], "fields": FIELDS}],
            model={"path": path, **model},
            filter={"rules": [{"name": "all", "measure": "confidence"}]},
        )
        topic = ModelTopic(mqtt_client(), processor)
        processor.start()
        return processor, topic

    return started


def test_a_tag_that_moves_takes_over_and_a_restart_needs_no_registry(
    make_registry: RegistryFactory, make: Make
) -> None:
    """The copy is opened; when the registry is back, what the tag stands for now takes over."""
    registry = make_registry()
    first = push(registry, 0.1)
    processor, topic = make(f"oci://{registry.host}/models/motions:stable", refresh="1s")
    answer = topic.wait_for("applied", source="file")
    assert (answer["active"]["digest"], answer["active"]["name"]) == (first, "motions")
    second = push(registry, 0.2)
    answer = topic.wait_for("applied", source="refresh", revision=2)
    assert answer["active"]["digest"] == second

    registry.stop()
    processor.kill()
    processor.start()
    answer = topic.wait_for("applied", revision=2)
    assert answer["active"]["digest"] == second
    processor.wait_for_log("The model's path could not be looked at, the model in force stays")
    registry.start()
    third = push(registry, 0.3)
    answer = topic.wait_for("applied", source="refresh", revision=3)
    assert answer["active"]["digest"] == third
    kept = {path.name for path in (processor.directory / "state" / "models").iterdir() if len(path.name) == 64}
    assert third.removeprefix("sha256:") in kept
    processor.wait_until(lambda: not (processor.directory / "state/models" / first[7:]).exists(), "tidied up")


def test_rejected_models_do_not_fill_the_disk(make_registry: RegistryFactory, make: Make) -> None:
    """Of each that a tag stood for, or a document named, a copy was made."""
    registry = make_registry()
    first = push(registry, 0.1)
    processor, topic = make(f"oci://{registry.host}/models/motions:stable")
    topic.wait_for("applied")
    wide = []
    for number in range(3):
        wide.append(push(registry, 0.2 + number / 10, channels=3))
        assert topic.reload()["status"] == "error"

    folder = processor.directory / "state" / "models"

    def kept() -> set[str]:
        return {path.name for path in folder.iterdir() if len(path.name) == len(first[7:])}

    processor.wait_until(lambda: kept() == {first[7:], wide[-1][7:]}, "the model in force, and the tag's last")


def test_after_a_restart_a_moved_tag_takes_over_beside_without_refresh(
    make_registry: RegistryFactory, make: Make
) -> None:
    """The processor begins with its copy at once."""
    registry = make_registry()
    push(registry, 0.1)
    processor, topic = make(f"oci://{registry.host}/models/motions:stable")
    topic.wait_for("applied", source="file")
    processor.stop()
    second = push(registry, 0.2)
    processor.start()
    assert topic.wait_for("applied", source="refresh", revision=2)["active"]["digest"] == second


def test_a_model_that_cannot_be_fetched_now_is_waited_for_also_over_a_restart(
    make_registry: RegistryFactory, make: Make
) -> None:
    """The reason is told; the model in force goes on."""
    registry = make_registry()
    push(registry, 0.1)
    wanted = push(registry, 0.2, "next")
    processor, topic = make(f"oci://{registry.host}/models/motions:stable")
    registry.stop()
    topic.publish(path=f"oci://{registry.host}/models/motions:next")
    answer = topic.wait_for("waiting", source="topic")
    assert registry.host in answer["errors"][0]["message"]
    assert answer["revision"] == 1
    processor.kill()
    processor.start()
    topic.wait_for("waiting", source="topic")
    registry.start()
    answer = topic.wait_for("applied", source="topic")
    assert (answer["active"]["digest"], answer["revision"]) == (wanted, 2)


def test_annotations_count_where_neither_document_nor_configuration_says_anything(
    registry: Registry, make: Make
) -> None:
    """But windows keep their size."""
    push(registry, 0.1, "plain")
    push(registry, 0.2, "labelled", output_labels='["no", "yes"]')
    push(registry, 0.3, "long", window_size="50")
    _, topic = make(f"oci://{registry.host}/models/motions:plain")
    path = f"oci://{registry.host}/models/motions"
    assert topic.set(path=f"{path}:labelled")["active"]["labels"] == ["no", "yes"]
    assert topic.set(path=f"{path}:labelled", output={"labels": ["x", "y"]})["active"]["labels"] == ["x", "y"]
    answer = topic.set(path=f"{path}:long")
    assert answer["status"] == "rejected"
    assert "the model is for 50 readings, and windows have 1" in answer["errors"][0]["message"]
