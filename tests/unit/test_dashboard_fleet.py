"""What the dashboard makes of what comes from a broker: bounded, and nothing that comes can upset it."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from processor.clock import ManualClock
from processor.dashboard.drawing import bars, lines, shares, spark
from processor.dashboard.fleet import Fleet
from processor.dashboard.fleet_page import row
from processor.dashboard.samples import read_letter, read_sample, shown_payload
from processor.types import Message
from tests.images import encoded

METRICS = {"time": "2026-11-22T10:00:00Z", "counters": {"messages": 3}}
STATE = {"status": "applied", "revision": 4, "sha256": "0", "source": "topic", "active": {"rules": []}}


def told(topic: str, body: object) -> Message:
    """Return a message; text as it is, anything else as JSON."""
    return Message(f"mlade/{topic}", body.encode() if isinstance(body, str) else json.dumps(body).encode())


def event(number: int, **data: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a sample."""
    return {
        "id": f"{number:032x}",
        "time": "2026-11-22T10:00:00Z",
        "subject": "plant/7",
        "data": {
            "readings": {"fields": ["a", "b"], "values": [[1.0, 2], [3, 4.5]]},
            "inference": {"label": "worn", "confidence": 0.52},
            "selection": {"rule": "ambiguous", "measure": "confidence", "score": 0.52, "band": [0.4, None]},
            **data,
        },
    }


def fleet(clock: ManualClock | None = None) -> Fleet:
    """Return an empty one."""
    return Fleet(["mlade", "plant/north"], (clock or ManualClock()).monotonic)


def test_processors_are_known_by_their_topics() -> None:
    """Under any of the prefixes; what they say last counts, and what is cleared is gone."""
    one = fleet()
    one.take([told("a/status", "online"), told("a/metrics", METRICS), told("a/filter/state", STATE)])
    one.take([Message("plant/north/b/status", b"offline"), Message("plant/south/c/status", b"online"), told("x", "")])
    assert list(one.processors) == ["mlade/a", "plant/north/b"]
    known = one.processors["mlade/a"]
    assert (known.id, known.online, known.active) == ("a", True, {"rules": []})
    assert known.metrics is not None
    assert known.metrics.counters == {"messages": 3}
    one.take([told("a/filter/history", {"revisions": [{"revision": 4, "filter": {}}]}), told("a/status", "")])
    assert list(one.processors) == ["plant/north/b"]


def test_of_several_models_each_can_be_seen_alone() -> None:
    """Its filter, its history, its figures; a rejection is told for the processor with the model's name."""
    one = fleet()
    of_a = {"filter_revision": 7, "by_rule": {"x": 2}, "counters": {"windows": 3}, "streams": 4}
    of_a |= {"last_hour": {"minutes": {"windows": [3]}, "scores": [{"rule": "x"}]}, "model": {"name": "motions"}}
    several = {**METRICS, "last_hour": {"minutes": {"messages": [9], "windows": [8]}}, "models": {"a": of_a, "b": {}}}
    rejected = STATE | {"status": "rejected", "errors": [{"path": "rules", "message": "no"}]}
    one.take([told("p/status", "online"), told("p/metrics", several), told("p/models/a/filter/state", STATE)])
    history = {"revisions": [{"revision": 7, "filter": {}}]}
    one.take([told("p/models/b/filter/state", rejected), told("p/models/a/filter/history", history)])
    whole = one.processors["mlade/p"]
    assert whole.models == ["a", "b"]
    assert whole.filter is None
    a, b = whole.of("a"), whole.of("b")
    assert a.metrics is not None
    assert (a.metrics.filter_revision, a.metrics.by_rule, a.metrics.model.name) == (7, {"x": 2}, "motions")
    assert a.metrics.counters == {"messages": 3, "windows": 3}
    assert a.metrics.last_hour.minutes == {"messages": [9], "windows": [3]}
    assert [scores.rule for scores in a.metrics.last_hour.scores] == ["x"]
    assert (a.filter is not None, [revision.revision for revision in a.revisions]) == (True, [7])
    assert a.models == []
    assert b.filter is not None
    assert b.filter.status == "rejected"
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert "The last filter of b, from the topic, was rejected" in row(whole, 0.0, now)["problems"][0]
    assert row(a, 0.0, now)["problems"] == ["Its filter has no rules, so nothing is kept."]
    assert row(whole, 0.0, now)["said"]["revision"] == "—"


def test_models_that_are_told_of_are_bounded() -> None:
    """Whoever writes them."""
    one = fleet()
    one.take([told("p/status", "online")])
    one.take([told(f"p/models/m{number}/filter/state", STATE) for number in range(500)])
    assert len(one.processors["mlade/p"].slots) == 64
    one.take([told("p/models/m1/model/state", "?"), told("p/models//filter/state", STATE), told("p/models/m1", STATE)])
    assert len(one.processors["mlade/p"].slots) == 64


def test_how_often_a_processor_speaks_is_learnt_from_what_is_not_retained() -> None:
    """So that its silence can be told."""
    clock = ManualClock(monotonic=1.0)
    one = fleet(clock)
    one.take([told("a/metrics", METRICS)])
    clock.advance(30)
    one.take([told("a/metrics", METRICS)])
    assert one.processors["mlade/a"].every == 30


def test_of_many_samples_a_few_a_second_are_looked_at() -> None:
    """And two dozen are kept; a repeat counts once; those of nobody who is known, not at all."""
    clock = ManualClock()
    one = fleet(clock)
    one.take([told("a/accepted/r", event(1))])
    assert not one.processors
    one.take([told("a/status", "online")])
    one.take([told("a/accepted/r", event(number)) for number in range(1000)])
    assert [sample.id for sample in one.processors["mlade/a"].samples] == [f"{at:032x}" for at in range(23, -1, -1)]
    clock.advance(0.5)
    one.take([told("a/accepted/r", event(number)) for number in (5, 2000, 2001)])
    assert [int(sample.id, 16) for sample in one.processors["mlade/a"].samples][:3] == [2000, 5, 23]
    assert len(one.processors["mlade/a"].samples) == 24


def test_there_is_room_for_a_thousand_processors() -> None:
    """Others are counted."""
    one = fleet()
    one.take([told(f"p{number}/status", "online") for number in range(1010)])
    assert len(one.processors) == 1000
    assert one.too_many == 10


KEYS = [
    *(
        "outbox",
        "lost",
        "bridges",
        "last_hour",
        "minutes",
        "messages",
        "windows",
        "accepted",
        "rates",
        "counters",
        "blocked",
    ),
    *("id", "data", "readings", "values", "fields", "selection", "band", "score", "inference", "label", "time"),
    *("reason", "payload"),
]
TOPICS = [
    *("status", "metrics", "filter/state", "filter/history", "deadletter", "accepted/r", "command/response", "other"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(TOPICS),
    st.binary(max_size=30) | JSON.map(lambda body: json.dumps(body).encode()),
)
def test_nothing_that_comes_upsets_it(topic: str, payload: bytes) -> None:
    """What is no processor's is counted, and changes nothing."""
    one = fleet()
    one.take([told("a/status", "online")])
    before = one.processors["mlade/a"]
    one.take([Message(f"mlade/a/{topic}", payload)])
    after = one.processors.get("mlade/a", before)
    assert after == before or not one.foreign
    json.dumps(row(after, 0.0, datetime.now(UTC)))


def test_a_sample_is_shown_small() -> None:
    """A few channels, some of the points; what is missing is missing."""
    rows = [[float(number)] * 10 for number in range(5000)]
    names = [f"f{number}" for number in range(10)]
    sample = read_sample(json.dumps(event(1, readings={"fields": names, "values": rows})).encode())
    assert sample is not None
    assert (sample.size, len(sample.channels)) == (5000, 6)
    assert 100 <= len(sample.channels[0][1]) <= 120
    plain = read_sample(json.dumps(event(1)).encode())
    assert plain is not None
    assert (plain.label, plain.score, plain.band) == ("worn", 0.52, (0.4, None))
    assert plain.channels == (("a", (1.0, 3.0)), ("b", (2.0, 4.5)))
    bare = read_sample(b'{"id": "1", "data": {"readings": {"fields": [], "values": [[1]]}}}')
    assert bare is not None
    assert (bare.label, bare.measure, bare.channels) == (None, None, ())
    assert read_sample(b'{"id": "1"}') is None


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (300, 200)), ("PNG", (300, 200)), ("PNG", (30, 20))])
def test_an_image_is_a_thumbnail(kind: str, size: tuple[int, int]) -> None:
    """However large the file; the browser test shows that it is drawn."""
    file = encoded(Image.new("RGB", size), kind)
    readings = {
        "fields": [],
        "values": [],
        "image": {"content_type": "image/x", "base64": base64.b64encode(file).decode()},
    }
    sample = read_sample(json.dumps(event(1, readings=readings)).encode())
    assert sample is not None
    assert sample.picture is not None
    png = base64.b64decode(sample.picture.partition(",")[2])
    assert Image.open(io.BytesIO(png)).size == (min(96, size[0]), min(64, size[1]))


@pytest.mark.parametrize("image", [{}, {"base64": "?"}, {"base64": "AAAA"}, 5, {"base64": "iVBORw0KGgo="}])
def test_what_is_no_image_has_no_thumbnail(image: object) -> None:
    """Other files, halves of one, nothing."""
    sample = read_sample(json.dumps(event(1, readings={"values": [], "image": image})).encode())
    assert sample is not None
    assert sample.picture is None


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"plain", "plain"),
        (b"\xff\x00", "ff 00"),
        ("ä".encode() * 10_000, "ä" * 8192 + "\n… and 3,616 more bytes"),
        (b"x" + "ä".encode() * 10_000, "x" + "ä" * 8191 + "\n… and 3,617 more bytes"),
    ],
)
def test_a_dead_letters_payload_is_shown_as_text_where_it_is_text(payload: bytes, shown: str) -> None:
    """Else in hexadecimal; of a long one the beginning."""
    body = {"reason": "decode", "topic": "t", "payload": base64.b64encode(payload).decode()}
    letter = read_letter(json.dumps(body).encode())
    assert letter is not None
    assert shown_payload(letter) == shown


def test_drawings_hold_nothing_that_would_be_run() -> None:
    """Names from outside are text."""
    evil = "<img src=x onerror=alert(1)>"
    assert "<img" not in bars([1.0], [evil], 60, "kept") + shares([(evil, 1.0, evil)])
    assert lines([]) == spark([]) == ""
    assert lines([("a", (1.0, 1.0))]).count("polyline") == 1
    assert lines([("a", (-1.0,)), ("b", (2.0,))]).count("<rect") == 2
