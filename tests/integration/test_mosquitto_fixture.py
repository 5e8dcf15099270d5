"""The Mosquitto the other integration tests stand on."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import pytest

from tests.mosquitto import Listener, Mosquitto, MosquittoError, MosquittoFactory, PortTakenError, answers_connect
from tests.mqtt_client import MqttClientError, MqttClientFactory

ROOT = Path(__file__).parents[2]
PROTOCOLS: list[Literal[4, 5]] = [4, 5]
ANNA = (  # mosquitto_passwd -c -b passwords anna secret
    "anna:$7$101$6UkQ/KYojGqzlV8V$"
    "PUfWYEyK2fNynESk+bsqhiFQ4JfzyE3u3/D2v+em0rz3sPiE8XPWee5bqI5g+TE1lgLIthx/EtiGk+lph2e/jA=="
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_message_at_qos_1_arrives(mqtt_client: MqttClientFactory, protocol: Literal[4, 5]) -> None:
    """A QoS 1 publish is acknowledged and reaches a QoS 1 subscriber, once."""
    subscriber, publisher = mqtt_client(protocol), mqtt_client(protocol)
    topic = f"fixture/qos1/{protocol}"
    subscriber.subscribe(f"{topic}/#")
    publisher.publish(f"{topic}/first", b"\x00\x01")
    publisher.publish(f"{topic}/second", "last")
    message = subscriber.wait_for(f"{topic}/second")
    assert (message.payload, message.qos) == (b"last", 1)
    assert [message.payload for message in subscriber.received()] == [b"\x00\x01"]


def test_waiting_for_a_message_that_never_comes_names_those_that_did(mqtt_client: MqttClientFactory) -> None:
    """The error of `wait_for` tells what came instead."""
    client = mqtt_client()
    client.subscribe("fixture/other")
    client.publish("fixture/other", "x")
    with pytest.raises(MqttClientError, match=r"no message on fixture/wanted .* received: .*"):
        client.wait_for("fixture/wanted", timeout=0.05)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_session_survives_a_restart_of_a_persistent_broker(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, protocol: Literal[4, 5]
) -> None:
    """What an absent client has subscribed to waits for it, also through the broker's restart, on the same port."""
    broker = mosquitto_factory(persistence=True)
    port = broker.port
    absent = mqtt_client(protocol, broker=broker, client_id="absent", session_expiry=60)
    absent.subscribe("queue")
    absent.close()
    # More than the 100 or 1,000 that Mosquitto keeps unless told otherwise.
    publisher = mqtt_client(broker=broker)
    for number in range(1_100):
        publisher.publish("queue", str(number))
    broker.restart()
    assert broker.port == port
    returned = mqtt_client(protocol, broker=broker, client_id="absent", session_expiry=60)
    assert [int(returned.wait_for("queue").payload) for _ in range(1_100)] == list(range(1_100))


def test_restart_without_persistence_forgets(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory
) -> None:
    """Without `persistence` a retained message does not survive the broker."""
    broker = mosquitto_factory()
    mqtt_client(broker=broker).publish("kept", "x", retain=True)
    subscriber = mqtt_client(broker=broker)
    subscriber.subscribe("kept")
    assert subscriber.wait_for("kept").retain
    broker.restart()
    subscriber = mqtt_client(broker=broker)
    subscriber.subscribe("kept")
    subscriber.publish("kept", "fresh")
    assert subscriber.wait_for("kept").payload == b"fresh"


def test_stopped_broker_refuses_connections_and_keeps_its_log(mosquitto_factory: MosquittoFactory) -> None:
    """After `stop` nobody listens; `start` brings the same address back, and the log holds both lives."""
    broker = mosquitto_factory()
    broker.stop()
    assert not answers_connect(broker.port)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((broker.host, broker.port), timeout=1.0).close()
    broker.start()
    assert answers_connect(broker.port)
    assert broker.log().count("starting") == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("listener", ["websockets", "tls"])
def test_message_crosses_listeners(
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    listener: Listener,
    protocol: Literal[4, 5],
) -> None:
    """A message published over WebSockets or TLS reaches a plain subscriber."""
    broker = mosquitto_factory(websockets=True, tls=True)
    subscriber = mqtt_client(protocol, broker=broker)
    subscriber.subscribe("crossing")
    mqtt_client(protocol, broker=broker, listener=listener).publish("crossing", listener)
    assert subscriber.wait_for("crossing").payload == listener.encode()


def test_tls_listener_can_ask_for_a_client_certificate(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory
) -> None:
    """Configuration lines of a test belong to the last listener; the client certificate made with it is accepted."""
    broker = mosquitto_factory("require_certificate true\nuse_identity_as_username true", tls=True)
    mqtt_client(broker=broker, listener="tls").publish("mutual", "x")
    assert "u'client'" in broker.log()


def test_files_of_a_test_lie_beside_the_configuration(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory
) -> None:
    """A test brings its own password file; who has no password is refused, and the client says so."""
    broker = mosquitto_factory(
        "allow_anonymous false\npassword_file passwords",
        files={"passwords": f"{ANNA}\n"},
    )
    with pytest.raises(MqttClientError, match="Not authorized"):
        mqtt_client(broker=broker)


def test_mistake_in_the_configuration_is_told_with_the_log(mosquitto_factory: MosquittoFactory) -> None:
    """A broker that cannot start raises at once, with what it wrote."""
    with pytest.raises(MosquittoError, match=r"(?s)ended instead of starting.*no_such_setting"):
        mosquitto_factory("no_such_setting 1")


def test_taken_port_is_told_from_other_failures(mosquitto_factory: MosquittoFactory) -> None:
    """Starting on a port that someone took meanwhile raises what the factory answers with other ports."""
    broker = mosquitto_factory()
    broker.stop()
    with socket.create_server((broker.host, broker.port)), pytest.raises(PortTakenError):
        broker.start()


def test_failing_test_leaves_no_broker_behind(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The brokers of a test that fails are gone when its session is."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest('pytest_plugins = ("tests.mosquitto",)')
    pytester.makepyfile(
        """
        from pathlib import Path

        def test_fails(mosquitto, mosquitto_factory):
            Path("ports").write_text(f"{mosquitto.port} {mosquitto_factory().port}")
            raise RuntimeError
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    ports = Path("ports").read_text().split()
    assert len(ports) == 2
    assert not any(answers_connect(int(port)) for port in ports)


def test_shared_broker_is_the_same_for_all(mosquitto: Mosquitto, mqtt_client: MqttClientFactory) -> None:
    """A client made without a broker is a client of the shared one."""
    mqtt_client(client_id="fixture-who-is-there")
    assert "fixture-who-is-there" in mosquitto.log()
