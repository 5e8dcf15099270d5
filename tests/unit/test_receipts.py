"""Which redelivered messages are repeats."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.receipts import Receipts, pack
from processor.types import Message


def message(mid: int, payload: bytes = b"", qos: int = 1, connection: int = 1) -> Message:
    """Return a message with a packet identifier."""
    content = payload or f"{mid}".encode()
    return Message("topic", content, qos, mid if qos else 0, dup=bool(qos), connection=connection)


@given(
    seen=st.integers(0, 30),
    unacknowledged=st.integers(0, 30),
    new=st.integers(0, 10),
    restart=st.booleans(),
    chunk=st.integers(1, 7),
)
def test_what_was_committed_is_recognised_and_nothing_else(
    seen: int, unacknowledged: int, new: int, restart: bool, chunk: int
) -> None:
    """The broker repeats what it holds no PUBACK for: committed ones first, then ones that never came through."""
    receipts = Receipts()
    committed = [message(mid) for mid in range(1, seen + 1)]
    receipts.committed(pack(committed))
    if restart:
        receipts = Receipts(pack(committed))
    receipts.connected(1, session_present=True)
    repeats = committed[max(0, seen - unacknowledged) :]
    fresh = [message(mid) for mid in range(seen + 1, seen + new + 1)]
    sent = repeats + fresh
    taken = []
    for start in range(0, len(sent), chunk):
        kept = receipts.fresh(sent[start : start + chunk])
        receipts.committed(pack(kept))
        taken += kept
    assert taken == fresh


def test_equal_content_under_another_identifier_is_no_repeat() -> None:
    """Two readings with equal times and values are two readings."""
    receipts = Receipts()
    receipts.committed(pack([message(1, b"same"), message(2, b"same")]))
    receipts.connected(1, session_present=True)
    assert receipts.fresh([message(2, b"same"), message(3, b"same")]) == [message(3, b"same")]


def test_what_was_taken_in_is_known_by_its_content_too() -> None:
    """Until the broker begins a new session."""
    receipts = Receipts()
    receipts.committed(pack([message(1, b"one"), message(2, b"two")]))
    assert receipts.hold(message(7, b"two"))
    assert not receipts.hold(message(1, b"three"))
    receipts.connected(1, session_present=False)
    assert not receipts.hold(message(7, b"two"))


def test_equal_identifier_with_other_content_is_no_repeat() -> None:
    """Identifiers are used again."""
    receipts = Receipts()
    receipts.committed(pack([message(1), message(2)]))
    receipts.connected(1, session_present=True)
    assert receipts.fresh([message(1, b"other")]) == [message(1, b"other")]


def test_repeats_come_first_or_not_at_all() -> None:
    """After the first message that is no repeat, nothing is taken for one."""
    receipts = Receipts()
    receipts.committed(pack([message(1), message(2)]))
    receipts.connected(1, session_present=True)
    sent = [message(9), message(1), message(2)]
    assert receipts.fresh(sent) == sent


def test_messages_at_qos_0_are_never_repeats() -> None:
    """They have no identifier and do not end the redelivery either."""
    receipts = Receipts()
    receipts.committed(pack([message(1)]))
    receipts.connected(1, session_present=True)
    plain = message(0, b"plain", qos=0)
    assert receipts.fresh([plain, message(1), plain]) == [plain, plain]


def test_a_new_session_makes_what_was_known_void() -> None:
    """The broker numbers its packets anew."""
    receipts = Receipts()
    receipts.committed(pack([message(1)]))
    receipts.connected(1, session_present=False)
    assert receipts.fresh([message(1)]) == [message(1)]
    receipts.connected(2, session_present=True)
    again = message(1, connection=2)
    assert receipts.fresh([again]) == [again]


def test_without_a_reconnect_nothing_is_a_repeat() -> None:
    """Only the beginning of a connection holds repeats."""
    receipts = Receipts()
    receipts.committed(pack([message(1)]))
    assert receipts.fresh([message(1)]) == [message(1)]


def test_what_came_before_the_reconnect_does_not_end_the_redelivery() -> None:
    """Messages of the lost connection are taken in first; the new one begins with their repeats."""
    receipts = Receipts()
    receipts.committed(pack([message(1)]))
    receipts.connected(2, session_present=True)
    old = [message(2), message(3)]
    assert receipts.fresh(old) == old
    receipts.committed(pack(old))
    again = [message(mid, connection=2) for mid in (2, 3, 4)]
    assert receipts.fresh(again) == again[2:]


def test_what_two_connections_began_with_is_known_from_both() -> None:
    """While nothing can be committed messages of several connections gather; each began with the same repeats."""
    receipts = Receipts()
    receipts.committed(pack([message(1), message(2)]))
    for connection in (2, 3):
        receipts.connected(connection, session_present=True)
    assert receipts.fresh([message(2, connection=2), message(3, connection=2)]) == [message(3, connection=2)]
    receipts.committed(pack([message(3)]))
    again = [message(mid, connection=3) for mid in (2, 3, 4)]
    assert receipts.fresh(again) == again[2:]


def test_a_session_that_ends_meanwhile_does_not_make_its_repeats_new() -> None:
    """Of what came before, and is taken in only now, the repeats are known; the new session's messages are new."""
    receipts = Receipts()
    receipts.committed(pack([message(1), message(2)]))
    receipts.connected(2, session_present=True)
    receipts.connected(3, session_present=False)
    assert receipts.fresh([message(2, connection=2)]) == []
    assert receipts.fresh([message(2, connection=3)]) == [message(2, connection=3)]
    assert receipts.fresh([message(1, connection=3)]) == [message(1, connection=3)]


def test_an_identifier_of_long_ago_is_another_message() -> None:
    """Constant payloads without a time: after all identifiers were used, an equal one is no repeat."""
    receipts = Receipts()
    sent = [message(number % 65_535 + 1, b"on") for number in range(65_535)]
    receipts.committed(pack(sent))
    receipts.connected(2, session_present=True)
    new = [message(number % 65_535 + 1, b"on", connection=2) for number in range(65_535, 66_000)]
    assert receipts.fresh(new) == new


def test_without_the_dup_flag_nothing_is_a_repeat() -> None:
    """A broker has to set it on what it sends again."""
    receipts = Receipts()
    receipts.committed(pack([message(1)]))
    receipts.connected(1, session_present=True)
    new = replace(message(1), dup=False)
    assert receipts.fresh([new]) == [new]
