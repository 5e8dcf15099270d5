"""What is known of edge nodes and their devices: births, newest values, message numbers; in memory and in the store.

A node itself is a party, and so is each of its devices: it has a birth, metrics and a stream. Used by one thread.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from processor.conditions.memory import ALL, Row
from processor.decoders.sparkplug.payloads import UNTOLD, Lack

MOST_KNOWN: Final = 1_000_000
"""Aliases and values of all nodes together, of some 10 bytes each. With more, the least recently heard node goes."""
_EACH: Final = 64
"""What a party counts for beside those; a node as well."""
_SEQUENCE: Final = 256
"""Messages of a node count from 0 up to below this, and again."""
_HEAD, _VALUES, _BIRTH = range(3)
"""Parts of a key in the store: what concerns a node as a whole, a party's values, its birth."""
_ALL_NODES: Final = ""
"""The key of the row that concerns no single node."""


class Table(msgspec.Struct, array_like=True):
    """A value for each of C fields.

    Attributes:
        values: C numbers; those of fields in `lacking` mean nothing.
        lacking: why there is no number, by column.
    """

    values: list[float]
    lacking: dict[int, Lack]

    def put(self, column: int, value: float | Lack) -> None:
        """Take note of a number, or why there is none."""
        if isinstance(value, Lack):
            self.lacking[column] = value
        else:
            self.values[column] = value
            if self.lacking:
                self.lacking.pop(column, None)


class Birth(msgspec.Struct, array_like=True, frozen=True):
    """What a party's birth says of its metrics.

    Attributes:
        types: data types of the fields that it has, by column.
        aliases: their columns, by alias.
        others: aliases of its other metrics, as sorted unsigned 64-bit numbers.
    """

    types: dict[int, int]
    aliases: dict[int, int]
    others: bytes

    def has(self, alias: int) -> bool:
        """Whether another metric than a field has this alias."""
        others = memoryview(self.others).cast("Q")
        place = bisect_left(others, alias)
        return place < len(others) and others[place] == alias


@dataclass(slots=True)
class Party:
    """An edge node itself, or one of its devices.

    Attributes:
        key: its stream.
        live: the newest values.
        past: the newest values of the history that it sends afterwards.
        time: of its last reading, ns since the Unix epoch.
        birth: None before it was seen, and after a death.
    """

    key: str
    live: Table
    past: Table
    time: int = 0
    birth: Birth | None = None

    def die(self) -> None:
        """End what is known; history that is sent afterwards goes on from here."""
        if self.birth is not None:
            self.past = Table(self.live.values.copy(), self.live.lacking)
        self.live.lacking = dict.fromkeys(range(len(self.live.values)), UNTOLD)
        self.birth = None

    def complete_past(self) -> None:
        """Let history begin with what the birth says, where nothing was known before."""
        for column in [column for column, why in self.past.lacking.items() if why == UNTOLD]:
            self.past.put(column, self.live.lacking.get(column, self.live.values[column]))


class Node(msgspec.Struct):
    """An edge node.

    Attributes:
        key: `<group>/<edge node>`.
        parties: itself and its devices, by stream.
        born: whether its birth was seen, and no death since.
        bd_seq: the number that its birth and its death share; None: unknown.
        seq: of its last message; None: unknown.
        trouble: why its births are wanted; empty where they are not.
        asked: when they were asked for last, ns since the Unix epoch.
        pause: how long they are then not asked for again, ns.
        turn: when it was heard last; messages of all nodes are counted.
    """

    key: str
    born: bool = False
    bd_seq: int | None = None
    seq: int | None = None
    trouble: str = ""
    asked: int | None = None
    pause: int = 0
    turn: int = 0
    parties: dict[str, Party] = {}

    def count(self, seq: int | None) -> None:
        """Take note of a message's number: if it is not the one after the last, something is missing."""
        if seq is not None:
            seq %= _SEQUENCE
            if self.seq is not None and seq != (self.seq + 1) % _SEQUENCE:
                self.trouble = f"after its message {self.seq} came {seq}"
        self.seq = seq


_encode: Final = msgspec.msgpack.Encoder().encode


class Nodes:
    """All edge nodes that are known.

    Attributes:
        asked: when any of them was asked for its births last, ns since the Unix epoch.
    """

    def __init__(self, fields: int, most: int = MOST_KNOWN) -> None:
        """Begin with none.

        Args:
            fields: values in a reading.
            most: aliases and values of all nodes together.
        """
        self.asked: int | None = None
        self._fields = fields
        self._most = most
        self._nodes: dict[str, Node] = {}  # the least recently heard first
        self._known = 0  # counted against `most`
        self._turn = 0
        # What changed since it was written, by key:
        self._heads: dict[str, Node] = {}
        self._values: dict[str, Party] = {}
        self._births: dict[str, Party] = {}
        self._gone: list[str] = []

    def find(self, key: str) -> Node | None:
        """Return a node if it is known."""
        return self._nodes.get(key)

    def hear(self, key: str) -> Node:
        """Return a node that has sent a message, `<group>/<edge node>`."""
        node = self._nodes.pop(key, None)
        if node is None:
            node = Node(key)
            self._known += _EACH
        self._nodes[key] = self._heads[key] = node
        self._turn += 1
        node.turn = self._turn
        return node

    def party(self, node: Node, key: str) -> Party:
        """Return a party of a node."""
        party = node.parties.get(key)
        if party is None:
            party = node.parties[key] = Party(key, self._untold(), self._untold())
            self._known += self._size(party)
            self.note(party)
        return party

    def note(self, party: Party) -> None:
        """Take note that a party's values change."""
        self._values[party.key] = party

    def _untold(self) -> Table:
        return Table([0.0] * self._fields, dict.fromkeys(range(self._fields), UNTOLD))

    def _size(self, party: Party) -> int:
        """Return what a party counts for."""
        birth = party.birth
        return _EACH + 2 * self._fields + (0 if birth is None else len(birth.aliases) + len(birth.others) // 8)

    def begin(self, node: Node, seq: int | None, bd_seq: int | None) -> None:
        """Take note of a node's birth: its devices will have theirs."""
        self.end(node)
        node.born, node.bd_seq = True, bd_seq
        node.count(seq)

    def end(self, node: Node) -> None:
        """Take note of a node's death, which is its devices', too."""
        self._heads[node.key] = node
        node.born, node.bd_seq, node.seq, node.trouble = False, None, None, ""
        for party in node.parties.values():
            self.die(party)

    def die(self, party: Party) -> None:
        """Take note of a party's death."""
        self._replace(party, None)

    def bear(self, party: Party, types: dict[int, int], aliases: dict[int, int], others: Iterable[int]) -> None:
        """Take note of a party's birth, whose values follow; see `Birth`."""
        self._replace(party, Birth(types, aliases, array("Q", sorted(others)).tobytes()))

    def _replace(self, party: Party, birth: Birth | None) -> None:
        self._known -= self._size(party)
        party.die()
        party.birth = birth
        self._known += self._size(party)
        self._values[party.key] = self._births[party.key] = party

    def bound(self) -> None:
        """Forget what is too much; of the node heard last all but when it was asked for its births."""
        if self._known <= self._most:
            return
        *earlier, last = self._nodes.values()
        for node in earlier:
            self._forget(node)
            if self._known <= self._most:
                return
        self._forget(last)
        self._nodes[last.key] = self._heads[last.key] = last
        self._known += _EACH
        self.end(last)
        last.trouble = f"it and its devices have more than {self._most} metrics and fields"

    def _forget(self, node: Node) -> None:
        del self._nodes[node.key]
        self._known -= _EACH + sum(map(self._size, node.parties.values()))
        for key in (node.key, *node.parties):
            for changed in (self._heads, self._values, self._births):
                changed.pop(key, None)
            self._gone.append(key)
        node.parties.clear()

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = [Row(key, ALL, None) for key in dict.fromkeys(self._gone)]
        if self._heads:
            rows.append(Row(_ALL_NODES, _HEAD, _encode((self.asked, self._turn))))
        for key, node in self._heads.items():
            rows.append(Row(key, _HEAD, _encode(msgspec.structs.astuple(node)[1:-1])))  # but for its key and parties
        for key, party in self._values.items():
            rows.append(Row(key, _VALUES, _encode((party.live, party.past, party.time))))
        rows += [Row(key, _BIRTH, _encode(party.birth)) for key, party in self._births.items()]
        for changed in (self._heads, self._values, self._births):
            changed.clear()
        self._gone.clear()
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from what `changes` returned over the time, ordered by key and part. Called once, before anything."""
        decode = msgspec.msgpack.decode
        for key, part, value in rows:
            if value is None:
                continue
            if key == _ALL_NODES:
                self.asked, self._turn = decode(value, type=tuple[int | None, int])
            elif part == _HEAD:
                self._nodes[key] = Node(key, *decode(value))
            else:
                parties = self._nodes["/".join(key.split("/")[:2])].parties
                if part == _VALUES:
                    parties[key] = Party(key, *decode(value, type=tuple[Table, Table, int]))
                else:
                    parties[key].birth = decode(value, type=Birth | None)
        self._nodes = {node.key: node for node in sorted(self._nodes.values(), key=lambda node: node.turn)}
        for node in self._nodes.values():
            self._known += _EACH + sum(map(self._size, node.parties.values()))
