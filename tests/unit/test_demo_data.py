"""The demo's recordings, its player and its model."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from processor.demo import data
from processor.demo.data import FIELDS, MODEL_PATH, WINDOW_SIZE, WINDOW_STEP
from scripts.convert_basic_motions import convert
from scripts.train_demo_model import train

ACTIVITIES = ["badminton", "running", "standing", "walking"]
LOOP = 40 * 100  # readings of the test half

Singles = NDArray[np.float32]


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model the way the processor runs it: on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


SESSION = session_of(MODEL_PATH.read_bytes())


def probabilities_of(windows: Singles, session: onnxruntime.InferenceSession = SESSION) -> Singles:
    """Return (W, 4) probabilities for (W, 6, WINDOW_SIZE) windows."""
    answer: Singles = session.run(["probabilities"], {"input": windows})[0]
    return answer


def windows_of(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cut (T, 6) readings of one stream into (6, WINDOW_SIZE) windows."""
    return [rows[start : start + WINDOW_SIZE].T for start in range(0, len(rows) - WINDOW_SIZE + 1, WINDOW_STEP)]


def windows_of_the_test_half() -> tuple[Singles, NDArray[np.str_]]:
    """Return the windows that lie within one test recording, and what was done in each."""
    recordings = data.load("test")
    cut = [windows_of(series.T) for series in recordings.values]
    windows = np.array(list(itertools.chain.from_iterable(cut)), np.float32)
    return windows, np.repeat(recordings.activities, len(cut[0]))


def played(watch: int, count: int) -> list[tuple[float, ...]]:
    """Return the first `count` readings of a watch."""
    return list(itertools.islice(data.readings(watch), count))


WINDOWS, TRUTH = windows_of_the_test_half()
STREAMED = np.array(list(itertools.chain.from_iterable(windows_of(np.array(played(n, 420))) for n in range(5))), "f4")
ALONE = np.concatenate([probabilities_of(window[None]) for window in STREAMED])


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_half_holds_ten_recordings_of_each_activity(split: str) -> None:
    """Forty recordings of six channels and ten seconds, and four activities, as the archive describes them."""
    recordings = data.load("train" if split == "train" else "test")

    assert recordings.values.shape == (40, len(FIELDS), 10 * data.RATE_HZ)
    assert recordings.values.dtype == np.float64
    assert np.isfinite(recordings.values).all()
    assert sorted(recordings.activities) == sorted(ACTIVITIES * 10)


def test_values_are_those_of_the_source() -> None:
    """The first readings of each half are, digit by digit, those of BasicMotions_TRAIN.ts and BasicMotions_TEST.ts."""
    train_half, test_half = data.load("train"), data.load("test")

    assert train_half.activities[0] == test_half.activities[0] == "standing"
    assert train_half.values[0, 0, :4].tolist() == [0.079106, 0.079106, -0.903497, 1.116125]
    assert train_half.values[0, 1, :4].tolist() == [0.394032, 0.394032, -3.666397, -0.656101]
    assert test_half.values[0, 0, :4].tolist() == [-0.740653, -0.740653, 10.208449, 2.867009]
    both = np.stack([train_half.values, test_half.values])
    assert np.array_equal(both, both.round(6)), "the source has six decimals"


def test_the_file_names_its_source_and_its_licence() -> None:
    """Whoever finds the file alone learns where it is from and on what terms; the documentation says the same."""
    with (resources.files("processor.demo") / "basic_motions.npz").open("rb") as file, np.load(file) as archive:
        source, licence = str(archive["source"]), str(archive["licence"])

    assert source.startswith("BasicMotions, UEA multivariate time series classification archive")
    assert "aeon-1.6.0" in source
    assert "aeon 1.6.0" in str(data.__doc__)
    assert "arXiv:1811.00075" in source
    assert "arXiv:1811.00075" in str(data.__doc__)
    assert licence.startswith("BSD 3-Clause License")


def test_the_converter_keeps_every_digit(tmp_path: Path) -> None:
    """A wheel with two small .ts files becomes arrays of exactly their numbers."""
    wheel, destination = tmp_path / "aeon-0-py3-none-any.whl", tmp_path / "out.npz"
    folder = "aeon/datasets/data/BasicMotions/BasicMotions_"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{folder}TRAIN.ts", "#about\n@data\n0.1,-5.8E-5:2,3:Walking\n4,5:6,7:Standing\n")
        archive.writestr(f"{folder}TEST.ts", "@data\n8,9:10,11.123456:Walking\n")
        archive.writestr("aeon-0.dist-info/licenses/LICENSE", "terms")

    convert(wheel, destination)

    with np.load(destination) as made:
        assert made["train_x"].tolist() == [[[0.1, -5.8e-5], [2, 3]], [[4, 5], [6, 7]]]
        assert made["test_x"].tolist() == [[[8, 9], [10, 11.123456]]]
        assert made["labels"][made["train_y"]].tolist() == ["walking", "standing"]
        assert made["labels"][made["test_y"]].tolist() == ["walking"]
        assert wheel.name in str(made["source"])
        assert str(made["licence"]) == "terms"


def test_a_watch_plays_the_whole_test_half_and_begins_again() -> None:
    """One loop holds each test reading once, and the next loop is the same."""
    rows = played(3, 2 * LOOP)
    recorded = data.load("test").values.swapaxes(1, 2).reshape(LOOP, len(FIELDS)).tolist()

    assert sorted(rows[:LOOP]) == sorted(map(tuple, recorded))
    assert rows[LOOP:] == rows[:LOOP]


def test_a_wearer_changes_activity_every_ten_seconds() -> None:
    """Every recording is followed by one of another activity, so that streams have real transitions."""
    recordings = data.load("test")
    activity_of = {
        tuple(map(tuple, series.T.tolist())): activity
        for series, activity in zip(recordings.values, recordings.activities, strict=True)
    }
    rows = played(0, LOOP + 100)
    activities = [activity_of[tuple(rows[start : start + 100])] for start in range(0, len(rows), 100)]

    assert all(now != after for now, after in itertools.pairwise(activities))


@settings(deadline=None)  # the machine may be busy
@given(watch=st.integers(0, 10**6), other=st.integers(1, LOOP - 1))
def test_watches_play_the_same_again_and_differ_from_each_other(watch: int, other: int) -> None:
    """A watch's number decides what it plays; no two of 4,000 neighbours play the same at once."""
    assert played(watch, 40) == played(watch, 40)
    assert played(watch, 40) != played(watch + other, 40)


def test_ten_watches_do_not_all_do_the_same() -> None:
    """At any time the demo's ten watches show at least three activities."""
    recordings = data.load("test")
    activity_of = {
        tuple(row): activity
        for series, activity in zip(recordings.values, recordings.activities, strict=True)
        for row in series.T.tolist()
    }
    streams = [[activity_of[row] for row in played(watch, LOOP)] for watch in range(10)]

    assert min(len(set(moment)) for moment in zip(*streams, strict=True)) >= 3


def test_playing_needs_no_training_library() -> None:
    """Users do not have the libraries that made the model."""
    code = "import sys, processor.demo.data as d; next(d.readings(0)); print({'sklearn', 'onnx'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_the_model_says_what_it_takes_and_gives() -> None:
    """Raw windows in, in any number; probabilities and the label out; labels and window size in its metadata."""
    (given_input,), outputs = SESSION.get_inputs(), {output.name: output for output in SESSION.get_outputs()}
    metadata = SESSION.get_modelmeta().custom_metadata_map

    assert (given_input.name, given_input.type) == ("input", "tensor(float)")
    assert given_input.shape == ["N", len(FIELDS), WINDOW_SIZE]
    assert outputs["probabilities"].shape == ["N", len(ACTIVITIES)]
    assert outputs["label"].type == "tensor(string)"
    assert json.loads(metadata["labels"]) == ACTIVITIES
    assert int(metadata["window_size"]) == WINDOW_SIZE
    assert "BasicMotions" in SESSION.get_modelmeta().description


def test_the_model_is_small_and_readable_by_the_oldest_supported_runtime() -> None:
    """ONNX Runtime 1.20 reads IR version 10 and opset 21; some room is left."""
    model = onnx.load(MODEL_PATH)

    assert MODEL_PATH.stat().st_size < 200_000
    assert model.ir_version <= 10
    assert {(opset.domain, opset.version <= 18) for opset in model.opset_import} == {("", True)}


def test_the_model_is_mostly_right_on_recordings_it_never_saw() -> None:
    """Between eight and nine and a half times in ten, and its label is the likeliest one."""
    probabilities, label = SESSION.run(["probabilities", "label"], {"input": WINDOWS})

    assert label.tolist() == [ACTIVITIES[best] for best in probabilities.argmax(axis=1)]
    assert 0.80 <= np.mean(label == TRUTH) <= 0.95
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-6


def test_the_model_is_unsure_where_it_is_often_wrong() -> None:
    """An eighth to a third of the windows lie between 0.4 and 0.7, and confidence agrees with how often it is right."""
    probabilities = probabilities_of(WINDOWS)
    confidence = probabilities.max(axis=1)
    right = np.array(ACTIVITIES)[probabilities.argmax(axis=1)] == TRUTH
    unsure = (confidence >= 0.4) & (confidence <= 0.7)

    assert 0.12 <= unsure.mean() <= 0.30
    assert right[unsure].mean() < 0.75
    assert right[confidence > 0.7].mean() > 0.9
    assert abs(confidence.mean() - right.mean()) < 0.05


@settings(deadline=None)  # the machine may be busy
@given(chosen=st.lists(st.integers(0, len(STREAMED) - 1), min_size=1, max_size=70))
def test_an_answer_does_not_depend_on_its_company(chosen: list[int]) -> None:
    """A window alone and the same window anywhere in a batch of any size have bit-equal probabilities."""
    assert np.array_equal(probabilities_of(STREAMED[chosen]), ALONE[chosen])


def test_training_again_gives_the_model_that_is_here() -> None:
    """The script, the training half and nothing else made motions.onnx."""
    again = session_of(train().SerializeToString())

    assert np.abs(probabilities_of(WINDOWS, again) - probabilities_of(WINDOWS)).max() < 1e-6
