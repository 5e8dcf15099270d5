"""Sparkplug B: what edge nodes and their devices send is read in the light of what they sent before.

A birth names all metrics with their types and values; after it comes only what has changed, often under a number, the
alias, instead of the name. So a reading is the state of a node or a device: its fields as the newest message leaves
them. A node's messages are counted; where one is missing, or a birth was not seen, the node is asked for its births.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from processor.conditions.memory import Row
from processor.decoders.checks import Checks, Unusable, refuse_too_many
from processor.decoders.sparkplug.addresses import Address, Addresses, command
from processor.decoders.sparkplug.nodes import MOST_KNOWN, Node, Nodes, Party
from processor.decoders.sparkplug.payloads import Lack, Payload, bd_seq, number, parse, rebirth_request
from processor.decoders.sparkplug.readings import BEYOND, Readings
from processor.source_sections import Source
from processor.types import NS, Decoded, Failure, Request, Times

_FIRST_PAUSE: Final = 30 * NS
_LONGEST_PAUSE: Final = 3600 * NS
"""Between two requests to a node, in messages' time; doubled while they do not help: births are large, and there are
nodes that count wrong."""
_CALM: Final = 4
"""Pauses after which the first one counts again."""
_BETWEEN: Final = NS // 10
"""Between requests to different nodes: after a start hundreds may have to be asked."""
_MILLISECOND: Final = 1_000_000

_Changes = dict[int, list[tuple[int, float | Lack]]]  # columns and their values, by time


class _Message(NamedTuple):
    """A message of a node."""

    position: int
    arrival: int
    """Nanoseconds since the Unix epoch."""
    address: Address
    payload: Payload
    node: Node

    @property
    def seq(self) -> int | None:
        """Its number."""
        return self.payload.seq if self.payload.HasField("seq") else None

    def time(self, stamp: int) -> int:
        """Return when something was, in ns since the Unix epoch; BEYOND where that is too large.

        Args:
            stamp: its own, in ms since the Unix epoch; 0: it has none.
        """
        return min((stamp or self.payload.timestamp) * _MILLISECOND, BEYOND) or self.arrival


@dataclass(slots=True)
class _Told:
    """What a message of data says of fields.

    Attributes:
        live: what has changed, by time.
        past: what has changed earlier and is sent afterwards.
        strange: the first alias that no birth has; None: there is none.
    """

    live: _Changes = field(default_factory=dict)
    past: _Changes = field(default_factory=dict)
    strange: int | None = None


class SparkplugDecoder:
    """Decoder of `format: sparkplug`; a `RememberingDecoder`."""

    def __init__(self, source: Source, most_known: int = MOST_KNOWN) -> None:
        """Prepare for one source's fields, which are metrics' names.

        Args:
            source: the source.
            most_known: aliases and values that are remembered, of all nodes together.
        """
        self._source = source
        self._columns = {name.encode(errors="surrogatepass"): column for column, name in enumerate(source.fields)}
        self._checks = Checks(source, partly=True)
        self._addresses = Addresses()
        self._nodes = Nodes(len(source.fields), most_known)
        self._take: Mapping[str, Callable[[_Message, Readings], Unusable | None]] = {
            "NBIRTH": self._node_birth,
            "DBIRTH": self._device_birth,
            "NDATA": self._data,
            "DDATA": self._data,
            "NDEATH": self._node_death,
            "DDEATH": self._device_death,
        }

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call; see `protocols.RememberingDecoder`."""
        return self._nodes.changes()

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from what `changes` returned over the time."""
        self._nodes.restore(rows)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        readings = Readings(self._source)
        failures: list[Failure] = []
        requests: list[Request] = []
        for position, (data, arrival, topic) in enumerate(zip(payloads, arrivals.tolist(), topics, strict=True)):
            problem: Unusable | None
            try:
                address = self._addresses.read(topic)
                if not address.kind:
                    continue
                payload = parse(data)
            except Unusable as unusable:
                problem = unusable
            else:
                message = _Message(position, arrival, address, payload, self._nodes.hear(address.node))
                problem = self._take[address.kind](message, readings)
                self._nodes.bound()
                if message.node.trouble and self._source.sparkplug.rebirth:
                    requests += self._ask(message.node, arrival)
            if problem is not None:
                failures.append(Failure(position, problem.reason, problem.detail))
        return readings.decoded(self._checks, arrivals, failures, requests)

    def _ask(self, node: Node, arrival: int) -> list[Request]:
        """Return what asks a node for its births, when it is time."""
        since = None if node.asked is None else abs(arrival - node.asked)
        if since is not None and since < node.pause:
            return []
        if self._nodes.asked is not None and abs(arrival - self._nodes.asked) < _BETWEEN:
            return []
        helped = since is None or since > _CALM * node.pause
        node.pause = _FIRST_PAUSE if helped else min(2 * node.pause, _LONGEST_PAUSE)
        node.asked = self._nodes.asked = arrival
        why = f"The edge node {node.key} is asked for its births: {node.trouble}."
        return [Request(command(node.key), rebirth_request(arrival // _MILLISECOND), why)]

    def _count(self, message: _Message) -> None:
        """Take note of the number of a message that comes after a birth of its node."""
        node = message.node
        node.count(message.seq)
        if not node.born:
            node.trouble = node.trouble or "its birth was not seen"

    def _node_birth(self, message: _Message, readings: Readings) -> Unusable | None:
        self._nodes.begin(message.node, message.seq, bd_seq(message.payload))
        return self._birth(message, readings)

    def _device_birth(self, message: _Message, readings: Readings) -> Unusable | None:
        self._count(message)
        return self._birth(message, readings)

    def _node_death(self, message: _Message, _readings: Readings) -> None:
        node, of_death = message.node, bd_seq(message.payload)
        if of_death is None or node.bd_seq is None or of_death == node.bd_seq:  # else it is of an earlier session
            self._nodes.end(node)

    def _device_death(self, message: _Message, _readings: Readings) -> None:
        self._count(message)
        party = message.node.parties.get(message.address.party)
        if party is not None:
            self._nodes.die(party)

    def _birth(self, message: _Message, readings: Readings) -> Unusable | None:
        """Begin with what a birth says: one reading, of the time at which the newest of its fields has changed."""
        party = self._nodes.party(message.node, message.address.party)
        before = party.live.values.copy()
        types: dict[int, int] = {}
        aliases: dict[int, int] = {}
        others: list[int] = []
        told: list[tuple[int, float | Lack]] = []
        newest = 0
        for metric in message.payload.metrics:
            column = self._columns.get(metric.name)
            if column is not None:
                types[column] = metric.datatype
                told.append((column, number(metric, metric.datatype)))
                newest = max(newest, metric.timestamp)
            if metric.HasField("alias"):
                if column is None:
                    others.append(metric.alias)
                else:
                    aliases[metric.alias] = column
        self._nodes.bear(party, types, aliases, others)
        for column, value in told:
            party.live.put(column, value)
        party.complete_past()
        if not told:
            return None
        time = message.time(newest)
        if time == party.time and party.live.values == before and not party.live.lacking:
            return None  # it was asked for, and says what is known
        party.time = time
        return readings.add(message.position, time, party.key, party.live, party)

    def _data(self, message: _Message, readings: Readings) -> Unusable | None:
        """Take in what has changed: a reading for each time at which something has."""
        self._count(message)
        node, address = message.node, message.address
        party = self._nodes.party(node, address.party)
        told = self._read(message, party)
        count = len(told.live) + len(told.past)
        try:
            refuse_too_many(count, len(self._columns), message.payload.ByteSize())
        except Unusable as unusable:
            node.trouble = "it has sent more at once than can be taken in"
            return unusable
        problem: Unusable | None = None
        for changes, table, key in ((told.live, party.live, party.key), (told.past, party.past, address.past)):
            for time, values in sorted(changes.items()):
                for column, value in values:
                    table.put(column, value)
                refused = readings.add(message.position, time, key, table, party)
                problem = problem or refused
        if count:
            party.time = max(told.live, default=party.time)
            self._nodes.note(party)
        if party.birth is None:
            node.trouble = node.trouble or f"the birth of {party.key} was not seen"
        if told.strange is not None:
            problem = problem or self._strange(node, party, told.strange)
        return problem

    def _read(self, message: _Message, party: Party) -> _Told:
        """Return what a message of data says of fields."""
        told = _Told()
        birth = party.birth
        types: Mapping[int, int] = {} if birth is None else birth.types
        for metric in message.payload.metrics:
            if metric.name:
                column = self._columns.get(metric.name)
                if column is not None and birth is not None and column not in types:
                    message.node.trouble = f"{self._source.fields[column]!r} is not in the birth of {party.key}"
            else:
                column = None if birth is None else birth.aliases.get(metric.alias)
                if column is None and told.strange is None and (birth is None or not birth.has(metric.alias)):
                    told.strange = metric.alias
            if column is not None:
                changes = told.past if metric.is_historical else told.live
                value = number(metric, metric.datatype or types.get(column, 0))
                changes.setdefault(message.time(metric.timestamp), []).append((column, value))
        return told

    def _strange(self, node: Node, party: Party, alias: int) -> Unusable:
        """Return why a value under an alias cannot be read."""
        if party.birth is None:
            why = f"the birth of {party.key}, which names it, was not seen"
        else:
            why = f"it is not in the birth of {party.key}"
            node.trouble = node.trouble or f"the alias {alias} is not in the birth of {party.key}"
        return Unusable("birth", f"the alias {alias} has no name: {why}")
