"""The programs that are compared, each a process of its own fed with the same load."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from bench.broker import HOST, Broker, find, free_port
from bench.load import FIELDS, TOPIC_FILTER
from bench.processes import PYTHON_MODULE, Child, running

RECEIVE_MAXIMUM = 1000
"""Messages that the broker may send unacknowledged: mlade's default, given to all."""
PROCESSOR = "bench"
"""The processor's id."""


class Side(Protocol):
    """A program that takes the load."""

    @property
    def child(self) -> Child:
        """Its process."""
        ...

    def received(self) -> int:
        """Return how many messages it has taken in."""
        ...

    def accepted(self) -> int:
        """Return how many samples it has kept."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """One of the small programs beside this file; it tells its counts when asked."""

    child: Child

    def received(self) -> int:
        """Return how many messages it has taken in."""
        return int(self.child.ask().split()[0])

    def accepted(self) -> int:
        """Return how many samples it has kept."""
        return int(self.child.ask().split()[1])


@dataclass(frozen=True, slots=True)
class Mlade:
    """`mlade run`; its counts are those of its metrics page."""

    child: Child
    listen: str

    def received(self) -> int:
        """Return how many messages it has taken in."""
        return self.metrics()["messages_total"]

    def accepted(self) -> int:
        """Return how many samples it has kept."""
        return self.metrics()["accepted_total"]

    def metrics(self) -> Counter[str]:
        """Return its metrics by their names on its page without the prefix, each summed over its labels."""
        values: Counter[str] = Counter()
        for name, value in re.findall(r"^mlade_(\w+)(?:\{.*?\})? (\S+)$", self._get("/metrics").decode(), re.MULTILINE):
            values[name] += int(float(value))
        return values

    def ready(self) -> bool:
        """Return whether it says that it does its job."""
        return b'"ready":true' in self._get("/readyz")

    def _get(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=5) as answer:
                page: bytes = answer.read()
        except urllib.error.HTTPError as error:
            return error.read()
        except OSError as error:
            raise self.child.failed(f"does not answer on {self.listen} ({error})") from error
        return page


@contextmanager
def script(program: str, broker: Broker, qos: int, *arguments: str) -> Iterator[Script]:
    """Run one of the programs beside this file, subscribed."""
    command = [*PYTHON_MODULE, f"bench.sides.{program}", str(broker.port), str(qos), *arguments]
    with running(program, command, broker.folder, pipes=True) as child:
        broker.wait_for_subscription(TOPIC_FILTER, child)
        yield Script(child)


@contextmanager
def mlade(
    broker: Broker, qos: int, model: Mapping[str, Any], confidence: float, /, **sections: object
) -> Iterator[Mlade]:
    """Run `mlade run` with everything on, subscribed.

    Args:
        broker: where to; its folder takes configuration, state and samples.
        qos: of its subscription.
        model: the configuration's section.
        confidence: predictions at most this sure are accepted.
        sections: of the configuration, in place of those here.
    """
    listen = f"{HOST}:{free_port()}"
    configuration = {
        "id": PROCESSOR,
        "state_dir": "state",
        "broker": {"url": f"mqtt://{HOST}:{broker.port}", "receive_maximum": RECEIVE_MAXIMUM},
        "sources": [{"name": "imu", "topics": [TOPIC_FILTER], "qos": qos, "fields": list(FIELDS), "time": "ts"}],
        "model": model,
        "filter": {"rules": [{"name": "unsure", "measure": "confidence", "band": {"max": confidence}}]},
        "outbox": {"durability": "full"},
        "bridges": [{"type": "files", "path": "accepted"}, {"type": "mqtt"}],
        "metrics": {"publish_every": "1s"},
        "http": {"listen": listen},
        **sections,
    }
    file = broker.folder / "processor.yaml"  # JSON is YAML
    file.write_bytes(msgspec.json.encode(configuration))
    with running("mlade", [*PYTHON_MODULE, "processor", "run", "-c", str(file)], broker.folder) as child:
        broker.wait_for_subscription(TOPIC_FILTER, child)
        yield Mlade(child, listen)


@contextmanager
def mosquitto_sub(broker: Broker, qos: int, count: int) -> Iterator[Child]:
    """Run Mosquitto's own subscriber, written in C; it ends by itself after `count` messages."""
    command = [find("mosquitto_sub"), "-h", HOST, "-p", str(broker.port), "-V", "5", "-q", str(qos)]
    command += ["-D", "connect", "receive-maximum", str(RECEIVE_MAXIMUM), "-t", TOPIC_FILTER, "-C", str(count)]
    with running("mosquitto_sub", command, broker.folder) as child:
        broker.wait_for_subscription(TOPIC_FILTER, child)
        yield child


def wait_received(side: Side, count: int, *, timeout: float = 120) -> None:
    """Wait until `side` has taken in `count` messages. Looks seldom while that is far off: being asked costs it time.

    Raises:
        BenchError: it has taken in more, or not as many in time.
    """
    started, first = time.monotonic(), side.received()
    while (received := side.received()) != count:
        elapsed = time.monotonic() - started
        if received > count:
            raise side.child.failed(f"has taken in {received} messages of {count} sent")
        if elapsed > timeout:
            raise side.child.failed(f"has taken in {received} messages of {count} sent in {timeout:g} s")
        left = elapsed / max(received - first, 1) * (count - received)
        time.sleep(min(max(left / 4, 0.01), 0.25))
