"""Another model while a processor runs: over its topic, by a command, because its file changed; over restarts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import models
from tests.exchanging import MakePlant, held, names, paths, raising_above


def test_a_model_from_the_topic_judges_what_comes_after_it(make_plant: MakePlant) -> None:
    """Samples name the model that judged them; an empty document returns to the configuration's."""
    plant = make_plant()
    before = plant.topic.wait_for("applied")
    assert (before["revision"], before["source"], before["active"]["name"]) == (1, "file", "first")
    plant.read(1, 2)
    plant.events(2)
    answer = plant.topic.set(path=plant.model("second", 0.2))
    assert (answer["status"], answer["revision"], answer["active_source"]) == ("applied", 2, "topic")
    assert answer["active"]["name"] == "second"
    assert answer["active"]["labels"] == ["a", "b"]
    assert answer["recent"] == {"windows": 2, "failed": 0, "agreement": 1.0}
    plant.read(3)
    plant.events(3)
    plant.topic.publish()
    assert plant.topic.wait_for("applied", source="file")["revision"] == 3
    plant.read(4)
    assert names(plant.events(4)) == ["first", "first", "second", "first"]


def test_what_a_document_leaves_out_is_as_in_the_configuration(make_plant: MakePlant) -> None:
    """And what it says of input, output and temperature counts."""
    plant = make_plant({"temperature": 2.0, "output": {"labels": ["low", "high"]}})
    second = plant.model("second", 0.2)
    assert plant.topic.set(path=second)["active"]["labels"] == ["low", "high"]
    answer = plant.topic.set(path=second, output={"labels": ["no", "yes"]}, temperature=1, input={"mean": 1})
    assert (answer["active"]["labels"], answer["revision"]) == (["no", "yes"], 3)


def test_a_model_that_does_not_fit_is_rejected_with_every_reason(make_plant: MakePlant) -> None:
    """The model in force goes on, and the revision stays."""
    plant = make_plant(filter={"rules": [{"name": "b", "measure": "probability", "label": "b"}]})
    (plant.folder / "garbage.onnx").write_bytes(b"\x00no model at all")
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"path": plant.model("wide", 0.2, channels=3)}, ["sources[0].fields"]),
        ({"path": plant.model("others", 0.2, labels=("a", "c"))}, ["filter.rules[0].label"]),
        ({"path": "garbage.onnx"}, ["path"]),
        ({"path": "absent.onnx"}, ["path"]),
        ({"path": "../outside.onnx"}, ["path"]),
        ({"path": "first.onnx", "window": {"size": 5}, "threads": 2}, ["window", "threads"]),
        ({"path": "first.onnx", "input": {"layuot": "NC"}}, ["input.layuot"]),
        ({"input": {"mean": 1}}, ["path"]),
    ]
    for document, expected in cases:
        answer = plant.topic.set(**document)
        assert (answer["status"], answer["revision"], answer["active"]["name"]) == ("rejected", 1, "first")
        assert paths(answer) == expected, answer["errors"]
        assert answer["active_source"] == "file"
    plant.read(1)
    assert names(plant.events(1)) == ["first"]


def test_a_rejected_document_is_tried_again_when_it_is_published_again(make_plant: MakePlant) -> None:
    """The file may have come meanwhile; an applied one changes nothing, and is answered again."""
    plant = make_plant()
    assert plant.topic.set(path="second.onnx")["status"] == "rejected"
    plant.model("second", 0.2)
    for _ in range(2):
        answer = plant.topic.set(path="second.onnx")
        assert (answer["status"], answer["revision"]) == ("applied", 2)


def test_a_newer_document_counts_and_not_one_that_is_still_loading(make_plant: MakePlant) -> None:
    """Whatever comes of the older one is not told."""
    plant = make_plant()
    with held(plant.folder / "slow.onnx"):
        plant.topic.publish(path="slow.onnx")
        plant.topic.wait_for("loading")
        plant.read(1)
        assert names(plant.events(1)) == ["first"]
        plant.topic.publish(path=plant.model("second", 0.2))
        plant.topic.wait_for("loading")
    answer = plant.topic.wait_for("applied", source="topic")
    assert (answer["active"]["name"], answer["revision"]) == ("second", 2)
    assert "slow" not in "".join(error["message"] for error in answer["errors"])


def test_a_filter_is_checked_against_the_model_in_force(make_plant: MakePlant) -> None:
    """Also the file's, to which an empty document would return."""
    plant = make_plant(filter={"rules": [{"name": "b", "measure": "probability", "label": "b"}]})
    plant.client.subscribe(f"{plant.processor.root}/filter/state")

    def set_filter(text: str) -> dict[str, Any]:
        plant.client.publish(f"{plant.processor.root}/filter", text, retain=True)
        while True:
            answer: dict[str, Any] = json.loads(plant.client.wait_for(f"{plant.processor.root}/filter/state").payload)
            if answer["source"] == "topic":
                return answer

    assert set_filter("rules: [{name: all, measure: confidence}]")["status"] == "applied"
    assert plant.topic.set(path=plant.model("others", 0.2, labels=("a", "c")))["status"] == "applied"
    assert set_filter("rules: [{name: b, measure: probability, label: b}]")["status"] == "rejected"
    assert set_filter("")["status"] == "rejected"
    assert set_filter("rules: [{name: c, measure: probability, label: c}]")["status"] == "applied"
    plant.topic.publish()  # the configuration's model has no c
    assert paths(plant.topic.wait_for("rejected", source="file")) == ["filter.rules[0].label"]
    plant.processor.stop()
    plant.processor.start()
    plant.read(1)
    (event,) = plant.events(1)
    assert (event["data"]["model"]["name"], event["data"]["selection"]["rule"]) == ("others", "c")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_model_in_force_survives_a_restart(make_plant: MakePlant, end: str) -> None:
    """With its revision, and without being loaded twice."""
    plant = make_plant()
    plant.topic.set(path=plant.model("second", 0.2))
    plant.read(1)
    plant.events(1)
    plant.processor.stop() if end == "stop" else plant.processor.kill()
    plant.processor.start()
    answer = plant.topic.wait_for("applied")
    assert (answer["revision"], answer["active"]["name"]) == (2, "second")
    plant.read(2)
    assert names(plant.events(2)) == ["second", "second"]
    assert plant.processor.log().count("Model revision 2 is in force") == 1


def test_a_model_that_was_loading_at_a_crash_is_loaded_after_it(make_plant: MakePlant) -> None:
    """The document was acknowledged, so it must not be lost."""
    plant = make_plant()
    with held(plant.folder / "second.onnx"):
        plant.topic.publish(path="second.onnx")
        plant.topic.wait_for("loading")
        plant.processor.kill()
    plant.client.publish(f"{plant.processor.root}/model", b"", retain=True)  # nothing of it is left on the broker,
    plant.processor.configure(broker={**plant.processor.configuration["broker"], "session_expiry": "0"})  # for us
    plant.model("second", 0.2)
    plant.processor.start()
    answer = plant.topic.wait_for("applied", source="topic")
    assert (answer["revision"], answer["active"]["name"]) == (2, "second")


def test_without_the_topics_model_the_configurations_is_in_force(make_plant: MakePlant) -> None:
    """After a restart; the other is tried again, and rejected with the reason."""
    plant = make_plant()
    plant.topic.set(path=plant.model("second", 0.2))
    plant.processor.stop()
    (plant.folder / "second.onnx").unlink()
    plant.processor.start()
    answer = plant.topic.wait_for("rejected")
    assert (answer["source"], answer["active_source"], answer["revision"]) == ("topic", "file", 3)
    plant.read(1)
    assert names(plant.events(1)) == ["first"]


def test_a_file_that_changed_while_we_were_down_is_another_model(make_plant: MakePlant) -> None:
    """The revision says so."""
    plant = make_plant()
    plant.topic.wait_for("applied")
    plant.processor.stop()
    plant.model("first", 0.3)
    plant.processor.start()
    assert plant.topic.wait_for("applied", source="file", revision=2)


def test_reload_model_looks_at_the_path_again(make_plant: MakePlant) -> None:
    """It answers when the model was swapped or rejected, and at once where nothing changed."""
    plant = make_plant()
    before = plant.topic.wait_for("applied")["active"]["sha256"]
    answer = plant.topic.reload()
    assert (answer["status"], answer["changed"], answer["model"]["sha256"]) == ("ok", False, before)
    plant.model("first", 0.3)
    answer = plant.topic.reload()
    assert (answer["status"], answer["changed"], answer["revision"]) == ("ok", True, 2)
    assert answer["model"]["sha256"] != before
    assert plant.topic.wait_for("applied", source="command")["revision"] == 2
    (plant.folder / "first.onnx").write_bytes(b"garbage")
    answer = plant.topic.reload()
    assert (answer["status"], "no ONNX model" in answer["error"]) == ("error", True)
    assert plant.topic.wait_for("rejected", source="command")["revision"] == 2


def test_a_file_that_changes_takes_over_by_itself_with_refresh(make_plant: MakePlant) -> None:
    """What is no good is told once, and not tried again until it changes again."""
    plant = make_plant({"refresh": "1s"})
    plant.model("first", 0.3)
    assert plant.topic.wait_for("applied", source="refresh")["revision"] == 2
    (plant.folder / "first.onnx").write_bytes(b"garbage")
    plant.topic.wait_for("rejected", source="refresh")
    plant.model("first", 0.4)
    assert plant.topic.wait_for("applied", source="refresh")["revision"] == 3
    assert plant.processor.log().count("was rejected") == 1


def test_a_model_that_fails_on_all_recent_windows_is_rejected_and_on_some_not(make_plant: MakePlant) -> None:
    """What it fails on later is a dead letter, and the others of its batch are judged."""
    plant = make_plant()
    plant.client.subscribe(f"{plant.processor.root}/deadletter")
    plant.read(40, 41, 42)
    plant.events(3)
    models.write(raising_above(30), plant.folder, "picky")
    answer = plant.topic.set(path="picky.onnx")
    assert answer["status"] == "rejected"
    assert "of the newest 3 windows the model can judge none; it raises on 3" in answer["errors"][0]["message"]
    plant.read(1)
    plant.events(4)
    answer = plant.topic.set(path="picky.onnx")
    assert (answer["status"], answer["recent"]["failed"], answer["recent"]["windows"]) == ("applied", 3, 4)
    plant.read(2, 99, 3)
    assert names(plant.events(6))[4:] == ["picky", "picky"]
    letter = json.loads(plant.client.wait_for(f"{plant.processor.root}/deadletter").payload)
    assert (letter["reason"], letter["detail"].startswith("picky: ")) == ("model", True)


def test_a_shadow_comes_and_goes_with_a_document(make_plant: MakePlant) -> None:
    """A filter may measure disagreement as long as there is one, and a model without one does not fit it then."""
    plant = make_plant()
    plant.client.subscribe(f"{plant.processor.root}/metrics")
    plant.client.subscribe(f"{plant.processor.root}/filter/state")
    second = plant.model("second", 0.2)
    answer = plant.topic.set(path="first.onnx", shadow={"path": second, "sample": 1})
    assert (answer["status"], answer["active"]["name"]) == ("applied", "first"), answer
    plant.read(1, 2)

    def told(topic: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(plant.client.wait_for(f"{plant.processor.root}/{topic}").payload)
        return said

    plant.processor.wait_until(lambda: (told("metrics")["shadow"] or {}).get("windows") == 2, "the shadow's windows")
    apart = '{"rules": [{"name": "apart", "measure": "disagreement"}]}'
    plant.client.publish(f"{plant.processor.root}/filter", apart, retain=True)
    plant.processor.wait_until(lambda: told("filter/state")["source"] == "topic", "the filter's answer")
    assert paths(plant.topic.set(path="first.onnx", shadow=None)) == ["filter.rules[0].measure"]
    assert paths(plant.topic.set(path=second, shadow={"path": "../x.onnx"})) == ["shadow.path"]
    assert plant.topic.set(path=second, shadow={"path": "first.onnx", "sample": 1})["status"] == "applied"
    plant.processor.kill()
    plant.processor.start()
    assert plant.topic.wait_for("applied")["active"]["name"] == "second"
    plant.read(3)
    newest = max(plant.events(3), key=lambda event: str(event["time"]))["data"]
    assert (newest["model"]["name"], newest["selection"]["measure"]) == ("second", "disagreement")


def test_a_model_that_ends_the_process_does_so_three_times_and_not_for_ever(make_plant: MakePlant) -> None:
    """As one does that takes all the memory; then it is rejected, until it is published again."""
    plant = make_plant()
    with held(plant.folder / "heavy.onnx"):
        plant.topic.publish(path="heavy.onnx")
        for _ in range(3):
            plant.topic.wait_for("loading")
            plant.processor.kill()
            plant.processor.start()
        answer = plant.topic.wait_for("rejected")
        assert "the process ended 3 times while this was loaded" in answer["errors"][0]["message"]
        plant.read(1)
        assert names(plant.events(1)) == ["first"]
        plant.topic.publish(path="heavy.onnx")
        plant.topic.wait_for("loading")
