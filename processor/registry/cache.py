"""Models that were fetched, on this machine's disk: `<state_dir>/models/`.

    <64 hex digits>/        a model, the files that hold its weights, and content.json, which names and digests them
    references/<key>.json   what a reference was last resolved to, and what of that was loaded well
    incoming-…/             a fetch under way; whoever finds one that nobody works on removes it

A model's folder appears whole, by one rename, and is never changed. Any number of processes may use the cache.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from processor.errors import ModelError, ModelUnavailable
from processor.registry.references import Reference

log = logging.getLogger(__name__)

KEPT_REFERENCES: Final = 5
"""As many of the references used last keep their models."""
_CONTENT: Final = "content.json"
_INCOMING: Final = "incoming-"
_MOST_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Content:
    """A model in the cache.

    Attributes:
        key: its folder's name.
        path: of the ONNX file.
        digest: `sha256:…`, of the manifest that named it or of the file that was downloaded.
        annotations: of that manifest.
    """

    key: str
    path: Path
    digest: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """What a reference stood for.

    Attributes:
        reference: as it may be shown.
        version: what `current` said of it: a manifest's digest, an ETag.
        content: key of the model.
        good_version: the same for the last one that was loaded well; empty: none was.
        good_content: key of that.
    """

    reference: str
    version: str
    content: str
    good_version: str = ""
    good_content: str = ""


class Cache:
    """The folder with the models. Any thread."""

    def __init__(self, root: Path) -> None:
        """Create nothing yet."""
        self._root = root
        self._references = root / "references"

    def content(self, key: str) -> Content | None:
        """Return a model that is there, every byte as it came; None: it is not, or it is damaged."""
        folder = self._root / key
        described = _read(folder / _CONTENT)
        if described is None:
            return None
        try:
            files, annotations = dict(described["files"]), dict(described["annotations"])
            path, digest = folder / str(described["model"]), str(described["digest"])
            sound = all(sha256(folder / name) == expected for name, expected in files.items())
        except (KeyError, TypeError, ValueError, OSError):
            sound = False
        if not sound:
            log.warning("The model in %s is not as it was fetched; it will be fetched again.", folder)
            return None
        return Content(key, path, digest, annotations)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """Yield a new folder to fetch into, on the same disk; it is gone afterwards, as are those of fetches that died.

        Raises:
            ModelUnavailable: the disk does not take it.
        """
        try:
            self._references.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            folder, lock = self._new_folder()
        except OSError as error:
            raise ModelUnavailable(f"models are kept in {self._root}, which cannot be written: {error}") from error
        try:
            yield folder
        except OSError as error:
            raise ModelUnavailable(f"the model cannot be kept in {self._root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def _new_folder(self) -> tuple[Path, int]:
        """Return a new folder, and the lock that says that we work on it."""
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self._root))
            lock = _lock(folder)
            if lock is not None and folder.exists():
                return folder, lock
            if lock is not None:  # another process took it for abandoned before we had the lock
                os.close(lock)

    def install(self, key: str, folder: Path, model: Path, digest: str, annotations: Mapping[str, str]) -> Content:
        """Make a folder of an `incoming` one the model `key`; the files in it are on the disk already.

        Args:
            key: 64 hex digits.
            folder: with the model and what belongs to it.
            model: the ONNX file in it.
            digest: as in `Content`.
            annotations: as in `Content`.

        Raises:
            ModelError: one of its files has a name of ours.
        """
        if (folder / _CONTENT).exists():
            raise ModelError(f"the model keeps data in {_CONTENT}, a name that mlade needs; give that file another one")
        files = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        described = {
            "digest": digest, "model": str(model.relative_to(folder)), "files": files, "annotations": dict(annotations),
        }  # fmt: skip
        _write(folder / _CONTENT, described)
        for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            _sync(inner)
        target = self._root / key
        for number in range(_MOST_TRIES):
            if target.exists():  # damaged, or another process was as fast
                found = self.content(key)
                if found is not None:
                    return found
                with suppress(FileNotFoundError):  # another process found it damaged, too
                    target.replace(folder.parent / f"damaged-{number}")
            try:
                folder.replace(target)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or number == _MOST_TRIES - 1:
                    raise
        _sync(self._root)
        return Content(key, target / model.relative_to(folder), digest, annotations)

    def record(self, reference: Reference) -> Record | None:
        """Return what a reference stood for when it was last asked for; None: it is not known."""
        found = _read(self._references / f"{reference.key}.json")
        if found is None:
            return None
        try:
            return Record(**{name: str(found[name]) for name in Record.__slots__})
        except KeyError:
            return None

    def resolved(self, reference: Reference, version: str, content: str) -> None:
        """Remember what a reference stands for."""
        known = self.record(reference) or Record(reference.text, version, content)
        self._remember(reference, replace(known, reference=reference.text, version=version, content=content))

    def loaded(self, reference: Reference, version: str, content: str) -> None:
        """Remember that this was loaded, and fits."""
        known = self.record(reference) or Record(reference.text, version, content)
        self._remember(reference, replace(known, good_version=version, good_content=content))

    def _remember(self, reference: Reference, record: Record) -> None:
        try:
            self._references.mkdir(parents=True, exist_ok=True)
            _write(self._references / f"{reference.key}.json", asdict(record))
        except OSError as error:
            raise ModelUnavailable(f"models are kept in {self._root}, which cannot be written: {error}") from error

    def prune(self, in_force: Collection[str] = ()) -> None:
        """Remove models that neither are in force nor belong to one of the references used last.

        Args:
            in_force: keys of `Content` that stay whatever happens.
        """
        with suppress(OSError):  # another process may be at it
            records = sorted(self._references.glob("*.json"), key=lambda path: -path.stat().st_mtime_ns)
            kept = set(in_force)
            for number, path in enumerate(records):
                known = _read(path) or {}
                contents = {str(known.get("content")), str(known.get("good_content"))}
                if number < KEPT_REFERENCES or contents & set(in_force):
                    kept |= contents
                else:
                    path.unlink()
            for folder in self._root.iterdir():
                if (folder / _CONTENT).exists() and folder.name not in kept and not folder.name.startswith(_INCOMING):
                    shutil.rmtree(folder, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        for folder in self._root.glob(f"{_INCOMING}*"):
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def sha256(path: Path) -> str:
    """Return a file's SHA-256, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock(folder: Path) -> int | None:
    """Return a lock on a folder, which ends with our process; None: another one has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, described: Mapping[str, Any]) -> None:
    """Write a JSON object so that the file is either as before or whole."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        try:
            json.dump(described, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
