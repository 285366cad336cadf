"""`-t`, `-T` and `-q`: what nginx says of the generated configuration; nothing is written or asked."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.launcher import LAUNCHER, Site, issuer, requests
from tests.mounts import CAN_MOUNT, seeing
from tests.servers import LOCALHOST, NginxServer, free_port, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.launcher import Silent
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
AS_NOBODY = pytest.param(
    NOBODY,
    id="as nobody",
    marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
)
USERS = pytest.mark.parametrize("user", [pytest.param((), id="as whoever we are"), AS_NOBODY])


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that is in a folder, except what nginx itself makes in its logs and temp folders."""
    found = {}
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] not in ("logs", "temp"):
            status = path.lstat()
            found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_mode)
    return found


def ask(site: Site, user: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """What the launcher answers to a user, who may write to nginx's own logs and temp folders."""
    for name in ("logs", "temp"):
        _open_to_all(site.folder / name)
    return subprocess.run(
        [*user, *site.argv(*options)],
        env={**site.environ, "TMPDIR": str(site.folder / "temp")},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)


def leftovers(site: Site) -> list[Path]:
    """What a test has left in the folder for temporary files."""
    return list((site.folder / "temp").glob("*nginx-acme*"))


@USERS
def test_before_the_first_start(make_site: MakeSite, silent: Silent, user: Sequence[str]) -> None:
    """A configuration is tested before there is anything, and nothing is there afterwards."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None)
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    before = listing(site.folder)
    answer = ask(site, user, "-t")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[-2:] == [
        f"nginx: the configuration file {site.conf} syntax is ok",
        f"nginx: configuration file {site.conf} test is successful",
    ]
    assert listing(site.folder) == before
    assert not leftovers(site)
    assert not silent.connections


@USERS
def test_after_it(make_site: MakeSite, pebble: Pebble, user: Sequence[str]) -> None:
    """While nginx runs its state is left alone, also by a user who may not even read it."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    site.quiet()
    before, asked = listing(site.folder), requests(pebble)
    answer = ask(site, user, "-t")
    assert answer.returncode == 0, answer.stderr
    assert "test is successful" in answer.stderr
    assert listing(site.folder) == before
    assert requests(pebble) == asked


def test_nowhere_to_write(make_site: MakeSite) -> None:
    """Without a folder for temporary files a test says so."""
    site = make_site(environ={"TMPDIR": "/nowhere"})
    site.configure(site.block("a.internal", "acme local;"))
    answer = site.run("-t")
    assert answer.returncode == 1
    assert 'cannot make a folder in "/nowhere": No such file or directory' in answer.stderr


@CAN_MOUNT
def test_read_only_tmp(elsewhere: Path) -> None:
    """Where /tmp can't be written, as in a read-only container, another folder will do."""
    site = Site(elsewhere)
    site.configure(site.block("a.internal", "acme local;"))
    asked = subprocess.run(
        [*seeing("mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"), *site.argv("-t")],
        env={name: x for name, x in site.environ.items() if name != "TMPDIR"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert "test is successful" in asked.stderr


def test_quiet(make_site: MakeSite) -> None:
    """With -q only what is wrong is told."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    answer = site.run("-tq")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_dump(make_site: MakeSite) -> None:
    """-T shows what nginx would read, under the user's own paths."""
    site = make_site()
    part = site.folder / "part.conf"
    part.write_text(site.block("a.internal", "acme local;"))
    site.configure("include part.conf;", settings="# a comment of the user's\n")
    answer = site.run("-T")
    assert answer.returncode == 0, answer.stderr
    assert f"# configuration file {site.conf}:" in answer.stdout
    assert f"# configuration file {part}:" in answer.stdout
    assert "# a comment of the user's" in answer.stdout
    assert "ssl_certificate " in answer.stdout
    assert "acme local" not in answer.stdout
    assert "/generations/" not in answer.stdout


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(
            "server { listen 1 ssl; server_name a.b; acme nobody; }",
            'nginx-acme: [emerg] issuer "nobody" is missing in {conf}:{line}',
            id="ours",
        ),
        pytest.param(
            "server { listen 1 ssl; server_name a.internal; acme local; lissen 2; }",
            'nginx: [emerg] unknown directive "lissen", did you mean "listen"? in {conf}:{line}',
            id="nginx's",
        ),
        pytest.param(
            "server { listen 1; acme_httplisten 80; }",
            'nginx-acme: [emerg] unknown directive "acme_httplisten", did you mean'
            ' "acme_http_listen"? in {conf}:{line}',
            id="nearly ours",
        ),
        pytest.param(
            "server { listen 1 ssl; server_name a.internal; acme local; include no.conf; }",
            'nginx: [emerg] open() "{folder}/no.conf" failed (2: No such file or directory)'
            " in {conf}:{line}",
            id="a missing file",
        ),
    ],
)
@pytest.mark.parametrize("option", [(), ("-t",), ("-T",)])
def test_mistakes(make_site: MakeSite, option: Sequence[str], text: str, line: str) -> None:
    """A mistake is one line with the user's file and line, and exit code 1."""
    site = make_site()
    site.configure(text)
    number = site.conf.read_text().splitlines().index(text) + 1
    before = listing(site.folder)
    answer = site.run(*option)
    assert answer.returncode == 1
    expected = line.format(conf=site.conf, folder=site.folder, line=number)
    assert expected in answer.stderr.splitlines()
    assert answer.stdout == ""
    if option:
        assert listing(site.folder) == before


def test_not_ours(make_site: MakeSite, nginx: str) -> None:
    """Without a directive of ours every word, stream and exit code is nginx's own."""
    site = make_site()
    site.conf.write_text(nginx_conf(f"server {{ listen {LOCALHOST}:{free_port()}; }}"))
    for option in ("-t", "-T", "-tq", "-v", "-V", "-?", "-x", "stray"):
        ours, theirs = site.run(option), _nginx(nginx, site, option)
        assert (ours.returncode, ours.stdout, ours.stderr) == theirs, option


def _nginx(nginx: str, site: Site, option: str) -> tuple[int, str, str]:
    argv = NginxServer.argv(site, option)[len(LAUNCHER) :]
    answer = subprocess.run([nginx, *argv], capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout, answer.stderr


def test_folder_of_the_user(make_site: MakeSite) -> None:
    """A folder that happens to be called as ours is by default is the user's, and stays mirrored."""
    site = make_site()
    site.configure(site.block("one.example", "acme local; include acme/headers.conf;"))
    (site.folder / "acme").mkdir()
    (site.folder / "acme" / "headers.conf").write_text("add_header X-Frame-Options DENY;\n")
    said = site.run("-t")
    assert said.returncode == 1
    assert said.stderr.startswith(
        f'nginx-acme: [emerg] "{site.state}" is no state directory of nginx-acme, '
    )
    site.settings = f"acme_state_path {site.folder}/state;"
    site.configure(site.block("one.example", "acme local; include acme/headers.conf;"))
    assert site.run("-t").returncode == 0
