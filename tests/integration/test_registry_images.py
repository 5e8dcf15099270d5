"""Models in container images: one regular file is taken out of a layer, whatever else is in there."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from processor.errors import ModelError, ModelUnavailable
from processor.registry import references
from processor.registry.deadline import Deadline
from processor.registry.fetched import Fetched
from processor.registry.fetching import fetch
from processor.registry.layers import Budget, Layer
from processor.registry.options import Options
from tests import models
from tests.integration.test_registry import incoming, with_external_data
from tests.registry import IMAGE_LAYER, Registry

MODEL = models.dense().SerializeToString()
OTHER = models.dense(softmax=False).SerializeToString()
GZIPPED = f"{IMAGE_LAYER}+gzip"
DOCKERS = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def archive(files: Mapping[str, bytes] | None = None, members: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """Return an image's layer."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for member in members:
            tar.addfile(member)
        for name, content in (files or {}).items():
            regular = tarfile.TarInfo(name)
            regular.size = len(content)
            tar.addfile(regular, io.BytesIO(content))
    return target.getvalue()


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return a link in a layer."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def pull_image(registry: Registry, tmp_path: Path, *layers: bytes, kind: str = IMAGE_LAYER, **options: Any) -> Fetched:  # noqa: ANN401
    """Store an image, the lowest layer first, and fetch the model in it."""
    registry.put("image", "t", [(kind, "", layer) for layer in layers])
    return fetch(references.parse(f"oci://{registry.host}/image:t"), tmp_path / "cache", Options(**options))


@pytest.mark.parametrize("kind", [GZIPPED, DOCKERS, IMAGE_LAYER])
def test_the_model_is_taken_out_of_its_layer(registry: Registry, tmp_path: Path, kind: str) -> None:
    """And nothing else, however the layer is packed."""
    layer = archive({"usr/bin/python": b"x" * 9999, "./app/model.onnx": MODEL, "app/main.py": b"print()"})
    packed = layer if kind == IMAGE_LAYER else gzip.compress(layer)
    found = pull_image(registry, tmp_path, gzip.compress(archive({"etc/os": b"debian"})), packed, kind=kind)
    assert found.path.read_bytes() == MODEL
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["content.json", "model.onnx"]
    assert (found.name, incoming(tmp_path / "cache")) == ("image", [])


def test_the_uppermost_layer_counts(registry: Registry, tmp_path: Path) -> None:
    """Those below are not even fetched."""
    found = pull_image(registry, tmp_path, b"no archive at all", archive({"m.onnx": OTHER}), archive({"m.onnx": MODEL}))
    assert found.path.read_bytes() == MODEL


def test_what_an_upper_layer_removed_is_not_there(registry: Registry, tmp_path: Path) -> None:
    """By a mark for the file, for its folder, or for all that was in one."""
    for mark in ("app/.wh.m.onnx", ".wh.app", "app/.wh..wh..opq"):
        with pytest.raises(ModelError, match="holds no ONNX model"):
            pull_image(registry, tmp_path, archive({"app/m.onnx": MODEL}), archive({mark: b""}))
    kept = pull_image(registry, tmp_path, archive({"app/m.onnx": MODEL}), archive({"other/.wh.m.onnx": b""}))
    assert kept.path.read_bytes() == MODEL


def test_of_several_one_is_named(registry: Registry, tmp_path: Path) -> None:
    """With a sentence that lists them where none is."""
    layer = archive({"a/one.onnx": MODEL, "b/two.onnx": OTHER})
    with pytest.raises(ModelError, match=r"holds 2 models \(/a/one\.onnx, /b/two\.onnx\): name one as model\.registry"):
        pull_image(registry, tmp_path, layer)
    assert pull_image(registry, tmp_path, layer, file="b/two.onnx").path.read_bytes() == OTHER
    assert pull_image(registry, tmp_path, layer, file="/a/one.onnx").path.read_bytes() == MODEL


def test_weights_come_from_whichever_layer_has_them(registry: Registry, tmp_path: Path) -> None:
    """Above or below the model's."""
    model, weights = with_external_data(tmp_path, "data/w.bin")
    for layers in (
        [archive({"app/m.onnx": model}), archive({"app/data/w.bin": weights})],
        [archive({"app/data/w.bin": weights, "data/w.bin": b"another"}), archive({"app/m.onnx": model})],
    ):
        found = pull_image(registry, tmp_path, *layers)
        assert (found.path.parent / "data/w.bin").read_bytes() == weights
    with pytest.raises(ModelError, match=r"keeps data in /app/data/w\.bin, and no layer has that"):
        pull_image(registry, tmp_path, archive({"app/m.onnx": model}))


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "data/../../w.bin", "a\\..\\w.bin", "*/_ORT_MEM_ADDR_/*"]
)
def test_weights_elsewhere_are_refused(registry: Registry, tmp_path: Path, location: str) -> None:
    """Before anything is looked for."""
    model, weights = with_external_data(tmp_path, location)
    with pytest.raises(ModelError, match=r"keeps data in .*, which is .*; refused"):
        pull_image(registry, tmp_path, archive({"app/m.onnx": model, "w.bin": weights}))


def test_only_regular_files_are_models(registry: Registry, tmp_path: Path) -> None:
    """Links, devices and ways out of the image are none, whatever they lead to."""
    (tmp_path / "outside.onnx").write_bytes(MODEL)
    device = tarfile.TarInfo("device.onnx")
    device.type = tarfile.CHRTYPE
    odd = [
        link("m.onnx", str(tmp_path / "outside.onnx")),
        link("h.onnx", "../../outside.onnx", tarfile.LNKTYPE),
        device,
    ]
    with pytest.raises(ModelError, match="no layer has a regular file"):
        pull_image(registry, tmp_path, archive({"../up.onnx": MODEL, "a/../../up.onnx": MODEL}, odd))
    assert not list(tmp_path.rglob("up.onnx"))
    assert incoming(tmp_path / "cache") == []


def test_a_layer_that_grows_when_unpacked_is_given_up(registry: Registry, tmp_path: Path) -> None:
    """A small file of zeros without end, before the model and as the model."""
    bomb = gzip.compress(archive({"zeros": bytes(20_000_000), "m.onnx": MODEL}))
    assert len(bomb) < 100_000
    with pytest.raises(ModelError, match=r"unpack to more than 1000000 bytes"):
        pull_image(registry, tmp_path, bomb, kind=GZIPPED, max_bytes=1_000_000)
    with pytest.raises(ModelError, match=r"unpack to more than 1000000 bytes"):
        pull_image(registry, tmp_path, gzip.compress(archive({"m.onnx": bytes(20_000_000)})), max_bytes=1_000_000)
    assert incoming(tmp_path / "cache") == []


def test_a_header_that_would_fill_the_memory_is_refused(registry: Registry, tmp_path: Path) -> None:
    """A name of a hundred megabytes: it would be read as a whole."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 100_000_000
    layer = member.tobuf(tarfile.GNU_FORMAT) + bytes(member.size)
    with pytest.raises(ModelError, match="no tar archive that can be read: a header of 100000000 bytes"):
        pull_image(registry, tmp_path, gzip.compress(layer), kind=GZIPPED)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (b"\x28\xb5\x2f\xfd and more", "compressed with zstd"),
        (b"\x1f\x8b\x08 no gzip", "no tar archive that can be read"),
        (gzip.compress(archive({"m.onnx": MODEL}))[:-200], "no tar archive that can be read"),
        (b"x" * 2000, "no tar archive that can be read"),
    ],
    ids=["zstd", "no gzip", "cut off", "text"],  # what gzip makes differs from second to second
)
def test_a_layer_that_cannot_be_read_is_said(registry: Registry, tmp_path: Path, layer: bytes, said: str) -> None:
    """In a sentence."""
    with pytest.raises(ModelError, match=said):
        pull_image(registry, tmp_path, layer)


def test_unpacking_ends_at_the_deadline(tmp_path: Path) -> None:
    """Like all else."""
    (tmp_path / "layer").write_bytes(archive({"zeros": bytes(1000)}))
    with pytest.raises(ModelUnavailable, match="too late after 0 s"):
        list(Layer(tmp_path / "layer").members(Budget(1 << 20, Deadline(0, "too late"))))
