"""No document and no model file ends a processor, or keeps others from being loaded."""

from __future__ import annotations

from typing import Any

from tests import models, odd_models
from tests.exchanging import MakePlant, names, tilted


def test_no_document_and_no_file_ends_it_or_its_next_start(make_plant: MakePlant) -> None:
    """What upset ONNX Runtime's bindings, numpy, pathlib and our own reading of keys; readings go on all the while."""
    plant = make_plant()
    good = tilted(0.2).SerializeToString()
    (plant.folder / "no_text.onnx").write_bytes(good.replace(b"labels", b"\xffabels"))
    (plant.folder / "circle.onnx").symlink_to("circle.onnx")
    plant.model("half", 0.2, labels=('["\\udfff"', '"b"]'))
    models.write(odd_models.empty(), plant.folder, "empty")
    shadow = {"path": "first.onnx", "input": {"mean": [1, 2, 3]}}
    documents: list[dict[str, Any]] = [{"path": f"{name}.onnx"} for name in ("no_text", "circle", "half", "empty")]
    for document in [*documents, {"path": "first.onnx", "shadow": shadow}]:
        answer = plant.topic.set(**document)
        assert answer["status"] == "rejected"
        assert answer["errors"][0]["message"]
        plant.read(1)
    assert names(plant.events(len(documents) + 1)) == ["first"] * (len(documents) + 1)
    plant.processor.stop()
    plant.processor.start()  # the broker has the last one still
    plant.read(2)
    plant.events(len(documents) + 2)


def test_a_reading_on_which_a_model_gives_more_numbers_is_a_dead_letter(make_plant: MakePlant) -> None:
    """And the next is judged."""
    plant = make_plant()
    models.write(odd_models.widening(), plant.folder, "widening")
    assert plant.topic.set(path="widening.onnx")["status"] == "applied"
    plant.read(2, 2e9, 3)
    assert [event["data"]["readings"]["values"][0][0] for event in plant.events(2)] == [2, 3]
    plant.read(4)
    plant.events(3)


def test_a_link_that_leads_out_of_the_folder_is_not_followed_by_who_looks_again(make_plant: MakePlant) -> None:
    """The command is answered, and the model in force goes on."""
    plant = make_plant()
    second = plant.folder / plant.model("second", 0.2)
    assert plant.topic.set(path="second.onnx")["status"] == "applied"
    second.unlink()
    second.symlink_to("/dev/null")
    answer = plant.topic.reload()
    assert answer["status"] == "error"
    assert "in the configuration's folder" in answer["error"]
    plant.read(1)
    assert names(plant.events(1)) == ["second"]
