"""Bringing a model here, and asking what a moving reference stands for now. Neither runs in the pipeline thread."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from processor.errors import ModelError, ModelUnavailable
from processor.model.onnx_file import read_file
from processor.registry import oci
from processor.registry.cache import Cache, Content, sha256
from processor.registry.challenges import Registry
from processor.registry.deadline import Deadline, within
from processor.registry.fetched import Fetched
from processor.registry.options import Options
from processor.registry.references import Reference
from processor.registry.web import NOT_MODIFIED, OK, Answer, Web, refused

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9._-]+")
_ASKING: Final = 60.0
"""Seconds that the question what a reference stands for may take."""


def fetch(reference: Reference, cache: Path, options: Options) -> Fetched:
    """Bring what a reference stands for now, unless it is in the cache already.

    Args:
        reference: of a file, its path is absolute.
        cache: `<state_dir>/models`.
        options: bounds and credentials.

    Raises:
        ModelError: there is no such model, we may not have it, or it breaks the bounds; another try will not help.
        ModelUnavailable: the place it is in is away or sends it damaged.
    """
    if reference.kind == "file":
        return _file(reference)
    store = Cache(cache)

    def work(web: Web) -> Fetched:
        bring = _from_registry if reference.kind == "oci" else _from_web
        return bring(reference, store, web)

    return _asking(options, options.timeout, f"{reference.text} was not here", work)


def current(reference: Reference, options: Options) -> str:
    """Return what tells the model that a reference stands for now from others: `Fetched.version` of it.

    One small question; of a file its time and size, of a pinned reference its digest without asking.

    Raises:
        ModelError, ModelUnavailable: as `fetch`.
    """
    if reference.kind == "file":
        return _version_of_file(Path(reference.location))
    if reference.pin:
        return reference.pin

    def work(web: Web) -> str:
        if reference.kind == "oci":
            return oci.Repository(reference, web).digest_now()
        server = _server(reference, web)
        with server.ask("HEAD", reference.location) as answer:
            if answer.status == OK and (version := _version_of(answer)):
                return version
        with server.ask("GET", reference.location) as answer:  # a signed address may be for GET only
            if answer.status != OK:
                raise refused(answer, reference.text)
            if version := _version_of(answer):
                return version
        raise ModelError(f"{reference.host} gives neither an ETag nor a time of change for {reference.text}")

    return _asking(options, min(options.timeout, _ASKING), f"{reference.host} did not answer", work)


def fetch_or_last_good(reference: Reference, cache: Path, options: Options) -> Fetched:
    """Bring what a reference stands for now; where that is not possible, the last model of it that was good.

    That is logged, and `Fetched.stale` says why.

    Raises:
        ModelError, ModelUnavailable: as `fetch`, where there is no such model.
    """
    try:
        return fetch(reference, cache, options)
    except ModelError as error:
        store = Cache(cache)
        record = store.record(reference)
        known = [] if record is None else [(record.good_content, record.good_version), (record.content, record.version)]
        for key, version in known:
            content = store.content(key) if key else None
            if content is not None:
                log.warning("%s. The last model of %s is used: %s.", error, reference.text, content.digest)
                return _fetched(reference, content, version, stale=str(error))
        raise


def _asking(options: Options, seconds: float, what: str, work: Callable[[Web], Result]) -> Result:
    deadline = Deadline(seconds, what)

    def run() -> Result:
        web = Web(options, deadline)
        try:
            return work(web)
        finally:
            web.close()

    return within(deadline, run)


def _fetched(reference: Reference, content: Content, version: str, stale: str = "") -> Fetched:
    return Fetched(reference, content.path, content.digest, version, content.annotations, content.key, stale)


def _file(reference: Reference) -> Fetched:
    path = Path(reference.location)
    try:
        digest = sha256(path)
        version = _version_of_file(path)
    except FileNotFoundError:
        raise ModelError(f"there is no model at {path}: give the path of an ONNX file") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a directory: give the path of an ONNX file") from None
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
    return Fetched(reference, path, f"sha256:{digest}", version)


def _version_of_file(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
    return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"


def _from_registry(reference: Reference, store: Cache, web: Web) -> Fetched:
    def key_of(digest: str) -> str:
        hexadecimal = digest.removeprefix("sha256:")
        file = web.options.file
        return hexadecimal if file is None else hashlib.sha256(f"{hexadecimal}\n{file}".encode()).hexdigest()

    content = store.content(key_of(reference.pin)) if reference.pin else None
    digest = reference.pin
    if content is None:
        repository = oci.Repository(reference, web)
        manifest, digest = oci.resolve(repository)
        content = store.content(key_of(digest))
        if content is None:
            log.info("Fetching %s, %s.", reference.text, digest)
            with store.incoming() as folder:
                target = folder / "model"
                target.mkdir()
                path = oci.pull(repository, manifest, web.options, folder, target)
                web.deadline.check()
                content = store.install(key_of(digest), target, path, digest, manifest.annotations)
    store.resolved(reference, digest, content.key)
    return _fetched(reference, content, digest)


def _from_web(reference: Reference, store: Cache, web: Web) -> Fetched:
    if reference.pin:
        content = store.content(reference.pin.removeprefix("sha256:"))
        if content is not None:
            store.resolved(reference, reference.pin, content.key)
            return _fetched(reference, content, reference.pin)
    record = None if reference.pin else store.record(reference)
    known = None if record is None else store.content(record.content)
    asked = (
        {"If-None-Match": record.version} if record is not None and known is not None and '"' in record.version else {}
    )
    with _server(reference, web).ask("GET", reference.location, headers=asked) as answer:
        if answer.status == NOT_MODIFIED and known is not None and record is not None:
            return _fetched(reference, known, record.version)
        if answer.status != OK:
            raise refused(answer, reference.text)
        if not answer.says_its_length and not reference.pin:
            raise ModelError(
                f"{answer.host} does not say how long {reference.text} is, so an end in the middle would not be "
                "noticed; add #sha256= and the file's SHA-256"
            )
        log.info("Fetching %s.", reference.text)
        with store.incoming() as folder:
            content = _download(reference, store, web, answer, folder)
        version = reference.pin or _version_of(answer) or content.digest
    store.resolved(reference, version, content.key)
    return _fetched(reference, content, version)


def _download(reference: Reference, store: Cache, web: Web, answer: Answer, folder: Path) -> Content:
    target = folder / "model"
    target.mkdir()
    path = target / (_UNUSUAL.sub("_", f"{reference.name}.onnx").lstrip(".") or "model.onnx")
    hashing = hashlib.sha256()
    with path.open("xb") as file:
        for piece in answer.pieces(web.options.max_bytes):
            hashing.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    digest = f"sha256:{hashing.hexdigest()}"
    if reference.pin not in ("", digest):
        raise ModelUnavailable(f"{reference.text} has the digest {digest} now: it was changed there, or on the way")
    external = read_file(path).external
    if external:
        raise ModelError(
            f"the model at {reference.text} keeps data in other files ({min(external)[:200]!r}), and an address brings "
            "one; put it into a registry with mlade model push"
        )
    web.deadline.check()
    return store.install(hashing.hexdigest(), target, path, digest, {})


def _server(reference: Reference, web: Web) -> Registry:
    scheme, _, rest = reference.location.partition("://")
    return Registry(web, f"{scheme}://{rest.partition('/')[0]}", "")


def _version_of(answer: Answer) -> str:
    return answer.headers.get("Etag") or answer.headers.get("Last-Modified") or ""
