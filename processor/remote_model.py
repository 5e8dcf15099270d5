"""A processor's model as an operator sees and changes it over the broker."""

from __future__ import annotations

import hashlib

from processor.errors import ConfigurationError, Problem
from processor.filter import MAX_BYTES
from processor.remote import NoAnswer, connect, decoded, text_of
from processor.settings import Slot
from processor.told import ModelState

_INTERIM = ("loading", "waiting")


def get_model(slot: Slot, timeout: float) -> ModelState:
    """Return what the processor last said about a model.

    Raises:
        NoAnswer: nothing is there.
    """
    with connect(slot.settings, f"{slot.below}model/state", timeout=timeout) as processor:
        for message in processor.messages(timeout):
            return decoded(message, ModelState)
        raise NoAnswer(
            f"Nothing stands on {slot.root}/model/state: no such processor has been on this broker yet, or this "
            "user may not read there."
        )


def set_model(slot: Slot, payload: bytes, timeout: float) -> ModelState:
    """Publish a document, or nothing to return to the configuration's model, and return what became of it.

    Raises:
        ConfigurationError: the document is too long for a processor to read.
        NoAnswer: that is not known yet; the document waits on the topic for the processor.
    """
    if len(payload) > MAX_BYTES:
        too_long = f"the model document is longer than the {MAX_BYTES} bytes that a processor reads"
        raise ConfigurationError([Problem("", too_long)])
    digest = hashlib.sha256(payload).hexdigest()
    status, last = b"", None
    with connect(slot.settings, "status", f"{slot.below}model/state", timeout=timeout) as processor:
        processor.publish(f"{slot.below}model", payload)
        for message in processor.messages(timeout):
            if message.topic == "status":
                status = message.payload
            elif not message.retain:  # retained is what was said before
                last = decoded(message, ModelState)
                if last.sha256 == digest and last.status not in _INTERIM:
                    return last
        if last is not None:
            told = "; ".join(error.get("message", "") for error in last.errors)
            raise NoAnswer(
                f"{processor.root} is still {last.status} after {timeout:g} s{f': {told}' if told else ''}. What "
                f"becomes of it is said on {slot.root}/model/state; revision {last.revision} is in force."
            )
        raise NoAnswer(
            f"No answer from {processor.root} within {timeout:g} s; its status is {text_of(status)}. "
            f"The document stays on {slot.root}/model, and is loaded when the processor comes."
        )
