"""ONNX files are looked through before ONNX Runtime sees them."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import ModelError, ModelMisfit
from processor.model.onnx_file import foreign_operators, read_file
from processor.model.onnx_model import load_model
from processor.model.session import open_session
from tests import models

DENSE = models.dense(metadata={"labels": "a,b,c,d"})
_WHOLE = DENSE.SerializeToString()


def external(folder: Path, location: str) -> Path:
    """Write a model whose weights lie at `location`, and the weights beside it as `weights.bin`."""
    onnx.save(models.dense(), folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_what_a_model_says_of_itself_is_read(tmp_path: Path) -> None:
    """The same as the onnx package reads."""
    model = models.sklearn_classifier(zipmap=True)
    found = read_file(models.write(model, tmp_path))
    assert found.ir_version == model.ir_version
    assert found.producer == f"{model.producer_name} {model.producer_version}"
    assert found.opsets == {one.domain or "ai.onnx": one.version for one in model.opset_import}
    assert set(found.operators) == {node.domain or "ai.onnx" for node in model.graph.node}
    assert (foreign_operators(found), found.external) == ([], set())
    assert read_file(models.write(DENSE, tmp_path)).metadata == {"labels": "a,b,c,d"}


def test_weights_beside_the_model_are_taken(tmp_path: Path) -> None:
    """In its folder or below, also by a link that stays there and where the model itself is reached by a link."""
    path = external(tmp_path, "weights.bin")
    assert load_model(path, window_size=1, channels=6).kind == "probabilities"
    below = tmp_path / "below"
    below.mkdir()
    path = external(below, "deep/linked.bin")
    (below / "deep").mkdir()
    (below / "deep/linked.bin").symlink_to("../weights.bin")
    assert read_file(path).external == {"deep/linked.bin"}
    (tmp_path / "linked.onnx").symlink_to(path)
    assert load_model(tmp_path / "linked.onnx", window_size=1, channels=6).kind == "probabilities"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/etc/hostname", "which is not in its own folder"),
        ("../weights.bin", "which is not in its own folder"),
        ("sub/../../weights.bin", "which is not in its own folder"),
        ("link.bin", "which leads out of its folder"),
        ("folder/weights.bin", "which leads out of its folder"),
        ("nowhere.bin", "which is not there; it belongs beside the model"),
        ("loop.bin", "loop|which is not there"),
        ("", "which is no file's name"),
        (".", "which is no file's name"),
        ("*/_ORT_MEM_ADDR_/*", "which is no file's name"),
    ],
)
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str, said: str) -> None:
    """By name and by link, before ONNX Runtime sees the model."""
    outside, home = tmp_path / "outside", tmp_path / "home"
    outside.mkdir()
    home.mkdir()
    path = external(home, location)
    (outside / "weights.bin").write_bytes((home / "weights.bin").read_bytes())
    (tmp_path / "weights.bin").write_bytes((home / "weights.bin").read_bytes())
    (home / "link.bin").symlink_to(outside / "weights.bin")
    (home / "folder").symlink_to(outside)
    (home / "loop.bin").symlink_to("loop.bin")
    with pytest.raises(ModelError, match=said):
        open_session(path)


def in_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that has a tensor in a node's attribute."""
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    return _model([node])


def in_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that has a tensor in a branch."""
    graph = onnx.helper.make_graph([], "b", [], [], [tensor])
    return _model([onnx.helper.make_node("If", ["x"], ["c"], then_branch=graph, else_branch=graph)])


def in_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that has a tensor in a sparse initializer."""
    model = _model([])
    model.graph.sparse_initializer.add().indices.CopyFrom(tensor)
    return model


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that has a tensor in a function of its own."""
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    model = _model([onnx.helper.make_node("own", [], ["d"], domain="mine")])
    opset = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("mine", "own", [], ["c"], [node], opset))
    return model


def in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model that has a tensor in what it was trained with."""
    model = _model([])
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


def _model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))


@pytest.mark.parametrize("hide", [in_attribute, in_branch, in_sparse, in_function, in_training])
def test_weights_are_found_wherever_they_are_hidden(
    tmp_path: Path, hide: Callable[[onnx.TensorProto], onnx.ModelProto]
) -> None:
    """In attributes, branches, functions; a model's own functions are no foreign operators."""
    tensor = onnx.TensorProto(name="t", data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    found = read_file(models.write(hide(tensor), tmp_path))
    assert found.external == {"/etc/passwd"}
    assert foreign_operators(found) == []


def test_foreign_operators_need_their_library(tmp_path: Path) -> None:
    """And it has to be one."""
    model = models.dense()
    model.graph.node[0].domain, model.graph.node[0].op_type = "somebody.else", "Run"
    path = models.write(model, tmp_path)
    with pytest.raises(ModelMisfit, match=r"model\.custom_ops: model\.onnx has operators of somebody\.else:Run"):
        open_session(path)
    library = tmp_path / "library.so"
    for content in (None, b"no library"):
        if content is not None:
            library.write_bytes(content)
        with pytest.raises(ModelMisfit, match=r"model\.custom_ops\[0\]: .*library\.so cannot be loaded: "):
            open_session(path, custom_ops=[library])


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
def test_a_library_of_operators_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is named, and before the model is; what it does not define either, ONNX Runtime says."""
    source, library, trace = (tmp_path / name for name in ("ops.c", "ops.so", "trace"))
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "void *RegisterCustomOps(void *options, const void *api) {\n"
        '    fclose(fopen(getenv("TRACE"), "w")); return NULL;\n}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)  # noqa: S607 - the machine's
    monkeypatch.setenv("TRACE", str(trace))
    assert load_model(models.write(DENSE, tmp_path), window_size=1, channels=6, custom_ops=[library]).labels
    assert trace.exists()
    model = models.dense()
    model.opset_import.append(onnx.helper.make_opsetid("somebody.else", 1))
    model.graph.node[0].domain, model.graph.node[0].op_type = "somebody.else", "Run"
    with pytest.raises(ModelError, match=r"somebody\.else:Run\(-1\) is not a registered function/op"):
        open_session(models.write(model, tmp_path), custom_ops=[library])


def test_what_was_compiled_for_a_device_is_refused(tmp_path: Path) -> None:
    """A node that names another file to be run."""
    model = models.dense()
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "EPContext"
    with pytest.raises(ModelError, match="compiled for some device"):
        open_session(models.write(model, tmp_path))


def _zip() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return target.getvalue()


class Bomb:
    """What must never run."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave a trace when it is unpickled."""
        return (os.mkdir, ("unpickled",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Bomb()), "a Python pickle, which could run anything"),
        (pickle.dumps(Bomb(), 0), "is no ONNX model"),
        (_zip(), "a zip archive, as PyTorch"),
        (b"\x20\x00\x00\x00ORTM" + bytes(40), "in ONNX Runtime's own format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
        (b"<html><body>Sign in</body></html>", "is no ONNX model"),
        (b"", "is empty"),
    ],
    ids=["pickle", "old pickle", "archive", "ORT", "HDF5", "LFS", "page", "nothing"],  # the archive holds the time
)
def test_nothing_but_onnx_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str) -> None:
    """And what it is instead is said."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        open_session(path)
    assert not (tmp_path / "unpickled").exists()


def test_messages_inside_messages_end(tmp_path: Path) -> None:
    """A thousand graphs inside one another are no model."""
    content = b""
    for _ in range(1000):
        for field in (6, 5, 1):  # an attribute's graph, a node's attribute, a graph's node
            content = bytes([field << 3 | 2]) + onnx_varint(len(content)) + content
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + bytes([7 << 3 | 2]) + onnx_varint(len(content)) + content)
    with pytest.raises(ModelError, match="messages in more than 64 levels"):
        read_file(path)


def test_a_forest_is_read_as_fast_as_its_file(tmp_path: Path) -> None:
    """Each number of its nodes is a field of its own; what comes after them is read all the same."""
    forest = onnx.helper.make_node("F", ["x"], ["y"], domain="after", numbers=[1 << 40, -1, 0] * 1_000_000)
    forest.attribute.append(onnx.helper.make_attribute("floats", [0.5, -1e30] * 1_500_000))
    tensor = onnx.TensorProto(name="t", data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="after.bin")
    forest.attribute.append(onnx.helper.make_attribute("last", tensor))
    path = models.write(_model([forest]), tmp_path)
    begun = time.process_time()
    found = read_file(path)
    assert time.process_time() - begun < 2  # a second or so for each million, field by field
    assert found.external == {"after.bin"}
    assert found.operators == {"after": "F"}


def test_fields_whose_number_is_cut_off_are_refused(tmp_path: Path) -> None:
    """Protobuf takes 32 bits of it: weights in `/etc/passwd` would be those of a field that nobody knows."""
    entry = b"\x0a\x08location\x12\x0b/etc/passwd"
    hidden = onnx_varint(1 << 32 | 13 << 3 | 2) + bytes([len(entry)]) + entry
    graph = bytes([5 << 3 | 2, len(hidden)]) + hidden
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + bytes([7 << 3 | 2, len(graph)]) + graph + bytes([8 << 3 | 2, 2, 2 << 3, 17]))
    with pytest.raises(ModelError, match="is no ONNX model: no field at byte"):
        read_file(path)


def onnx_varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


@settings(max_examples=300)
@given(st.data())
def test_damaged_files_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever was changed, cut or put in."""
    content = bytearray(_WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        read_file(path)
    except ModelError as error:
        assert "damaged.onnx" in str(error)  # noqa: PT017
