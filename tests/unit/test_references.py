"""`model.path` as users write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.registry.references import Reference, is_loopback, parse

PIN = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models/m.onnx", Reference("file", "models/m.onnx", "models/m.onnx")),
        ("C:\\m.onnx", Reference("file", "C:\\m.onnx", "C:\\m.onnx")),
        ("oci://h/m", Reference("oci", "oci://h/m", "m", "h", "latest")),
        (
            "oci://H.azurecr.io/a/b-c:1.0",
            Reference("oci", "oci://H.azurecr.io/a/b-c:1.0", "a/b-c", "h.azurecr.io", "1.0"),
        ),
        ("oci://[::1]:5000/a:t", Reference("oci", "oci://[::1]:5000/a:t", "a", "[::1]:5000", "t")),
        (f"oci://h/m@{PIN}", Reference("oci", f"oci://h/m@{PIN}", "m", "h", "", PIN)),
        (f"oci://h/m:t@{PIN}", Reference("oci", f"oci://h/m:t@{PIN}", "m", "h", "t", PIN)),
        (
            "oci://docker.io/redis:7",
            Reference("oci", "oci://docker.io/redis:7", "library/redis", "registry-1.docker.io", "7"),
        ),
        ("https://h/a/m.onnx", Reference("https", "https://h/a/m.onnx", "https://h/a/m.onnx", "h")),
        (
            f"HTTPS://h:8/m.onnx?sig=secret#{PIN.replace(':', '=').upper().replace('SHA', 'sha')}",
            Reference(
                "https",
                f"https://h:8/m.onnx?…#sha256={PIN[7:].upper()}",
                "https://h:8/m.onnx?sig=secret",
                "h:8",
                pin=PIN,
            ),
        ),
    ],
)
def test_references_are_read(text: str, expected: Reference) -> None:
    """Files, addresses, repositories."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ftp://h/m.onnx", "found ftp://…, expected a file, https://host/path"),
        ("oci://h", "nothing is no repository"),
        ("oci:///m", "nothing is no registry"),
        ("oci://h:99999/m", "h:99999 is no registry"),
        ("oci://h/M:t", "M is no repository"),
        ("oci://h/../m:t", "../m is no repository"),
        ("oci://h/m:", "nothing is no tag"),
        ("oci://h/m:a b", "with blanks or control characters"),
        ("oci://h/m@sha256:12", "after @ stands a digest"),
        ("oci://h/m@md5:12", "after @ stands a digest"),
        ("https://", "expected a file, https://"),
        ("https://h:x/m", "expected a file, https://"),
        ("https://[::1/m", "expected a file, https://"),
        ("https://h/m#sha256=12", "expected #sha256= and the file's SHA-256"),
        ("https://h/m#part", "expected #sha256= and the file's SHA-256"),
    ],
)
def test_what_is_none_is_said(text: str, found: str) -> None:
    """With what was found and what was expected."""
    with pytest.raises(ValueError, match="found") as raised:
        parse(text)
    assert found in str(raised.value)


@pytest.mark.parametrize("text", ["https://me:hidden@h/m", "oci://me:hidden@h/m:t", "https://me:hidden@[x/m"])
def test_a_password_in_it_is_refused_and_not_repeated(text: str) -> None:
    """It would stand in logs and in the cache."""
    with pytest.raises(ValueError, match=r"it belongs in model\.registry\.username") as raised:
        parse(text)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/motions.v2.onnx", "motions.v2"),
        ("motions", "motions"),
        ("oci://h/models/motions:1.2", "motions"),
        ("https://h/x/motions.onnx?sig=a.b/c", "motions"),
        ("https://h/", "model"),
    ],
)
def test_models_are_named(text: str, name: str) -> None:
    """For events: without suffix, tag and digest."""
    assert parse(text).name == name


def test_this_machine_is_known() -> None:
    """By address and by name; a name that begins like one is another's."""
    assert all(is_loopback(host) for host in ("127.0.0.1:5000", "[::1]:5000", "localhost", "127.9.9.9"))
    assert not any(is_loopback(host) for host in ("127.0.0.1.example", "localhost.example", "10.0.0.1", ""))


@given(st.text(max_size=60) | st.from_regex(r"(oci|https?)://[ -~]{0,40}", fullmatch=True))
def test_whatever_is_written_is_a_reference_or_a_sentence(text: str) -> None:
    """Never anything else; a key has 64 hexadecimal digits."""
    try:
        reference = parse(text)
    except ValueError as error:
        assert "expected" in str(error) or "after @" in str(error)  # noqa: PT017
    else:
        assert len(reference.key) == 64
        assert reference.name
