"""Putting a model into a registry, as an OCI artifact: the ONNX file, the files that hold its weights, annotations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from processor.errors import ModelError
from processor.model.onnx_file import check_external, located, read_file
from processor.registry.cache import sha256
from processor.registry.deadline import Deadline, within
from processor.registry.manifests import DATA_TYPE, MODEL_TYPE, OCI_MANIFEST, ONNX_TYPE, TITLE, Descriptor
from processor.registry.oci import Repository
from processor.registry.options import Options
from processor.registry.references import Reference
from processor.registry.web import ACCEPTED, CREATED, OK, Web, joined, refused

_EMPTY: Final = b"{}"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"


class Pushed(NamedTuple):
    """What is in the registry now.

    Attributes:
        digest: of the manifest, `sha256:…`.
        files: pushed, the model first: name and bytes.
        sent: bytes that the registry did not have yet.
    """

    digest: str
    files: tuple[tuple[str, int], ...]
    sent: int


def push(path: Path, reference: Reference, annotations: Mapping[str, str], options: Options) -> Pushed:
    """Put a model into a registry. The same files and annotations have the same digest, and are sent once.

    Args:
        path: an ONNX file.
        reference: with a tag.
        annotations: of the manifest.
        options: credentials and the time for it.

    Raises:
        ModelError: the file is no ONNX model, or the registry does not take it.
        ModelUnavailable: the registry is away.
    """
    if reference.kind != "oci" or reference.pin:
        raise ModelError(
            f"{reference.text}: push to oci://registry/repository:tag, without a digest: it comes of the content"
        )
    path = path.resolve()
    found = read_file(path)
    check_external(path, found)
    names = [path.name, *sorted(str(located(location)) for location in found.external)]
    files = {name: path.parent / name for name in names}
    deadline = Deadline(options.timeout, f"{reference.text} was not there")

    def work() -> Pushed:
        web = Web(options, deadline)
        try:
            return _push(Repository(reference, web, push=True), files, annotations)
        finally:
            web.close()

    return within(deadline, work)


def _push(repository: Repository, files: Mapping[str, Path], annotations: Mapping[str, str]) -> Pushed:
    sent = 0
    layers = []
    for number, (name, path) in enumerate(files.items()):
        kind = DATA_TYPE if number else ONNX_TYPE
        blob = Descriptor(f"sha256:{sha256(path)}", path.stat().st_size, kind, name)
        sent += _upload(repository, blob, path)
        layers.append(_described(blob))
    empty = Descriptor(f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}", len(_EMPTY), _EMPTY_TYPE)
    _upload(repository, empty, _EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": MODEL_TYPE,
        "config": _described(empty),
        "layers": layers,
        "annotations": dict(sorted(annotations.items())),
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    tag = repository.reference.tag
    url = f"{repository.root}/manifests/{tag}"
    with repository.registry.ask("PUT", url, headers={"Content-Type": OCI_MANIFEST}, body=text) as answer:
        if answer.status != CREATED:
            raise refused(answer, f"taking the tag {tag} of {repository.reference.location}")
    if repository.digest_now() != digest:
        raise ModelError(f"{repository.reference.text} is not what was pushed: somebody else pushes there, too")
    return Pushed(digest, tuple((name, path.stat().st_size) for name, path in files.items()), sent)


def _described(blob: Descriptor) -> dict[str, Any]:
    described: dict[str, Any] = {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
    return {**described, "annotations": {TITLE: blob.title}} if blob.title else described


def _upload(repository: Repository, blob: Descriptor, content: Path | bytes) -> int:
    """Send a blob that the registry does not have; return how many bytes were sent."""
    what = f"taking {blob.title or 'a model'} into {repository.reference.location}"
    with repository.registry.ask("HEAD", f"{repository.root}/blobs/{blob.digest}") as answer:
        if answer.status == OK:
            return 0
    with repository.registry.ask(
        "POST", f"{repository.root}/blobs/uploads/", headers={"Content-Length": "0"}
    ) as answer:
        location = answer.headers.get("Location")
        if answer.status != ACCEPTED or location is None:
            raise refused(answer, what)
        url = joined(answer.url, location)
    url += f"{'&' if '?' in url else '?'}digest={blob.digest}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
    if isinstance(content, bytes):
        with repository.registry.ask("PUT", url, headers=headers, body=content) as answer:
            status = answer
    else:
        with content.open("rb") as file, repository.registry.ask("PUT", url, headers=headers, body=file) as answer:
            status = answer
    if status.status != CREATED:
        raise refused(status, what)
    return blob.size
