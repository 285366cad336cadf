"""What an operator would want to know before a CA is asked, and when something doesn't work.

    case            a configuration, what runs of it, where its things are
    gather, look    the facts: of this host; of the names, from where it is
    configuration, nginx, host, names, caa, certificates
                    what they mean: findings, with what to do
    shown           the findings in text and in JSON

Nothing is asked of a CA, and nothing is written but probes, which are removed. A check that fails
is a finding like any other: whoever asks a doctor has trouble already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nginx_acme.doctor import certificates, configuration, gather, host, nginx
from nginx_acme.doctor.case import open_case
from nginx_acme.doctor.finding import Finding, fine, odd, wrong
from nginx_acme.doctor.look import look
from nginx_acme.errors import NginxAcmeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from nginx_acme.doctor.case import Case
    from nginx_acme.launch import Launch
    from nginx_acme.nginx.listen import Address

__all__ = ["Finding", "examine"]


def examine(launch: Launch, now: datetime, server: Address | None) -> list[Finding] | None:
    """Every finding; None for a configuration that is none of ours.

    `server` is the DNS server to ask in place of this host's.
    """
    case = open_case(launch, now)
    if case is None:
        return None
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("configuration", lambda: _configuration(case)),
        ("nginx", lambda: nginx.judge_program(gather.program(launch.nginx))),
        ("nginx", lambda: nginx.judge_running(gather.running(case))),
        ("nginx", lambda: _care(case)),
        ("nginx", lambda: _work(case)),
        ("host", lambda: [host.judge_clock(now, gather.latest(case))]),
        ("host", lambda: _ports(case)),
        ("state", lambda: _state(case)),
        ("names", lambda: _names(case, server)),
        ("certificates", lambda: _certificates(case)),
        ("certificates", lambda: map(certificates.judge_sighting, gather.sightings(case))),
        ("certificates", lambda: map(certificates.judge_orphan, gather.orphans(case))),
        ("accounts", lambda: _accounts(case)),
    )
    return [finding for group, check in checks for finding in _guarded(group, check)]


def _guarded(group: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; that it fails is one, too."""
    try:
        yield from check()
    except NginxAcmeError as error:
        if isinstance(error.__cause__, PermissionError):
            yield odd(f"{group}.failed", group, f"can't be examined: {error}", "ask as root")
        else:
            yield wrong(f"{group}.failed", group, f"can't be examined: {error}")
    except Exception as error:  # noqa: BLE001 - the other checks are worth as much as before
        words = f"internal error: {type(error).__name__}: {error}"
        yield wrong(f"{group}.failed", group, words, "report it as a fault of nginx-acme")


def _configuration(case: Case) -> Iterator[Finding]:
    if case.understood is not None:
        yield from configuration.judge(case.understood)
    elif case.mistake is not None:
        yield configuration.judge_mistake(case.home.main, case.mistake)


def _care(case: Case) -> Iterable[Finding]:
    return nginx.judge_care(gather.care(case)) if case.ours is not None else ()


def _work(case: Case) -> Iterable[Finding]:
    """Nothing, but what it can't be read for."""
    if case.unread is not None:
        raise case.unread
    return ()


def _ports(case: Case) -> Iterator[Finding]:
    ports = gather.ports(case)
    if ports is None:
        yield odd(host.PORT, "nginx", "where it listens can't be seen by this user", "ask as root")
        return
    for port in ports:
        yield host.judge_port(port, running=case.ours is not None)


def _state(case: Case) -> Iterable[Finding]:
    """Nothing, where it may be anywhere."""
    if not case.issue:
        return [host.judge_source(*gather.source(case))]
    known = case.understood is not None or case.work is not None
    return host.judge_state(gather.state(case)) if known else ()


def _names(case: Case, server: Address | None) -> Iterable[Finding]:
    if case.issue:
        return look(case, server)
    return [fine("names.issue", "names", "acme_issue is off, this node asks no CA")]


def _certificates(case: Case) -> Iterator[Finding]:
    runs = case.ours is not None
    served = {one.identity for one in case.work.certificates} if runs and case.work else set()
    for kept in gather.kept(case):
        known = kept.standing.certificate.identity in served
        yield certificates.judge_certificate(kept, running=known)


def _accounts(case: Case) -> Iterator[Finding]:
    for issuer in gather.issuers(case) if case.issue else ():
        yield from certificates.judge_account(issuer, gather.account(case, issuer))
