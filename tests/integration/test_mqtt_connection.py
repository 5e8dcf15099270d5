"""The connection over real sockets: to a real Mosquitto, and to scripted brokers for what Mosquitto does not do."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from processor.clock import SystemClock
from processor.errors import BrokerError, ConfigurationError, SessionTakenOver
from processor.mqtt.client import Tls
from processor.mqtt.connection import Connection
from processor.mqtt.packets import KEPT_OF_OVERSIZE
from processor.mqtt.properties import properties, subscription_identifiers
from processor.mqtt.subscriptions import Subscription
from processor.types import Message
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory

Protocol = Literal[5, "3.1.1"]
Connect = Callable[..., Connection]

both = pytest.mark.parametrize("protocol", [5, "3.1.1"])
CONNACK_3 = b"\x20\x02\0\0"
CONNACK_5 = b"\x20\x03\0\0\0"
PUBLISH_3 = b"\x32\x06\0\1a\0\1x"
DEADLINE = 15.0
"""Seconds after which a test that waits for something has failed."""


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make connections and close them at the end."""
    with ExitStack() as cleanup:

        def make(url: str, **options: Any) -> Connection:  # noqa: ANN401 - Connection's own options
            options.setdefault("client_id", f"test-{time.time_ns()}")
            connection = Connection(url=url, **options)
            cleanup.callback(connection.close, timeout=1.0)
            return connection

        yield make


def read_until(
    connection: Connection, done: Callable[[list[Message]], bool], *, limit: int = 500, acknowledge: bool = True
) -> list[Message]:
    """Read until `done` with the messages read, and return them."""
    messages: list[Message] = []
    deadline = time.monotonic() + DEADLINE
    while not done(messages):
        assert time.monotonic() < deadline, f"{len(messages)} messages, {connection.state}"
        read = connection.read(limit, 0.03)
        messages += read
        if acknowledge:
            connection.acknowledge(read)
    return messages


def read_count(connection: Connection, count: int, *, acknowledge: bool = True) -> list[Message]:
    """Read that many messages."""
    return read_until(connection, lambda messages: len(messages) >= count, acknowledge=acknowledge)


def subscribed(connection: Connection) -> Connection:
    """Read until every SUBSCRIBE has been answered."""
    read_until(connection, lambda _: connection.subscribed)
    return connection


class FastForward(SystemClock):
    """The machine's clock, but a test can have time pass at once."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def skip(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._skipped += seconds

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return super().monotonic() + self._skipped


class Flood:
    """A publisher that only encodes and sends: MQTT 3.1.1 over a plain socket, PUBACKs counted."""

    WINDOW = 2000

    def __init__(self, broker: Mosquitto) -> None:
        self._socket = socket.create_connection((broker.host, broker.port), timeout=DEADLINE)
        self._socket.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05flood")
        assert self._socket.recv(4)[:1] == b"\x20"

    def publish(self, topic: bytes, payloads: Sequence[bytes], qos: int) -> None:
        """Publish them all in order; returns when the broker has them."""
        acknowledged = 0
        for number, payload in enumerate(payloads):
            body = struct.pack(">H", len(topic)) + topic + (struct.pack(">H", number % 65_535 + 1) if qos else b"")
            size = len(body) + len(payload)
            length = b"" if size < 128 else bytes([size & 127 | 128])
            length += bytes([size >> (7 if length else 0)])
            self._socket.sendall(bytes([0x30 | qos << 1]) + length + body + payload)
            if qos:
                while number - acknowledged >= self.WINDOW:
                    acknowledged += len(self._socket.recv(65_536)) // 4
        while qos and acknowledged < len(payloads):
            acknowledged += len(self._socket.recv(65_536)) // 4

    def close(self) -> None:
        """Disconnect."""
        self._socket.sendall(b"\xe0\x00")
        self._socket.close()


@both
def test_a_flood_arrives_in_order_and_acknowledged(
    mosquitto_factory: MosquittoFactory, connect: Connect, protocol: Protocol
) -> None:
    """20,000 messages of QoS 1, acknowledged in batches while they come: all, once, in order."""
    broker = mosquitto_factory("max_inflight_messages 0")
    connection = subscribed(connect(broker.url, protocol=protocol, subscriptions=[Subscription("flood", 1, 7)]))
    flood = Flood(broker)
    sent = [b"%08d" % number + b"." * 92 for number in range(20_000)]
    publisher = threading.Thread(target=flood.publish, args=(b"flood", sent, 1))
    publisher.start()
    messages = read_count(connection, len(sent))
    publisher.join(DEADLINE)
    flood.close()
    assert [message.payload for message in messages] == sent
    assert not any(message.dup for message in messages)
    assert connection.read(10, 0.1) == []
    connection.close()
    assert connection.bytes_read > 20_000 * 100
    again = connect(broker.url, protocol=protocol, client_id=connection._client_id)
    assert read_until(again, lambda _: again.online) == []  # nothing was left unacknowledged


@both
def test_the_owner_hears_of_a_session_before_anything_comes(
    mosquitto: Mosquitto, connect: Connect, protocol: Protocol
) -> None:
    """Before the broker is sent the subscriptions: what was known of an older session can be forgotten first."""
    heard: list[str] = []
    connection: Connection
    connection = connect(
        mosquitto.url,
        protocol=protocol,
        subscriptions=[Subscription("heard/#", 1)],
        on_accepted=lambda present: heard.append(
            f"accepted {present}, nothing asked {connection._subscriptions.answered}"
        ),
        on_connected=lambda present: heard.append(
            f"connected {present}, nothing asked {connection._subscriptions.answered}"
        ),
    )
    subscribed(connection)
    assert heard == ["accepted False, nothing asked True", "connected False, nothing asked False"]


@both
def test_the_session_outlives_a_restart_of_the_broker(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, connect: Connect, protocol: Protocol
) -> None:
    """What was not acknowledged comes again, with its packet identifiers; what came meanwhile follows."""
    broker = mosquitto_factory(persistence=True)
    sessions: list[bool] = []
    states: list[str] = []
    connection = connect(
        broker.url,
        protocol=protocol,
        subscriptions=[Subscription("data/#", 1)],
        on_connected=sessions.append,
        on_state=states.append,
    )
    subscribed(connection)
    client = mqtt_client(broker=broker)
    for number in range(5):
        client.publish(f"data/{number}", "before")
    first = read_count(connection, 5, acknowledge=False)
    connection.acknowledge(first[:3])
    connection.read(10, 0.2)  # the acknowledgements are on their way
    broker.stop()
    read_until(connection, lambda _: not connection.online)
    connection.acknowledge(first[3:])  # of a connection that is gone: must not reach the next one
    assert "Trying again" in connection.state
    broker.start()
    client = mqtt_client(broker=broker)
    client.publish("data/9", "after")
    second = read_count(connection, 3)
    assert [message.topic for message in second] == ["data/3", "data/4", "data/9"]
    assert [message.mid for message in second[:2]] == [message.mid for message in first[3:]]
    assert {message.connection for message in second} == {2}
    assert sessions == [False, True]
    assert connection.connects == 2
    assert [state.split(" ")[0] for state in states if "refused" not in state] == ["Connected", "Lost", "Connected"]


def test_reading_one_message_at_a_time_bounds_what_is_read(
    mosquitto_factory: MosquittoFactory, connect: Connect
) -> None:
    """40 MB wait in the broker, not here: the socket is left alone until the buffer is used up."""
    broker = mosquitto_factory("max_queued_bytes 0")
    connection = subscribed(connect(broker.url, receive_maximum=65_535, subscriptions=[Subscription("flood", 1)]))
    resident = resident_bytes()
    read = bytes_before = connection.bytes_read
    flood = Flood(broker)
    publisher = threading.Thread(target=flood.publish, args=(b"flood", [b"x" * 2000] * 20_000, 1))
    publisher.start()
    for _ in range(100):
        connection.acknowledge(connection.read(1, 1.0))
        read = connection.bytes_read - bytes_before
        assert connection.buffered_bytes <= 256 * 1024 + 2020
    publisher.join(DEADLINE)
    flood.close()
    assert 100 * 2000 < read < 2 * 256 * 1024 + 100 * 2020
    assert resident_bytes() - resident < 20 << 20


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_broker_sends_receive_maximum_messages_and_waits(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect
) -> None:
    """With nothing acknowledged so much comes and no more.

    Mosquitto 2.0.11 forgets this from the first PUBACK on: each then releases another receive_maximum messages.
    """
    connection = subscribed(connect(mosquitto.url, receive_maximum=30, subscriptions=[Subscription("window", 1)]))
    client = mqtt_client()
    for number in range(40):
        client.publish("window", str(number))
    first = read_count(connection, 30, acknowledge=False)
    assert len(first) == 30
    assert connection.read(10, 0.2) == []


@both
def test_an_oversize_payload_is_a_message_with_its_beginning(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect, protocol: Protocol
) -> None:
    """It is acknowledged like any other, and the next message is whole."""
    topic = f"oversize/{protocol}"
    connection = subscribed(
        connect(mosquitto.url, protocol=protocol, max_payload=100_000, subscriptions=[Subscription(topic, 1)])
    )
    client = mqtt_client()
    client.publish(topic, b"x" * 5_000_000)
    client.publish(topic, b"y" * 100_000)
    big, next_one = read_count(connection, 2)
    assert (big.payload, big.oversize) == (b"x" * KEPT_OF_OVERSIZE, 5_000_000)
    assert (next_one.payload, next_one.oversize) == (b"y" * 100_000, 0)


def test_acknowledgements_do_not_wait_for_each_other(connect: Connect) -> None:
    """The second goes out before the broker's side has confirmed the bytes of the first, which takes it 40 ms."""
    listener = socket.create_server(("127.0.0.1", 0))
    connection = connect(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", protocol="3.1.1")
    gaps = []

    def serve() -> None:
        broker, _ = listener.accept()
        with broker:
            broker.recv(65_536)
            broker.sendall(CONNACK_3 + 10 * (PUBLISH_3 + PUBLISH_3))
            for _ in range(10):
                broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
                broker.recv(4, socket.MSG_WAITALL)
                first = time.perf_counter()
                broker.recv(4, socket.MSG_WAITALL)
                gaps.append(time.perf_counter() - first)

    thread = threading.Thread(target=serve)
    thread.start()
    messages = read_count(connection, 20, acknowledge=False)
    for number in range(0, 20, 2):
        connection.acknowledge(messages[number : number + 1])
        connection.acknowledge(messages[number + 1 : number + 2])
        deadline = time.monotonic() + DEADLINE
        while len(gaps) <= number // 2:
            assert time.monotonic() < deadline
            connection.read(1, 0.005)
    thread.join(DEADLINE)
    listener.close()
    assert min(gaps) < 0.02


def test_wake_ends_a_wait(mosquitto: Mosquitto, connect: Connect) -> None:
    """Another thread can make `read` return: connected, trying to connect, and before it has begun to wait."""
    connection = subscribed(connect(mosquitto.url))
    nowhere = connect("mqtt://127.0.0.1:9")
    nowhere.read(1, 0.1)
    for waiting in (connection, nowhere):
        timer = threading.Timer(0.1, waiting.wake)
        timer.start()
        started = time.monotonic()
        assert waiting.read(10, 10.0) == []
        assert 0.05 < time.monotonic() - started < 2.0
        timer.join()
        waiting.wake()
        waiting.wake()
        started = time.monotonic()
        waiting.read(10, 10.0)
        assert time.monotonic() - started < 1.0


def test_waiting_costs_nothing(mosquitto_factory: MosquittoFactory, connect: Connect) -> None:
    """Neither an idle connection, nor one that cannot write, nor one that cannot connect, keeps a core busy."""
    broker = mosquitto_factory()
    idle = subscribed(connect(broker.url))
    nowhere = connect("mqtt://127.0.0.1:9")
    with ScriptedBroker([CONNACK_5], reads=False) as deaf:
        blocked = connect(deaf.url)
        read_until(blocked, lambda _: blocked.online)
        for _ in range(100):
            blocked.publish("metrics", b"x" * 100_000)
        assert blocked._client.waiting_packets() > 0
        for connection in (idle, nowhere, blocked):
            connection.read(10, 0.1)
            started = time.process_time()
            assert connection.read(10, 0.4) == []
            assert time.process_time() - started < 0.06


def test_what_waits_to_be_written_is_bounded(connect: Connect) -> None:
    """A broker that does not read costs our own QoS 0 messages, counted, not our memory."""
    with ScriptedBroker([CONNACK_5], reads=False) as deaf:
        connection = connect(deaf.url)
        read_until(connection, lambda _: connection.online)
        for _ in range(200):
            connection.publish("metrics", b"x" * 200_000)
        assert connection.dropped > 0
        assert connection._client.waiting_bytes() <= 8 << 20
        for _ in range(3000):
            connection.publish("metrics", b"x")
        assert connection._client.waiting_packets() <= 1000


def test_the_identifiers_of_overlapping_subscriptions_tell_the_copies_apart(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect
) -> None:
    """Each copy names the subscription that it came for."""
    subscriptions = [Subscription("overlap/#", 1, 1), Subscription("overlap/+/imu", 1, 300)]
    connection = subscribed(connect(mosquitto.url, subscriptions=subscriptions))
    client = mqtt_client()
    client.publish("overlap/a/imu", "x")
    client.publish("overlap/a/other", "y")
    messages = read_until(connection, lambda messages: any(message.payload == b"y" for message in messages))
    identifiers = [subscription_identifiers(message.properties) for message in messages]
    assert sorted(identifier for each in identifiers[:-1] for identifier in each) == [1, 300]
    assert identifiers[-1] == (1,)


def test_the_will_speaks_for_a_killed_process(mosquitto: Mosquitto, mqtt_client: MqttClientFactory) -> None:
    """SIGKILL leaves `offline`, retained."""
    program = f"""
from processor.mqtt.connection import Connection
connection = Connection(url={mosquitto.url!r}, client_id="killed", will_topic="killed/status", will_payload=b"offline",
                        on_connected=lambda _: connection.publish("killed/status", b"online", qos=1, retain=True))
while True:
    connection.read(10, 1.0)
"""
    client = mqtt_client()
    client.subscribe("killed/status")
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            assert client.wait_for("killed/status").payload == b"online"
        finally:
            process.send_signal(signal.SIGKILL)
    assert client.wait_for("killed/status").payload == b"offline"


@pytest.mark.parametrize(
    ("listener", "paho_reads"),
    [("tls", "0"), ("websockets", "0"), ("tls", "1")],
    ids=["TLS", "WebSockets", "TLS, paho's reader"],
)
def test_other_transports_carry_the_same(
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    listener: Literal["tls", "websockets"],
    paho_reads: str,
) -> None:
    """Many small messages, a large one each way, over TLS and WebSockets."""
    monkeypatch.setenv("MLADE_PAHO_READER", paho_reads)
    config = "require_certificate true" if listener == "tls" else ""
    broker = mosquitto_factory(config, tls=listener == "tls", websockets=listener == "websockets")
    # Mosquitto 2.0.11 sends some 40 kB/s of a large payload over WebSockets; over TLS, more than is read at once.
    large = 1_000_000 if listener == "tls" else 20_000
    made = broker.certificates
    tls = Tls(str(made.ca), str(made.cert), str(made.key)) if made else None
    connection = connect(broker.urls[listener], tls=tls, subscriptions=[Subscription("in", 1, 1)])
    subscribed(connection)
    flood = Flood(broker)
    small = [b"%04d" % number for number in range(3000)]
    flood.publish(b"in", small, 1)
    assert [message.payload for message in read_count(connection, 3000)] == small
    client = mqtt_client(broker=broker)
    client.subscribe("out")
    client.publish("in", b"x" * large)
    assert read_count(connection, 1)[0].payload == b"x" * large
    connection.publish("out", b"y" * 300_000, qos=1)
    read_until(connection, lambda _: connection._publisher.all_confirmed())
    assert client.wait_for("out").payload == b"y" * 300_000
    flood.close()


def test_a_certificate_that_is_not_trusted_is_told(mosquitto_factory: MosquittoFactory, connect: Connect) -> None:
    """Nothing is sent to a broker that may be another's; and it can be had differently, if one insists."""
    broker = mosquitto_factory(tls=True)
    stranger = connect(broker.urls["tls"])
    read_until(stranger, lambda _: stranger.state.startswith("No connection"))
    assert "certificate verify failed" in stranger.state
    subscribed(connect(broker.urls["tls"], tls=Tls(insecure_skip_verify=True)))


def test_closing_says_goodbye_and_keeps_the_session(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect
) -> None:
    """The farewell is published even with messages unread; these, and later ones, wait for the next start."""
    client = mqtt_client()
    client.subscribe("goodbye/status")
    options: dict[str, Any] = {"client_id": "goodbye", "subscriptions": [Subscription("goodbye/data", 1)]}
    connection = connect(mosquitto.url, will_topic="goodbye/status", will_payload=b"the will", **options)
    subscribed(connection)
    for number in range(50):
        client.publish("goodbye/data", str(number))
    connection.acknowledge(connection.read(1, 5.0))
    started = time.monotonic()
    connection.close([("goodbye/status", b"offline", True)])
    assert time.monotonic() - started < 1.0
    assert connection.state.startswith("Disconnected")
    assert client.wait_for("goodbye/status").payload == b"offline"
    client.publish("goodbye/data", "50")
    again = connect(mosquitto.url, **options)
    assert [int(message.payload) for message in read_count(again, 50)] == list(range(1, 51))
    assert client.received() == []  # no will


def test_closing_is_bounded_when_the_broker_does_not_answer(connect: Connect) -> None:
    """A broker that neither reads nor answers holds the end up for no longer than was allowed."""
    with ScriptedBroker([CONNACK_5], reads=False) as deaf:
        connection = connect(deaf.url)
        read_until(connection, lambda _: connection.online)
        connection.publish("metrics", b"x" * 8_000_000)
        started = time.monotonic()
        connection.close([("status", b"offline", True)], timeout=0.3)
        assert time.monotonic() - started < 1.0


def test_own_messages_wait_for_the_connection_at_qos_1_only(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect
) -> None:
    """States reach the broker when there is one, in order; what was QoS 0 is dropped and counted."""
    client = mqtt_client()
    client.subscribe("own/#")
    connection = connect(mosquitto.url)
    connection.publish("own/metrics", b"lost")
    connection.publish("own/state", b"1", qos=1)
    connection.publish("own/state", b"2", qos=1)
    assert connection.dropped == 1
    subscribed(connection)
    connection.publish("own/metrics", b"sent")
    assert [client.wait_for("own/state").payload for _ in range(2)] == [b"1", b"2"]
    assert client.wait_for("own/metrics").payload == b"sent"


def test_an_answer_carries_the_correlation_of_its_command(mosquitto: Mosquitto, connect: Connect) -> None:
    """MQTT 5 request and response, both ends ours."""
    asked = subscribed(connect(mosquitto.url, subscriptions=[Subscription("corr/answer", 0, 5)]))
    connection = connect(mosquitto.url)
    subscribed(connection)
    connection.publish("corr/answer", b"done", correlation=b"\0\xff1")
    [message] = read_count(asked, 1)
    assert properties(message).correlation_data == b"\0\xff1"
    assert properties(message).subscription_identifiers == (5,)


@pytest.mark.parametrize("topic", ["", "a/#", "a/+/b", "a\0b", "\ud800", "a" * 70_000])
def test_a_topic_that_cannot_be_published_to_is_dropped(mosquitto: Mosquitto, connect: Connect, topic: str) -> None:
    """A response topic comes from outside; whatever it is, the connection stays."""
    connection = subscribed(connect(mosquitto.url))
    connection.publish(topic, b"x")
    connection.publish(topic, b"x", qos=1)
    assert connection.read(10, 0.05) == []
    assert connection.dropped == 2
    assert connection.online


def test_retained_messages_of_data_come_once_and_of_control_each_time(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect
) -> None:
    """A kept session does not make old readings new; a filter that changed meanwhile is heard."""
    client = mqtt_client()
    client.publish("retained/data", "d", retain=True)
    client.publish("retained/filter", "f", retain=True)
    subscriptions = [Subscription("retained/data", 1, 1), Subscription("retained/filter", 1, 2, control=True)]
    options: dict[str, Any] = {"client_id": "retained", "subscriptions": subscriptions}
    first = connect(mosquitto.url, **options)
    assert {message.topic for message in read_count(first, 2)} == {"retained/data", "retained/filter"}
    first.close()
    second = connect(mosquitto.url, **options)
    messages = read_count(second, 1) + second.read(10, 0.2)
    assert [(message.topic, message.retain) for message in messages] == [("retained/filter", True)]


@both
def test_filters_of_a_former_configuration_are_dropped(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, connect: Connect, protocol: Protocol
) -> None:
    """A kept session would go on to deliver them."""
    options: dict[str, Any] = {"client_id": f"former-{protocol}", "protocol": protocol}
    first = connect(mosquitto.url, subscriptions=[Subscription("former/old", 1)], **options)
    subscribed(first).close()
    dropped: list[bool] = []
    options["on_unsubscribed"] = lambda: dropped.append(True)
    second = connect(mosquitto.url, subscriptions=[Subscription("former/new", 1)], **options)
    subscribed(second).unsubscribe(["former/old"])
    read_until(second, lambda _: bool(dropped))
    client = mqtt_client()
    client.publish("former/old", "x")
    client.publish("former/new", "y")
    assert [message.topic for message in read_count(second, 1)] == ["former/new"]


class ScriptedBroker:
    """Answers the CONNECT of each connection with the next script, and the last one again when they run out.

    Each of `answers` is sent when its key has been received.
    """

    def __init__(
        self,
        scripts: Sequence[bytes],
        *,
        answers: Mapping[bytes, bytes] | None = None,
        reads: bool = True,
        closes: bool = False,
    ) -> None:
        self._scripts = list(scripts)
        self._answers = dict(answers or {})
        self._reads = reads
        self._closes = closes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.received = bytearray()
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join(DEADLINE)

    def hang_up(self) -> None:
        """End the last connection."""
        self._open[-1].shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.received += connection.recv(65_536)
            connection.sendall(self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0])
            if self._closes:
                connection.close()
            elif self._reads:
                threading.Thread(target=self._drain, args=(connection,), daemon=True).start()

    def _drain(self, connection: socket.socket) -> None:
        while True:
            try:
                data = connection.recv(65_536)
            except OSError:
                return
            if not data:
                return
            self.received += data
            for asked in [asked for asked in self._answers if asked in self.received]:
                connection.sendall(self._answers.pop(asked))


def test_a_broker_without_mqtt_5_is_hopeless(connect: Connect) -> None:
    """MQTT 3.1.1 brokers answer so; the sentence says what to set."""
    with ScriptedBroker([b"\x20\x02\0\1"]) as broker:
        connection = connect(broker.url)
        with pytest.raises(BrokerError, match=r"set broker\.protocol to 3\.1\.1"):
            read_until(connection, lambda _: False)
        with pytest.raises(BrokerError):
            connection.read(1, 0.0)


def test_a_broker_that_hangs_up_is_told_with_the_likely_reason(connect: Connect) -> None:
    """Some MQTT 3.1.1 brokers just close the connection."""
    with ScriptedBroker([b""], closes=True) as broker:
        connection = connect(broker.url)
        read_until(connection, lambda _: "set broker.protocol to 3.1.1" in connection.state)


@pytest.mark.parametrize(
    ("protocol", "connack", "reason"),
    [
        (5, b"\x20\x03\0\x87\0", "Not authorized"),
        (5, b"\x20\x03\0\x86\0", "Bad user name or password"),
        ("3.1.1", b"\x20\x02\0\x05", "Not authorized"),
    ],
)
def test_a_refusal_is_told_and_tried_again(
    connect: Connect, caplog: pytest.LogCaptureFixture, protocol: Protocol, connack: bytes, reason: str
) -> None:
    """An operator may mend the broker; until then it is left in peace."""
    with ScriptedBroker([connack]) as broker:
        connection = connect(broker.url, protocol=protocol)
        read_until(connection, lambda _: reason in connection.state)
        assert "check broker.username" in connection.state
        assert connection._attempts._failures == 6  # the next wait is drawn from the longest backoff
        assert not connection.online
    assert "not MQTT" not in caplog.text


def test_a_refusal_in_passing_is_tried_again_soon(connect: Connect) -> None:
    """A busy broker accepts us a moment later."""
    with ScriptedBroker([b"\x20\x03\0\x89\0", CONNACK_5]) as broker:
        connection = connect(broker.url)
        read_until(connection, lambda _: connection.online)


def test_a_session_that_was_taken_over_is_not_fought_for(connect: Connect) -> None:
    """Messages read before are still returned."""
    published = b"\x30\x05\0\1a\0x"
    with ScriptedBroker([CONNACK_5 + published + b"\xe0\x02\x8e\0"]) as broker:
        connection = connect(broker.url, client_id="twin")
        assert [message.payload for message in read_count(connection, 1)] == [b"x"]
        with pytest.raises(SessionTakenOver, match="'twin'"):
            read_until(connection, lambda _: False)


def test_what_is_not_mqtt_makes_the_connection_anew(connect: Connect) -> None:
    """A malformed packet costs the connection and no more."""
    with ScriptedBroker([CONNACK_5 + b"\x30\x03\0\1\xff", CONNACK_5]) as broker:
        connection = connect(broker.url)
        read_until(connection, lambda _: connection.connects == 2)
        assert connection.online


def test_a_refused_subscription_is_known(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """The others work; the refused one is there for /readyz, with the broker's reason, and is logged."""
    refusal, grant = b"\x90\x04\0\1\0\x87", b"\x90\x04\0\2\0\0"
    with ScriptedBroker([CONNACK_5], answers={b"secret/#": refusal, b"data": grant}) as broker:
        subscriptions = [Subscription("secret/#", 1, 1), Subscription("data", 1, 2)]
        connection = subscribed(connect(broker.url, subscriptions=subscriptions))
        assert connection.refused == {"secret/#": "Not authorized"}
    assert "'secret/#': Not authorized" in caplog.text
    assert "QoS 0 instead of 1 for 'data'" in caplog.text


def test_a_refused_subscription_is_asked_for_again(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """Not every broker ends the connection when its access list changes. The refusal is said once."""
    caplog.set_level("INFO")
    clock = FastForward()
    again = [b"\0%c\2\x0b\1\0\x08secret/#" % mid for mid in (2, 3)]
    answers = {b"secret/#": b"\x90\x04\0\1\0\x87", again[0]: b"\x90\x04\0\2\0\x87", again[1]: b"\x90\x04\0\3\0\1"}
    with ScriptedBroker([CONNACK_5], answers=answers) as broker:
        connection = subscribed(connect(broker.url, subscriptions=[Subscription("secret/#", 1, 1)], clock=clock))
        for asked in again:
            connection.read(1, 0.05)
            assert asked not in broker.received
            assert connection.refused == {"secret/#": "Not authorized"}
            clock.skip(31)
            read_until(connection, lambda _, asked=asked: asked in broker.received and connection.subscribed)  # type: ignore[misc]
        assert connection.refused == {}
    assert caplog.text.count("'secret/#': Not authorized") == 1
    assert "grants the subscription to 'secret/#' now" in caplog.text


def test_a_connection_that_held_makes_the_next_waits_short(connect: Connect) -> None:
    """One that breaks within ten seconds does not: it may be the broker that ends it."""
    clock, told = FastForward(), list[str]()
    with ScriptedBroker([CONNACK_5]) as broker:
        connection = connect(broker.url, clock=clock, on_state=told.append)
        for connects, (seconds, failures) in enumerate(((5, 1), (5, 2), (5, 3), (15, 1)), start=1):
            read_until(connection, lambda _, connects=connects: connection.connects == connects)  # type: ignore[misc]
            clock.skip(seconds)
            told.clear()
            broker.hang_up()
            read_until(connection, lambda _: bool(told))  # it may be connected again by then
            assert connection._attempts._failures == failures
            assert "does another client use the client id" in told[0] or failures < 3
            clock.skip(31)


def test_subscription_identifiers_are_left_out_where_the_broker_has_none(connect: Connect) -> None:
    """To send one would be a protocol error."""
    for connack, expected in ((CONNACK_5, True), (b"\x20\x05\0\0\x02\x29\0", False)):
        with ScriptedBroker([connack]) as broker:
            connection = connect(broker.url, subscriptions=[Subscription("topic", 1, 77)])
            read_until(connection, lambda _, broker=broker: b"topic" in broker.received)  # type: ignore[misc]
            assert (b"\x0b\x4d" in broker.received) is expected


def test_the_limits_of_a_broker_are_kept(connect: Connect) -> None:
    """Larger packets, retained ones and QoS 1 would each make it end the connection, again and again."""
    limits = b"\x24\0" + b"\x25\0" + b"\x27\0\0\0\x64"
    with ScriptedBroker([b"\x20" + bytes([3 + len(limits)]) + b"\0\0" + bytes([len(limits)]) + limits]) as broker:
        connection = connect(broker.url)
        read_until(connection, lambda _: connection.online)
        connection.publish("t", b"large" * 30, qos=1)
        connection.publish("t", b"small", qos=1, retain=True)
        read_until(connection, lambda _: b"small" in broker.received)
        assert connection.dropped == 1
        assert b"large" not in broker.received
        assert b"\x30\x09\0\1t\0small" in broker.received


@pytest.mark.parametrize("url", ["http://host", "mqtt://", "host:1883", ""])
def test_a_wrong_url_is_a_configuration_error(url: str) -> None:
    """It is found before anything is connected."""
    with pytest.raises(ConfigurationError, match=r"broker\.url"):
        Connection(url=url, client_id="x")


def test_a_missing_tls_file_is_named(tmp_path: Path) -> None:
    """The error says which file and which key of the configuration."""
    for tls, path in ((Tls(ca=str(tmp_path / "none.pem")), "broker.tls.ca"), (Tls(cert="none"), "broker.tls.cert")):
        with pytest.raises(ConfigurationError, match=f"{path}: .*none.*No such file"):
            Connection(url="mqtts://localhost", client_id="x", tls=tls)
