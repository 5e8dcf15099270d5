"""`mlade model show` and `mlade model push`, against a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from processor.assembly import obtain_model
from processor.settings import build
from tests import models
from tests.commands import mlade_here
from tests.registry import Registry

LABELS = ("standing", "walking", "running", "badminton")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model of six channels in windows of 100 readings, with labels of its own."""
    return models.write(models.cnn(), tmp_path, "motions")


def test_a_model_is_pushed_once_and_shown(
    registry: Registry, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its labels; the same again is the same digest, and nothing is sent."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    to = f"oci://{registry.host}/models/motions:stable"
    first = mlade_here(capsys, "model", "push", str(file), to, "--label", "a", "--label", "b", "--label", "c",
                       "--label", "d", "--annotation", "org.opencontainers.image.created=today")  # fmt: skip
    assert (first.code, first.err) == (0, "")
    digest = first.out.split()[-1]
    assert first.out.splitlines()[-1] == f"{to} is {digest}"
    again = mlade_here(capsys, "model", "push", str(file), to, "--label", "a", "--label", "b", "--label", "c",
                       "--label", "d", "--annotation", "org.opencontainers.image.created=today", "--json")  # fmt: skip
    said = json.loads(again.out)
    assert (said["digest"], said["sent"], said["files"]) == (digest, 0, {"motions.onnx": file.stat().st_size})
    shown = json.loads(mlade_here(capsys, "model", "show", to, "--json").out)
    assert (shown["name"], shown["digest"], shown["labels"]) == ("motions", digest, ["a", "b", "c", "d"])
    assert shown["annotations"]["org.opencontainers.image.created"] == "today"
    assert shown["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["N", 6, 100]}]
    assert (shown["opsets"], shown["ir_version"], shown["runs_on"]) == ({"ai.onnx": 17}, 8, "cpu")
    assert list(shown["microseconds_per_window"]) == ["1", "8", "64", "512"]
    assert all(value > 0 for value in shown["microseconds_per_window"].values())
    assert not (tmp_path / "state").exists()


def test_what_the_configuration_says_goes_along(
    registry: Registry, file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And counts where another says nothing."""
    source = {"name": "s", "topics": ["t"], "fields": list("abcdef")}
    said = {
        "path": str(file), "temperature": 2.5, "window": {"size": 100, "step": 10, "max_gap": "5s"},
        "input": {"layout": "NCT", "std": [1, 2, 3, 4, 5, 6]}, "output": {"labels": ["k", "l", "m", "n"]},
    }  # fmt: skip
    config = tmp_path / "processor.yaml"
    whole = {"id": "p", "sources": [source], "model": said, "filter": {"rules": []}}
    config.write_text(json.dumps(whole))
    to = f"oci://{registry.host}/annotated:t"
    assert mlade_here(capsys, "model", "push", str(file), to, "-c", str(config)).code == 0
    settings, model = obtain_model(build({**whole, "model": {"path": to}}, tmp_path).slots[0])
    assert (settings.model.window.size, settings.model.window.step, settings.model.temperature) == (100, 10, 2.5)
    assert (model.labels, model.input.layout) == (("k", "l", "m", "n"), "NCT")
    assert model.input.std is not None
    assert model.input.std.tolist() == [1, 2, 3, 4, 5, 6]
    shown = mlade_here(capsys, "model", "show", to)
    assert "annotation   dev.mlade.model.window.size: 100" in shown.out


def test_weights_are_pushed_too(registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And come back."""
    path = tmp_path / "big.onnx"
    onnx.save(models.dense(), path, save_as_external_data=True, location="big.bin", size_threshold=0)
    to = f"oci://{registry.host}/big:t"
    done = mlade_here(capsys, "model", "push", str(path), to)
    assert [line.partition(",")[0] for line in done.out.splitlines()[:2]] == ["big.onnx", "big.bin"]
    shown = json.loads(mlade_here(capsys, "model", "show", to, "--json").out)
    assert shown["external"] == {"big.bin": (tmp_path / "big.bin").stat().st_size}
    assert shown["problem"] is None


def test_a_model_whose_sizes_are_open_is_shown_with_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And timed when that is given."""
    model = models.graph("open (float[N, C, T] x) => (float[N, C] y) { y = ReduceMean <axes = [2], keepdims = 0> (x) }")
    path = str(models.write(model, tmp_path))
    shown = mlade_here(capsys, "model", "show", path)
    assert shown.code == 0
    assert "not run  its windows may have any size: give --window-size" in shown.out
    shown = mlade_here(capsys, "model", "show", path, "--window-size", "10")
    assert "its readings may have any number of values: give --channels" in shown.out
    shown = mlade_here(capsys, "model", "show", path, "--window-size", "10", "--channels", "3")
    assert "µs a window  1: " in shown.out
    assert 'input        "x" float32 [N, C, T] as NCT' in shown.out


def test_images_and_models_with_two_inputs_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The former timed, the latter with why they are not."""
    shown = json.loads(mlade_here(capsys, "model", "show", str(models.write(models.image(), tmp_path)), "--json").out)
    assert (shown["kind"], shown["problem"]) == ("probabilities", None)
    two = json.loads(
        mlade_here(capsys, "model", "show", str(models.write(models.two_inputs(), tmp_path)), "--json").out
    )
    assert "has 2 inputs" in two["problem"]
    assert (two["microseconds_per_window"], two["labels"]) == ({}, None)


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("models/motions:stable", 1, "push to oci://registry/repository:tag"),
        ("oci://registry.example/M:t", 2, "M is no repository"),
        ("oci://127.0.0.1:1/m:t", 1, "127.0.0.1:1 cannot be reached (Connection refused)"),
        (f"oci://127.0.0.1:1/m@sha256:{'0' * 64}", 1, "it comes of the content"),
    ],
)
def test_what_cannot_be_pushed_is_said(
    file: Path, capsys: pytest.CaptureFixture[str], to: str, code: int, said: str
) -> None:
    """In a sentence, with an exit code."""
    done = mlade_here(capsys, "model", "push", str(file), to)
    assert done.code == code
    assert said in done.err


def test_an_annotation_that_nothing_would_read_is_not_pushed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key of ours that is misspelt; others are the user's."""
    said = "dev.mlade.model.windows.size=20"
    done = mlade_here(capsys, "model", "push", str(file), "oci://127.0.0.1:1/m:t", "--annotation", said)
    assert done.code == 2
    assert "found dev.mlade.model.windows.size; after dev.mlade.model. stands one of window.size" in done.err


def test_what_is_no_model_is_not_pushed(registry: Registry, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nobody could load it."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"PK\x03\x04")
    done = mlade_here(capsys, "model", "push", str(path), f"oci://{registry.host}/never:t")
    assert (done.code, "a zip archive" in done.err) == (1, True)
    assert registry.ask("GET", "/v2/never/manifests/t")[0] == 404
    done = mlade_here(capsys, "model", "show", "oci://registry.example/M:t")
    assert (done.code, done.err.startswith("model.path: found oci://registry.example/M:t")) == (2, True)
    done = mlade_here(capsys, "model", "push", str(path), f"oci://{registry.host}/n:t", "--annotation", "x")
    assert (done.code, "found x, expected KEY=VALUE" in done.err) == (2, True)
