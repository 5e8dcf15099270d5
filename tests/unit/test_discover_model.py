"""What a model takes, and which of the families that were heard fit it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from processor.discover.wishes import Wanted, layout_key, look_at_model
from processor.errors import ModelError
from tests import models
from tests.unit.discovering import Make, conclude, learn, plain, read, stream

PRESS: Make = lambda n, t: json.dumps({"ts": t, "force": n / 7, "stroke": n % 3})  # noqa: E731 - a payload's
ENGINE: Make = lambda n, t: json.dumps({"ts": t, "a": {"Rpm": n / 7, "load": n % 3}, "oil": 2.5})  # noqa: E731


def wanted(folder: Path, model: str) -> Wanted:
    """Return what is known of one of the tests' models before there is anything to feed it with."""
    made = {
        "cnn": lambda: models.cnn(channels=2, size=30),
        "cnn3": lambda: models.cnn(channels=3, size=30),
        "lstm": lambda: models.lstm(channels=2, size=30),
        "point": lambda: models.identity(2),
        "one": lambda: models.graph("g (float[N, 50] x) => (float[N, 50] y) { y = Identity (x) }"),
        "named": lambda: models.graph(
            "g (float[N, 2, T] x) => (float[N, 2, T] y) { y = Identity (x) }", metadata={"fields": "oil, rpm"}
        ),
        "image": lambda: models.mean_image("float", "NCHW", (28, 32), colours=1),
        "photo": lambda: models.image(channels_last=True),
        "two": lambda: models.graph("g (float[N, 2] x, float[N, 2] z) => (float[N, 2] y) { y = Add (x, z) }"),
        "deep": lambda: models.graph("g (float[N, 1, 2, 3, 4] x) => (float[N, 1, 2, 3, 4] y) { y = Identity (x) }"),
    }
    return look_at_model(models.write(made[model](), folder))


@pytest.mark.parametrize(
    ("model", "wishes"),
    [
        ("cnn", [("NCT", 2, 30), ("NTC", 30, 2)]),
        ("point", [("NC", 2, 1), ("NT", 1, 2)]),
        ("named", [("NCT", 2, None), ("NTC", None, 2)]),
        ("image", [("NCHW", 1, None), ("NHWC", 32, None)]),
    ],
)
def test_what_a_model_takes(tmp_path: Path, model: str, wishes: list[tuple[str, int | None, int | None]]) -> None:
    """What its dimensions may mean, the likeliest first."""
    found = wanted(tmp_path, model)
    assert [(wish.layout, wish.channels, wish.size) for wish in found.wishes] == wishes


@pytest.mark.parametrize(("model", "told"), [("two", "has 2 inputs"), ("deep", "5 dimensions; mlade gives 2, 3 or 4")])
def test_a_model_that_mlade_does_not_feed_is_refused(tmp_path: Path, model: str, told: str) -> None:
    """Before anything is listened to."""
    with pytest.raises(ModelError, match=told):
        wanted(tmp_path, model)


def test_what_fits_is_active_with_the_model_s_window(tmp_path: Path) -> None:
    """The number of channels chooses the family, and the order of the dimensions."""
    heard = learn(stream("plant/7/press", PRESS), stream("engine/1", ENGINE, 40, 10**8))
    for model, layout in {"cnn": None, "lstm": "NTC"}.items():
        choice, text = conclude(heard, wanted(tmp_path, model))
        assert read(text).sources[0].fields == ["force", "stroke"]
        assert plain(text)["model"]["window"] == {"size": 30, "step": 15, "max_gap": "1s"}
        assert plain(text)["model"].get("input", {}).get("layout") == layout
        assert choice.wish is not None
        assert layout_key(choice.wish) == layout
        assert [reason for _, reason in choice.others] == ["it has 3 fields, and the model wants 2"]


def test_a_model_of_single_readings_has_no_gaps(tmp_path: Path) -> None:
    """Point data: one reading a window."""
    _, text = conclude(learn(stream("plant/7/press", PRESS)), wanted(tmp_path, "point"))
    assert plain(text)["model"]["window"] == {"size": 1, "step": 1}


def test_a_model_of_one_channel_takes_one_field(tmp_path: Path) -> None:
    """Where the only dimension is too many fields, it is time."""
    heard = learn(stream("plant/7/press", PRESS), stream("line/1/temp", lambda n, _: str(n / 3)))
    choice, text = conclude(heard, wanted(tmp_path, "one"))
    assert [one.family.filters for one in choice.active] == [("line/1/temp",)]
    assert read(text).slots[0].model.window.size == 50


def test_images_become_as_large_as_the_model_takes_them(tmp_path: Path) -> None:
    """With as many colours."""

    def make(*_: object) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (64, 48)).save(file, "PNG")
        return file.getvalue()

    heard = learn(stream("plant/7/press", PRESS), stream("cam/1", make, 3))
    _, text = conclude(heard, wanted(tmp_path, "image"))
    (source,) = read(text).sources
    assert (source.format, source.image.height, source.image.width, source.image.color) == ("image", 28, 32, "grey")
    assert "measure: value" in text
    _, text = conclude(heard, wanted(tmp_path, "photo"))
    (source,) = read(text).sources
    assert (source.image.height, source.image.width, source.image.color) == (8, 12, "rgb")
    assert plain(text)["model"]["input"] == {"layout": "NHWC"}
    assert "gives probabilities of 0, 1, 2" in text


def test_names_in_the_model_s_metadata_choose_the_fields(tmp_path: Path) -> None:
    """In its order, whatever their case, and wherever they are in the payload."""
    heard = learn(stream("plant/7/press", PRESS, 40), stream("engine/1", ENGINE, 10))
    choice, text = conclude(heard, wanted(tmp_path, "named"))
    assert choice.complaint == ""
    assert read(text).sources[0].fields == ["oil", "/a/Rpm"]


def test_sensors_are_joined_where_only_that_fits(tmp_path: Path) -> None:
    """One reading from two topics; the topics by themselves are comments."""
    heard = learn(*(stream(f"line/{m}/{what}", lambda n, _: str(n / 3)) for m in "12" for what in ("temp", "vib")))
    choice, text = conclude(heard, wanted(tmp_path, "cnn"))
    assert plain(text)["sources"][0]["join"]["topics"] == {"temp": "line/+/temp", "vib": "line/+/vib"}
    assert {reason for _, reason in choice.others} == {"line-joined joins it with others"}
    assert read(text).sources[0].fields == ["temp", "vib"]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """How many are missing, or to be chosen from."""
    heard = learn(stream("plant/7/press", PRESS))
    choice, text = conclude(heard, wanted(tmp_path, "cnn3"))
    assert choice.complaint == (
        "Nothing that was heard fits the model model.onnx, which wants 3 channels in windows of 30 readings or 30 "
        "channels in windows of 3 readings: press has 2 fields (force, stroke): 1 missing."
    )
    assert "# CHECK: Nothing that was heard fits the model" in text
    engine = stream("engine/1", lambda n, _: json.dumps({"a": n / 3, "b": n % 2, "c": 1, "d": 2}))
    more = learn(stream("plant/7/press", PRESS), engine)
    choice, _ = conclude(more, wanted(tmp_path, "cnn3"))
    assert "engine has 4 fields (a, b, c, d): choose 3 of them" in choice.complaint
    assert [one.family.filters for one in choice.active] == [("engine/1",)]
    choice, _ = conclude(heard, wanted(tmp_path, "image"))
    assert "wants images of 28 by 32 pixels" in choice.complaint
    assert "press is json" in choice.complaint


def test_where_nothing_is_readable_nothing_is_active(tmp_path: Path) -> None:
    """The file then says what came."""
    choice, text = conclude(learn(stream("notes", lambda *_: "hello")), wanted(tmp_path, "cnn"))
    assert choice.active == []
    assert "# notes: text that is neither JSON nor numbers" in text
