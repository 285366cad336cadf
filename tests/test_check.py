"""`nginx-acme status --check`: a monitoring plugin that sees what clients see."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests.launcher import eventually, issuer
from tests.test_commands import AS_NOBODY, NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site

    MakeSite = Callable[..., Site]


def checked(site: Site) -> tuple[int, str]:
    """The exit code and the only line."""
    answer = site.run("status", "--check")
    assert answer.stderr == ""
    (line,) = answer.stdout.splitlines()
    return answer.returncode, line


def test_well(make_site: MakeSite) -> None:
    """All is well: the certificates were seen, the first end is told."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), site.block("b.internal", "acme local;"))
    site.start()
    site.quiet()
    code, line = checked(site)
    assert code == 0
    words, _, numbers = line.partition(" | ")
    assert words == "NGINX-ACME OK - 2 certificates, a.internal expires in 6 d"
    assert numbers.startswith("days_left=7.0 certificates=2;;;0")


def test_writes_nothing(make_site: MakeSite) -> None:
    """It is a query."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    site.quiet()
    before = {path: path.lstat().st_mtime_ns for path in site.state.rglob("*")}
    assert checked(site)[0] == 0
    assert {path: path.lstat().st_mtime_ns for path in site.state.rglob("*")} == before


def test_nobody_there(make_site: MakeSite) -> None:
    """Without its agent, and without nginx, it is critical."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    os.kill(site.quiet(), signal.SIGKILL)
    eventually(lambda: checked(site)[0] == 2)
    assert "the agent does not run, nginx-acme renew brings it back" in checked(site)[1]
    assert site.run("renew").returncode == 0
    eventually(lambda: checked(site)[0] == 0)
    site.stop()
    code, line = checked(site)
    assert code == 2
    assert line.startswith("NGINX-ACME CRITICAL - nginx does not run | ")


def test_temporary(make_site: MakeSite, silent: Silent) -> None:
    """A temporary certificate is critical."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0; acme_agent off;"
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    site.start()
    code, line = checked(site)
    assert (code, line.partition(" | ")[0]) == (2, "NGINX-ACME CRITICAL - a.example is temporary")


def test_another_one_than_on_disk(make_site: MakeSite) -> None:
    """What nginx hasn't taken up is critical; what has only just come isn't yet."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), settings="acme_agent off;")
    site.start()
    assert site.run("renew", "--force", "a.internal").returncode == 0
    path = site.state / "certificates/a.internal/ecdsa-256.pem"
    shutil.copy(path.with_suffix(".previous.pem"), path)
    code, line = checked(site)
    assert (code, line.partition(" | ")[0]) == (
        0,
        "NGINX-ACME OK - 1 certificate, a.internal expires in 6 d, 1 not seen",
    )
    os.utime(path, (0, time.time() - 3600))
    code, line = checked(site)
    assert code == 2
    assert "a.internal is not served, 127.0.0.1" in line
    assert "shows another certificate, of a.internal" in line


def test_unknown(make_site: MakeSite) -> None:
    """What can't be found out is unknown, and says why."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    code, line = checked(site)
    assert code == 3
    assert line.startswith("NGINX-ACME UNKNOWN - ")
    assert line.endswith("has no generation yet, start nginx first")
    answer = site.run("status", "--check", "--json")
    assert answer.returncode == 2
    assert "not allowed with argument" in answer.stderr


@AS_NOBODY
def test_unread(make_site: MakeSite) -> None:
    """So is the state directory to somebody who may not read it."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    answer = subprocess.run(
        [*NOBODY, *site.argv("status", "--check")],
        env=site.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 3
    assert answer.stdout.startswith("NGINX-ACME UNKNOWN - cannot read ")
