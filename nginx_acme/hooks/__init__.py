"""Programs of the operator's that are told what happens (`acme_hook`), at the end of each run.

    due        which of them, of what, and when again        pure
    words      what they are told                            pure
    told       what they have been told, as it is noted
    program    runs one of them for a limited time

No lock that nginx or a start needs is held meanwhile. That a program fails, hangs or isn't there
is an error in the log and never a reason for a renewal to fail.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.hooks.due import calls, heard, next_look, settled
from nginx_acme.hooks.told import from_fields, to_fields
from nginx_acme.hooks.words import document, variables
from nginx_acme.launch import utc_now
from nginx_acme.overview import gather_lasting
from nginx_acme.state_path import STATE_PATH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from nginx_acme.hooks.due import Call
    from nginx_acme.hooks.program import Runner
    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.plan import Hook
    from nginx_acme.report import Overview

BUSY = timedelta(minutes=1)
"""Until the next look, while another process tells them."""


def tell(hooks: Sequence[Hook], home: Home, log: Log, runner: Runner) -> datetime | None:
    """Tell these what there is to say; when there is more, None: as long as nothing changes.

    Raises:
        StateError: what they have been told can't be noted.
    """
    instance = home.instance
    if not hooks:
        return None
    held = locks.try_lock(instance.hooks_lock)
    if held is None:
        return utc_now() + BUSY
    with held:
        overview, noted = gather_lasting(home, utc_now()), from_fields(instance.told())
        rows, now = overview.rows, overview.now
        told = settled(noted, hooks, rows, now)
        for call in list(calls(told, rows, now)):
            if call.earliest <= now:
                taken = _make(call, overview, home, log, runner)
                told[call.hook] = heard(told[call.hook], call, now, taken=taken)
                instance.note_told(to_fields(told))
        if told != noted:
            instance.note_told(to_fields(told))
        return next_look(told, rows, now)


def _make(call: Call, overview: Overview, home: Home, log: Log, runner: Runner) -> bool:
    """Run the program; whether it ended with 0."""
    program = call.hook.program
    facts = json.dumps(document(call, overview, os.uname().nodename), indent=1).encode("ascii")
    # It may call us, who are told so where the installation isn't the usual one.
    ours = {"NGINX_ACME_NGINX": home.launch.nginx.path, STATE_PATH_VARIABLE: home.store.root}
    name = f'acme_hook {call.hook.event} "{program}"'
    try:
        ran = runner.run(program, facts, {**ours, **variables(call, overview)})
    except OSError as error:
        log.error(f"{name} can't be run: {error.strerror}")
        return False
    for line in ran.lines:
        log.notice(f"{name}: {line}")
    if ran.late:
        log.error(f"{name} took longer than {runner.limit:.0f} s and was ended")
    elif ran.returncode != 0:
        log.error(f"{name}: exit code {ran.returncode}")
    else:
        log.notice(f"{name}: exit code 0")
    return ran.returncode == 0 and not ran.late
