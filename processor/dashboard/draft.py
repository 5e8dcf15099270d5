"""A filter that somebody is writing: as text, as what the text says, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, get_args

from processor.document import parse
from processor.errors import ConfigurationError, FilterRejected, Problem
from processor.filter import MAX_BYTES, FilterDocument, all_problems, check_against, measures_of, parse_filter
from processor.printing import as_yaml
from processor.told import FilterState, ModelFacts
from processor.types import OutputKind

_KINDS: Final[Sequence[OutputKind]] = get_args(OutputKind)


class Draft:
    """One filter being written. Used by one page.

    Attributes:
        text: what would be sent.
        plain: what the text says; None while it is no document.
        problems: what is wrong with it, by a processor's own rules.
        revision: of the filter that it began from.
        moved: the processor has another filter now than the draft began from.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.text = ""
        self.plain: dict[str, Any] | None = {}
        self.problems: Sequence[Problem] = ()
        self.revision = 0
        self.moved = False
        self._began = ""
        self._base: dict[str, Any] = {}
        self._model = ModelFacts()
        self._shadow = False
        self._listeners: list[Callable[[object], None]] = []

    def listen(self, changed: Callable[[object], None]) -> None:
        """Have `changed` called at each change, with who made it."""
        self._listeners.append(changed)

    @property
    def changed(self) -> bool:
        """Whether it says something else than the filter in force."""
        return self.text != self._began

    @property
    def base(self) -> Mapping[str, Any]:
        """The filter that it began from."""
        return self._base

    def follow(self, state: FilterState | None, model: ModelFacts, *, shadow: bool = False) -> None:
        """Take note of the filter in force: one that nobody has touched becomes it.

        Args:
            state: of the filter; None: nothing is known of it.
            model: what it has to fit.
            shadow: whether a second model judges windows beside that one.
        """
        if (model, shadow) != (self._model, self._shadow):
            self._model, self._shadow = model, shadow
            self._check()
        if state is None or (state.revision == self.revision and state.active == self._base):
            return
        if self.changed:
            self.moved = True
        else:
            self.begin(state)

    def begin(self, state: FilterState) -> None:
        """Begin anew from a processor's filter."""
        self.revision, self._base, self.moved = state.revision, state.active, False
        self._began = as_yaml(state.active)
        self.write(self._began, None)

    def write(self, text: str, author: object) -> None:
        """Replace the text."""
        self.text = text
        self._check()
        self._tell(author)

    def change(self, plain: dict[str, Any], author: object) -> None:
        """Replace what it says; the text is written anew."""
        self.write(self._began if plain == self._base else as_yaml(plain), author)

    def edit(self, edit: Callable[[dict[str, Any]], None], author: object) -> None:
        """Change what it says in place; nothing happens while the text is no document."""
        if self.plain is not None:
            plain = deepcopy(self.plain)
            edit(plain)
            self.change(plain, author)

    def _tell(self, author: object) -> None:
        for listener in self._listeners:
            listener(author)

    def _check(self) -> None:
        try:
            plain = parse(self.text, max_bytes=MAX_BYTES)
        except ConfigurationError as error:
            self.plain, self.problems = None, error.problems
            return
        self.plain = plain if isinstance(plain, dict) else None
        try:
            self.problems = self._against_the_model(parse_filter(self.text))
        except FilterRejected as error:
            self.problems = all_problems(error, self._against_the_model)

    def _against_the_model(self, document: FilterDocument) -> Sequence[Problem]:
        """Check as the processor will, as far as it has told what it would check against."""
        model, kind = self._model, self._kind
        if not model.complete or kind is None:
            return ()
        return check_against(document, kind=kind, labels=model.labels, fields=model.fields, shadow=self._shadow)

    @property
    def _kind(self) -> OutputKind | None:
        return next((kind for kind in _KINDS if kind == self._model.kind), None)

    @property
    def measures(self) -> Sequence[str]:
        """What the model's output allows."""
        return measures_of(self._kind or "score", shadow=self._shadow)

    @property
    def labels(self) -> Sequence[str]:
        """The model's, as far as they are known."""
        return self._model.labels

    @property
    def fields(self) -> Sequence[str]:
        """The sources', as far as they are known."""
        return self._model.fields
