"""Programs of the operator's are told what happens, at the end of real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.launcher import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def script(folder: Path, text: str) -> Path:
    """A program of the operator's, in shell."""
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


class Listener:
    """A hook that writes down what it is told, and ends as its file `exit` says."""

    def __init__(self, folder: Path, *events: str, more: str = "", alone: bool = True) -> None:
        self._alone = alone
        self._heard = folder / "heard"
        self._exit = folder / "exit"
        self._exit.write_text("0")
        self._events = events
        self.program = script(
            folder,
            f"""f=$(mktemp {folder}/XXXXXX.heard)
cat > $f
env > ${{f%.heard}}.environ
echo "${{f%.heard}}" >> {self._heard}
{more}
exit $(cat {self._exit})""",
        )

    @property
    def settings(self) -> str:
        """The directives; runs are ours alone."""
        return "acme_agent off;" * self._alone + "".join(
            f"acme_hook {event} {self.program};" for event in self._events
        )

    def exits(self, code: int) -> None:
        """End like that from now on."""
        self._exit.write_text(str(code))

    def told(self) -> list[dict[str, Any]]:
        """What it was told since it was asked last."""
        calls = self._heard.read_text().split() if self._heard.exists() else []
        self._heard.unlink(missing_ok=True)
        return [self._call(Path(call)) for call in calls]

    def _call(self, path: Path) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(path.with_suffix(".heard").read_text())
        lines = path.with_suffix(".environ").read_text().splitlines()
        document["environ"] = dict(line.split("=", 1) for line in lines if "=" in line)
        return document


def events(calls: list[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was told of which certificates, and why."""
    return [
        (call["event"], [(row["names"][0], row["reason"]) for row in call["certificates"]])
        for call in calls
    ]


def test_deployed(make_site: MakeSite, open_path: Path) -> None:
    """Who is told of new certificates hears of each once, when nginx serves it."""
    site, listener = make_site(), Listener(open_path, "deployed")
    blocks = [site.block(f"{name}.internal", "acme local;") for name in "ab"]
    site.configure(*blocks, settings=listener.settings)
    site.start()
    answer = site.run("renew")
    assert answer.returncode == 0, answer.stderr
    assert f'[notice] acme_hook deployed "{listener.program}": exit code 0' in answer.stderr
    (call,) = listener.told()
    assert [row["names"] for row in call["certificates"]] == [["a.internal"], ["b.internal"]]
    assert [row["served"] for row in call["certificates"]] == [True, True]
    assert (call["schema"], call["event"]) == (1, "deployed")
    assert call["message"] == "new certificate for a.internal, b.internal"
    files = [f"{site.state}/certificates/{name}.internal/ecdsa-256.pem" for name in "ab"]
    told = {
        name.removeprefix("NGINX_ACME_"): value
        for name, value in call["environ"].items()
        if name.startswith("NGINX_ACME_")
    }
    assert told == {
        "EVENT": "deployed",
        "MESSAGE": call["message"],
        "NAMES": "a.internal b.internal",
        "FILES": " ".join(files),
        "NGINX": site.binary,
        "STATE_PATH": str(site.state),
    }
    assert site.run("renew").returncode == 0
    assert not listener.told()
    assert site.run("renew", "--force", "b.internal").returncode == 0
    (again,) = listener.told()
    assert [row["names"][0] for row in again["certificates"]] == ["b.internal"]
    assert again["certificates"][0]["serial"] != call["certificates"][1]["serial"]


def test_deployed_until_taken(make_site: MakeSite, open_path: Path) -> None:
    """Who fails is told again by each run until it ends well; another one isn't."""
    site, listener = make_site(), Listener(open_path, "deployed")
    (open_path / "other").mkdir()
    other = Listener(open_path / "other", "deployed", alone=False)
    settings = listener.settings + other.settings
    site.configure(site.block("a.internal", "acme local;"), settings=settings)
    site.start()
    listener.exits(7)
    for _ in range(2):
        answer = site.run("renew")
        assert answer.returncode == 0
        assert f'[error] acme_hook deployed "{listener.program}": exit code 7' in answer.stderr
        assert len(listener.told()) == 1
    listener.exits(0)
    assert site.run("renew").returncode == 0
    assert len(listener.told()) == 1
    assert site.run("renew").returncode == 0
    assert not listener.told()
    assert len(other.told()) == 1


def test_killed_before_it_is_noted(make_site: MakeSite, open_path: Path) -> None:
    """What was told when we were killed is told again, rather than never."""
    site = make_site()
    listener = Listener(open_path, "deployed", more=f"test -e {open_path}/spare || kill -9 $PPID")
    site.configure(site.block("a.internal", "acme local;"), settings=listener.settings)
    site.start()
    assert site.run("renew").returncode == -signal.SIGKILL
    assert len(listener.told()) == 1
    (open_path / "spare").touch()
    assert site.run("renew").returncode == 0
    assert len(listener.told()) == 1


def test_no_such_program(make_site: MakeSite, open_path: Path) -> None:
    """A program that can't be run is an error in the log, and no renewal fails for it."""
    site = make_site()
    settings = (
        f"acme_agent off; acme_hook deployed {open_path}/none; acme_hook deployed hooks/none;"
    )
    site.configure(site.block("a.internal", "acme local;"), settings=settings)
    site.start()
    answer = site.run("renew")
    assert answer.returncode == 0
    for path in (f"{open_path}/none", f"{site.folder}/hooks/none"):
        line = f'acme_hook deployed "{path}" can\'t be run: No such file or directory'
        assert f"nginx-acme: [error] {line}" in answer.stderr
        assert line in site.error_log()


def test_notes_that_cannot_be_kept(make_site: MakeSite, open_path: Path) -> None:
    """What programs were told can't be read or noted: that is said, and no renewal fails for it."""
    site, listener = make_site(), Listener(open_path, "deployed")
    site.configure(site.block("a.internal", "acme local;"), settings=listener.settings)
    site.start()
    (site.instance / "told.json").mkdir()
    answer = site.run("renew", "--force", "a.internal")
    assert answer.returncode == 0
    assert f'[error] cannot read "{site.instance}/told.json": Is a directory' in answer.stderr
    assert not listener.told()
    assert site.one_status()["served"] is True


def test_words_of_a_program(make_site: MakeSite, open_path: Path) -> None:
    """What a program writes is in the log, and can't forge a line or move the cursor there."""
    site = make_site()
    text = "printf 'one\\ntwo \\033[2J\\r[emerg] three\\n' >&2"
    settings = f"acme_agent off; acme_hook deployed {script(open_path, text)};"
    site.configure(site.block("a.internal", "acme local;"), settings=settings)
    site.start()
    answer = site.run("renew")
    told = [x.partition('hook": ')[2] for x in answer.stderr.splitlines() if "[notice] acme_h" in x]
    assert told == ["one", "two \\x1b[2J", "[emerg] three", "exit code 0"]


def test_in_nobodys_way(make_site: MakeSite, open_path: Path) -> None:
    """While a program takes its time nginx is reloaded, and another renewal doesn't wait."""
    site = make_site()
    gate = open_path / "gate"
    os.mkfifo(gate)
    listener = Listener(open_path, "deployed", more=f"cat {gate}")
    site.configure(site.block("a.internal", "acme local;"), settings=listener.settings)
    site.start()
    with subprocess.Popen(site.argv("renew"), env=site.environ, stderr=subprocess.PIPE) as renewal:
        eventually(lambda: next(open_path.glob("*.environ"), None))
        assert site.run("renew", "--force", "a.internal").returncode == 0
        assert site.run("-s", "reload").returncode == 0
        gate.write_text("opened")
        assert renewal.wait() == 0
    assert len(listener.told()) == 1


def test_failed_and_recovered(
    make_site: MakeSite, start_pebble: StartPebble, open_path: Path
) -> None:
    """A renewal that fails is told after the third time, once a day, and when that is over."""
    ca = start_pebble()
    site, listener = make_site(ca), Listener(open_path, "failed", "recovered", "deployed")
    site.configure(site.block("a.example"), settings=listener.settings)
    site.start()
    assert site.run("renew").returncode == 0
    assert [call["event"] for call in listener.told()] == ["deployed"]
    ca.stop()
    for times in range(1, 5):
        assert site.run("renew", "--force", "a.example").returncode == 1
        calls = listener.told()
        assert events(calls) == [("failed", [("a.example", "not renewed")])] * (times == 3)
        for call in calls:
            assert call["certificates"][0]["failures"] == 3
            assert call["message"].startswith("not renewed: a.example: ")
            assert "Connection refused" in call["message"]
    ca.start()
    assert site.run("renew", "--force", "a.example").returncode == 0
    calls = listener.told()
    assert sorted(call["event"] for call in calls) == ["deployed", "recovered"]
    (recovered,) = [call for call in calls if call["event"] == "recovered"]
    assert events([recovered]) == [("recovered", [("a.example", "failed")])]
    assert recovered["message"] == "all is well again: a.example"
    assert site.run("renew").returncode == 0
    assert not listener.told()


def test_not_served_is_told(make_site: MakeSite, open_path: Path) -> None:
    """A new certificate that nginx doesn't take up is told at once, and as deployed only later."""
    site, listener = make_site(), Listener(open_path, "failed", "recovered", "deployed")
    extra = site.folder / "extra.map"
    extra.write_text("# nothing\n")
    block = site.block("a.internal", "acme local;")
    site.configure(block, "map $uri $extra { include extra.map; }", settings=listener.settings)
    site.start()
    assert site.run("renew").returncode == 0
    listener.told()
    extra.write_text("oops;\n")
    assert site.run("renew", "--force", "a.internal").returncode == 1
    calls = listener.told()
    assert events(calls) == [("failed", [("a.internal", "not served")])]
    assert "invalid number of the map parameters" in calls[0]["message"]
    extra.write_text("# nothing\n")
    assert site.run("renew").returncode == 0
    assert sorted(call["event"] for call in listener.told()) == ["deployed", "recovered"]
