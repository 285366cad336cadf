"""`nginx-acme plan` and `status`: what they print, and that they touch nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import termios
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from nginx_acme.store import Identity
from nginx_acme.store.certificates import possible_labels
from tests.launcher import LAUNCHER, issuer, requests
from tests.servers import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
AS_NOBODY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.mark.parametrize("word", ["plan", "status", "doctor", "renew"])
def test_help(make_site: MakeSite, word: str) -> None:
    """Each word says what it is for."""
    site = make_site()
    answer = site.run(word, "--help")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"usage: nginx-acme {word}")
    assert "--agent" not in answer.stdout
    wrong = site.run(word, "--nothing")
    assert wrong.returncode == 2
    assert "unrecognized arguments: --nothing" in wrong.stderr


@pytest.mark.parametrize(
    "word", ["plan", "status", "renew", "revoke a.example", "account show", "status --check"]
)
def test_no_such_file(make_site: MakeSite, word: str) -> None:
    """A mistyped path of the main file is told in nginx's words, whichever of our words is asked."""
    site = make_site()
    site.conf = site.conf.with_name("ngnix.conf")
    assert complaint(site, word) == f'open() "{site.conf}" failed (2: No such file or directory)'
    site.conf.mkdir()
    assert complaint(site, word) == f'pread() "{site.conf}" failed (21: Is a directory)'


def complaint(site: Site, words: str) -> str:
    """What one of our words says and ends with."""
    answer = site.run(*words.split())
    assert answer.returncode == (3 if "--check" in words else 1)
    (line,) = (answer.stderr or answer.stdout).splitlines()
    return re.sub(r"^nginx-acme: \[emerg\] |^NGINX-ACME UNKNOWN - ", "", line)


# --- plan -----------------------------------------------------------------------------------


def test_plan(make_site: MakeSite, silent: Silent) -> None:
    """Which certificates are wanted, from whom, for which servers; nobody is asked."""
    site = make_site()
    site.configure(
        site.block("a.example b.example", "acme elsewhere;"),
        site.block("c.internal", "acme local key=rsa:2048;"),
        settings=issuer("elsewhere", silent.url, None),
    )
    answer = site.run("plan")
    assert answer.returncode == 0, answer.stderr
    line = (
        site.conf.read_text()
        .splitlines()
        .index(site.block("c.internal", "acme local key=rsa:2048;"))
        + 1
    )
    assert (
        answer.stdout
        == f"""\
configuration  {site.conf}
state          {site.state}

a.example, b.example
    from elsewhere ({silent.url})
    for {site.conf}:{line - 1}
    ecdsa:256: to be requested, there is no certificate yet

c.internal
    from local
    for {site.conf}:{line}
    rsa:2048: to be requested, there is no certificate yet

challenges are answered on {LOCALHOST}:{site.http} (added)
"""
    )
    assert not site.state.exists()
    assert not silent.connections


def test_plan_of_what_is_there(make_site: MakeSite, pebble: Pebble) -> None:
    """What is there is told with the day of its renewal."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    assert re.search(r"ecdsa:256: to be renewed on 20\d\d-\d\d-\d\d", site.run("plan").stdout)


@AS_NOBODY
def test_plan_of_many(make_site: MakeSite) -> None:
    """A first issue that takes long says how long, and which wildcard would save the wait."""
    site = make_site()
    names = [f"n{number}.example.org" for number in range(60)]
    site.configure(*(site.block(name, "acme letsencrypt;") for name in names))
    answer = site.run("plan").stdout
    assert "letsencrypt takes 300 orders at once and then one every 36 s; 60 certificates" in answer
    assert "60 of them are for names below example.org, which takes until 20" in answer
    assert "one for *.example.org would do, by a dns-01 challenge" in answer
    site.configure(*(site.block(name, "acme letsencrypt;") for name in names[:50]))
    assert "at once" not in site.run("plan").stdout


def test_plan_unread(make_site: MakeSite) -> None:
    """A user who may not read the state gets the plan, and is told so."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    answer = subprocess.run(
        [*NOBODY, *site.argv("plan")], env=site.environ, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert f'ecdsa:256: cannot read "{site.state}/certificates": Permission denied' in answer.stdout


def test_plan_not_ours(make_site: MakeSite) -> None:
    """A configuration without our directives has no plan."""
    site = make_site()
    site.conf.write_text("events {}")
    answer = site.run("plan")
    assert answer.returncode == 0
    assert answer.stdout == f"{site.conf}: no directive of nginx-acme, nginx gets it as it is\n"


def test_diff(make_site: MakeSite) -> None:
    """The difference between the user's files and those that a start makes is shown line by line."""
    site = make_site()
    block = site.block("a.internal", "acme local;")
    site.configure(block)
    lines = diff(site)
    assert lines[:2] == [f"--- {site.conf}", f"+++ {site.conf} (generated)"]
    assert f"-{block}" in lines
    assert any(line.startswith("+server { ssl_certificate ") for line in lines)
    assert not any(line.startswith("+") and "acme local" in line for line in lines)
    assert not site.state.exists()
    site.start()
    assert is_made(site, lines)
    assert diff(site) == lines


def test_diff_of_taken_labels(make_site: MakeSite) -> None:
    """The paths in it are those that a start makes, also where a certificate's label is taken."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    blocks = (site.block(f"a.internal {more}.internal", "acme local;") for more in "bc")
    site.configure(*blocks)
    lines = diff(site)
    assert site.run("-s", "reload").returncode == 0
    assert is_made(site, lines)


def test_diff_where_no_label_is_left(make_site: MakeSite) -> None:
    """Where others have all of them it is told in one line."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    certificates = site.state / "certificates"
    certificates.mkdir(parents=True)
    for label in possible_labels(
        Identity("local:", frozenset({"a.internal"}), None), ["a.internal"]
    ):
        (certificates / label).write_text("somebody else's")
    answer = site.run("plan", "--diff")
    said = f'"{certificates}" has no name left for a certificate of "a.internal"'
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == f"nginx-acme: [emerg] {said}\n"


def diff(site: Site) -> list[str]:
    """What `plan --diff` prints."""
    answer = site.run("plan", "--diff")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def is_made(site: Site, lines: list[str]) -> bool:
    """Whether the current generation has all that is new in such a difference, which isn't nothing."""
    new = {line[1:] for line in lines[2:] if line.startswith("+")}
    assert new
    return set((site.instance / "generated" / "nginx.conf").read_text().splitlines()) >= new


def test_plan_mistake(make_site: MakeSite) -> None:
    """A mistake is told as everywhere."""
    site = make_site()
    site.configure(site.block("a.example", "acme nobody;"))
    answer = site.run("plan")
    assert answer.returncode == 1
    assert 'nginx-acme: [emerg] issuer "nobody" is missing in' in answer.stderr


# --- status ---------------------------------------------------------------------------------


def test_status(make_site: MakeSite, pebble: Pebble) -> None:
    """Each certificate has a line: what it is, from whom, until when, and what comes next."""
    site = make_site(pebble)
    site.configure(site.block("a.example b.example"), site.block("c.internal", "acme local;"))
    before = site.run("status")
    assert re.findall(r"missing", before.stdout) == ["missing"] * 2
    assert not site.state.exists()
    site.start()
    lines = site.run("status").stdout.splitlines()
    assert lines[0] == "All 2 certificates are well"
    assert re.match(rf"nginx runs \(pid {site.pid}\), .*, last look \d+ s ago", lines[1])
    assert lines[3].split() == ["CERTIFICATE", "ISSUER", "STATE", "EXPIRES", "NEXT"]
    assert lines[4].split()[:3] == ["a.example", "pebble", "valid"]
    assert lines[5] == "    b.example"
    assert lines[6].split()[:3] == ["c.internal", "local", "valid"]


@pytest.mark.parametrize(
    ("more", "colored"),
    [
        pytest.param({}, True, id="a terminal"),
        pytest.param({"NO_COLOR": "1"}, False, id="without colours"),
        pytest.param({"TERM": "dumb"}, False, id="without any"),
    ],
)
def test_status_in_a_terminal(make_site: MakeSite, more: dict[str, str], *, colored: bool) -> None:
    """In a terminal it is as wide as that, and in colours where those are wanted."""
    site = make_site()
    site.configure(site.block(f"a.internal {'long' * 15}.{'name' * 15}.internal", "acme local;"))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    with open(ours, "rb") as output:
        with open(theirs, "wb") as terminal:
            subprocess.run(
                site.argv("status"), env=site.environ | more, stdout=terminal, check=True
            )
        text = output.read1().decode()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert ("\x1b[33m" in text) is colored
    assert lines[0] == "The certificate is being worked on"
    assert "long" in lines[5]
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("word", ["status", "plan"])
def test_letters_that_a_terminal_lacks(make_site: MakeSite, silent: Silent, word: str) -> None:
    """They are written as what they are, and are no reason to say nothing."""
    site = make_site()
    site.configure(
        site.block("a.example", "acme Zürich;"), settings=issuer("Zürich", silent.url, None)
    )
    python, *argv = site.argv(word)
    answer = subprocess.run(
        [python, "-X", "utf8=0", *argv],
        env=site.environ | {"LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert b"Z\\xfcrich" in answer.stdout


def test_status_json(make_site: MakeSite, pebble: Pebble) -> None:
    """The same for programs, with nginx's pid and where everything is."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    document = json.loads(site.run("status", "--json").stdout)
    assert document["schema"] == 1
    assert document["nginx_pid"] == site.pid
    (row,) = document["certificates"]
    assert row["names"] == ["a.example"]
    assert (row["issuer"], row["directory_url"]) == ("pebble", pebble.directory_url)
    assert datetime.fromisoformat(row["not_after"]) > datetime.now(UTC)
    assert datetime.fromisoformat(row["renewal"]) > datetime.now(UTC)
    assert (row["next_attempt"], row["failures"], row["problem"]) == (None, 0, None)
    assert row["path"] == f"{site.state}/certificates/a.example/ecdsa-256.pem"
    (server,) = row["servers"]
    assert server.startswith(f"{site.conf}:")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["-p", "{folder}", "-c", "nginx.conf"], id="relative to the prefix"),
        pytest.param(["-p{folder}/", "-c{conf}", "-g", "daemon on;"], id="glued"),
        pytest.param(["-e", "stderr", "-c", "{conf}", "-p", "{folder}/"], id="another order"),
    ],
)
def test_status_of_which(make_site: MakeSite, options: list[str]) -> None:
    """Prefix and main file say which nginx is meant, however they are written; before or after."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    given = [option.format(folder=site.folder, conf=site.conf) for option in options]
    for argv in ([*given, "status", "--json"], ["status", *given, "--json"]):
        answer = subprocess.run(
            [*LAUNCHER, *argv], env=site.environ, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        document = json.loads(answer.stdout)
        assert document["nginx_pid"] == site.pid
        assert [row["state"] for row in document["certificates"]] == ["valid"]


def test_status_while_edited(make_site: MakeSite) -> None:
    """What runs is told also while the configuration has a mistake."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    site.configure("server {")
    assert site.one_status()["state"] == "valid"


@pytest.mark.parametrize("mistake", ["server {", "include nowhere.conf;"])
def test_words_while_a_file_cannot_be_read(make_site: MakeSite, mistake: str) -> None:
    """Where its things are is known from what can be read, whatever is wrong in another file."""
    site = make_site()
    elsewhere, included = site.folder / "elsewhere", site.folder / "included.conf"
    included.write_text(site.block("a.internal", "acme local;"))
    site.configure(settings=f"acme_agent off; acme_state_path {elsewhere}; include {included};")
    site.start()
    site.stop()  # else that is what tells
    included.write_text(mistake)
    assert site.one_status()["state"] == "valid"
    assert site.run("renew").returncode == 0
    assert not site.state.exists()


@pytest.mark.parametrize("word", ["status", "plan"])
def test_queries_write_nothing(make_site: MakeSite, pebble: Pebble, word: str) -> None:
    """Neither asks a CA or writes anything, not even to nginx's log."""
    site = make_site(pebble)
    site.configure(site.block("a.example ~^x"))
    site.start()
    site.quiet()
    asked = requests(pebble)
    before = {path: path.lstat().st_mtime_ns for path in site.folder.rglob("*")}
    assert site.run(word).returncode == 0
    assert {path: path.lstat().st_mtime_ns for path in site.folder.rglob("*")} == before
    assert requests(pebble) == asked


def test_closed_pipe(make_site: MakeSite) -> None:
    """Nobody who stops reading is told so."""
    site = make_site()
    site.configure(site.block("a.internal", "acme local;"))
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stdout:
        answer = subprocess.run(
            site.argv("plan"), env=site.environ, stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert answer.stderr == b""
