"""What is left to do for a generation, after its start: the part of a plan that outlives it.

`renew` works from the generation that nginx runs, never from the user's files: only the
operator's reload activates edits. The generated text no longer says what was planned, so the
plan's part that matters later lies beside each generation as JSON. Nothing in it is secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from nginx_acme.errors import StateError
from nginx_acme.identifiers import Name
from nginx_acme.nginx.listen import Address, Listen
from nginx_acme.nginx.source import Place
from nginx_acme.plan import Certificate, Hook, Issuer, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nginx_acme.plan import Plan

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Work:
    """Which certificates a generation shows, and how its nginx is reached.

    `options` are nginx's arguments that say which instance is meant (`-p`, `-c` of the user's
    file, `-e`, `-g`), `answering` the addresses where nginx answers challenges, `shown` where a
    client sees which certificate. `agent`, `issue`, `hooks` and `answer_any` are those of
    `Settings`. `source` is the state directory, where the generation is in a private folder.
    """

    options: tuple[str, ...]
    pid_file: str
    error_log: str
    certificates: tuple[Certificate, ...]
    answering: tuple[Listen, ...]
    shown: tuple[Shown, ...] = ()
    agent: bool = True
    issue: bool = True
    hooks: tuple[Hook, ...] = ()
    answer_any: bool = False
    source: str | None = None

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """Those that a certificate is wanted from, each once."""
        return tuple(dict.fromkeys(one.issuer for one in self.certificates))


def work_of(
    plan: Plan,
    *,
    options: tuple[str, ...],
    pid_file: str,
    error_log: str,
    source: str | None = None,
) -> Work:
    """What a plan leaves to do."""
    return Work(
        options=options,
        pid_file=pid_file,
        error_log=error_log,
        certificates=plan.certificates,
        answering=plan.listens,
        shown=plan.shown,
        agent=plan.settings.agent,
        issue=plan.settings.issue,
        hooks=plan.settings.hooks,
        answer_any=plan.settings.answer_any,
        source=source,
    )


def to_json(work: Work) -> bytes:
    """The text for `from_json`.

    Issuers and listens are listed once and meant by their numbers, since ten thousand certificates
    have a handful of them. Not indented: only a slow encoder of Python's can do that, and with it
    this took longer, and more memory, than to make the plan.
    """
    issuers, listens = _Numbers[Issuer](), _Numbers[Listen]()
    certificates = [
        {
            "issuer": issuers.of(one.issuer),
            "names": one.names,
            "profile": one.profile,
            "key_types": one.key_types,
            "places": [(place.path, place.line) for place in one.places],
            "optional": sorted(one.optional),
        }
        for one in work.certificates
    ]
    shown = [
        {
            "certificate": one.certificate,
            "kind": one.kind,
            "names": one.names,
            "key_types": one.key_types,
            "listens": [listens.of(listen) for listen in one.listens],
        }
        for one in work.shown
    ]
    data = {
        "options": work.options,
        "pid_file": work.pid_file,
        "error_log": work.error_log,
        "certificates": certificates,
        "answering": [listens.of(listen) for listen in work.answering],
        "shown": shown,
        "agent": work.agent,
        "issue": work.issue,
        "hooks": [asdict(hook) for hook in work.hooks],
        "answer_any": work.answer_any,
        "source": work.source,
        "issuers": [asdict(issuer) for issuer in issuers],
        "listens": [asdict(listen) for listen in listens],
    }
    return json.dumps(data).encode()


@lru_cache(maxsize=1)
def from_json(text: bytes, path: str) -> Work:
    """What `to_json` wrote; `path` is where, for the message.

    A run asks ten times for the same one, which takes 0.2 s with ten thousand certificates.

    Raises:
        StateError: it is something else.
    """
    try:
        data = json.loads(text)
        issuers = [_issuer(one) for one in data["issuers"]]
        listens = [_listen(one) for one in data["listens"]]
        return Work(
            options=tuple(data["options"]),
            pid_file=data["pid_file"],
            error_log=data["error_log"],
            certificates=tuple(_certificate(one, issuers) for one in data["certificates"]),
            answering=tuple(listens[number] for number in data["answering"]),
            shown=tuple(_shown(one, listens) for one in data["shown"]),
            agent=data["agent"],
            issue=data["issue"],
            hooks=tuple(Hook(**hook) for hook in data["hooks"]),
            answer_any=data["answer_any"],
            source=data["source"],
        )
    except (ValueError, LookupError, TypeError) as error:
        raise StateError(f'"{path}" is damaged, reload nginx to write it anew', path) from error


class _Numbers(dict[_T, int]):
    """Values, each with its place among them."""

    def of(self, value: _T) -> int:
        """The number of a value, which is listed if it isn't yet."""
        return self.setdefault(value, len(self))


def _certificate(data: Mapping[str, Any], issuers: Sequence[Issuer]) -> Certificate:
    return Certificate(
        issuer=issuers[data["issuer"]],
        names=tuple(Name(*name) for name in data["names"]),
        profile=data["profile"],
        key_types=tuple(data["key_types"]),
        places=tuple(Place(*place) for place in data["places"]),
        optional=frozenset(data["optional"]),
    )


def _shown(data: Mapping[str, Any], listens: Sequence[Listen]) -> Shown:
    names, key_types = tuple(data["names"]), tuple(data["key_types"])
    theirs = tuple(listens[number] for number in data["listens"])
    return Shown(data["certificate"], data["kind"], names, key_types, theirs)


def _issuer(data: Mapping[str, Any]) -> Issuer:
    return Issuer(**{**data, "contacts": tuple(data["contacts"])})


def _listen(data: Mapping[str, Any]) -> Listen:
    return Listen(**{**data, "address": Address(*data["address"])})
