"""The grammar of our directives as data, and their arguments as values.

What may live here: which directive stands in which context, with how many arguments, and what
the arguments mean when looked at alone. What they mean together is `plan`'s business. Every
mistake gets nginx's wording for the same mistake; the place is added by the caller, who knows it.

nginx checks a directive against a table of contexts and argument counts before it calls any
code; so do we, with the same three messages in the same order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nginx_acme.key_types import KEY_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nginx_acme.nginx.syntax import Directive

MAIN = "main"
ISSUER = "acme_issuer"
LOCATION = "http server location"
"""Of any depth."""

_TOP = frozenset({MAIN, "http"})
_BLOCKS = frozenset({"http", "stream", "mail"})
_SERVERS = frozenset({"http server", "stream server", "mail server"})


class Mistake(ValueError):
    """What is wrong with a directive, in nginx's words, without its place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a directive may stand and what it takes, as in nginx's `ngx_command_t`."""

    contexts: frozenset[str]
    least: int = 1
    most: int | None = 1
    block: bool = False


RULES = {
    "acme": Rule(_BLOCKS | _SERVERS, least=0, most=None),
    "acme_issuer": Rule(_BLOCKS | {MAIN}, block=True),
    "acme_contact": Rule(_TOP, most=None),
    "acme_state_path": Rule(_TOP),
    "acme_http_listen": Rule(_TOP, most=None),
    "acme_challenge_answer": Rule(_TOP),
    "acme_redirect": Rule(_TOP),
    "acme_start_wait": Rule(_TOP),
    "acme_agent": Rule(_TOP),
    "acme_issue": Rule(_TOP),
    "acme_hook": Rule(_TOP, least=2, most=2),
    "acme_status": Rule(frozenset({LOCATION}), least=0),
}
"""The directives that nginx doesn't have, wherever they may stand."""

ISSUER_RULES = {
    "uri": Rule(frozenset({ISSUER})),
    "staging": Rule(frozenset({ISSUER})),
    "contact": Rule(frozenset({ISSUER}), most=None),
    "account_key": Rule(frozenset({ISSUER})),
    "challenge": Rule(frozenset({ISSUER})),
    "profile": Rule(frozenset({ISSUER}), most=2),
    "all_names": Rule(frozenset({ISSUER})),
    "renew_before": Rule(frozenset({ISSUER})),
    "ssl_trusted_certificate": Rule(frozenset({ISSUER})),
    "ssl_verify": Rule(frozenset({ISSUER})),
    "accept_terms_of_service": Rule(frozenset({ISSUER}), least=0, most=0),
}
"""The directives inside of an `acme_issuer` block."""

OUR_WORD = "acme"
"""In the name of every directive and variable that concerns us: a text without it has none."""

FOREIGN = frozenset(
    {
        "acme_certificate",
        "acme_client",
        "acme_client_path",
        "acme_dns_port",
        "acme_dns_ttl",
        "acme_http_port",
        "acme_max_response_size",
        "acme_shared_zone",
    }
)
"""Directives of Angie and of nginx's own ACME module: theirs, never called a misspelling."""


def check(directive: Directive, context: str, rules: dict[str, Rule] | None = None) -> None:
    """Refuse what nginx would refuse of a directive by its table alone.

    Raises:
        Mistake: unknown name, wrong context, block missing or unexpected, number of arguments;
            in the order in which `ngx_conf_handler` looks.
    """
    rules = RULES if rules is None else rules
    name = directive.name
    rule = rules.get(name)
    if rule is None:
        raise Mistake(f'unknown directive "{name}"{nearest(name, rules)}')
    if context not in rule.contexts:
        raise Mistake(f'"{name}" directive is not allowed here')
    if rule.block and directive.block is None:
        raise Mistake(f'directive "{name}" has no opening "{{"')
    if not rule.block and directive.block is not None:
        raise Mistake(f'directive "{name}" is not terminated by ";"')
    count = len(directive.args)
    if count < rule.least or (rule.most is not None and count > rule.most):
        raise Mistake(f'invalid number of arguments in "{name}" directive')


@dataclass(frozen=True, slots=True)
class Acme:
    """The arguments of `acme`."""

    off: bool = False
    issuers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    profile: str | None = None


def acme(args: Sequence[str]) -> Acme:
    """``acme [off] [ISSUER] [key=TYPE ...] [profile=NAME];``."""
    if "off" in args:
        if len(args) > 1:
            raise Mistake('"off" must be the only parameter of "acme"')
        return Acme(off=True)
    issuers: list[str] = []
    keys: list[str] = []
    profile: list[str] = []
    for argument in args:
        parameter, equals, value = argument.partition("=")
        values = {"key": keys, "profile": profile}.get(parameter) if equals else issuers
        if values is None or (not value and equals):
            known = ("key=", "profile=")
            raise Mistake(f'invalid parameter "{argument}"{nearest(parameter + "=", known)}')
        if values is keys and value not in KEY_TYPES:
            raise Mistake(f'unsupported key type "{value}"{nearest(value, KEY_TYPES)}')
        if value in values or (values is profile and profile):
            raise Mistake(f'duplicate parameter "{argument}"')
        values.append(value if equals else argument)
    if len({key.partition(":")[0] for key in keys}) < len(keys):
        raise Mistake("two keys of one kind, nginx serves a certificate for each kind alone")
    if len(issuers) > 1:
        raise Mistake('invalid number of arguments in "acme" directive, one issuer is supported')
    return Acme(issuers=tuple(issuers), keys=tuple(keys), profile=next(iter(profile), None))


@dataclass(frozen=True, slots=True)
class IssuerBlock:
    """What an `acme_issuer` block says; None and () where it says nothing."""

    uri: str | None = None
    staging: str | None = None
    contacts: tuple[str, ...] = ()
    account_key: str | None = None
    profile: str | None = None
    profile_required: bool = False
    all_names: bool = False
    renew_before: float | None = None
    trusted_certificate: str | None = None
    verify: bool = True
    accept_terms: bool = False
    said: frozenset[str] = field(default=frozenset())


def issuer_directive(so_far: IssuerBlock, directive: Directive) -> IssuerBlock:
    """The block with one more of its directives taken in.

    Raises:
        Mistake: as `check`; a value that can't be; a directive given twice.
    """
    check(directive, ISSUER, ISSUER_RULES)
    name, args = directive.name, directive.args
    if name in so_far.said:
        raise Mistake(f'"{name}" directive is duplicate')
    block = _ISSUER_VALUES[name](so_far, args)
    return _with(block, said=so_far.said | {name})


def _with(block: IssuerBlock, **changes: object) -> IssuerBlock:
    values = {name: getattr(block, name) for name in IssuerBlock.__slots__}
    return IssuerBlock(**(values | changes))


def _account_key(args: Sequence[str]) -> str:
    value = args[0]
    looks_like_type = re.fullmatch(r"[a-z]+:\d+", value)
    if looks_like_type and value not in KEY_TYPES:
        raise Mistake(f'unsupported key type "{value}"{nearest(value, KEY_TYPES)}')
    return value


def _challenge(block: IssuerBlock, args: Sequence[str]) -> IssuerBlock:
    if args[0] != "http-01":
        raise Mistake(f'unsupported challenge "{args[0]}", "http-01" is the only one so far')
    return block


def _profile(block: IssuerBlock, args: Sequence[str]) -> IssuerBlock:
    if len(args) > 1 and args[1] != "require":
        raise Mistake(f'invalid parameter "{args[1]}"')
    return _with(block, profile=args[0], profile_required=len(args) > 1)


def _renew_before(value: str) -> float:
    try:
        time = seconds(value)
    except Mistake:
        time = 0.0
    if not time:
        raise Mistake(f'invalid value "{value}" in "renew_before" directive')
    return time


_ISSUER_VALUES: dict[str, Callable[[IssuerBlock, Sequence[str]], IssuerBlock]] = {
    "uri": lambda block, args: _with(block, uri=uri(args[0])),
    "staging": lambda block, args: _with(block, staging=uri(args[0])),
    "contact": lambda block, args: _with(block, contacts=contacts(args)),
    "account_key": lambda block, args: _with(block, account_key=_account_key(args)),
    "challenge": _challenge,
    "profile": _profile,
    "all_names": lambda block, args: _with(block, all_names=flag("all_names", args[0])),
    "renew_before": lambda block, args: _with(block, renew_before=_renew_before(args[0])),
    "ssl_trusted_certificate": lambda block, args: _with(block, trusted_certificate=args[0]),
    "ssl_verify": lambda block, args: _with(block, verify=flag("ssl_verify", args[0])),
    "accept_terms_of_service": lambda block, _: _with(block, accept_terms=True),
}


def uri(value: str) -> str:
    """The URL of a directory (RFC 8555 §7.1.1); ACME is spoken over https only (§6.1)."""
    if not re.fullmatch(r"https://[^\s/?#@]+(/[^\s#]*)?", value, re.ASCII):
        raise Mistake(f'invalid URL "{value}", an ACME directory is "https://HOST/PATH"')
    return value


def contacts(args: Iterable[str]) -> tuple[str, ...]:
    """Contact URLs of an account (RFC 8555 §7.3); ``mailto:`` is assumed where there is no scheme."""
    return tuple(map(_contact, args))


def _contact(value: str) -> str:
    contact = value if re.match(r"[a-z][a-z0-9+.-]*:", value) else f"mailto:{value}"
    scheme, _, rest = contact.partition(":")
    # §7.3: no header fields (hfields) and one address only; §7.3 allows any other scheme, but
    # these two are the ones that CAs know.
    pattern = {"mailto": r"[^\s@,?]+@[^\s@,?]+", "tel": r"\+?[0-9().-]+"}.get(scheme)
    if pattern is None or not re.fullmatch(pattern, rest):
        raise Mistake(f'invalid contact "{value}", "mailto:NAME@HOST" or "tel:NUMBER" is expected')
    return contact


def flag(name: str, value: str) -> bool:
    """``on`` or ``off`` (nginx's flags compare without case)."""
    lowered = value.lower()
    if lowered not in {"on", "off"}:
        raise Mistake(f'invalid value "{value}" in "{name}" directive, it must be "on" or "off"')
    return lowered == "on"


HOOK_EVENTS = ("deployed", "failed", "expiring", "recovered")
"""What a program of the operator's can be told of (`acme_hook`)."""


def hook_event(value: str) -> str:
    """The first argument of `acme_hook`."""
    if value not in HOOK_EVENTS:
        raise Mistake(f'unknown event "{value}"{nearest(value, HOOK_EVENTS)}')
    return value


STATUS_FORMATS = ("html", "json", "prometheus")
"""What a status location can serve (`acme_status`); the first one where nothing is said."""


def status_format(args: Sequence[str]) -> str:
    """``acme_status [html|json|prometheus];``."""
    if not args:
        return STATUS_FORMATS[0]
    if args[0] not in STATUS_FORMATS:
        raise Mistake(
            f'invalid value "{args[0]}" in "acme_status" directive, it must be "html", "json" or'
            ' "prometheus"'
        )
    return args[0]


def answers_any(value: str) -> bool:
    """Whether every well-formed token is answered (`acme_challenge_answer any`), or open ones."""
    if value not in {"token", "any"}:
        raise Mistake(
            f'invalid value "{value}" in "acme_challenge_answer" directive, it must be "token" or'
            ' "any"'
        )
    return value == "any"


_UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIME = re.compile(r"(?:\s*\d+(?:ms|[smhdw]))*(?:\s*\d+)?", re.ASCII)


def seconds(value: str) -> float:
    """A time of nginx (``15s``, ``1m 30s``, ``500ms``, ``60``) in seconds."""
    if not value.strip() or not _TIME.fullmatch(value):
        raise Mistake("invalid value")
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhdw]|)", value))


def hint(line: str) -> str:
    """A message of nginx about a directive that it doesn't know, in words that help.

    A directive of ours that comes as far as nginx stands where nobody looks for it, in ``-g`` for
    example. One that every nginx knows needs a module that this nginx was built without. Of
    another the nearest known name is told. The known names come from crossplane's table of some
    six hundred directives, which is the one thing of that library that is used while nginx-acme
    runs, and only once something is wrong anyway.
    """
    found = re.search(r'unknown directive "([^"]+)"', line)
    if not found:
        return line
    name = found[1]
    if name in RULES:
        place = line[found.end() :]
        where = "in -g" if place == " in command line" else f"here{place}"
        return f'{line[: found.start()]}"{name}" directive is not allowed {where}'
    import crossplane.analyzer  # noqa: PLC0415 - only where a message needs it

    known = crossplane.analyzer.DIRECTIVES
    more = ", this nginx lacks it" if name in known else nearest(name, [*known, *RULES])
    return line[: found.end()] + more + line[found.end() :]


def nearest(name: str, known: Iterable[str]) -> str:
    """``, did you mean "X"?`` where one of `known` is near, else nothing."""
    import difflib  # noqa: PLC0415 - only where a message needs it

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f', did you mean "{near[0]}"?' if near else ""
