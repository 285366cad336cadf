"""Is it our nginx that runs, and does somebody look after its certificates?

Pure: facts in, findings out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nginx_acme.doctor.finding import Finding, fine, odd, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BINARY = "nginx.binary"
RUNNING = "nginx.running"
BEHIND = "nginx.reloaded"
AGENT = "nginx.agent"
MEMORY = "nginx.memory"

OLDEST = (1, 18)


@dataclass(frozen=True, slots=True)
class Program:
    """The binary; `lacks` are the modules that `acme` may need and that it was built without."""

    path: str
    name: str
    version: tuple[int, ...]
    lacks: frozenset[str]


def judge_program(program: Program) -> Iterator[Finding]:
    """Whether this build can serve what is generated."""
    version = ".".join(map(str, program.version))
    relative = program.name != "nginx"
    shown = f"{program.name} (nginx {version})" if relative else f"nginx {version}"
    if program.version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield odd(BINARY, program.path, f"{shown}, older than {oldest}", "upgrade nginx")
    else:
        yield fine(BINARY, program.path, shown)
    if program.lacks:  # where it is needed, the configuration is refused, too
        words = f"was built without {', '.join(sorted(program.lacks))}"
        yield odd(BINARY, program.path, words, "install a build that has it")


@dataclass(frozen=True, slots=True)
class Running:
    """The master that the pid file names.

    - `pid`: None where none runs; `begun` is whether there ever was a generation;
    - `ours`: it was started by nginx-acme, for this configuration; `conf`: its main file;
    - `sheltered`: while the state directory couldn't be written;
    - `unknown`: names of the configuration that it wasn't told of yet.
    """

    pid: int | None
    begun: bool
    ours: bool
    conf: str | None
    sheltered: bool
    unknown: tuple[str, ...]


def judge_running(running: Running) -> Iterator[Finding]:
    """Whether what runs is what the configuration says."""
    if running.pid is None:
        if running.begun:
            yield odd(RUNNING, "nginx", "does not run", "start nginx-acme")
        else:
            yield fine(RUNNING, "nginx", "was not started yet")
        return
    if not running.ours:
        what = f'runs with "{running.conf}"' if running.conf else "was started without nginx-acme"
        words = f"{what} (pid {running.pid}), not with what nginx-acme generates"
        yield wrong(RUNNING, "nginx", words, 'restart it once with nginx-acme to use "acme"')
    elif running.sheltered:
        words = "was started while the state directory could not be written; no CA is asked"
        yield wrong(RUNNING, "nginx", words, "restart it")
    else:
        yield fine(RUNNING, "nginx", f"runs with what nginx-acme generated (pid {running.pid})")
        if running.unknown:
            words = f"doesn't know {_some(running.unknown)} yet"
            yield odd(BEHIND, "nginx", words, "nginx-acme -s reload")


@dataclass(frozen=True, slots=True)
class Care:
    """Who renews. `wanted` is `acme_agent`; `timer`: one of systemd is active.

    `memory` is OOMPolicy of the unit that nginx belongs to; None where it belongs to none.
    """

    wanted: bool
    alive: bool
    timer: bool
    unit: str | None
    memory: str | None


def judge_care(care: Care) -> Iterator[Finding]:
    """Whether what is due will be renewed; asked of an nginx of ours that runs."""
    if care.wanted and care.alive:
        yield fine(AGENT, "agent", "is there")
    elif care.wanted:
        yield wrong(
            AGENT,
            "agent",
            "is not there; a HUP from elsewhere reloads the last generation"
            + ("" if care.timer else ", and nothing is renewed"),
            "nginx-acme -s reload brings it back",
        )
    elif care.timer:
        yield fine(AGENT, "agent", "is off, a timer renews")
    else:
        yield odd(
            AGENT,
            "agent",
            "is off",
            "let a timer run nginx-acme renew (conf/nginx-acme-renew.timer)",
        )
    if care.memory in {"stop", "kill"}:
        words = f"OOMPolicy={care.memory}: a renewal that runs out of memory takes nginx with it"
        yield odd(MEMORY, str(care.unit), words, "OOMPolicy=continue (conf/nginx.service.d)")


def unit_of(cgroups: str) -> str | None:
    """The service of systemd in a /proc/PID/cgroup: of cgroup v2, or of systemd's own in v1."""
    for line in cgroups.splitlines():
        number, controllers, path = line.split(":", 2)
        name = path.rpartition("/")[2]
        if (number == "0" or controllers == "name=systemd") and name.endswith(".service"):
            return name
    return None


def _some(names: Iterable[str], most: int = 3) -> str:
    shown = list(names)
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + rest
