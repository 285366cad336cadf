"""What is left to do for a generation, after its start: the part of a plan that outlives it.

`renew` works from the generation that nginx runs, never from the user's files: only the
operator's reload activates edits. The generated text no longer says what was planned, so the
plan's part that matters later lies beside each generation as JSON. Nothing in it is secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nginx_acme.errors import StateError
from nginx_acme.identifiers import Name
from nginx_acme.nginx.listen import Address, Listen
from nginx_acme.nginx.source import Place
from nginx_acme.plan import Certificate, Hook, Issuer, Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.plan import Plan


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
    """The text for `from_json`; sets are lists, everything else keeps its shape."""
    return json.dumps(asdict(work), default=sorted, indent=1).encode("utf-8", "surrogateescape")


def from_json(text: bytes, path: str) -> Work:
    """What `to_json` wrote; `path` is where, for the message.

    Raises:
        StateError: it is something else.
    """
    try:
        data = json.loads(text.decode("utf-8", "surrogateescape"))
        return Work(
            options=tuple(data["options"]),
            pid_file=data["pid_file"],
            error_log=data["error_log"],
            certificates=tuple(map(_certificate, data["certificates"])),
            answering=tuple(map(_listen, data["answering"])),
            shown=tuple(map(_shown, data.get("shown", ()))),
            agent=data.get("agent", True),
            issue=data.get("issue", True),
            hooks=tuple(Hook(**hook) for hook in data.get("hooks", ())),
            answer_any=data.get("answer_any", False),
            source=data.get("source"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f'"{path}" is damaged, reload nginx to write it anew', path) from error


def _certificate(data: Mapping[str, Any]) -> Certificate:
    issuer = data["issuer"]
    return Certificate(
        issuer=Issuer(**{**issuer, "contacts": tuple(issuer["contacts"])}),
        names=tuple(Name(*name) for name in data["names"]),
        profile=data["profile"],
        key_types=tuple(data["key_types"]),
        places=tuple(Place(**place) for place in data["places"]),
        optional=frozenset(data["optional"]),
    )


def _shown(data: Mapping[str, Any]) -> Shown:
    listens = tuple(map(_listen, data["listens"]))
    names, key_types = tuple(data["names"]), tuple(data["key_types"])
    return Shown(data["certificate"], data["kind"], names, key_types, listens)


def _listen(data: Mapping[str, Any]) -> Listen:
    return Listen(**{**data, "address": Address(*data["address"])})
