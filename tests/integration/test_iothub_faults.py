"""A hub that cuts, throttles, refuses or is silent: nothing is lost, and each thing is said."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from processor.bridges.iothub import rate as rate_module
from processor.bridges.iothub.connection import Connection, Options
from processor.bridges.iothub.messages import Message
from processor.bridges.iothub.rate import Rate
from processor.bridges.iothub.sdk_private import sever
from processor.clock import ManualClock
from processor.database import FILE_NAME
from processor.deadletters import read
from processor.store import Changes
from processor.types import NS
from tests import models
from tests.hub_bridge import bridge_to, numbers
from tests.integration.test_bridges import play
from tests.integration.test_run import counted, source
from tests.iothub import Hub
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.plant import not_ready
from tests.running import ProcessorFactory
from tests.unit.test_delivery import delivering, samples, wait_until


def test_a_cut_in_the_middle_of_a_full_window_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    """What comes again has the same id and content."""
    device = hub.add_device("dev1")
    hub.faults.slow_link(0.02)
    with delivering(tmp_path, bridge_to(hub, device, options=Options(window=100))) as (store, delivery):
        store.commit(Changes(samples=samples(0, 1500)), 0)
        hub.faults.cut_after(400)
        delivery.notify()
        wait_until(lambda: delivery.state.failures == 1)
        hub.faults.cut_after(500)
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(1500))


def test_whatever_the_hub_refuses_delays_or_forgets_all_arrives(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections, credentials, reading, tokens: one after another, and what is said of each."""
    monkeypatch.setattr(rate_module, "_FIRST_PAUSE", 0.01)
    device = hub.add_device("dev1")
    faults = hub.faults
    hurting: list[tuple[str, list[Callable[[], None]]]] = [
        ("refused the connection", [partial(faults.refuse, 3), faults.cut]),
        ("refuses the credentials", [partial(faults.refuse, 5), faults.cut]),
        ("no connection", [faults.refuse_tcp, faults.cut]),
        ("not acknowledged in time", [faults.throttle]),
        ("", [faults.expire_tokens]),
    ]
    with delivering(tmp_path, bridge_to(hub, device, timeout=1.0)) as (store, delivery):

        def says(what: str) -> bool:
            return what in (delivery.state.error or "")

        for number, (what, hurt) in enumerate(hurting):
            wait_until(lambda: delivery.figures()["connected"])
            for action in hurt:
                action()
            store.commit(Changes(samples=samples(100 * number, 100)), 0)
            delivery.notify()
            wait_until(partial(says, what))
            faults.heal()
            wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(500))


def test_a_second_connection_of_the_same_device_is_named_as_the_likely_reason(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub ends the older one, without a word; nothing is lost over it."""
    monkeypatch.setattr(rate_module, "_FIRST_PAUSE", 0.01)
    device = hub.add_device("dev1")
    with delivering(tmp_path / "a", bridge_to(hub, device)) as (first, one):
        wait_until(lambda: one.figures()["connected"])
        with delivering(tmp_path / "b", bridge_to(hub, device)) as (_, other):
            wait_until(lambda: "another client" in f"{one.state.error} {other.state.error}")
        first.commit(Changes(samples=samples(0, 50)), 0)
        one.notify()
        wait_until(lambda: first.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(50))


def test_the_hub_s_push_back_slows_us_down(hub: Hub, tmp_path: Path) -> None:
    """Over its quota it ends connections: we come again, ever more seldom, and with less under way."""
    device = hub.add_device("dev1")
    hub.faults.exhaust_quota(after=100)
    with delivering(tmp_path, bridge_to(hub, device)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 200)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures == 3)
        assert delivery.figures()["window"] <= 32
        connects = len([note for note in hub.notes if note.kind == "connected"])
        assert connects <= delivery.state.failures + 1
        hub.faults.heal()
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(200))


def test_a_message_that_ends_every_connection_does_not_hold_up_the_others(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent last, alone; when it is plain that it is the reason, it becomes a dead letter."""
    monkeypatch.setattr(rate_module, "_FIRST_PAUSE", 0.01)  # a dozen connections are lost
    send = Connection.send

    async def send_or_end(self: Connection, message: Message) -> None:
        if message.id == f"{7:032x}":
            sever(self.client)
        await send(self, message)

    monkeypatch.setattr(Connection, "send", send_or_end)
    device = hub.add_device("dev1")
    with delivering(tmp_path, bridge_to(hub, device, options=Options(window=4))) as (store, delivery):
        store.commit(Changes(samples=samples(0, 30)), 0)
        delivery.notify()
        count = 30
        while store.totals.undeliverable == 0:
            wait_until(lambda: store.totals.rows <= 1)
            store.commit(Changes(samples=samples(count, 1)), 0)
            delivery.notify()
            count += 1
        wait_until(lambda: store.totals.rows == 0)
        (letter,) = read(tmp_path / "state")
    assert (json.loads(letter.payload)["n"], letter.reason) == (7, "undeliverable")
    assert "took others" in letter.detail
    assert set(numbers(hub, device)) == set(range(count)) - {7}


def test_a_renewed_token_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    """The SDK renews it two minutes before its end, over another connection."""
    device = hub.add_device("dev1")
    hub.faults.slow_link(0.02)
    with delivering(tmp_path, bridge_to(hub, device, options=Options(token_ttl=122))) as (store, delivery):
        count = 0
        while len([note for note in hub.notes if note.kind == "connected"]) < 3:
            store.commit(Changes(samples=samples(count, 20)), 0)
            delivery.notify()
            count += 20
            wait_until(lambda: store.totals.rows < 500)
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures == 0
    assert set(numbers(hub, device)) == set(range(count))


def test_a_processor_ends_in_time_whatever_the_hub_does(
    hub: Hub, mosquitto: Mosquitto, mqtt_client: MqttClientFactory, make_processor: ProcessorFactory, tmp_path: Path
) -> None:
    """Silent, or never there; what is not acknowledged waits for the next start."""
    device = hub.add_device("dev1")
    (tmp_path / "secret").write_text(device.connection_string)
    processor = make_processor(
        sources=[source("hub/imu")],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        bridges=[
            {
                "type": "iothub",
                "connection_string_file": str(tmp_path / "secret"),
                "tls": {"ca": str(hub.ca)},
            }
        ],
    )
    client = mqtt_client(broker=mosquitto)
    client.subscribe(f"{processor.root}/metrics")
    hub.take_down()
    for is_up, fault in ((False, hub.faults.heal), (False, hub.bring_up), (True, hub.faults.go_silent)):
        processor.start()
        if not is_up:
            (reason,) = not_ready(processor)  # from the start on, not only when the first attempt has failed
            assert "bridge iothub: " in reason
        fault()
        play(client, "hub/imu", 0, 100)
        counted(client, processor, 100)
        assert processor.stop(timeout=5) == 0
    hub.faults.heal()
    processor.start()
    hub.wait_for(lambda: len({event.id for event in hub.received(device)}) == 100)
    metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    while metrics["outbox"]["samples"]:
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    assert metrics["bridges"]["iothub"]["messages"] > 0
    assert processor.stop(timeout=5) == 0
    event = hub.received(device)[0]
    whole = json.loads(event.body)
    label, model = whole["data"]["inference"]["label"], whole["data"]["model"]["name"]
    assert whole["id"] == event.id
    assert event.properties == {"rule": "all", "label": label, "stream": "hub/imu", "model": model}
    assert device.key not in processor.log()
    assert "Traceback" not in processor.log()


def test_the_day_s_quota_survives_a_restart(hub: Hub, tmp_path: Path) -> None:
    """What is over it waits, and that is said."""
    device = hub.add_device("dev1")
    clock = ManualClock(wall=20_000 * 86_400 * NS)
    kept: dict[str, Any] | None = None
    for total in (100, 100):
        rate = Rate(clock, per_second=None, per_day=100, kept=kept)
        with delivering(tmp_path, bridge_to(hub, device, rate=rate)) as (store, delivery):
            if kept is None:
                store.commit(Changes(samples=samples(0, 150)), 0)
            delivery.notify()
            wait_until(lambda: "midnight" in (delivery.state.error or ""))
            assert delivery.figures()["quota_left"] == 0
        assert len(hub.received(device)) == total
        kept = store_memory(tmp_path)
    clock.advance(86_400)
    rate = Rate(clock, per_second=None, per_day=100, kept=kept)
    with delivering(tmp_path, bridge_to(hub, device, rate=rate)) as (store, _):
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(150))


def store_memory(directory: Path) -> Any:  # noqa: ANN401 - JSON
    """Return what the bridge has remembered."""
    with closing(sqlite3.connect(directory / "state" / FILE_NAME)) as db:
        ((value,),) = db.execute("SELECT value FROM meta WHERE key = 'bridge one'").fetchall()
    return json.loads(value)
