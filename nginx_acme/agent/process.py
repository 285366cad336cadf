"""The agent: the process beside nginx that sleeps until there is something to do.

    the wall clock          something is due: a renewal, a retry, a look at all of it once a day
    somebody reads the      a HUP that comes from elsewhere must mean the user's configuration as it
    generated main file     is now (or it was our own, or a `grep`: the turn finds out)
    a new generation        a process of ours has made one: what is due may be another thing
    nginx has ended         so does the agent, unless a binary upgrade has left a successor

What it does itself is to wait. The work of a turn is done by a short-lived child
(`nginx-acme renew --agent WHY`), which imports what it likes, runs the code that is installed by
then, and can fail. One agent for an instance, by a lock.

Watches on the user's files were tried in its place: they miss bind mounts and network file
systems, and activate what is half finished. nginx opens the generated main file exactly once for
a HUP, and never for a request.

Standard library alone, and as little of it as can be: this stays in memory for years.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from nginx_acme import locks
from nginx_acme.agent import linux
from nginx_acme.agent.alarms import DUE, LOOK, REASONS, STARTED, SURELY, Alarms
from nginx_acme.errors import NginxAcmeError, StateError
from nginx_acme.manifest import forget_manifest
from nginx_acme.master import exists, find_master
from nginx_acme.process import found_environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nginx_acme.log import Log
    from nginx_acme.master import Master

RENEWING = frozenset({STARTED, DUE})
KINDS = (frozenset({SURELY, LOOK}), RENEWING)
"""The two kinds of turns, by the reasons for them."""

START_WAIT = 60.0
"""Seconds for nginx to write its pid file after it was started."""
DAEMON_WAIT = 2.0
"""Seconds for it after the process that it was started as has ended."""
LOCK_WAIT = 10.0
"""Seconds for the agent of an nginx that has just ended to see that."""
FARTHEST = 86400.0
"""Seconds to the next look at all of it, whatever there is to do: files get lost meanwhile."""
LEAST = 5.0
"""Seconds to the next turn: what is due at once is at work elsewhere."""
FAULTS = (60.0, 600.0, 3600.0)
"""Seconds to the next turn after the first, the second, … in a row that failed as none should."""
LONGEST_TURN = 6 * 3600.0
"""Seconds after which a turn hangs; thousands of certificates take half an hour."""
_AGAIN = {STARTED: DUE, LOOK: SURELY}
"""As what a turn that failed is had again.

What is edited after nginx has started waits for its HUP; and of the HUP for which there was a look
nothing may be seen any more.
"""
_LEARNT = ("pid_file", "error_log", "stderr")
"""The facts that a turn may bring anew."""
_POLL = 0.05
_NOT_FOR_US = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""What `systemctl kill` sends to all of a unit's processes, and only nginx knows what to do with."""


def run(rest: Sequence[str], log: Log) -> int:
    """Be the agent that `spawning.spawn` asks for; the exit code.

    Raises:
        NginxAcmeError: a person asks for it.
    """
    try:
        agent = Agent(json.loads(rest[0]), log)
    except (IndexError, ValueError, KeyError, TypeError):
        raise NginxAcmeError("the agent is started by nginx-acme itself, with nginx") from None
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    agent.run()
    return 0


class Agent:
    """The process, made of these facts, which are JSON on its command line.

    - `instance`: the folder of the instance;
    - `lock`: of its only agent;
    - `main`: the main file that nginx was started with;
    - `user_main`: the user's, for `ps`;
    - `starter`: the process that is or became nginx;
    - `with_nginx`: it is started now; else the agent is brought back;
    - `hung_up`: somebody has told that to read its configuration, before it was nginx;
    - `turn`: the command of a turn, but for its reason;
    - `pid_file`, `error_log`: nginx's; `stderr`: whether that leads to ours;
    - `why`, `next`: the reasons for the first turn and the moment of the next one, of an agent
      that goes on as this one.
    """

    def __init__(self, facts: dict[str, object], log: Log) -> None:
        self._facts = facts
        self._instance, self._main, self._lock, user_main = (
            str(facts[name]) for name in ("instance", "main", "lock", "user_main")
        )
        self._starter = int(str(facts["starter"]))
        self._turn_command = _texts(facts["turn"])
        self._log = log
        if not facts["stderr"]:
            log.stream = None
        log.add_file(str(facts["error_log"]))
        self._code = _code()
        first = [STARTED] if facts["with_nginx"] else [LOOK, DUE]
        self._why = set(_texts(facts.pop("why", first))) & set(REASONS)
        if facts.pop("hung_up", False):
            self._why.add(SURELY)
        self._next = _bounded(facts.pop("next", None))
        self._again: set[str] = set()
        self._faults = 0
        self._wanted = True
        self._told_deafness = False
        linux.show_title(f"nginx-acme: agent for {user_main}")

    def run(self) -> None:
        """Stay as long as nginx does; only one agent of an instance does.

        Where nginx never came, the next start tests the configuration, and says why.
        """
        master = self._started_master()
        if master is None:
            self._forget()
        end = time.monotonic() + LOCK_WAIT
        while master is not None and time.monotonic() < end:
            held = locks.try_lock(self._lock)
            if held is not None:
                with held:
                    self._stay(master, held)
                return
            time.sleep(_POLL)
            master = self._master()

    def _stay(self, master: Master, held: locks.Lock) -> None:
        """Turn by turn, until nginx has ended, or the state directory is removed.

        A HUP doesn't wait for certificates: a turn of either kind may be under way.
        """
        turns: dict[frozenset[str], _Turn] = {}
        alarms = Alarms(master.pid, self._main, self._instance)
        while self._wanted and (not alarms.ended or self._succeeded(alarms)):
            if alarms.lost or not held.lasts():
                words = "so is the agent, until nginx is reloaded"
                self._log.error(f'"{self._instance}" is gone, and {words}')
                break
            self._tell_deafness(alarms)
            for kind in KINDS:
                if self._why & kind and kind not in turns:
                    self._begin_turn(kind, turns)
            woken = alarms.wait(
                self._next if RENEWING not in turns else None,
                {turn.descriptor: turn.end for turn in turns.values()},
            )
            if DUE in woken:
                woken |= self._again
                self._again.clear()
            self._why |= woken
            for kind, turn in tuple(turns.items()):
                if turn.is_over():
                    del turns[kind]
                    self._take_in(kind, turn)
        for turn in turns.values():
            turn.stop()

    def _tell_deafness(self, alarms: Alarms) -> None:
        """Say once that a HUP isn't noticed at once."""
        if alarms.deaf is not None and not self._told_deafness:
            self._log.error(
                f"the agent doesn't see a plain HUP at once ({alarms.deaf.strerror}); reload by"
                ' "nginx-acme -s reload"'
            )
        self._told_deafness = alarms.deaf is not None

    # nginx --------------------------------------------------------------------------------

    def _master(self) -> Master | None:
        master = find_master(str(self._facts["pid_file"]))
        return master if master is not None and master.uses(self._main) else None

    def _succeeded(self, alarms: Alarms) -> bool:
        """Whether a binary upgrade has left a master in place of the one that has ended."""
        master = self._master()
        return master is not None and alarms.follow(master.pid)

    def _started_master(self) -> Master | None:
        """The master, when it has written its pid file; None where it never does."""
        end = time.monotonic() + START_WAIT
        while (master := self._master()) is None and time.monotonic() < end:
            time.sleep(_POLL)
            if not exists(self._starter):  # a daemon leaves it so, a moment before
                end = min(end, time.monotonic() + DAEMON_WAIT)
        return master

    def _forget(self) -> None:
        try:
            forget_manifest(self._instance)
        except StateError as error:
            self._log.error(str(error))

    # Turns --------------------------------------------------------------------------------

    def _begin_turn(self, kind: frozenset[str], turns: dict[frozenset[str], _Turn]) -> None:
        self._renew_itself(turns)
        why = next(reason for reason in REASONS if reason in self._why & kind)
        self._why -= kind
        try:
            turns[kind] = _Turn(self._turn_command, why)
        except OSError as error:
            self._log.error(f"nginx-acme renew can't be started: {error.strerror}")
            self._fault(why)

    def _take_in(self, kind: frozenset[str], turn: _Turn) -> None:
        """What a turn has found out, and so when the next one is."""
        said = turn.said()
        if said is None:
            self._log.error(f"nginx-acme renew {turn.words}")
            said = {"fault": True}
        self._facts.update((name, said[name]) for name in _LEARNT if name in said)
        self._log.add_file(str(self._facts["error_log"]))
        self._wanted = said.get("agent") is not False
        if said.get("new"):
            self._why.add(DUE)
        if said.get("again"):
            self._why.add(SURELY)
        if said["fault"]:
            self._fault(turn.why)
        elif kind is RENEWING:
            self._faults = 0
            self._next = _bounded(said.get("next"))

    def _fault(self, why: str) -> None:
        """Have the turn once more, after a while; what is due sooner isn't put off by a look."""
        self._again.add(_AGAIN.get(why, why))
        moment = time.time() + FAULTS[min(self._faults, len(FAULTS) - 1)]
        self._next = moment if why in RENEWING else min(self._next, moment)
        self._faults += 1

    def _renew_itself(self, turns: Collection[object]) -> None:
        """Be the agent of the package that is installed now, if that is another one.

        The lock goes with exec, and the next one takes it. Where the package is gone, this one
        goes on. A turn that is under way is not left alone.
        """
        code = _code()
        if code in {self._code, None} or turns:
            return
        self._code = code
        # What nginx reads before the next one watches it is seen by a look.
        kept = {**self._facts, "why": sorted({*self._why, LOOK}), "next": self._next}
        given = [*sys.orig_argv[:-1], json.dumps(kept)]
        try:
            os.execve(sys.executable, given, found_environ())  # noqa: S606 - a list, no shell
        except OSError as error:
            self._log.error(f"the agent goes on with its old program: {error.strerror}")


class _Turn:
    """The child that does the work; it says on stdout, in JSON, when the next turn is.

    `descriptor` can be read as soon as it speaks or ends, `end` is when it hangs (monotonic).
    """

    def __init__(self, command: list[str], why: str) -> None:
        self.why = why
        self.descriptor, answer = os.pipe()
        try:
            self._pid = os.posix_spawn(
                command[0],
                [*command, why],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, answer, 1)],
            )
        except OSError:
            os.close(self.descriptor)
            raise
        finally:
            os.close(answer)
        os.set_blocking(self.descriptor, False)
        self.end = time.monotonic() + LONGEST_TURN
        self._text = b""
        self._status = 0

    def is_over(self) -> bool:
        """Whether it has ended; one that hangs is ended."""
        if time.monotonic() > self.end:
            os.kill(self._pid, signal.SIGKILL)
        try:
            chunk = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return False
        self._text += chunk
        if chunk:
            return False
        os.close(self.descriptor)
        _, self._status = os.waitpid(self._pid, 0)
        return True

    @property
    def words(self) -> str:
        """How it ended."""
        code = os.waitstatus_to_exitcode(self._status)
        return f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"

    def said(self) -> dict[str, object] | None:
        """What it has found out; None where it didn't get so far."""
        try:
            said = json.loads(self._text)
        except ValueError:
            return None
        return said if isinstance(said, dict) else None

    def stop(self) -> None:
        """End it: orders stay on disk."""
        os.kill(self._pid, signal.SIGTERM)


def _bounded(moment: object) -> float:
    """A moment that a turn has said, as far as it is a time to sleep to."""
    now = time.time()
    if not isinstance(moment, int | float):
        return now + FARTHEST
    return min(max(moment, now + LEAST), now + FARTHEST)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(value)
    return [str(item) for item in value]


def _code() -> tuple[int, int, int] | None:
    """What tells this program from that of another release; None where it is gone."""
    try:
        status = os.stat(__file__)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
