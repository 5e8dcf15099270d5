"""Twelve filters and one with a shadow, replayed by mlade and computed again from the contract alone, keep the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from processor.demo.data import FIELDS, MODEL_PATH, readings
from tests import models
from tests.commands import mlade_here
from tests.integration import filters_again
from tests.integration.filters_again import Window

BERLIN: Final = "Europe/Berlin"
PARTS: Final = (
    ("2026-10-24T21:59:30", 60),  # midnight in Berlin
    ("2026-10-25T00:59:40", 40),  # 02:59 there, and then 02:00 again
    ("2026-10-26T06:28:20.5", 90),  # Monday, 07:28 of winter time
    ("2027-01-31T23:59:45", 30),
)
"""When the recording was made: starts, UTC, and seconds."""
REST: Final = (0.5, 0.1, -0.2, 0.0, 0.0, 0.0)

SOURCES: Final = [
    {"name": "imu", "topics": ["wearable/+/imu"], "fields": list(FIELDS), "time": "ts"},
    {
        "name": "press",
        "topics": ["press/+/data"],
        "fields": ["/m/a/0", "/m/a/1", "/m/a/2", "/m/g/0", "/m/g/1", "/m/g/2"],
        "stream": "press-{topic[1]}",
    },
]
WINDOW: Final = {"size": 20, "step": 5, "max_gap": "5s"}
LABELS: Final = ["badminton", "running", "standing", "walking"]
CANDIDATE: Final = ["walking", "sitting", "running", "standing", "badminton"]
"""The shadow's labels: in another order, and one that the model does not know."""
MODELS: Final[dict[str, dict[str, Any]]] = {
    "motions": {"window": WINDOW, "output": {"kind": "probabilities", "labels": LABELS}},
    "calibrated": {
        "window": {"size": 20, "step": 23, "max_gap": "4s"},
        "input": {"mean": [0.1, 0.2, 0.3, 0, 0.1, 0.2], "std": [1.5, 2, 1, 3, 1, 1.5]},
        "output": {"kind": "probabilities", "labels": LABELS},
        "temperature": 3.0,
    },
    "shadowed": {
        "window": WINDOW,
        "output": {"kind": "probabilities", "labels": LABELS},
        "shadow": {"path": "", "sample": 0.4, "output": {"kind": "probabilities", "labels": CANDIDATE}},
    },
    "score": {"window": WINDOW, "output": {"kind": "score", "labels": ["normal", "odd"]}},
    "value": {"window": WINDOW, "output": {"kind": "value"}},
}

FILTERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "bands": (
        "motions",
        {
            "rules": [
                {
                    "name": "unsure",
                    "measure": "confidence",
                    "band": {"min": 0.4, "max": 0.8},
                    "tags": {"campaign": "q4"},
                },
                {
                    "name": "runs",
                    "measure": "probability",
                    "label": "running",
                    "band": {"min": 0.01},
                    "sample": 0.7,
                    "priority": 3,
                },
                {"name": "audit", "sample": 0.05},
            ]
        },
    ),
    "where": (
        "motions",
        {
            "rules": [
                {
                    "name": "outside",
                    "measure": "margin",
                    "band": {"min": 0.3, "max": 0.9},
                    "outside": True,
                    "where": {
                        "labels": ["running", "walking"],
                        "streams": ["wearable/+/imu"],
                        "fields": {"ax": {"min": -5, "max": 2}, "gz": {"max": 1}},
                    },
                },
                {"name": "press", "where": {"streams": ["press-7"]}, "sample": 0.3},
                {
                    "name": "spread",
                    "where": {"streams": ["wearable/#"]},
                    "measure": "entropy",
                    "band": {"min": 0.2, "max": 0.5},
                    "sample": 0.5,
                },
            ]
        },
    ),
    "keep": (
        "motions",
        {
            "rules": [
                {"name": "spread", "measure": "entropy", "keep": {"share": 0.1, "of": "highest", "over": 300}},
                {"name": "audit", "sample": 0.05},
                {
                    "name": "low",
                    "measure": "confidence",
                    "keep": {"share": 0.05, "of": "lowest"},
                    "sample": 0.5,
                    "limit": {"max": 6, "per": "60s"},
                },
            ]
        },
    ),
    "keep after others": (
        "motions",
        {
            "rules": [
                {
                    "name": "near",
                    "where": {"labels": ["standing", "walking"]},
                    "measure": "margin",
                    "band": {"max": 0.999},
                    "keep": {"share": 0.2, "of": "lowest", "over": 100},
                    "sample": 0.6,
                    "cooldown": {"for": "1500ms", "by": "stream"},
                },
                {"name": "sure", "measure": "confidence", "keep": {"share": 0.02}},
            ]
        },
    ),
    "night": (
        "motions",
        {
            "schedule": {
                "timezone": BERLIN,
                "weekly": [
                    {"days": ["sat"], "from": "23:30", "to": "02:00"},
                    {"days": ["mon"], "from": "07:29", "to": "07:30"},
                ],
                "cron": [{"cron": "0 2 * * *", "duration": "30s"}],
            },
            "rules": [
                {
                    "name": "first",
                    "schedule": {"timezone": BERLIN, "cron": [{"cron": "0 0 * * 0", "duration": "15s"}]},
                    "sample": 0.5,
                },
                {"name": "rest", "sample": 0.4},
            ],
        },
    ),
    "duty cycle": (
        "calibrated",
        {
            "schedule": {
                "timezone": "America/New_York",
                "between": [
                    {"start": "2026-10-24T18:00:00", "end": "2026-10-24T21:00:10"},
                    {"start": "2026-10-26T06:29:00Z", "end": "2026-10-26T06:29:30Z"},
                    {"start": "2027-01-31T00:00:00Z", "end": "2027-02-01T00:00:00Z"},
                ],
                "duty_cycle": {"period": "7s", "fraction": 0.3},
            },
            "rules": [
                {
                    "name": "most",
                    "measure": "margin",
                    "band": {"max": 0.4},
                    "schedule": {"duty_cycle": {"period": "1m", "fraction": 0.9}},
                },
                {"name": "rest", "measure": "entropy", "band": {"min": 0.3}, "sample": 0.8},
            ],
        },
    ),
    "cooldown": (
        "motions",
        {
            "rules": [
                {"name": "stream", "cooldown": {"for": "3s", "by": "stream"}, "sample": 0.5},
                {
                    "name": "label",
                    "cooldown": {"for": "2s", "by": "label"},
                    "measure": "margin",
                    "band": {"min": 0.5},
                },
                {"name": "rule", "cooldown": {"for": "10s", "by": "rule"}},
            ]
        },
    ),
    "limit": (
        "motions",
        {
            "rules": [
                {
                    "name": "label",
                    "limit": {"max": 5, "per": "30s", "by": "label"},
                    "measure": "confidence",
                    "band": {"min": 0.6},
                },
                {"name": "stream", "limit": {"max": 3, "per": "20s", "by": "stream"}, "sample": 0.5},
                {"name": "rule", "limit": {"max": 10, "per": "1m"}, "cooldown": {"for": "500ms", "by": "label"}},
            ]
        },
    ),
    "disabled": ("motions", {"enabled": False, "rules": [{"name": "all"}]}),
    "context": (
        "motions",
        {
            "rules": [
                {
                    "name": "wide",
                    "sample": 0.03,
                    "context": {"before": 2, "after": 1},
                    "cooldown": {"for": "1s", "by": "stream"},
                },
                {
                    "name": "unsure",
                    "measure": "confidence",
                    "band": {"max": 0.55},
                    "context": {"before": 1, "after": 3},
                },
            ]
        },
    ),
    "shadow": (
        "shadowed",
        {
            "rules": [
                {
                    "name": "far",
                    "measure": "disagreement",
                    "band": {"min": 0.93},
                    "sample": 0.6,
                    "limit": {"max": 5, "per": "20s", "by": "label"},
                },
                {
                    "name": "near",
                    "measure": "disagreement",
                    "where": {"streams": ["wearable/#"]},
                    "keep": {"share": 0.05, "of": "lowest", "over": 100},
                    "context": {"before": 1},
                },
                {"name": "unsure", "measure": "confidence", "band": {"max": 0.5}, "sample": 0.5},
                {"name": "judged", "measure": "disagreement", "where": {"streams": ["press-7"]}, "sample": 0.3},
            ]
        },
    ),
    "score": (
        "score",
        {
            "rules": [
                {"name": "middle", "measure": "score", "band": {"min": 0.4, "max": 0.5}},
                {"name": "unsure", "measure": "confidence", "band": {"max": 0.52}},
                {"name": "normal", "measure": "probability", "label": "normal", "keep": {"share": 0.1, "over": 200}},
                {
                    "name": "odd",
                    "where": {"labels": ["odd"]},
                    "measure": "entropy",
                    "band": {"max": 0.9},
                    "sample": 0.2,
                },
            ]
        },
    ),
    "value": (
        "value",
        {
            "rules": [
                {"name": "peaks", "measure": "value", "keep": {"share": 0.1, "of": "highest", "over": 50}},
                {
                    "name": "low",
                    "measure": "value",
                    "band": {"max": 1.5},
                    "sample": 0.5,
                    "where": {"streams": ["wearable/3/imu", "press-7"]},
                },
            ]
        },
    ),
}


def payloads() -> Iterator[tuple[float, str, Any]]:
    """Yield arrivals, topics and bodies: five streams, each in its own form and with its own faults."""
    loops = [readings(watch) for watch in range(5)]
    for day, seconds in PARTS:
        start = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
        for tick in range(seconds * 10):
            now = start + tick / 10
            rows = [list(map(float, next(loop))) for loop in loops]
            if 150 < tick < 400:
                rows[3] = list(REST)  # nothing moves, so all scores are the same
            named = [dict(zip(FIELDS, row, strict=True)) for row in rows]
            yield now, "wearable/0/imu", {"ts": round(now, 3), **named[0]}
            if not 200 <= tick < 249:  # the longest pause that is no gap
                yield now, "wearable/1/imu", {"ts": datetime.fromtimestamp(now, UTC).isoformat(), **named[1]}
            stamps = [now, now, now + 0.2, now + 0.1] if tick % 40 else [now - 3, now, now, now]
            if tick % 4 == 0:  # equal times, and times that go back
                yield now, "wearable/2/imu", [{"ts": stamp, **named[2]} for stamp in stamps]
            if tick % 10 == 0:
                columns = {name: [value] * 10 for name, value in named[3].items()}
                yield now, "wearable/3/imu", {"ts": [now + place / 10 for place in range(10)], **columns}
            if not 200 <= tick < 250:  # a pause that is one
                yield now, "press/7/data", {"m": {"a": rows[4][:3], "g": rows[4][3:]}}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the recording, and a configuration for each model."""
    directory = tmp_path_factory.mktemp("twelve")
    lines = (
        {"time": now, "topic": topic, "qos": 1, "payload": base64.b64encode(json.dumps(body).encode()).decode()}
        for now, topic, body in payloads()
    )
    (directory / "rec.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    mean = "m = ReduceMean <axes = [1, 2], keepdims = 0> (input)"
    peak = "m = ReduceMax <axes = [1, 2], keepdims = 0> (input)"
    column = "two = Constant <value_ints = [-1, 1]> () r = Reshape (m, two)"
    ends = "(float[N, 6, 20] input) => (float[N, 1] y)"
    models.write(models.graph(f"score {ends} {{ {mean} {column} y = Sigmoid (r) }}"), directory, "score")
    models.write(models.graph(f"value {ends} {{ {peak} {column} y = Identity (r) }}"), directory, "value")
    models.write(models.cnn(size=20, labels=CANDIDATE), directory, "candidate")
    for name, model in MODELS.items():
        if "shadow" in model:
            model["shadow"]["path"] = str(directory / "candidate.onnx")
        path = MODEL_PATH if "labels" in model["output"] and name != "score" else directory / f"{name}.onnx"
        settings: dict[str, Any] = {
            "id": "line-1",
            "sources": SOURCES,
            "model": {"path": str(path), **model},
            "filter": {"rules": []},
            "http": None,
        }
        (directory / f"{name}.yaml").write_text(json.dumps(settings))
    return directory


@pytest.fixture(scope="module")
def computed(plant: Path) -> dict[str, list[Window]]:
    """By model, the windows as the contract says."""
    return {
        name: list(filters_again.windows(plant / "rec.jsonl", json.loads((plant / f"{name}.yaml").read_text())))
        for name in MODELS
    }


@pytest.mark.parametrize("name", FILTERS)
def test_the_same_windows_are_kept(
    name: str,
    plant: Path,
    computed: dict[str, list[Window]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same ids in the same order, for the same rules, with the same scores, probabilities and reasons."""
    model, document = FILTERS[name]
    (plant / "filter.yaml").write_text(json.dumps(document))
    arguments = ("--filter", plant / "filter.yaml", "--out", plant / "events.jsonl", "--json")
    done = mlade_here(capsys, "replay", *map(str, (plant / "rec.jsonl", "-c", plant / f"{model}.yaml", *arguments)))
    assert done.code == 0, done.err
    summary = json.loads(done.out.splitlines()[-1])
    events = [json.loads(line) for line in (plant / "events.jsonl").read_text().splitlines()]
    samples = [event for event in events if "context" not in event["data"]["selection"]]

    settings = json.loads((plant / f"{model}.yaml").read_text())
    seen = computed[model]
    expected = filters_again.select(seen, settings, document)
    assert len(expected.kept) > 30 or not document.get("enabled", True)
    assert summary["windows"] == len(seen)
    assert {reason: count for reason, count in summary["by_reason"].items() if count} == expected.reasons
    assert [(event["id"], event["data"]["selection"]["rule"]) for event in samples] == [
        (kept.window.id, kept.rule) for kept in expected.kept
    ]
    for event, kept in zip(samples, expected.kept, strict=True):
        selection = event["data"]["selection"]
        assert event["data"]["inference"]["label"] == kept.label
        assert ("shadow" in event["data"]["inference"]) == (kept.window.shadow is not None)
        assert selection["score"] == pytest.approx(kept.score, abs=1e-6)
        assert selection["probability"] == pytest.approx(kept.probability)

    beside = filters_again.neighbours(seen, expected, document)
    contexts = {event["id"]: event["data"]["selection"]["context"] for event in events if event["id"] in beside}
    assert len(events) - len(samples) == len(contexts) == len(beside)
    assert all((context["of"], context["offset"]) in beside[window] for window, context in contexts.items())
