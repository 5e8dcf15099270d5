"""Models from a real registry: pulled, verified, kept, and changed."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processor.registry import references
from processor.registry.fetched import Fetched
from processor.registry.fetching import current, fetch
from processor.registry.options import Options
from tests import models
from tests.registry import Registry

MODEL = models.dense(metadata={"labels": "a,b,c,d"}).SerializeToString()
OTHER = models.dense(softmax=False).SerializeToString()
ONNX = "application/vnd.onnx.model"


def pull(text: str, cache: Path, **options: Any) -> Fetched:  # noqa: ANN401 - Options'
    """Fetch a model."""
    return fetch(references.parse(text), cache, Options(**options))


def archive(
    files: Mapping[str, bytes] | None = None, *, links: Mapping[str, str] | None = None, compress: bool = True
) -> bytes:
    """Return an image's layer."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in (files or {}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, to in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, to
            tar.addfile(member)
    return gzip.compress(target.getvalue()) if compress else target.getvalue()


def test_an_artifact_is_pulled_verified_and_kept(registry: Registry, tmp_path: Path) -> None:
    """And comes from the cache afterwards, as long as its tag stands for it."""
    digest = registry.put("models/motions", "stable", [(ONNX, "motions.onnx", MODEL)], {"who": "me"})
    text = f"oci://{registry.host}/models/motions:stable"
    found = pull(text, tmp_path)
    assert (found.digest, found.version, found.name) == (digest, digest, "motions")
    assert (found.path, found.annotations) == (tmp_path / digest[7:] / "motions.onnx", {"who": "me"})
    assert found.path.read_bytes() == MODEL
    assert current(found.reference, Options()) == digest
    before = found.path.stat()
    assert pull(text, tmp_path) == found
    assert found.path.stat() == before
    moved = registry.put("models/motions", "stable", [(ONNX, "motions.onnx", OTHER)])
    assert current(found.reference, Options()) == moved
    assert pull(text, tmp_path).path.read_bytes() == OTHER
    assert pull(f"{text}@{digest}", tmp_path).path.read_bytes() == MODEL
    assert not list(tmp_path.glob("incoming-*"))
