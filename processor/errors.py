"""The error tree.

MladeError                      everything mlade raises on purpose; its text is a sentence for an operator
├── ConfigurationError          the user's documents: every problem at once, each with its path (exit 2)
│   └── FilterRejected          the same, for a filter document
├── ModelError                  the model cannot be loaded or run
│   ├── ModelMisfit             it runs, but not with these settings
│   └── ModelUnavailable        its registry or server is away, or sent it damaged; another try may go well
├── BrokerError                 the MQTT broker refused us for good (bad credentials, bad protocol)
│   └── SessionTakenOver        another process connected with our client id
├── StateError                  the state directory cannot be used
│   ├── StateLocked             another process owns it
│   ├── StateForeign            the file in it was written by a newer program
│   └── StateFull               no room on the disk; the same transaction may be tried again
├── RecordingError              a recording cannot be read or written
└── BridgeError                 a bridge could not deliver; tried again after a pause
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a document.

    Attributes:
        path: where, as `rules[0].band`; empty for the document as a whole.
        message: what was found and what was expected.
    """

    path: str
    message: str

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


class MladeError(Exception):
    """Base of every error that mlade raises on purpose."""


class ConfigurationError(MladeError):
    """A document of the user's is wrong.

    Attributes:
        problems: all of them, in document order; never empty.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep `problems` and make a text of one line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class FilterRejected(ConfigurationError):
    """A filter document is wrong; the filter in force stays.

    Attributes:
        problems: all of them, in document order; never empty.
        sound: what of its rules is right in itself: (index, filter of that rule alone); for `filter.all_problems`.
    """

    def __init__(self, problems: Iterable[Problem], sound: Iterable[tuple[int, Any]] = ()) -> None:
        """Keep what is wrong, and what may be looked at further."""
        super().__init__(problems)
        self.sound = tuple(sound)


class ModelError(MladeError):
    """The model cannot be loaded or run."""


class ModelMisfit(ModelError):
    """The model runs, but not with these settings or on what the sources give.

    Attributes:
        problems: all of them, each with the settings' path that mends it.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep `problems` and make a text of one line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ModelUnavailable(ModelError):
    """The place a model comes from is away, stalls or sends it damaged; another try may go well."""


class BrokerError(MladeError):
    """The broker refused the connection in a way that trying again will not mend."""


class SessionTakenOver(BrokerError):
    """Another client connected with this processor's client id."""


class StateError(MladeError):
    """The state directory cannot be used."""


class StateLocked(StateError):
    """Another process owns the state directory."""


class StateForeign(StateError):
    """The database was written by a newer version."""


class StateFull(StateError):
    """There is no room to commit; nothing was changed and the same work may be tried again."""


class RecordingError(MladeError):
    """A recording cannot be read or written."""


class BridgeError(MladeError):
    """A bridge's other side cannot be reached, or does not take what it should; tried again."""
