"""Pulling a model from a registry: out of an artifact that holds it as it is, or out of an image's layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from processor.errors import ModelError, ModelUnavailable
from processor.model.onnx_file import located, read_file
from processor.registry import manifests
from processor.registry.challenges import Registry
from processor.registry.layers import Budget, Hidden, Layer
from processor.registry.manifests import Descriptor, Manifest
from processor.registry.options import Options
from processor.registry.references import Reference, is_loopback
from processor.registry.web import OK, Web, mapping, refused

_MOST_DOCUMENTS: Final = 64
"""That are read for one reference: indexes may list indexes."""


class Repository:
    """A repository in a registry. One for each fetch, in one thread."""

    def __init__(self, reference: Reference, web: Web, *, push: bool = False) -> None:
        """Ask nothing yet."""
        options = web.options
        plain = options.insecure or (is_loopback(reference.host) and options.ca is None)
        self.base = f"{'http' if plain else 'https'}://{reference.host}"
        self.root = f"{self.base}/v2/{reference.location}"
        self.reference = reference
        self.deadline = web.deadline
        scope = f"repository:{reference.location}:{'pull,push' if push else 'pull'}"
        self.registry = Registry(web, self.base, scope, host=reference.host)

    def digest_now(self) -> str:
        """Return the digest of what the reference stands for now.

        Raises:
            ModelError: the registry does not say.
        """
        wanted = self.reference.pin or self.reference.tag
        url = f"{self.root}/manifests/{wanted}"
        with self.registry.ask("HEAD", url, headers={"Accept": manifests.ACCEPT}) as answer:
            digest = answer.headers.get("Docker-Content-Digest", "") if answer.status == OK else ""
        return (
            digest if manifests.DIGEST.fullmatch(digest) else self.document(wanted)[1]
        )  # which says why, where there is none

    def document(self, wanted: str) -> tuple[Mapping[str, object], str]:
        """Return a manifest or an index, and its digest.

        Args:
            wanted: a tag, or a digest, which it then has.

        Raises:
            ModelError: there is none.
            ModelUnavailable: it has another digest.
        """
        what = self._named(wanted)
        with self.registry.ask(
            "GET", f"{self.root}/manifests/{wanted}", headers={"Accept": manifests.ACCEPT}
        ) as answer:
            if answer.status != OK:
                raise refused(answer, what)
            text = answer.text()
            said = answer.headers.get("Docker-Content-Digest", "")
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        expected = wanted if ":" in wanted else said if manifests.DIGEST.fullmatch(said) else digest
        if digest != expected:
            raise ModelUnavailable(f"{self.reference.host} sends {what} with the digest {digest}, expected {expected}")
        return mapping(text, what), digest

    def download(self, blob: Descriptor, target: Path, limit: int) -> None:
        """Write a blob to a file of its own, and on the disk.

        Raises:
            ModelError: it is larger than `limit`, or than the manifest says.
            ModelUnavailable: it is cut off, or has another digest.
        """
        host = self.reference.host
        if blob.size > limit:
            raise ModelError(
                f"{self.reference.text} needs {blob.size} bytes, and model.registry.max_bytes leaves {limit}; "
                "raise it if this is right"
            )
        digest = hashlib.sha256()
        with self.registry.ask("GET", f"{self.root}/blobs/{blob.digest}") as answer:
            if answer.status != OK:
                raise refused(answer, f"the layer {blob.digest} of {self.reference.location}")
            with target.open("xb") as file:
                for piece in answer.pieces(blob.size):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        if f"sha256:{digest.hexdigest()}" != blob.digest:
            raise ModelUnavailable(
                f"{host} sends the layer {blob.digest} with the digest sha256:{digest.hexdigest()}: it is damaged "
                "there or on the way"
            )

    def _named(self, wanted: str) -> str:
        kind = "the digest" if ":" in wanted else "the tag"
        return f"{kind} {wanted} of {self.reference.location}"


def resolve(repository: Repository) -> tuple[Manifest, str]:
    """Return the manifest that a reference stands for, and the digest of what it names: the index where it is one.

    Raises:
        ModelError: there is none, or none that a model may be in.
    """
    reference = repository.reference
    document, digest = repository.document(reference.pin or reference.tag)
    found = manifests.read(document, reference.text)
    listed: list[Descriptor] = []
    for _ in range(_MOST_DOCUMENTS):
        if isinstance(found, Manifest):
            if found.is_usable:
                return found, digest
        else:
            listed = [*found, *listed]
        if not listed:
            break
        found = manifests.read(repository.document(listed.pop(0).digest)[0], reference.text)
    raise ModelError(
        f"{reference.text} holds no ONNX model: no layer that is named *.onnx, and none that is an image's"
        + (f"; of what it lists, {_MOST_DOCUMENTS} were looked at" if listed else "")
    )


def pull(repository: Repository, manifest: Manifest, options: Options, work: Path, target: Path) -> Path:
    """Bring a manifest's model, and the files that hold its weights, into a folder.

    Args:
        repository: where it is.
        manifest: from `resolve`.
        options: bounds, and the file's path in an image.
        work: a folder for layers.
        target: the folder for the model; nothing is in it.

    Returns:
        The model's path, in `target`.

    Raises:
        ModelError: there is no model in it, several, or more than the bounds allow.
    """
    by_itself = [layer for layer in manifest.layers if layer.is_model]
    if by_itself:
        return _from_artifact(repository, manifest, by_itself, options, target)
    return _Image(repository, manifest, options, work).take(target)


def _from_artifact(
    repository: Repository, manifest: Manifest, models: list[Descriptor], options: Options, target: Path
) -> Path:
    reference = repository.reference
    if options.file is not None:
        models = [layer for layer in models if layer.title == options.file]
    if len(models) != 1:
        raise ModelError(_how_many(reference.text, [one.title for one in manifest.layers if one.is_model], options))
    (model,) = models
    title = _inside(model.title or f"{reference.name}.onnx", reference.text)
    path = target / title.name
    left = options.max_bytes
    repository.download(model, path, left)
    left -= model.size
    beside = {_inside(one.title, reference.text): one for one in manifest.layers if one.title and one is not model}
    for location in sorted(_external(path)):
        blob = beside.get(title.parent / location)
        if blob is None:
            raise ModelError(
                f"the model of {reference.text} keeps data in {str(location)[:200]!r}, and no layer is named so"
            )
        (target / location).parent.mkdir(parents=True, exist_ok=True)
        repository.download(blob, target / location, left)
        left -= blob.size
    return path


def _inside(title: str, text: str) -> PurePosixPath:
    try:
        return located(title)
    except ValueError as error:
        raise ModelError(f"{text} names a file {title[:200]!r}, {error}; refused") from error


def _external(path: Path) -> list[PurePosixPath]:
    """Return the files beside a model that hold its weights.

    Raises:
        ModelError: it is no ONNX model, or they would not be beside it.
    """
    found = []
    for location in read_file(path).external:
        try:
            found.append(located(location))
        except ValueError as error:
            raise ModelError(f"the model {path.name} keeps data in {location[:200]!r}, {error}; refused") from error
    return found


def _how_many(text: str, names: list[str], options: Options) -> str:
    if options.file is not None:
        return f"{text} has no model at {options.file} (model.registry.file); it has {manifests.shown(names) or 'none'}"
    if not names:
        return f"{text} holds no ONNX model: no layer has a regular file named *.onnx"
    return f"{text} holds {len(names)} models ({manifests.shown(names)}): name one as model.registry.file"


class _Image:
    """A container image, of which layers are brought one by one, from the top."""

    def __init__(self, repository: Repository, manifest: Manifest, options: Options, work: Path) -> None:
        self._repository = repository
        self._layers = [layer for layer in reversed(manifest.layers) if layer.is_archive]
        self._options = options
        self._work = work
        self._left = options.max_bytes
        self._brought: list[Layer] = []

    def take(self, target: Path) -> Path:
        """Take the model, and the files that hold its weights, into a folder."""
        inside, layer = self._find()
        path = target / inside.name
        layer.take({inside: path}, self._budget())
        missing = {inside.parent / location: target / location for location in _external(path)}
        budget = self._budget()
        for other in self._from_the_top():
            if not missing:
                break
            for taken in other.take(missing, budget):
                del missing[taken]
        if missing:
            names = manifests.shown([str(one) for one in missing])
            raise ModelError(f"the model {inside} in the image keeps data in {names}, and no layer has that")
        return path

    def _find(self) -> tuple[PurePosixPath, Layer]:
        """Return the model's path in the image, and the uppermost layer that has it."""
        wanted = None if self._options.file is None else PurePosixPath("/" + self._options.file.lstrip("/"))
        hidden, seen, budget = Hidden(), set[str](), self._budget()
        for layer in self._from_the_top():
            found, removed = [], []
            for member in layer.members(budget):
                path = member.path
                if member.is_whiteout:
                    removed.append(path)
                elif path.suffix.lower() == ".onnx" and member.is_plain and not hidden.covers(path):
                    found.append(path)
            seen.update(str(path) for path in found)
            choice = list(dict.fromkeys(path for path in found if wanted in (None, path)))
            if len(choice) == 1:
                return choice[0], layer
            if choice:
                break
            hidden.add(removed)
        raise ModelError(_how_many(self._repository.reference.text, list(seen), self._options))

    def _budget(self) -> Budget:
        """Return what one pass over the layers may unpack."""
        return Budget(self._options.max_bytes, self._repository.deadline)

    def _from_the_top(self) -> Iterator[Layer]:
        """Yield layers, those first that are here already."""
        yield from self._brought
        for number in range(len(self._brought), len(self._layers)):
            blob = self._layers[number]
            place = self._work / f"{number}"
            self._repository.download(blob, place, self._left)
            self._left -= blob.size
            self._brought.append(Layer(place))
            yield self._brought[-1]
