"""What is measured, with which programs, how large and how often."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT, environment, find_newer

RUNS = ((1, 15), (100, 9), (1000, 7), (10_000, 3))
"""Up to so many servers, so many rounds; beyond, one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; `rounds`: None for what the size suggests.

    `servers` are sizes of configurations, `certificates` numbers of those that come from pebble,
    with each of `retry_after` in its answers.
    """

    folder: Path
    servers: tuple[int, ...]
    certificates: tuple[int, ...]
    retry_after: tuple[int, ...]
    rounds: int | None
    nginx: str
    given_pebble: str | None
    launcher: tuple[str, ...]
    environ: dict[str, str]

    @property
    def pebble(self) -> str:
        """The path of a pebble that can say Retry-After.

        Raises:
            ServerMissing: there is none.
        """
        return self.given_pebble or find_newer("pebble")

    def rounds_with(self, servers: int) -> int:
        """How often: less often what takes long."""
        if self.rounds is not None:
            return self.rounds
        return next((rounds for most, rounds in RUNS if servers <= most), 1)

    def few_rounds_with(self, servers: int) -> int:
        """The same for what takes several times as long."""
        return self.rounds or -(-self.rounds_with(servers) * 2 // 3)


def launcher() -> tuple[str, ...]:
    """The `nginx-acme` that a user starts, which pip has made."""
    return (str(Path(sys.executable).with_name("nginx-acme")),)


def environ_for(nginx: str) -> dict[str, str]:
    """The environment of all that is measured: this tree's nginx_acme, whichever is installed."""
    environ = environment(NGINX_ACME_NGINX=nginx)
    ask = [sys.executable, "-c", "import nginx_acme; print(nginx_acme.__file__)"]
    found = subprocess.run(ask, cwd="/", env=environ, capture_output=True, text=True, check=False)
    if Path(found.stdout).parent.parent != ROOT:
        environ["PYTHONPATH"] = os.fspath(ROOT)
    return environ
