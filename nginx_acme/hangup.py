"""A HUP that somebody else sent: what the user's files say now is taken up.

nginx opens the generated main file exactly once for a HUP, and so may others. Where it was nginx,
and the files say something else, they are what it reads next; and a HUP without an edit is nginx's
own affair.

nginx reads what it has first, and so long our own reload has to wait. The user's files are read
meanwhile, and once more where they have changed since.

Light: after every reload there is such a look, and the sooner the files are read after a HUP, the
surer they are what they were then.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.errors import NginxAcmeError
from nginx_acme.reload import RELOAD_WAIT, settled_workers, was_reloaded
from nginx_acme.running import is_up_to_date, needed_work, running_master, test_current
from nginx_acme.understanding import understand_running

if TYPE_CHECKING:
    from nginx_acme.launch import Home
    from nginx_acme.master import Master
    from nginx_acme.understanding import Understood
    from nginx_acme.work import Work


class TakenUp(NamedTuple):
    """What the agent has to do about it.

    `new`: something else may be due. `again`: the files were edited meanwhile, so they have to be
    looked at once more. Of a HUP for that nothing may be seen: signals that come while nginx has one
    to handle become one, and that was ours.
    """

    new: bool
    again: bool


NOTHING = TakenUp(new=False, again=False)


def take_up(home: Home, *, surely: bool) -> TakenUp:
    """Let nginx have what the user's files say now, where somebody told it to read them.

    Args:
        home: of the nginx.
        surely: don't ask whether anybody did.

    Raises:
        NginxAcmeError: a mistake in the configuration, or nginx refuses it; the running one stays.
    """
    work, master = needed_work(home), running_master(home)
    if master is None:
        return NOTHING
    understood = _read_ahead(home)
    with home.runtime.lock_generation(home.instance, wait=RELOAD_WAIT):  # of a reload of ours
        told = _was_told(home, master) or surely
        if told:
            home.instance.note_workers(settled_workers(master.pid))
    # Not before they are noted: who edits after this, and hangs up, brings others.
    if is_up_to_date(home) or not (told or _was_refused(home, work)):
        return NOTHING
    if understood is None or understood.edited():
        understood = understand_running(home.launch, home.instance.path)
    # Not at the top: most looks find nothing to take up.
    from nginx_acme.activation import activate_if_new

    reloaded = activate_if_new(understood, master)
    return TakenUp(needed_work(home) != work, reloaded and understood.edited())


def _read_ahead(home: Home) -> Understood | None:
    """What the user's files say, where that may be wanted, and what takes it up is imported.

    A mistake is found by who wants it.
    """
    if is_up_to_date(home):
        return None
    try:
        understood = understand_running(home.launch, home.instance.path)
    except NginxAcmeError:
        return None
    from nginx_acme import activation  # noqa: F401 - 0.1 s that nginx needs anyway

    return understood


def _was_told(home: Home, master: Master) -> bool:
    """Whether nginx has read its configuration since its workers were noted.

    Whoever else opens the generated main file (a `grep` below the state directory) leaves its
    workers as they are.
    """
    noted = home.instance.workers()
    if master.single or not noted:
        return True
    return was_reloaded(master.pid, noted, os.path.realpath(home.instance.generations))


def _was_refused(home: Home, work: Work) -> bool:
    """Whether it may have tried to: a HUP that it refuses leaves its workers as they are, too."""
    said = test_current(home, work)
    return said is not None and not said.ok
