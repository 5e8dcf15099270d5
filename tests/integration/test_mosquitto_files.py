"""mosquitto/secured: who may connect, and for each line of the access list what it allows and what stays refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from processor.demo.data import FIELDS, MODEL_PATH
from processor.session import DROPPED_TOPIC
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import Client, MqttClientError, MqttClientFactory
from tests.running import ProcessorFactory
from tests.secured import FOLDER, password, passwords

MOUNTED = "/mosquitto/config/access/"
TESTER = "user tester\ntopic readwrite #\ntopic read $SYS/#\n"


class Line(NamedTuple):
    """A line of the access list."""

    user: str
    access: str
    topics: str


CASES = {
    Line("sensors", "write", "wearable/+/imu"): ("wearable/7/imu", "mlade/line-1/model"),
    Line("mlade", "read", "wearable/+/imu"): ("wearable/7/imu", "wearable/7/battery"),
    Line("mlade", "read", DROPPED_TOPIC): (DROPPED_TOPIC, "$SYS/broker/uptime"),
    Line("mlade", "readwrite", "mlade/line-1/#"): ("mlade/line-1/accepted/audit", "mlade/line-2/accepted/audit"),
    Line("operator", "read", "mlade/#"): ("mlade/line-2/metrics", "wearable/7/imu"),
    Line("operator", "write", "mlade/+/filter"): ("mlade/line-2/filter", "mlade/line-2/filter/state"),
    Line("operator", "write", "mlade/+/model"): ("mlade/line-2/model", "mlade/line-2/model/state"),
    Line("operator", "write", "mlade/+/command"): ("mlade/line-2/command", "mlade/line-2/accepted/audit"),
    Line("training", "read", "mlade/+/accepted/+"): ("mlade/line-2/accepted/audit", "mlade/line-2/inference/press"),
    Line("training", "read", "mlade/+/status"): ("mlade/line-2/status", "mlade/line-2/metrics"),
}
"""For each line a topic that it allows, and one near it that stays refused."""

Connect = Callable[[str], Client]


def lines() -> Iterator[Line]:
    """Yield the lines of the access list."""
    user = ""
    for text in (FOLDER / "secured" / "acl").read_text().splitlines():
        first, _, rest = text.partition(" ")
        if first == "user":
            user = rest
        elif first == "topic":
            yield Line(user, *rest.split(" ", 1))
        else:
            assert not text or first == "#", text


def without(text: str, *settings: str) -> str:
    """Return a configuration without some lines, each of which it has."""
    kept = text.splitlines()
    for setting in settings:
        kept.remove(setting)
    return "\n".join([*kept, ""])


@pytest.fixture
def broker(mosquitto_factory: MosquittoFactory) -> Mosquitto:
    """Run the files of the repository, but with ports, certificates and folders of the test."""
    general = without(
        (FOLDER / "mosquitto.conf").read_text(),
        f"include_dir {MOUNTED.rstrip('/')}",
        "persistence true",
        "persistence_location /mosquitto/data/",
    )
    access = without(
        (FOLDER / "secured" / "access.conf").read_text(),
        "listener 8883",
        f"cafile {MOUNTED}ca.crt",
        f"certfile {MOUNTED}server.crt",
        f"keyfile {MOUNTED}server.key",
    )
    files = {
        "passwords": passwords({line.user for line in CASES} | {"tester"}),
        "acl": (FOLDER / "secured" / "acl").read_text() + TESTER,
    }
    return mosquitto_factory(general + access.replace(MOUNTED, ""), tls=True, persistence=True, files=files)


@pytest.fixture
def connect(broker: Mosquitto, mqtt_client: MqttClientFactory) -> Connect:
    """Connect a user."""
    return lambda user: mqtt_client(broker=broker, listener="tls", account=(user, password(user)))


def test_nobody_gets_in_without_a_user(
    broker: Mosquitto, mqtt_client: MqttClientFactory, make_processor: ProcessorFactory
) -> None:
    """No name, an unknown one, a wrong password; mlade says so."""
    for account in (None, ("nobody", "x"), ("mlade", password("operator"))):
        with pytest.raises(MqttClientError, match="Not authorized"):
            mqtt_client(broker=broker, listener="tls", account=account)
    processor = make_processor(on=broker, **collecting(broker, username="mlade", password="wrong"))  # noqa: S106 - is it
    processor.launch()
    processor.wait_for_log("Not authorized")
    assert "Not authorized" in json.loads(processor.get("/readyz"))["waiting_for"][0]


def test_each_line_of_the_access_list_has_its_case() -> None:
    """Below."""
    assert list(lines()) == list(CASES)


@pytest.mark.parametrize("line", [line for line in CASES if line.access != "read"], ids="-".join)
def test_what_may_be_written_and_what_not(connect: Connect, line: Line) -> None:
    """The refused one is published first, and never arrives."""
    allowed, refused = CASES[line]
    tester = connect("tester")
    tester.subscribe("#")
    connect(line.user).publish(refused, "no")  # Mosquitto 2.0 ends that connection behind the PUBACK
    connect(line.user).publish(allowed, "yes")
    assert tester.wait_for(allowed).payload == b"yes"
    assert tester.received() == []


@pytest.mark.parametrize("line", [line for line in CASES if line.access != "write"], ids="-".join)
def test_what_may_be_read_and_what_not(connect: Connect, line: Line) -> None:
    """The refused one is published, or retained, before the other, and does not come."""
    allowed, refused = CASES[line]
    tester, user = connect("tester"), connect(line.user)
    for topic in (refused, allowed):
        if topic.startswith("$SYS/"):  # the broker's own: retained
            tester.subscribe(topic)
            tester.wait_for(topic)
        else:
            tester.publish(topic, "seen", retain=True)
    for topic in (refused, allowed):
        user.subscribe(topic)
    assert user.wait_for(allowed)
    assert user.received() == []


def collecting(broker: Mosquitto, **account: str) -> dict[str, object]:
    """Return the configuration of a processor that connects with TLS."""
    assert broker.certificates is not None
    return {
        "id": "line-1",
        "broker": {"url": broker.urls["tls"], "tls": {"ca": str(broker.certificates.ca)}, **account},
        "sources": [{"name": "imu", "topics": ["wearable/+/imu"], "fields": list(FIELDS), "time": "ts"}],
        "model": {"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
        "filter": {"rules": []},
        "bridges": [{"type": "mqtt"}],
    }


def test_everybody_can_do_their_work(broker: Mosquitto, connect: Connect, make_processor: ProcessorFactory) -> None:
    """An operator sets a filter, sensors publish, training gets the sample; mlade misses nothing."""
    processor = make_processor(on=broker, **collecting(broker, username="mlade", password=password("mlade")))
    processor.start()
    operator, sensors, training = (connect(user) for user in ("operator", "sensors", "training"))
    training.subscribe("mlade/+/accepted/+")
    operator.subscribe("mlade/line-1/#")
    operator.publish("mlade/line-1/filter", '{"rules": [{"name": "all"}]}', retain=True)
    while json.loads(operator.wait_for("mlade/line-1/filter/state").payload)["source"] != "topic":
        continue
    for number in range(20):
        reading = {"ts": 1_790_000_000 + number / 10, **dict.fromkeys(FIELDS, number / 10)}
        sensors.publish("wearable/7/imu", json.dumps(reading))
    assert json.loads(training.wait_for("mlade/line-1/accepted/all").payload)["subject"] == "wearable/7/imu"
    operator.publish("mlade/line-1/command", '{"command": "status"}')
    assert json.loads(operator.wait_for("mlade/line-1/command/response").payload)["status"] == "ok"
    assert json.loads(processor.get("/readyz")) == {"ready": True, "waiting_for": []}
    assert "WARNING" not in processor.log()
