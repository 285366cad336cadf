"""What follows a run of renewals, however it went: the proof, what is published, the hooks.

None of it is a reason for the run to fail, or for a program that stays to end.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from nginx_acme.errors import NginxAcmeError
from nginx_acme.hooks import tell
from nginx_acme.launch import utc_now
from nginx_acme.proof import prove
from nginx_acme.publish import publish
from nginx_acme.running import needed_work, running_master

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nginx_acme.hooks.program import Runner
    from nginx_acme.launch import Home
    from nginx_acme.log import Log

    T = TypeVar("T")

UNSERVED = timedelta(hours=1)
"""Until the next look at a certificate that is not served."""


class Conclusion(NamedTuple):
    """The labels of what nginx doesn't serve, and when to look again if nothing else is due."""

    unserved: list[str]
    next: datetime | None


def conclude(home: Home, log: Log, runner: Runner, trouble: str | None) -> Conclusion:
    """See what nginx serves, if it runs, and let it be known.

    Each part looks for itself how the certificates stand: what was found before it, handed on, was
    untrue where another process had got one meanwhile, and took the place of what that had noted.

    Args:
        home: of the nginx; its store is open for writing.
        log: gets what goes wrong.
        runner: of the hooks.
        trouble: what the run failed with.
    """
    unserved = _whatever(partial(_prove, home, log, trouble), log) or []
    publish(home, log, utc_now())
    again = _whatever(lambda: tell(needed_work(home).hooks, home, log, runner), log)
    if unserved:
        soon = utc_now() + UNSERVED
        again = soon if again is None else min(soon, again)
    return Conclusion(unserved, again)


def _prove(home: Home, log: Log, trouble: str | None) -> list[str]:
    if running_master(home) is None:
        return []
    return prove(needed_work(home), home, utc_now(), log, trouble)


def _whatever(do: Callable[[], T], log: Log) -> T | None:
    """Do it; None where that fails, which is told."""
    try:
        return do()
    except NginxAcmeError as error:
        log.error(str(error))
    except Exception as error:  # noqa: BLE001 - no fault of ours here undoes what was got
        log.error(f"internal error after a renewal: {type(error).__name__}: {error}")
    return None
