"""The report of `mlade replay`, opened in a browser that reaches nobody.

Needs Chromium; without one the tests fail and say how to get it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor.demo.data import FIELDS
from processor.recording import Writer
from processor.report import figures
from tests import models, recordings
from tests.chromium import Seen, open_page
from tests.commands import mlade_here

UNSURE = {"name": "unsure", "measure": "confidence", "band": {"min": 0.3, "max": 0.6}}
RULES = [
    {**UNSURE, "limit": {"max": 5, "per": "1m"}},
    {"name": "share", "measure": "margin", "keep": {"share": 0.05, "of": "lowest"}},
    {"name": "audit", "sample": 0.05, "schedule": {"duty_cycle": {"period": "1m", "fraction": 0.5}}},
]
SECTIONS = [
    "Over time",
    "Scores: confidence",
    "Scores: margin",
    "Why the rest was not kept",
    "Streams",
    "Predicted labels",
    "Samples that the model is least certain of",
    "Samples that the model is most certain of",
]


class Report:
    """A page, and the figures that it is made from."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = directory / "R.html"
        self._directory = directory
        self._capsys = capsys

    def make(self, recording: Path, config: Path, *options: str) -> dict[str, Any]:
        """Replay a recording; return the summary."""
        arguments = ("replay", str(recording), "-c", str(config), "--report", str(self.path), "--json", *options)
        done = mlade_here(self._capsys, *arguments)
        assert done.code == 0, done.err
        assert f"The report is {self.path}" in done.err
        summary: dict[str, Any] = json.loads(done.out.splitlines()[-1])
        return summary

    def open(self) -> Seen:
        """Look at it; it complains of nothing and asks for nothing."""
        text = self.path.read_text()
        assert text.count("plotly.js v") == 1
        own = text.replace(figures.script(), "")
        assert not re.findall(r"<(?:link|img|iframe|object)|<script[^>]+src|@import|url\(", own)
        assert len(own) < 1_000_000, "it holds aggregates, not the recording"
        seen = open_page(self.path, self._directory, height=4200)
        assert seen.complaints == []
        return seen


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """Return one to be made."""
    return Report(tmp_path, capsys)


def bars(seen: Seen, name: str) -> int:
    """Return how many bars a figure has."""
    return figure(seen, name).count('<g class="point">')


def figure(seen: Seen, name: str) -> str:
    """Return a drawn figure's part of the document."""
    found = re.search(rf'<div id="{name}".*?</script>', seen.dom, re.DOTALL)
    assert found, f"there is no figure {name}"
    assert 'class="main-svg"' in found[0], f"{name} is not drawn"
    return found[0]


def test_a_report_shows_what_was_replayed(report: Report, tmp_path: Path) -> None:
    """Every part of it is drawn, offline, and says what the summary says."""
    recording = recordings.write(tmp_path / "rec.jsonl.gz", 6000)
    filter_ = {"schedule": {"duty_cycle": {"period": "100s", "fraction": 0.8}}, "rules": RULES}
    summary = report.make(recording, recordings.configuration(tmp_path, filter=filter_))
    seen = report.open()
    for section in SECTIONS:
        assert section in seen.texts
    for count in (*summary["by_rule"].values(), summary["accepted"], summary["windows"], summary["messages"]):
        assert count
        assert f"{count:,}" in seen.texts
    assert "samples a day" in seen.texts
    assert "messages of 4 KiB a day" in seen.texts
    assert any(text.endswith(" MB") for text in seen.texts)
    for reason, count in summary["by_reason"].items():
        assert bool(count) == any(text.startswith(f"{count:,} (") for text in seen.texts), reason
    assert any("of the windows lie in its band" in text for text in seen.texts)
    assert {"kept by unsure", "kept by share", "kept by audit", "not: schedule", "rule audit"} <= set(seen.texts)
    assert bars(seen, "time-0") > 50
    assert bars(seen, "scores-0-0") > 20
    assert bars(seen, "reasons-0") == sum(bool(count) for count in summary["by_reason"].values())
    for extreme in ("least-0", "most-0"):
        assert figure(seen, extreme).count('<path class="js-line"') >= 6 * len(FIELDS)
    assert seen.picture.startswith(b"\x89PNG")
    assert len(seen.picture) > 100_000, "an empty page is a few kilobytes"


def test_filters_are_shown_side_by_side(report: Report, tmp_path: Path) -> None:
    """What each keeps, and how much of it is the same."""
    recording = recordings.write(tmp_path / "rec.jsonl", 3000)
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for file, rules in zip(files, ([UNSURE], [{**UNSURE, "band": {"max": 0.5}}, RULES[2]]), strict=True):
        file.write_text(json.dumps({"rules": rules}))
    options = [option for file in files for option in ("--filter", str(file))]
    summary = report.make(recording, recordings.configuration(tmp_path), *options)
    seen = report.open()
    (first, both), (_, second) = summary["overlap"]
    assert f"Filter: {files[0]}" in seen.texts
    assert f"Filter: {files[1]}" in seen.texts
    assert any(text.startswith(f"Both keep {both:,} windows") for text in seen.texts)
    drawn = figure(seen, "overlap-0-1")
    for count in (first - both, both, second - both):
        assert f">{count:,}<" in drawn
    assert bars(seen, "time-0")
    assert bars(seen, "time-1")


def test_names_from_outside_stay_names(report: Report, tmp_path: Path) -> None:
    """Streams, labels and fields that look like HTML are shown, not run; readings of size one are bars."""
    evil = "<img src=x onerror=alert(1)>"
    path = models.write(models.dense(metadata={"labels": f"{evil},b,c,<b>d</b>"}), tmp_path)
    fields = [evil, *FIELDS[1:]]
    config = recordings.configuration(
        tmp_path,
        {"name": "all", "measure": "probability", "label": evil},
        sources=[{"name": "imu", "topics": ["#"], "fields": fields}],
        model={"path": str(path)},
    )
    writer = Writer(tmp_path / "rec.jsonl")
    for message in recordings.messages(300):
        if message.payload.startswith(b"{"):
            payload = json.dumps({evil: 1.0, **json.loads(message.payload)}).encode()
            writer.write([replace(message, topic=f"plant/{evil}", payload=payload)])
    writer.close()
    report.make(tmp_path / "rec.jsonl", config)
    seen = report.open()
    assert "<img" not in seen.dom.replace(figures.script(), "")
    assert f"imu: plant/{evil}" in seen.texts
    assert bars(seen, "least-0") == 6 * len(FIELDS)


def test_there_need_not_be_much_to_show(report: Report, tmp_path: Path) -> None:
    """A recording without a window gives a page, too."""
    recording = recordings.write(tmp_path / "rec.jsonl", 1)
    summary = report.make(recording, recordings.configuration(tmp_path, filter={"rules": RULES}))
    assert summary["windows"] == 0
    assert "windows kept" in report.open().texts


def test_numbers_without_labels_have_a_report(report: Report, tmp_path: Path) -> None:
    """Of a regression: values, their band, the lowest and the highest."""
    config = recordings.configuration(
        tmp_path,
        {"name": "high", "measure": "value", "band": {"min": 1}},
        sources=[{"name": "s", "topics": ["t"], "fields": ["x"]}],
        model={"path": str(models.write(models.identity(1), tmp_path)), "output": {"kind": "value"}},
    )
    writer = Writer(tmp_path / "rec.jsonl")
    first = next(recordings.messages(1))
    writer.write(
        [
            replace(first, topic="t", payload=b'{"x": %.2f}' % (n % 40 / 10), arrival=first.arrival + n)
            for n in range(400)
        ]
    )
    writer.close()
    report.make(tmp_path / "rec.jsonl", config)
    seen = report.open()
    assert {"Scores: value", "Lowest", "Highest", "all windows"} <= set(seen.texts)
    assert bars(seen, "scores-0-0") > 20


def test_a_page_that_complains_is_noticed(tmp_path: Path) -> None:
    """Else the tests above would see nothing of what is wrong."""
    page = tmp_path / "page.html"
    page.write_text("<p>shown</p><script>undefined.x</script>")
    seen = open_page(page, tmp_path)
    assert seen.texts == ["shown"]
    assert "TypeError" in "".join(seen.complaints)
