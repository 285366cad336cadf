"""Everything that can go wrong, by whose fault it is.

    NginxAcmeError            one sentence for the operator; exit code 1
    ├── ConfigError           the admin's: knows the file and the line
    ├── NginxRejected         nginx -t said no; its own lines, with the user's paths
    ├── NginxMissing          there is no nginx to start
    ├── ReloadFailed          the running nginx did not take the new configuration
    ├── StateError            the state directory: cannot be written, is of a newer layout
    ├── BadBundle             a file that is no private key with its certificate
    └── AcmeError             the conversation with the CA
        ├── Problem           the CA said no (RFC 7807, RFC 8555 §6.7); its own words
        ├── OrderFailed       an order became invalid; the problem of each identifier
        ├── UnexpectedAnswer  the CA broke the protocol
        └── Unreachable       no answer at all

A caller asks an error two things: whose fault it is (its class) and whether asking again can
help (`AcmeError.permanent`, `AcmeError.retry_after`). Libraries' exceptions never get this far:
they stop at the module that imports the library.

Imported at every start, so nothing but the interpreter itself is needed here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class NginxAcmeError(Exception):
    """One sentence for the operator."""

    exit_code = 1


class ConfigError(NginxAcmeError):
    """A mistake in the configuration, told as nginx tells it: ``MESSAGE in FILE:LINE``."""

    def __init__(self, message: str, path: str | None = None, line: int | None = None) -> None:
        super().__init__(message, path, line)
        self.message = message
        self.path = path
        self.line = line

    def __str__(self) -> str:
        """The sentence with its place, as far as it is known."""
        if self.path is None:
            return self.message
        if self.line is None:
            return f"{self.message} in {self.path}"
        return f"{self.message} in {self.path}:{self.line}"


class NginxRejected(NginxAcmeError):
    """nginx refused a configuration; `lines` are its words, generated paths put back."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class NginxMissing(NginxAcmeError):
    """No nginx binary was found."""


class ReloadFailed(NginxAcmeError):
    """The running nginx did not take up the new configuration."""


class StateError(NginxAcmeError):
    """The state directory can't be used as it is; `path` is what to look at."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class BadBundle(NginxAcmeError):
    """Not a private key followed by its certificate and chain."""


class AcmeError(NginxAcmeError):
    """The conversation with the CA failed."""

    permanent = False
    """Only what asking again can't change; such a certificate is tried once a day."""

    retry_after: datetime | None = None
    """Not before this time, by the CA's own word."""


NO_TYPE = "about:blank"
"""The type of a problem that says no more than its HTTP status (RFC 7807 §4.2)."""

_PERMANENT = frozenset(
    {
        "badCSR",
        "unsupportedIdentifier",
        "invalidProfile",
        "externalAccountRequired",
        "userActionRequired",
    }
)


class Problem(AcmeError):
    """What the CA said (RFC 8555 §6.7): `type` without its URN prefix, and its own words.

    `identifier` is the value of the identifier that a subproblem is about (§6.7.1).
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the name of the field in RFC 7807
        detail: str,
        *,
        status: int = 0,
        identifier: str | None = None,
        subproblems: tuple[Problem, ...] = (),
        retry_after: datetime | None = None,
        instance: str | None = None,
    ) -> None:
        super().__init__(type, detail)
        self.type = type
        self.detail = detail
        self.status = status
        self.identifier = identifier
        self.subproblems = subproblems
        self.retry_after = retry_after
        self.instance = instance

    @property
    def permanent(self) -> bool:  # type: ignore[override]
        """Whether asking again can't change the answer."""
        return self.type in _PERMANENT

    def __str__(self) -> str:
        """The CA's words, then those about each identifier."""
        about = f"{self.identifier}: " if self.identifier else ""
        kind = f" ({self.type})" if self.type != NO_TYPE else ""
        words = f"{about}{self.detail}{kind}" if self.detail else f"{about}{self.type}"
        if self.instance and self.type == "userActionRequired":
            words += f", see {self.instance}"  # where a person has to go (RFC 8555 §7.3.3)
        return "; ".join((words, *map(str, self.subproblems)))


class OrderFailed(AcmeError):
    """An order became invalid (RFC 8555 §7.1.6); `problems` by identifier."""

    def __init__(self, problems: Mapping[str, Problem]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = dict(problems)


class UnexpectedAnswer(AcmeError):
    """The CA's answer was not what RFC 8555 says it must be."""


class Unreachable(AcmeError):
    """No answer came: no route, no name, no trust, no time."""
