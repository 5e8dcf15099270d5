"""Images on their way through the house: their samples, what filters make of them, and how much room they take."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import struct
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limited
from hypothesis import strategies as st
from PIL import Image

from processor import assembly
from processor.assembly import build_computation, filter_problems, make_windows, most_messages, open_model
from processor.checking import check, report
from processor.computation import Computation
from processor.errors import ConfigurationError, ModelError, ModelMisfit
from processor.events import event_id
from processor.filter import validate_filter
from processor.journal import Journal
from processor.model.onnx_model import OnnxModel
from processor.pictures import brightness
from processor.recording import Reader, Writer
from processor.replay import Candidate, Replay
from processor.replay_run import Trial, play, replay_recording
from processor.settings import Slot, build
from processor.sizing import WindowSize
from processor.store import Changes
from processor.types import MODEL_SLOT, NS, DeadLetter, Message, Pixels, Predictions, Reason, Sample
from tests import models
from tests.images import encoded, noise, photograph, prepared
from tests.unit.test_journal import opened

START = 1_795_341_600 * NS
SIZE = (8, 12)
KEEP_ALL: Mapping[str, Any] = {"rules": [{"name": "all"}]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a model of images 8 high and 12 wide, which says what colour they are."""
    path = tmp_path_factory.mktemp("images")
    models.write(models.image(), path, "colours")
    models.write(models.image(channels_last=True), path, "colours-last")
    return path


def configured(directory: Path, *, model: Mapping[str, Any] | None = None, **keys: Any) -> Slot:  # noqa: ANN401
    """Return settings of one source of images for the model, with some of its keys changed."""
    image = {"height": SIZE[0], "width": SIZE[1]}
    source = {"name": "eye", "topics": ["camera/+"], "format": "image", "image": image, **keys}
    of_model = {
        "path": "colours.onnx",
        "temperature": 40,
        "output": {"labels": ["red", "green", "blue"]},
        **(model or {}),
    }
    data = {"id": "line-1", "sources": [source], "model": of_model, "filter": dict(KEEP_ALL)}
    (slot,) = build(data, directory).slots
    return slot


@pytest.fixture(scope="module")
def settings(directory: Path) -> Slot:
    """Return settings as they are nearly everywhere here."""
    return configured(directory)


@pytest.fixture(scope="module")
def model(settings: Slot) -> OnnxModel:
    """Return the model of the settings."""
    return open_model(settings)


def computation(settings: Slot, model: Any, filter_: Mapping[str, Any] = KEEP_ALL) -> Computation:  # noqa: ANN401
    """Put a computation together the way the processor does."""
    return build_computation(settings, model, validate_filter(filter_), windows=make_windows(settings)).computation


def plain(colour: Sequence[int], height: int = 16, width: int = 24, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    """Return an image of one colour."""
    return encoded(Image.new("RGB", (width, height), tuple(colour)), **options)


def shots(*payloads: bytes, camera: int = 1, seconds: float = 1.0) -> list[Message]:
    """Return what a camera publishes, so many seconds apart."""
    return [
        Message(f"camera/{camera}", payload, arrival=START + round(number * seconds * NS))
        for number, payload in enumerate(payloads)
    ]


def test_a_sample_is_the_file_that_came(settings: Slot, model: OnnxModel) -> None:
    """Every part of it by hand: its bytes in Base64, an id over them, the model's answer to what it sees."""
    payload = photograph()
    for content, kind in ((payload, "image/jpeg"), (plain((9, 200, 30)), "image/png")):
        (sample,) = computation(settings, model).run(shots(content)).samples
        event = json.loads(sample.event)
        assert event["data"]["readings"] == {
            "source": "eye",
            "start": "2026-11-22T10:00:00.000000Z",
            "end": "2026-11-22T10:00:00.000000Z",
            "fields": [],
            "times": ["2026-11-22T10:00:00.000000Z"],
            "values": [],
            "image": {"content_type": kind, "base64": base64.b64encode(content).decode()},
        }
        identifier = event_id("line-1", "eye", "camera/1", np.array([START]), content)
        assert event["id"] == sample.id == identifier
        colours = prepared(content, *SIZE).reshape(-1, 3).mean(axis=0) / 40
        powers = np.exp(colours - colours.max())
        found = event["data"]["inference"]["probabilities"]
        assert list(found.values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)
    assert (sample.label, sample.stream, sample.rule) == ("green", "camera/1", "all")


def test_the_id_is_over_the_payload() -> None:
    """As the contract has it: after the times, the file instead of the values."""
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"line-1", b"eye", b"default", b"camera/1"))
    expected = hashlib.sha256(texts + struct.pack("<q", START) + b"\xff\xd8file").hexdigest()[:32]
    assert event_id("line-1", "eye", "camera/1", np.array([START]), b"\xff\xd8file") == expected


@pytest.mark.parametrize("channels_last", [False, True])
def test_both_layouts_see_the_same(directory: Path, model: OnnxModel, *, channels_last: bool) -> None:
    """Colours first or last, the answers are those of the same pixels."""
    keys = {"path": "colours-last.onnx", "input": {"layout": "NHWC"}} if channels_last else {}
    settings = configured(directory, model=keys)
    messages = shots(photograph(), photograph("flower"), encoded(noise(30, 20)))
    found = computation(settings, open_model(settings)).run(messages).predictions.probabilities
    expected = computation(configured(directory), model).run(messages).predictions.probabilities
    assert found == pytest.approx(expected, abs=1e-6)


SHADES = [plain((shade, 255 - shade, 40 + shade // 2)) for shade in range(0, 256, 15)]
BROKEN = [b"", b"\xff\xd8\xff", encoded(noise(9, 9))[:-40], b"{}"]
FILTER: Mapping[str, Any] = {
    "rules": [
        {"name": "new", "where": {"labels": ["green"]}, "dedup": {"distance": 0.4}, "context": {"after": 1}},
        {"name": "few", "measure": "margin", "band": {"max": 0.5}, "limit": {"max": 2, "per": "5s", "by": "stream"}},
        {"name": "audit", "sample": 0.5},
    ]
}


@st.composite
def traffic(draw: st.DrawFn) -> list[Message]:
    """Draw what two cameras publish, with gaps, and some that is no image."""
    messages: list[Message] = []
    second = 0
    for _ in range(draw(st.integers(0, 25))):
        second += draw(st.sampled_from([0, 1, 1, 2, 60]))
        payload = draw(st.sampled_from(SHADES + BROKEN))
        messages.append(Message(f"camera/{draw(st.integers(1, 2))}", payload, arrival=START + second * NS))
    return messages


class Seen(NamedTuple):
    """All that is visible of some batches."""

    outgoing: list[Sample]
    dead_letters: list[DeadLetter]
    reasons: list[int]


def seen(subject: Computation, batches: Sequence[Sequence[Message]]) -> Seen:
    """Carry batches through, and gather what comes of them."""
    outcomes = [subject.run(batch) for batch in batches]
    return Seen(
        [sample for outcome in outcomes for sample in outcome.outgoing],
        [letter for outcome in outcomes for letter in outcome.dead_letters],
        [reason for outcome in outcomes for reason in outcome.judgement.verdicts.reason.tolist()],
    )


@given(traffic(), st.lists(st.integers(0, 25), max_size=5), st.integers(1, 3))
@limited(max_examples=40, deadline=None)
def test_any_batches_and_a_replay_give_the_same_samples(
    directory: Path, model: OnnxModel, messages: list[Message], cuts: list[int], step: int
) -> None:
    """To the byte, in the same order, with the same dead letters and reasons."""
    settings = configured(directory, model={"window": {"step": step, "max_gap": "30s"}})
    bounds = sorted({0, len(messages), *(at for at in cuts if at < len(messages))})
    batches = [messages[a:b] for a, b in itertools.pairwise(bounds)]
    together = seen(computation(settings, model, FILTER), [messages])
    assert seen(computation(settings, model, FILTER), batches) == together
    assert seen(computation(settings, model, FILTER), [[message] for message in messages]) == together
    replay = Replay(settings, model, [Candidate("file", validate_filter(FILTER))], samples=True)
    outcomes = [outcome for batch in batches for outcome in replay.run(batch)]
    assert [sample for outcome in outcomes for sample in outcome.outgoing] == together.outgoing


def test_a_recording_is_replayed_in_pieces_that_fit(
    settings: Slot, model: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images there are in a file, so many are decoded at once; two filters share the room."""
    path = tmp_path / "shots.jsonl"
    writer = Writer(path)
    writer.write(shots(*SHADES))
    writer.close()
    monkeypatch.setattr(assembly, "_PIXELS_AT_ONCE", 6 * SIZE[0] * SIZE[1] * 3)
    document = validate_filter(FILTER)
    replay = Replay(settings, model, [Candidate("a", document), Candidate("b", document)], samples=True)
    counts = []
    samples: list[Sample] = []

    def take(outcomes: Sequence[Any]) -> None:
        counts.append(len(outcomes[0].taken.origin))
        samples.extend(outcomes[0].outgoing)

    play(Reader(path), [replay], lambda *_: None, take)
    assert counts == [3] * 6
    assert samples == seen(computation(settings, model, FILTER), [shots(*SHADES)]).outgoing


def test_a_batch_of_images_takes_no_more_room_than_it_may(tmp_path: Path) -> None:
    """As many as are carried through at once: their pixels once, and what a few of them take on their way."""
    models.write(models.image(height=256, width=256), tmp_path, "colours")
    settings = configured(tmp_path, image={"height": 256, "width": 256})
    most = most_messages(settings)
    assert most == 170
    subject = computation(settings, open_model(settings), {"rules": [{"name": "none", "dedup": {}, "sample": 0}]})
    messages = shots(*[encoded(noise(256, 256, seed=number), "JPEG") for number in range(5)] * (most // 5))
    tracemalloc.start()
    subject.run(messages)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80 << 20


def test_other_readings_are_not_counted_so(directory: Path) -> None:
    """How many messages go together is up to `model.batch` there."""
    source = {"name": "s", "topics": ["t"], "fields": ["a"]}
    data = {"id": "x", "sources": [source], "model": {"path": "m.onnx"}, "filter": {}}
    assert most_messages(build(data, directory).slots[0]) > 1 << 60


class Choosy:
    """A model of images that does not take those whose first pixel is white, and learns what it was given."""

    name, sha256, labels, seconds_per_window = "choosy", "", ("a", "b"), 1e-6
    kind = "probabilities"

    def __init__(self) -> None:
        self.given: list[tuple[int, ...]] = []

    def infer(self, values: Pixels) -> Predictions:
        """Say how red an image's first pixel is."""
        self.given.append(values.shape)
        if len(values) == 0:
            return Predictions("probabilities", self.labels, np.empty((0, 2)), None)
        if (values[:, 0, 0] == 255).all(axis=1).any():
            raise ModelError("it is too white")
        red = values[:, 0, 0, 0] / 255
        return Predictions("probabilities", self.labels, np.stack((red, 1 - red), axis=1), None)


def test_an_image_that_the_model_fails_on_is_lost_alone(settings: Slot) -> None:
    """A dead letter with the first 64 KiB of the file; images, streams and answers of the others stay together."""
    white = plain((255, 255, 255), 1000, 1000, compress_level=0)
    payloads = [plain((51, 0, 0)), white, plain((102, 0, 0)), b"?", plain((153, 0, 0))]
    outcome = computation(settings, Choosy()).run(shots(*payloads))
    found = [json.loads(sample.event)["data"] for sample in outcome.samples]
    assert [one["inference"]["probabilities"]["a"] for one in found] == pytest.approx([0.2, 0.4, 0.6])
    files = [base64.b64decode(one["readings"]["image"]["base64"]) for one in found]
    assert files == [payloads[0], payloads[2], payloads[4]]
    assert [(letter.reason, len(letter.payload)) for letter in outcome.dead_letters] == [
        ("decode", 1),
        ("model", 65_536),
    ]
    assert outcome.windows.images is not None
    assert outcome.windows.images.payloads == files


def test_the_windows_hold_no_pixels(directory: Path, model: OnnxModel) -> None:
    """With a step places are counted, over restarts too; what is kept of each image is when it came."""
    settings = configured(directory, model={"window": {"step": 3, "max_gap": "30s"}})
    messages = shots(*SHADES[:12])
    expected = seen(computation(settings, model), [messages]).outgoing
    samples: list[Sample] = []
    for part in (messages[:4], messages[4:5], messages[5:]):
        with opened(directory / "state") as store:
            windows = make_windows(settings)
            journal = Journal(windows, "same", store.slot(MODEL_SLOT))
            subject = build_computation(settings, model, validate_filter(KEEP_ALL), windows=windows).computation
            outcome = subject.run(part)
            changes = Changes(samples=outcome.outgoing)
            own = changes.of(MODEL_SLOT)
            journal.record(own, outcome.taken.readings.slots, outcome.past)
            assert own.journal is not None
            assert len(own.journal[1]) == 24 * len(part)
            store.commit(changes, 0)
            samples += outcome.outgoing
    assert samples == expected
    assert [sample.time for sample in samples] == [START + second * NS for second in (0, 3, 6, 9)]


def test_context_after_a_sample(settings: Slot, model: OnnxModel) -> None:
    """The next image is sent along; what came before is not kept."""
    filter_ = {"rules": [{"name": "green", "where": {"labels": ["green"]}, "context": {"after": 1}}]}
    red, green = plain((255, 0, 0)), plain((0, 255, 0))
    outgoing = computation(settings, model, filter_).run(shots(red, green, red, red)).outgoing
    found = [json.loads(sample.event)["data"] for sample in outgoing]
    files = [base64.b64decode(one["readings"]["image"]["base64"]) for one in found]
    assert files == [green, red]
    assert found[1]["selection"]["context"] == {"of": outgoing[0].id, "offset": 1}


def test_near_duplicates_are_told_by_what_can_be_seen(settings: Slot, model: OnnxModel) -> None:
    """The same scene in another file, brighter by a little, is no new one; another scene is."""
    scene, other = (Image.open(io.BytesIO(photograph(name))) for name in ("china", "flower"))
    brighter = Image.fromarray(np.minimum(np.asarray(scene).astype(int) + 3, 255).astype(np.uint8))
    payloads = [
        photograph(),
        encoded(scene, "PNG"),
        encoded(scene.resize((320, 214)), "JPEG", quality=60),
        encoded(brighter, "JPEG"),
        encoded(other, "JPEG"),
        encoded(scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG"),
        photograph("flower"),
    ]
    outcome = computation(settings, model, {"rules": [{"name": "new", "dedup": {"distance": 0.3}}]}).run(
        shots(*payloads)
    )
    kept = [reason == Reason.ACCEPTED for reason in outcome.judgement.verdicts.reason.tolist()]
    assert kept == [True, False, False, False, True, True, False]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 1), (1, 50), (8, 12), (31, 45), (224, 100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_compared_is_the_mean_brightness_of_each_field(height: int, width: int, channels: int) -> None:
    """As from an image enlarged until every field has whole pixels; on any machine, in any company."""
    images = np.stack([noise(height, width, channels, seed) for seed in range(3)])
    found = brightness(images, np.array([2, 0]))
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.ones(1)
    for row, image in zip(found, images[[2, 0]], strict=True):
        large = np.kron(image @ weights, np.ones((16, 16)))
        expected = large.reshape(16, height, 16, width).mean(axis=(1, 3))
        assert row.reshape(16, 16) == pytest.approx(expected, abs=1e-9)
    assert brightness(images[:1], np.array([0])).tobytes() == found[1:].tobytes()


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        (
            {"where": {"fields": {"x": {"min": 1}}}},
            "rules[0].where.fields.x",
            "images have no fields; leave this key out",
        ),
        (
            {"context": {"before": 2}},
            "rules[0].context.before",
            "found 2, expected 0: images are not kept, so none from",
        ),
    ],
)
def test_a_filter_that_images_cannot_meet_is_refused(
    settings: Slot, model: OnnxModel, rule: Mapping[str, Any], path: str, message: str
) -> None:
    """As a document that does not fit, from a file, a topic or a twin."""
    (problem,) = filter_problems(settings, model, validate_filter({"rules": [{"name": "a", **rule}]}))
    assert problem.path == path
    assert message in problem.message


def test_another_window_size_is_not_possible(settings: Slot, model: OnnxModel, tmp_path: Path) -> None:
    """A twin's ADInputLength is refused."""
    with opened(tmp_path) as store:
        subject = computation(settings, model)
        sizes = WindowSize(
            configured=1,
            computation=subject,
            journal=Journal(subject.windows, "same", store.slot(MODEL_SLOT)),
            open_models=lambda size: (open_model(settings.with_window_size(size)), None),
            signature=str,
        )
        with pytest.raises(ModelMisfit, match=r"has no time; set model\.window\.size to 1"):
            sizes.propose(13)


SOURCE: Mapping[str, Any] = {"name": "eye", "topics": ["c"], "format": "image", "image": {"height": 8, "width": 12}}


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        (
            {"model": {"path": "colours.onnx", "window": {"size": 4}}},
            {"model.window.size": "found 4, expected 1: a window of images is one image"},
        ),
        (
            {"model": {"path": "colours.onnx", "input": {"mean": [1, 2], "std": [1, 2, 3]}}},
            {"model.input.mean": "2 numbers for 3 colours; expected one, or one a colour"},
        ),
        (
            {"sources": [SOURCE, {**SOURCE, "name": "b", "image": {"height": 8, "width": 12, "color": "grey"}}]},
            {"sources[1].image": "found grey, 8 high and 12 wide, but sources[0] has rgb, 8 high and 12 wide; all"},
        ),
        (
            {"sources": [SOURCE, {"name": "b", "topics": ["b"], "fields": ["x", "y", "z"]}]},
            {"sources[1].format": 'found "json", but sources[0] has "image"; all sources feed one model'},
        ),
        (
            {"sources": [{**SOURCE, "image": {"height": 9, "width": 12}}]},
            {"sources[0].image.height": "set the image's height to 8"},
        ),
        (
            {"sources": [{**SOURCE, "image": {"height": 8, "width": 12, "color": "grey"}}]},
            {"sources[0].image.color": "the sources give grey images, 8 high and 12 wide: set image.color to rgb"},
        ),
        (
            {"sources": [{**SOURCE, "qos": 3}], "model": {"path": "colours-last.onnx"}},
            {
                "sources[0].qos": "expected",
                "sources[0].image.color": "or set model.input.layout to NHWC",
                "sources[0].image.height": "or set model.input.layout to NHWC",
                "sources[0].image.width": "or set model.input.layout to NHWC",
            },
        ),
        (
            {"filter": {"rules": [{"name": "a", "where": {"fields": {"x": {"min": 1}}}, "context": {"before": 1}}]}},
            {
                "filter.rules[0].where.fields.x": "images have no fields",
                "filter.rules[0].context.before": "images are not kept",
            },
        ),
    ],
)
def test_check_tells_what_does_not_fit(
    directory: Path, changes: Mapping[str, Any], problems: Mapping[str, str]
) -> None:
    """Sources, model and filter against each other, all of it at once."""
    file = directory / "processor.yaml"
    data = {"id": "line-1", "sources": [SOURCE], "model": {"path": "colours.onnx"}, "filter": {"rules": []}, **changes}
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError) as refusal:
        check(file)
    found = {problem.path: problem.message for problem in refusal.value.problems}
    assert found.keys() == problems.keys()
    for path, part in problems.items():
        assert part in found[path]


def test_check_says_what_the_model_sees(directory: Path) -> None:
    """Size and colours, and the order in which they go in."""
    file = directory / "processor.yaml"
    data = {"id": "line-1", "sources": [SOURCE], "model": {"path": "colours.onnx"}, "filter": {"rules": []}}
    file.write_text(json.dumps(data))
    lines = dict(report(check(file)))
    assert lines["model input"] == (
        'images, rgb, 8 high and 12 wide, in 1 reading become "x" uint8 [N, 3, 8, 12] as NCHW (batch, channels, '
        "height, width)"
    )


@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_a_report_shows_images_as_pictures(tmp_path: Path, color: str) -> None:
    """Those that the model is most and least certain of, small and inside the page."""
    image = {"height": 300, "width": 400, "color": color}
    if color == "rgb":
        models.write(models.image(height=300, width=400), tmp_path, "colours")
        settings = configured(tmp_path, image=image)
    else:
        models.write(models.mean_image("float", "NCHW", (300, 400), 1), tmp_path, "colours")
        settings = configured(tmp_path, image=image, model={"output": {"kind": "value"}, "temperature": 1})
    writer = Writer(tmp_path / "shots.jsonl")
    writer.write(shots(photograph(), photograph("flower"), *BROKEN))
    writer.close()
    page = tmp_path / "report.html"
    replay_recording(
        [Trial(settings, open_model(settings), [Candidate("file", validate_filter(KEEP_ALL))])],
        tmp_path / "shots.jsonl",
        progress=lambda *_: None,
        report=page,
    )
    pictures = page.read_text().split('<figure><img src="data:image/png;base64,')[1:]
    shown = [Image.open(io.BytesIO(base64.b64decode(picture.partition('"')[0]))) for picture in pictures]
    assert [picture.size for picture in shown] == [(200, 150)] * 4
    assert {picture.mode for picture in shown} == {"RGB" if color == "rgb" else "L"}
    assert page.read_text().count("<figcaption>") == 4
