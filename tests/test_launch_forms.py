"""However nginx is started, we are: what it says, how it ends and what it serves stay the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.launcher import LAUNCHER, eventually, issuer
from tests.mounts import CAN_MOUNT, seeing
from tests.servers import LOCALHOST, PATIENCE, Program, environment, free_port, listens
from tests.store.bundles import issue
from tests.test_commands import AS_NOBODY, NOBODY
from tests.twins import Form, Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from tests.launcher import Silent, Site

    MakeSite = Callable[..., Site]
    MakeTwins = Callable[..., tuple[Twin, Twin]]


@pytest.fixture
def make_twins(open_path: Path, nginx: str) -> Iterator[MakeTwins]:
    """Make the two that are compared: without us, and with us. With the test they end, too."""
    certificate = open_path / "own.pem"
    certificate.write_bytes(issue(("a.internal",)).pem)
    twins: list[Twin] = []

    def make(form: Form, *, binary: str = nginx, at: Path = open_path) -> tuple[Twin, Twin]:
        for name, own in (("bare", certificate), ("ours", None)):
            twins.append(Twin(form, at / name, binary, own))
        bare, ours = twins
        return bare, ours

    yield make
    for twin in twins:
        twin.stop()


# --- what there is to differ in --------------------------------------------------------------


def be_link(twin: Twin) -> None:
    """The folder is a symbolic link, and so is the main file in it."""
    twin.site.rename(twin.top / "real")
    twin.site.symlink_to("real")
    (twin.site / "nginx.conf").rename(twin.top / "main")
    (twin.site / "nginx.conf").symlink_to("../main")


def be_anothers(twin: Twin) -> None:
    """Everything belongs to somebody else."""
    for path in (twin.top, *twin.top.rglob("*")):
        os.chown(path, 65534, 65534)


def be_private(twin: Twin) -> None:
    """Nobody but its owner may read the configuration; nginx's workers are somebody else."""
    for path in (twin.site / "nginx.conf", *twin.site.glob("sites/*")):
        path.chmod(0o600)
    (twin.site / "sites").chmod(0o700)


def redirected(redirection: str) -> tuple[str, ...]:
    """What starts a program with its streams so."""
    return ("sh", "-c", f'exec "$@" {redirection}', "sh")


WHICH = ("-p", "{site}", "-c", "nginx.conf")
LOG = ("-e", "logs/error.log")
ABSOLUTE = "pid {site}/logs/nginx.pid;"
STATE = "acme_agent off; acme_state_path {top}/state;"
GLOBAL = "pid logs/g.pid; error_log logs/g.log notice; env SEEN=yes; user daemon;"

FORMS = {
    "an absolute -c alone": Form(("-c", "{site}/nginx.conf"), main=ABSOLUTE),
    "relative paths": Form(("-p", "site", "-c", "./sites/../nginx.conf", *LOG)),
    "another working folder, glued": Form(
        ("-p..", "-cnginx.conf", "-qelogs/e.log"),
        main="error_log logs/main.log info; pid nginx.pid;",
        cwd="site/logs",
    ),
    "-g": Form((*WHICH, "-e", "stderr", "-g", GLOBAL), main=""),
    "a symbolic link": Form(shape=be_link),
    "no terminal, no stdin": Form(through=redirected("<&-")),
    "no stdout": Form(through=redirected(">&-")),
    "no stderr": Form(through=redirected("2>&-"), ours=STATE),
    "space and quotes": Form(site="a b'\"c", ours=STATE),
    "other letters and bytes": Form(site="Z\u00fcrich \u6771\u4eac \udcfc", ours=STATE),
}
AS_ROOT = {
    "only its owner may read it": Form(shape=be_private),
    "somebody else's": Form(shape=be_anothers),
    "as somebody else": Form(shape=be_anothers, through=NOBODY),
}
MOUNTED = {
    "a folder that is read-only": Form(
        ("-p", "{top}", "-c", "site/nginx.conf", *LOG),
        ours=STATE,
        shape=lambda twin: (twin.top / "logs").mkdir(),
        through=seeing('mount --bind "{site}" "{site}" && mount -o remount,bind,ro "{site}"'),
    ),
    "no option and no environment": Form(
        (), main=ABSOLUTE, ours="", through=seeing('mount --bind "{site}" /etc/nginx'), environ={}
    ),
}


def named(forms: dict[str, Form], *marks: pytest.MarkDecorator) -> Iterator[ParameterSet]:
    """A test for each."""
    return (pytest.param(form, id=name, marks=marks) for name, form in forms.items())


@pytest.mark.parametrize(
    "form", [*named(FORMS), *named(AS_ROOT, AS_NOBODY), *named(MOUNTED, CAN_MOUNT)]
)
def test_form(make_twins: MakeTwins, form: Form) -> None:
    """Started, dumped, reloaded and stopped it answers as nginx does, and serves."""
    compare(*make_twins(form))


def test_other_locale(make_twins: MakeTwins, other_locale: dict[str, str], nginx: str) -> None:
    """A path is the bytes that it is, also where the locale would make other letters of them."""
    environ = environment(NGINX_ACME_NGINX=nginx, **other_locale)
    compare(*make_twins(replace(FORMS["other letters and bytes"], environ=environ)))


def test_plain_form(make_twins: MakeTwins, each_nginx: str) -> None:
    """So it does with a prefix, a file and a log, by each nginx."""
    compare(*make_twins(Form(ours=""), binary=each_nginx))


def test_another_file_system(elsewhere: Path, make_twins: MakeTwins, open_path: Path) -> None:
    """So it does where the configuration lies on another file system than its state."""
    compare(
        *make_twins(Form(ours=f"acme_agent off; acme_state_path {open_path}/state;"), at=elsewhere)
    )


def test_a_password_that_is_told_once(make_twins: MakeTwins) -> None:
    """One that comes through a named pipe comes to nginx, and not to a test of ours before it."""
    for twin in make_twins(Form(http="ssl_password_file {site}/pipe;")):
        pipe = twin.site / "pipe"
        os.mkfifo(pipe)
        telling = threading.Thread(target=pipe.write_text, args=("secret",), daemon=True)
        telling.start()
        assert twin.run().code == 0
        telling.join(PATIENCE)
        assert not telling.is_alive()
        assert twin.serves()


def compare(bare: Twin, ours: Twin) -> None:
    """Do the same with both. What a first start says of certificates only we have to say."""
    assert bare.run().code == ours.run().code == 0
    assert ours.serves()
    for asked in (("-T",), ("-s", "reload"), ("-s", "quit")):
        assert ours.run(*asked) == bare.run(*asked), asked
    for twin in (bare, ours):
        twin.wait_for_end()
    assert ours.run() == bare.run()
    assert ours.serves()


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(Form(main="pid logs/nginx.pid;\nnonsense;"), id="a wrong directive"),
        pytest.param(Form((*WHICH, *LOG, "-g", "user nobody")), id="-g without its end"),
        pytest.param(Form((*WHICH, "-g", "pid logs/g.pid;")), id="twice the pid"),
        pytest.param(Form((*WHICH, "-e", "nowhere/error.log")), id="a log that can't be"),
        pytest.param(Form((*WHICH, "-h", *LOG), http="nonsense;"), id="after the usage"),
    ],
)
def test_refused(make_twins: MakeTwins, form: Form) -> None:
    """What nginx refuses is refused in its words, and as little is left behind."""
    bare, ours = make_twins(form)
    for asked in ((), ("-t",), ("-s", "reload")):
        assert ours.run(*asked) == bare.run(*asked), asked
        assert ours.left() == bare.left(), asked


@pytest.mark.parametrize("state", ["nothing", "empty", "stale"])
def test_reload_of_nothing(make_twins: MakeTwins, state: str) -> None:
    """Where no nginx runs a reload says so as nginx does."""
    bare, ours = make_twins(Form())
    for twin in (bare, ours):
        if state != "nothing":
            twin.write("logs/nginx.pid", "" if state == "empty" else f"{2**22 + 1}\n")
    assert ours.run("-s", "reload") == bare.run("-s", "reload")


def test_no_space_in_the_state(make_twins: MakeTwins) -> None:
    """A state directory that nginx would misread is told with what to do; `-t` fails as nginx's."""
    _, ours = make_twins(Form(site="a b", ours=""))
    said = ours.run("-t")
    assert said.code == 1
    refused, verdict = said.stderr.splitlines()
    assert refused.endswith('name another folder with "acme_state_path"')
    assert verdict == "nginx: configuration file a b/nginx.conf test failed"


# --- before nginx runs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "options"),
    [
        pytest.param(
            "#é\npid\tlogs/nginx.pid; worker_processes 1; # pid x;", (), id="in the main file"
        ),
        pytest.param("", ("-g", "pid 'logs/nginx.pid';"), id="in -g"),
    ],
)
def test_no_pid_before(
    make_site: MakeSite, silent: Silent, main: str, options: tuple[str, ...]
) -> None:
    """Who waits for nginx by its pid file isn't misled by our test of the configuration."""
    site = make_site()
    site.configure(
        site.block("a.example", "acme silent;"),
        settings=issuer("silent", silent.url, None),
        main=main,
    )
    argv = [*LAUNCHER, "-p", str(site.folder), "-c", "nginx.conf", "-e", "logs/error.log", *options]
    program = Program(argv, site.folder / "logs" / "output.log", environ=site.environ)
    program.launch()
    eventually(lambda: silent.connections, "a question, which is after the test")
    assert not (site.folder / "logs" / "nginx.pid").exists()
    assert not list(site.state.rglob(".trial-main"))
    program.stop()


# --- what we are given ------------------------------------------------------------------------

_HEIR = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(os.dup(listener.fileno()), 3)
given = {"FDS": "3;", "PID": str(os.getpid())}
os.environ.update((name, value.format(**given)) for name, value in eval(sys.argv[2]).items())
os.execv(sys.argv[3], sys.argv[3:])
"""


def heir(port: int, environ: dict[str, str]) -> tuple[str, ...]:
    """What starts a program with a socket that listens there, and with this environment."""
    return (sys.executable, "-c", _HEIR, str(port), repr(environ))


def test_inherited_sockets(make_site: MakeSite) -> None:
    """The sockets that a binary upgrade leaves (`NGINX`) are for the nginx that we become."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"), main="error_log logs/error.log notice;")
    program = site.launch(*heir(site.tls, {"NGINX": "{FDS}"}))
    eventually(lambda: site.pid == program.pid, "nginx")
    assert site.error_log().count('using inherited sockets from "3;"') == 1
    assert "failed" not in site.error_log()
    assert site.shown("a.internal").body == b"a.internal"
    assert site.run("-s", "reload").returncode == 0
    assert site.shown("a.internal").body == b"a.internal"


def test_sockets_of_systemd(make_site: MakeSite) -> None:
    """Those of systemd, of which nginx knows nothing, stay what they are."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    another = free_port()
    program = site.launch(*heir(another, {"LISTEN_FDS": "1", "LISTEN_PID": "{PID}"}))
    eventually(lambda: site.pid == program.pid, "nginx")
    assert listens(another)
    assert os.readlink(f"/proc/{program.pid}/fd/3").startswith("socket:")
    assert site.shown("a.internal").body == b"a.internal"


def test_no_streams(make_site: MakeSite) -> None:
    """Without stdin, stdout and stderr it runs in the foreground as well, and has an agent."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    program = site.launch(*redirected("<&- >&- 2>&-"))
    eventually(lambda: site.pid == program.pid, "nginx")
    assert site.shown("a.internal").body == b"a.internal"
    site.quiet()


@pytest.mark.parametrize("word", ["plan", "status"])
def test_no_stdout(make_site: MakeSite, word: str) -> None:
    """A command that nobody can read ends as it would."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    ended = subprocess.run(
        [*redirected(">&-"), *site.argv(word)], env=site.environ, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_two_prefixes(make_site: MakeSite) -> None:
    """One main file for two prefixes is two nginx, each with its own pid, generation and end."""
    site, other = make_site(), make_site()
    listen = f"{LOCALHOST}:{site.tls} reuseport"
    site.configure(site.block("a.internal", "acme local;", listen=listen))
    other.conf = site.conf
    for one in (site, other):
        one.start()
    assert len(list(site.state.glob("instances/*"))) == 2
    for one in (site, other):
        assert json.loads(one.run("status", "--json").stdout)["nginx_pid"] == one.pid
    site.stop()
    assert other.run("-s", "reload").returncode == 0
    assert site.shown("a.internal").body == b"a.internal"
