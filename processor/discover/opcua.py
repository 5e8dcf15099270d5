"""OPC UA's JSON: which nodes are numbers, and whether they come together."""

from __future__ import annotations

from typing import Final

from processor.decoders.checks import Unusable
from processor.decoders.opcua_messages import DataSet, data_sets, joined_samples
from processor.decoders.opcua_values import value_and_time
from processor.decoders.values import ABSENT
from processor.discover.look import MOST_FIELDS, MOST_RECORDS, Look, Record, can_be_written

_TYPES: Final = ("ua-data", "ua-keyframe", "ua-deltaframe")


def look_at(tree: object) -> Look | None:
    """Return the values in a decoded payload, a record a DataSet message; None where it is none of OPC UA's."""
    items = tree if isinstance(tree, list) else [tree]
    if not items or not all(isinstance(item, dict) and _is_message(item) for item in items):
        return None
    records: list[Record] = []
    count = 0
    for found in joined_samples(data_sets(tree)):
        if isinstance(found, Unusable):
            continue
        count += len(found.entries)
        if len(records) < MOST_RECORDS:
            records.append(_values(found))
    return Look("opcua", "nodes", records, count)


def _is_message(item: dict[str, object]) -> bool:
    if item.get("MessageType") in _TYPES:
        return True
    if isinstance(item.get("NodeId"), str):
        return "Value" in item
    if "DataSetWriterId" in item or "DataSetWriterName" in item:
        return isinstance(item.get("Payload"), dict)
    # Without any header: values with their times, by node id.
    return bool(item) and all(
        isinstance(value, dict) and value.keys() >= {"Value", "SourceTimestamp"} for value in item.values()
    )


def _values(found: DataSet) -> Record:
    values: Record = {}
    for node, entry in list(found.entries.items())[:MOST_FIELDS]:
        if not can_be_written(node):
            continue
        try:
            value, _ = value_and_time(entry, found.status)
        except Unusable:
            continue
        values[node] = None if value is ABSENT else value
    return values
