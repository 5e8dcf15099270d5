"""A full disk, on a real small file system: nothing is acknowledged, and when there is room nothing is missing."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from processor.admission import Bounds
from processor.errors import StateFull
from processor.store import Changes, Store
from processor.types import NS, Sample
from tests import models
from tests.disk import fill
from tests.integration.test_run import START, command, counted, payload, readings, source
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

COUNT = 400


def processor_on(
    make_processor: ProcessorFactory,
    tmp_path: Path,
    topic: str,
    **configuration: Any,  # noqa: ANN401 - JSON
) -> ProcessorProcess:
    """Return a processor that keeps every reading."""
    return make_processor(
        sources=[source(topic)],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        **configuration,
    )


def assert_each_once(processor: ProcessorProcess, count: int = COUNT) -> None:
    """Every reading became a sample, and was delivered once."""
    events = processor.events()
    assert len(events) == count
    assert len({event["id"] for event in events}) == count


def test_a_full_disk_stops_acknowledging_until_there_is_room(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, small_disk: Path
) -> None:
    """It says so, answers commands, delivers what it has, and then goes on where it was."""
    processor = processor_on(
        make_processor,
        tmp_path,
        "full/imu",
        state_dir=str(small_disk / "state"),
        bridges=[{"type": "files", "path": "./accepted"}],  # a file is finished after 10 s, or when told to flush
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/command/response")
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    values = readings(20 * COUNT)
    for number in range(100):
        client.publish("full/imu", payload(START + number, values[number]))
    counted(client, processor, 100)
    ballast = fill(small_disk)
    count = 100
    while "Nothing is acknowledged any more" not in processor.log():  # the log may have room left
        client.publish("full/imu", payload(START + count, values[count]))
        count += 1
    for number in range(count, count + COUNT):
        client.publish("full/imu", payload(START + number, values[number]))
    count += COUNT
    assert "free some" in command(client, processor, "status")["blocked"]
    assert 100 <= command(client, processor, "status")["outbox"]["samples"] <= count - COUNT
    processor.wait_until(lambda: command(client, processor, "flush")["status"] == "ok", "what was accepted can leave")
    assert command(client, processor, "status")["outbox"]["samples"] == 0
    ballast.unlink()
    processor.wait_until(lambda: "There is room again" in processor.log(), "room")
    counted(client, processor, count)
    command(client, processor, "flush")
    assert processor.stop() == 0
    assert_each_once(processor, count)


def test_a_disk_that_the_outbox_has_filled_can_be_emptied(small_disk: Path) -> None:
    """What SQLite's log holds has to fit into the file before anything can be deleted; the reserve is enough for it."""
    bounds = Bounds(1 << 30, 86_400 * NS, "drop_oldest")
    store = Store(small_disk / "state", durability="full", bounds=bounds, bridges=["files"])
    outbox = store.outbox("files")
    outbox.open()
    samples = [Sample(f"{n:032x}", "r", "l", "s", "m", n, 0, bytes(700)) for n in range(250)]

    def commit_for_ever() -> None:
        while True:
            store.commit(Changes(samples=samples), 0)

    with pytest.raises(StateFull, match="free some"):
        commit_for_ever()
    with suppress(StateFull):
        store.commit(Changes(samples=samples), 0)
    for _ in range(store.totals.rows // 250 + 20):
        with suppress(sqlite3.OperationalError):
            outbox.confirm(outbox.peek(250, 1 << 30))
        store.tidy(0)
        if not store.totals.rows:
            break
    assert store.totals.rows == 0
    outbox.close()
    store.close()


def test_a_full_disk_can_be_emptied(small_disk: Path) -> None:
    """To delete a row takes room, too: it is kept back until the disk is full, and then for nothing else.

    Meanwhile the pipeline keeps trying to commit.
    """
    bounds = Bounds(1 << 30, 86_400 * NS, "drop_oldest")
    store = Store(small_disk / "state", durability="full", bounds=bounds, bridges=["files"])
    outbox = store.outbox("files")
    outbox.open()

    def more() -> Changes:
        return Changes(samples=[Sample(f"{n:032x}", "r", "l", "s", "m", n, 0, bytes(2000)) for n in range(100)])

    def commit_until_full() -> None:
        while True:  # the log may have room left
            store.commit(more(), 0)

    store.commit(more(), 0)
    ballast = fill(small_disk)
    with pytest.raises(StateFull, match="free some"):
        commit_until_full()
    rows = store.totals.rows
    waiting = outbox.peek(1_000_000, 1 << 30)
    assert len(waiting) == rows
    for first in range(0, rows, 50):
        for _ in range(2):
            with suppress(sqlite3.OperationalError):  # the first that finds no room gets it from the reserve
                outbox.confirm(waiting[first : first + 50])
                break
            with pytest.raises(StateFull, match="free some"):
                store.commit(more(), 0)
    assert store.totals.rows == 0
    store.remember({"paused": True})
    ballast.unlink()
    store.commit(more(), 0)
    assert (small_disk / "state" / "reserve").exists()
    outbox.close()
    store.close()


def test_a_kill_on_a_full_disk_loses_nothing(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, small_disk: Path
) -> None:
    """It starts again on the full disk, still says so, and the broker still has what was never acknowledged."""
    processor = processor_on(make_processor, tmp_path, "fuller/imu", state_dir=str(small_disk / "state"))
    client = mqtt_client()
    processor.start()
    ballast = fill(small_disk)
    values = readings(COUNT)
    for number in range(COUNT):
        client.publish("fuller/imu", payload(START + number, values[number]))
    processor.wait_until(lambda: "Nothing is acknowledged any more" in processor.log(), "blocked")
    blocked = processor.log().count("Nothing is acknowledged any more")
    processor.kill()
    processor.start()
    processor.wait_until(lambda: processor.log().count("Nothing is acknowledged any more") > blocked, "blocked again")
    ballast.unlink()
    processor.wait_until(lambda: len(processor.events()) >= COUNT, "all samples")
    assert processor.stop() == 0
    assert_each_once(processor)


def test_samples_wait_while_the_files_have_no_room(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, small_disk: Path
) -> None:
    """The state is elsewhere, so readings are taken in; the bridge says what is wrong."""
    place = small_disk / "accepted"
    processor = processor_on(
        make_processor,
        tmp_path,
        "files/imu",
        bridges=[{"type": "files", "path": str(place), "rotate": {"max_age": "50ms"}}],
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    ballast = fill(small_disk)
    processor.start()
    values = readings(COUNT)
    for number in range(COUNT):
        client.publish("files/imu", payload(START + number, values[number]))
    counted(client, processor, COUNT)
    processor.wait_until(lambda: "No space left on device" in processor.log(), "the bridge's error")
    ballast.unlink()
    (processor.directory / "accepted").symlink_to(place)
    processor.wait_until(lambda: len(processor.events()) >= COUNT, "all samples")
    assert processor.stop() == 0
    assert_each_once(processor)
