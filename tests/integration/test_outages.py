"""The broker is away, silent, or will not have us: said, waited out, and then nothing is missing or there twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.accounts import ADMIN, allowing, password_file, refusing_broker
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.plant import SIZE, configuration, measured, not_ready, publish, subscribed, wall_off, whole, windows
from tests.proxy import Proxy, ProxyFactory
from tests.running import ProcessorFactory, ProcessorProcess

HURRIED = "backoff=2"
OUTAGE = 4.0


def attempts_while_away(processor: ProcessorProcess, link: Proxy) -> int:
    """Let an outage go on for some seconds; return how often the processor tried to connect."""
    before, until = link.connections, time.monotonic() + OUTAGE
    processor.wait_until(lambda: time.monotonic() > until, "the outage's end")
    return link.connections - before


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    mosquitto: Mosquitto,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    proxy: ProxyFactory,
) -> None:
    """What waited in the outbox is delivered meanwhile; then it takes in what the broker has kept."""
    link = proxy(mosquitto.host, mosquitto.port)
    processor = make_processor(**configuration(tmp_path, "away/start", broker={"url": link.url}))
    wall = wall_off(processor)
    client = mqtt_client()
    processor.start()
    subscribed(processor, mosquitto, "away/start")
    publish(client, "away/start", range(4 * SIZE + 1))
    processor.wait_until(lambda: measured(processor, "mlade_outbox_samples") == 4, "samples in the outbox")
    assert processor.stop() == 0
    publish(client, "away/start", range(4 * SIZE + 1, 30 * SIZE))

    link.refuse()
    wall.unlink()
    processor.launch(HURRIED)
    processor.wait_until(lambda: len(processor.events()) == 4, "delivered without the broker")
    assert 2 <= attempts_while_away(processor, link) <= 15
    [reason] = not_ready(processor)
    assert reason.startswith(f"broker: No connection to the broker {link.url}: ")
    assert "WARNING No connection" in processor.log()
    assert (measured(processor, "mlade_broker_connected"), measured(processor, "mlade_broker_connects_total")) == (0, 0)
    link.heal()
    processor.wait_until(lambda: len(processor.events()) == 30, "all samples")
    assert not_ready(processor) == []
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(30 * SIZE))


def test_a_broker_that_goes_away_is_waited_for(
    mosquitto: Mosquitto,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    proxy: ProxyFactory,
) -> None:
    """A bridge that comes back meanwhile gets its samples; what was published meanwhile is taken in afterwards."""
    link = proxy(mosquitto.host, mosquitto.port)
    processor = make_processor(**configuration(tmp_path, "away/middle", broker={"url": link.url}))
    wall = wall_off(processor)
    client = mqtt_client()
    processor.launch(HURRIED)
    subscribed(processor, mosquitto, "away/middle")
    publish(client, "away/middle", range(2 * SIZE + 2))
    processor.wait_until(lambda: measured(processor, "mlade_outbox_samples") == 2, "samples in the outbox")
    link.refuse()
    publish(client, "away/middle", range(2 * SIZE + 2, 20 * SIZE))
    wall.unlink()
    processor.wait_until(lambda: len(processor.events()) == 2, "delivered without the broker")
    assert 2 <= attempts_while_away(processor, link) <= 15
    [reason] = not_ready(processor)
    assert reason.startswith(f"broker: No connection to the broker {link.url}: ")
    assert f"WARNING Lost the broker {link.url}: " in processor.log()
    assert (measured(processor, "mlade_broker_connected"), measured(processor, "mlade_broker_connects_total")) == (0, 1)
    link.heal()
    publish(client, "away/middle", range(20 * SIZE, 30 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 30, "all samples")
    assert not_ready(processor) == []
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(30 * SIZE))


@pytest.mark.parametrize(
    ("protocol", "down"), [(5, True), ("3.1.1", False)], ids=["nothing gets through", "nothing of ours gets through"]
)
def test_a_half_open_connection_is_noticed_and_made_anew(
    mosquitto: Mosquitto,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    proxy: ProxyFactory,
    protocol: object,
    down: bool,
) -> None:
    """By the keep-alive. What was swallowed comes again, what only was not acknowledged is not read twice."""
    link = proxy(mosquitto.host, mosquitto.port)
    topic = f"half/{protocol}/{down}"
    processor = make_processor(**configuration(tmp_path, topic, broker={"url": link.url, "protocol": protocol}))
    client = mqtt_client()
    processor.launch("backoff=1", "keepalive=1")
    subscribed(processor, mosquitto, topic)
    publish(client, topic, range(2 * SIZE + 2))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    link.swallow(down=down)
    publish(client, topic, range(2 * SIZE + 2, 4 * SIZE + 2))
    processor.wait_for_log("WARNING Lost the broker")
    if down:  # else the broker, which does not hear us either, may end the connection first
        assert "it was silent for the keep-alive time" in processor.log()
    assert any(reason.startswith("broker: ") for reason in not_ready(processor))
    assert len(processor.events()) == (2 if down else 4)
    link.heal()
    publish(client, topic, range(4 * SIZE + 2, 6 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 6, "all samples")
    assert measured(processor, "mlade_repeated_messages_total") == (0 if down else 2 * SIZE)
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(6 * SIZE))


def test_a_broker_that_does_not_know_us_is_asked_until_it_does(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """At first, and when the account is lost later: it says what to look at, and misses nothing that was kept."""
    nobody, line = password_file(somebody="else"), password_file(line="secret")
    broker = mosquitto_factory("password_file passwords", files={"passwords": nobody}, persistence=True)
    access = {"url": broker.url, "username": "line", "password": "secret"}
    processor = make_processor(**configuration(tmp_path, "known/imu", broker=access))

    def restart_with(passwords: str) -> None:
        broker.write("passwords", passwords)
        broker.restart()

    processor.launch(HURRIED)
    processor.wait_for_log("it refused us: ")
    [reason] = not_ready(processor)
    assert "it refused us: Not authorized; check broker.username, the password" in reason
    restart_with(line)
    processor.wait_until(lambda: not not_ready(processor), "accepted")
    publish(mqtt_client(broker=broker), "known/imu", range(5 * SIZE + 2))
    processor.wait_until(lambda: len(processor.events()) == 5, "samples")
    restart_with(nobody)
    processor.wait_for_log("it refused us: ", 2)
    publish(mqtt_client(broker=broker), "known/imu", range(5 * SIZE + 2, 10 * SIZE))
    restart_with(line)
    processor.wait_until(lambda: len(processor.events()) == 10, "all samples")
    assert not_ready(processor) == []
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(10 * SIZE))


def test_a_subscription_that_is_refused_is_made_when_it_is_allowed(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """Until then it says what it does not get, and works with the rest."""
    broker = refusing_broker(mosquitto_factory, account=("line", "secret"), topic="secret/imu")
    access = {"url": broker.url, "username": "line", "password": "secret"}
    processor = make_processor(**configuration(tmp_path, "open/imu", "secret/imu", broker=access))
    client = mqtt_client(broker=broker)
    processor.launch(HURRIED)
    processor.wait_for_log("ERROR The broker refused the subscription to 'secret/imu': Not authorized.")
    refused = ["subscription secret/imu: Not authorized"]
    processor.wait_until(lambda: not_ready(processor) == refused, "only that is missing")
    publish(client, "open/imu", range(2 * SIZE))
    publish(client, "secret/imu", range(2 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples of the other topic")
    mqtt_client(broker=broker, account=ADMIN).publish(*allowing("secret/imu"))
    processor.wait_until(lambda: not not_ready(processor), "granted")
    publish(client, "secret/imu", range(2 * SIZE, 4 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 4, "all samples")
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(4 * SIZE))
    assert [event["subject"] for event in processor.events()] == ["open/imu"] * 2 + ["secret/imu"] * 2
