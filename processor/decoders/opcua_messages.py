"""What is around the values in OPC UA PubSub's JSON (OPC 10000-14, 7.2.5): network messages and DataSet messages.

A payload is a network message, that holds DataSet messages, that hold values by node id; each of the two outer layers
may be missing, and of each there may be one, or an array. OPC Publisher's samples mode has, in place of a DataSet
message, an object for each value that names its node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from processor.decoders.checks import Unusable
from processor.decoders.values import ABSENT, kind

Object = dict[str, Any]
"""What JSON calls an object, as it stands in a payload."""

_OF_VALUES: Final = frozenset(("ua-data", "ua-keyframe", "ua-deltaframe"))
_OTHERS: Final = "ua-"
"""What the type of every message begins with; those that are not of values describe, keep alive, report events."""
_HEADER: Final = frozenset(
    (
        *("MessageId", "MessageType", "PublisherId", "DataSetClassId", "WriterGroupName", "DataSetWriterGroup"),
        *("DataSetWriterId", "DataSetWriterName", "SequenceNumber", "MetaDataVersion", "MinorVersion"),
        *("Timestamp", "Status"),
    )
)
"""What stands around a payload; a message of nothing else keeps alive."""


class DataSet(NamedTuple):
    """Values that came together."""

    entries: Object
    """By node id: a value, or an object with one, as it stands in the payload."""
    headers: tuple[Object, ...]
    """What may hold a field of the DataSet message, first what is nearest to the values."""
    sample: tuple[str, str] | None = None
    """Of a single value of the samples mode: its writer and its time. Those that have the same belong together."""

    @property
    def time(self) -> object:
        """The message's own time, as it stands there; None: it has none."""
        return self.headers[0].get("Timestamp")

    @property
    def status(self) -> object:
        """The status of those values that have none of their own, as it stands there."""
        return self.headers[0].get("Status")

    def look_up(self, name: str) -> object:
        """Return a field of the DataSet message or of what is around it, such as `DataSetWriterId`, or `ABSENT`."""
        return next((header[name] for header in self.headers if name in header), ABSENT)


def data_sets(payload: object) -> Iterator[DataSet | Unusable]:
    """Yield the values in a decoded payload, and what cannot hold any; nothing for messages of another kind."""
    for item in payload if isinstance(payload, list) else (payload,):
        if not isinstance(item, dict):
            yield _refused(item, "an OPC UA network message, a DataSet message or values by node id")
        elif "Messages" not in item:
            yield from _data_set(item, ())
        elif _has_values(item):
            messages = item["Messages"]
            for message in messages if isinstance(messages, list) else (messages,):
                if isinstance(message, dict):
                    yield from _data_set(message, (item,))
                else:
                    yield _refused(message, "a DataSet message or values by node id")


def joined_samples(found: Iterable[DataSet | Unusable]) -> Iterable[DataSet | Unusable]:
    """Return what was found with those samples in one that belong together, where the first of them was."""
    groups: dict[object, DataSet | Unusable] = {}
    for position, one in enumerate(found):
        if isinstance(one, Unusable) or one.sample is None:
            groups[position] = one
        elif isinstance(first := groups.setdefault(one.sample, one), DataSet) and first is not one:
            first.entries.update(one.entries)
    return groups.values()


def _data_set(message: Object, around: tuple[Object, ...]) -> Iterator[DataSet | Unusable]:
    node = message.get("NodeId")
    if isinstance(node, str):
        yield _sample(node, message, around)
    elif not _has_values(message) or _HEADER.issuperset(message):
        return
    elif "Payload" not in message:
        yield DataSet(message, ({}, *around))
    elif isinstance(message["Payload"], dict):
        yield DataSet(message["Payload"], (message, *around))
    elif message["Payload"] is not None:
        yield _refused(message["Payload"], "values by node id", "the Payload of a DataSet message")


def _sample(node: str, message: Object, around: tuple[Object, ...]) -> DataSet:
    found = message.get("Value", ABSENT)
    # The parts of a DataValue may stand beside the node id, too.
    value = message if not isinstance(found, dict) and "SourceTimestamp" in message else found
    more = message.get("ExtensionFields")
    headers = (message, more, *around) if isinstance(more, dict) else (message, *around)
    time = value.get("SourceTimestamp") if isinstance(value, dict) else None
    writer = DataSet({}, headers).look_up("DataSetWriterId")
    return DataSet({node: value}, headers, (str(writer), str(time)))


def _has_values(message: Object) -> bool:
    of_type = message.get("MessageType")
    return not isinstance(of_type, str) or of_type in _OF_VALUES or not of_type.startswith(_OTHERS)


def _refused(found: object, expected: str, what: str = "the payload, or an item of it,") -> Unusable:
    return Unusable("decode", f"{what} is {kind(found)}; expected {expected}")
