"""What comes from a registry may be anything: manifests and layers are read, or refused with a sentence."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import ModelError
from processor.registry import manifests
from processor.registry.challenges import parse
from processor.registry.deadline import Deadline
from processor.registry.fetched import as_annotations, lay_under
from processor.registry.layers import Budget, Hidden, Layer
from processor.registry.manifests import Manifest

DIGEST = "sha256:" + "0" * 64
LAYER: dict[str, Any] = {"mediaType": "application/vnd.onnx.model", "digest": DIGEST, "size": 3}
NAMES = ("layers", "manifests", "schemaVersion", "digest", "size", "mediaType", "annotations", "platform")
keys = st.sampled_from(NAMES)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.dictionaries(keys, values | st.lists(st.just(LAYER), max_size=3), max_size=6))
def test_whatever_a_manifest_says_it_is_one_or_refused(document: dict[str, Any]) -> None:
    """With the digest and the size of each thing it names."""
    try:
        found = manifests.read(document, "oci://h/m:t")
    except ModelError as error:
        assert "oci://h/m:t" in str(error)  # noqa: PT017
        return
    for one in found.layers if isinstance(found, Manifest) else found:
        assert one.digest.startswith("sha256:")
        assert one.size >= 0


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "Docker's schema 1"),
        ({"layers": [], "manifests": []}, "neither a manifest with layers nor an index"),
        ({"layers": [LAYER] * 600}, "has 600 layers; refused"),
        ({"layers": [LAYER | {"digest": "sha512:" + "0" * 128}]}, "without a digest of SHA-256"),
        ({"layers": [LAYER | {"size": -1}]}, "without a size"),
        ({"layers": [LAYER | {"size": True}]}, "without a size"),
    ],
)
def test_manifests_that_leave_something_open_are_refused(document: dict[str, Any], said: str) -> None:
    """Also those that could be read in two ways."""
    with pytest.raises(ModelError, match=said):
        manifests.read(document, "it")


def test_names_are_shown_in_one_line() -> None:
    """Whatever characters they have, and however many there are."""
    assert "\x1b" not in manifests.shown(["\x1b[2J.onnx", "a\nb"])
    assert manifests.shown([f"{number}.onnx" for number in range(9)]).endswith("7.onnx …")


def archive() -> bytes:
    """Return a layer with each kind of header."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        for name in ("short", "long/" * 60 + "m.onnx", "é" * 70):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 700, 1.5
            tar.addfile(member, io.BytesIO(bytes(700)))
    target.seek(0)
    with tarfile.open(fileobj=target, mode="a", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo("gnu/" * 60)
        member.type, member.linkname = tarfile.SYMTYPE, "to/" * 60
        tar.addfile(member)
    return target.getvalue()


_ARCHIVE = archive()


@settings(max_examples=400)
@given(st.data(), st.booleans())
def test_damaged_layers_are_refused_with_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, compress: bool
) -> None:
    """Whatever was changed, cut or put in: in the archive, and in what it is packed with."""
    content = bytearray(_ARCHIVE)
    _damage(content, data)
    if compress:
        content = bytearray(gzip.compress(bytes(content), 1))
        if data.draw(st.booleans()):
            _damage(content, data)
    folder = tmp_path_factory.getbasetemp()
    path = folder / "layer"
    path.write_bytes(content)
    layer = Layer(path)
    try:
        names = [member.path for member in layer.members(Budget(1 << 20, Deadline(60, "x")))]
        layer.take(dict.fromkeys(names, folder / "taken"), Budget(1 << 20, Deadline(60, "x")))
    except ModelError as error:
        assert "layer" in str(error)  # noqa: PT017


def _extended(text: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return an extended header with the text."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, len(text)
    return member.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


def _sparse(headers: int) -> bytes:
    """Return a sparse file of GNU tar whose map goes on through so many headers."""
    piece = b"00000000001\0" * 2
    block = bytearray(tarfile.TarInfo("s").tobuf(tarfile.GNU_FORMAT))
    block[156:157], block[386:410], block[482], block[148:156] = tarfile.GNUTYPE_SPARSE, piece, 1, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = (piece * 21).ljust(511, b"\1") + b"\0"
    return bytes(block) + more * headers


_PLAIN = tarfile.TarInfo("m.onnx").tobuf()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (_extended(b"20 size=" + b"9" * 11 + b"\n") + _PLAIN, "ends in the middle"),
        (_extended(b"12 size=abc\n") + _PLAIN, "without a number"),
        (_extended(b"9" * 5000 + b" a=b\n") + _PLAIN, "without a number"),
        (_extended(b"0 a=b\n") + _PLAIN, "says nothing"),
        (_extended(b"99 a=b\n") + _PLAIN, "says nothing"),
        (_extended(b"6 a=b\n") * 5000 + _PLAIN, "more than 8 headers"),
        (_extended(b"a\0", tarfile.GNUTYPE_LONGNAME) * 5000 + _PLAIN, "more than 8 headers"),
        (_sparse(4), "ends in the middle"),
    ],
)
def test_headers_that_would_hold_everything_up_are_refused(tmp_path: Path, layer: bytes, said: str) -> None:
    """Sizes beyond the end, numbers that are none, chains of headers: at once, and in a sentence."""
    (tmp_path / "layer").write_bytes(layer)
    with pytest.raises(ModelError, match=said):
        list(Layer(tmp_path / "layer").members(Budget(1 << 40, Deadline(60, "x"))))


@pytest.mark.parametrize("said", [b"26 GNU.sparse.size=abcdef\n", b"20 GNU.sparse.map=1\n", b"16 path=a\0.onnx\n"])
def test_files_with_holes_or_with_impossible_names_are_passed_over(tmp_path: Path, said: bytes) -> None:
    """They are no models; what comes after them is found."""
    (tmp_path / "layer").write_bytes(_extended(said) + _PLAIN + tarfile.TarInfo("n.onnx").tobuf())
    found = list(Layer(tmp_path / "layer").members(Budget(1 << 20, Deadline(60, "x"))))
    assert [member.is_plain for member in found] == [False, True]
    assert found[1].path == PurePosixPath("/n.onnx")


def test_members_are_those_that_tarfile_reads(tmp_path: Path) -> None:
    """By name and by content, however it was written."""
    with tarfile.open(fileobj=io.BytesIO(_ARCHIVE)) as tar:
        expected = {PurePosixPath("/" + member.name): member for member in tar.getmembers()}
        (tmp_path / "layer").write_bytes(_ARCHIVE)
        layer = Layer(tmp_path / "layer")
        found = {member.path: member.is_plain for member in layer.members(Budget(1 << 20, Deadline(60, "x")))}
        assert found == {path: member.isreg() for path, member in expected.items()}
        for number, path in enumerate(path for path, is_plain in found.items() if is_plain):
            assert layer.take({path: tmp_path / f"{number}"}, Budget(1 << 20, Deadline(60, "x"))) == {path}
            source = tar.extractfile(expected[path])
            assert source is not None
            assert (tmp_path / f"{number}").read_bytes() == source.read()


def _damage(content: bytearray, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))


def test_marks_hide_what_is_below() -> None:
    """The file, the folder and all in it, or all that was in a folder; nothing beside them."""
    hidden = Hidden()
    assert not hidden.covers(PurePosixPath("/a/m.onnx"))
    hidden.add([PurePosixPath("/a/.wh.m.onnx"), PurePosixPath("/b/.wh.c"), PurePosixPath("/d/.wh..wh..opq")])
    covered = {"/a/m.onnx", "/b/c/x/m.onnx", "/b/c", "/d/e/m.onnx"}
    free = {"/a/n.onnx", "/b/m.onnx", "/bc/m.onnx", "/m.onnx"}
    assert {path for path in covered | free if hidden.covers(PurePosixPath(path))} == covered


@given(st.text(max_size=80) | st.from_regex(r'(Basic|Bearer) [a-z]{1,5}="?[ -~]{0,40}', fullmatch=True))
def test_whatever_a_challenge_says_reading_it_ends(header: str) -> None:
    """Schemes and parameters in lower case, or nothing."""
    for scheme, parameters in parse(header).items():
        assert scheme == scheme.lower()
        assert all(key == key.lower() for key in parameters)


names = st.text() | st.just("0")
window = st.fixed_dictionaries({}, optional={"size": st.integers(1, 99), "step": st.integers(1, 9)})
output = st.fixed_dictionaries({}, optional={"labels": st.lists(st.text(), min_size=1, max_size=3), "name": names})
input_ = st.fixed_dictionaries({}, optional={"mean": st.floats(-9, 9), "layout": st.just("NCT"), "name": names})
parts = {"temperature": st.floats(0.1, 9), "window": window, "output": output, "input": input_}


@given(st.fixed_dictionaries({}, optional=parts))
def test_what_is_said_of_a_model_comes_back(section: dict[str, Any]) -> None:
    """By way of annotations; what is set already stays."""
    annotations = as_annotations(section)
    filled = lay_under({"path": "p"}, annotations)
    assert filled == {"path": "p", **{key: value for key, value in section.items() if value != {}}}
    own = {"path": "p", "temperature": 3.0, "window": {"size": 5}}
    kept = lay_under(own, annotations)
    assert (kept["temperature"], kept["window"]["size"]) == (3.0, 5)
    assert own == {"path": "p", "temperature": 3.0, "window": {"size": 5}}
