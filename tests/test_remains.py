"""What is left of an nginx that is no more goes away; nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

from nginx_acme import locks
from nginx_acme.remains import AGE, MOST
from tests.launcher import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site

    MakeSite = Callable[..., Site]

LOCKS = ("start", "agent", "generation", "hooks")
YOUNG, OLD = AGE.total_seconds() - 3600, AGE.total_seconds() + 3600  # seconds


def traces(site: Site, name: str) -> list[Path]:
    """What there may be of an instance."""
    folders = [site.state / "instances" / name, site.state / "public" / "instances" / name]
    return [*folders, *(site.state / "locks" / f"{kind}-{name}.lock" for kind in LOCKS)]


def aged(site: Site, name: str, seconds: float) -> None:
    """Let it be so long ago that anything was written there."""
    moment = time.time() - seconds
    folder, public, *_ = traces(site, name)
    for path in (folder, public / "status.json"):
        if path.exists():
            os.utime(path, (moment, moment))


def copied(site: Site, ours: str, name: str, seconds: float = OLD) -> str:
    """An instance of this name, in everything else as ours, so long ago."""
    for path, copy in zip(traces(site, ours), traces(site, name), strict=True):
        if path.is_dir():
            shutil.copytree(path, copy, symlinks=True)
        else:
            copy.touch()
    aged(site, name, seconds)
    return name


def started(site: Site) -> str:
    """Let it be nginx once, with an agent; the name of its instance."""
    site.configure(site.block("a.internal", "acme local;"))
    site.start()
    site.quiet()
    site.stop()
    eventually(lambda: not site.agents(), "the end of the agent")
    return site.instance.name


def start_anew(site: Site) -> None:
    """Start it with something to do: what was is removed then."""
    site.conf.write_text(f"{site.conf.read_text()}\n")
    site.start()


def there(site: Site) -> set[str]:
    """The instances there are."""
    return set(os.listdir(site.state / "instances"))


def test_of_a_container_that_is_gone(make_site: MakeSite) -> None:
    """A start removes all of it, and keeps what it leads to: certificates and the user's files."""
    site = make_site()
    ours = started(site)
    kept = sorted(str(path) for path in site.folder.glob("acme/certificates/*/*"))
    gone = copied(site, ours, "nginx.conf-0000000a")
    waited = site.state / "instances" / "nginx.conf-0000000b"  # which never became nginx
    waited.mkdir()
    (waited / "waiting.json").write_text("{}")
    aged(site, waited.name, OLD)
    start_anew(site)
    assert there(site) == {ours}
    assert not [
        path for name in (gone, waited.name) for path in traces(site, name) if path.exists()
    ]
    assert site.conf.exists()
    assert kept == sorted(str(path) for path in site.folder.glob("acme/certificates/*/*"))
    assert site.shown("a.internal").body == b"a.internal"


def test_of_what_may_live(make_site: MakeSite) -> None:
    """It keeps what is young, in use, without an agent, damaged or not called as ours are."""
    site = make_site()
    ours = started(site)
    aged(site, ours, OLD)
    names = [copied(site, ours, f"nginx.conf-0000000{kind}") for kind in range(len(LOCKS))]
    paths = [traces(site, name)[2 + kind] for kind, name in enumerate(names)]
    young = copied(site, ours, "nginx.conf-0000001a", YOUNG)
    looked = copied(site, ours, "nginx.conf-0000001b")
    (traces(site, looked)[1] / "status.json").touch()
    other = copied(site, ours, "nginx.conf-backup")
    for name, change in (("nginx.conf-0000002a", {"agent": False}), ("nginx.conf-0000002b", None)):
        copied(site, ours, name)
        (work,) = (traces(site, name)[0] / "generations").glob("*.json")
        text = work.read_text()
        work.write_text("{" if change is None else json.dumps({**json.loads(text), **change}))
        aged(site, name, OLD)
    before = there(site)
    assert {young, looked, other} < before
    held = [locks.lock(str(path), wait=0) for path in paths]
    try:
        start_anew(site)
        assert there(site) == before
    finally:
        for lock in held:
            lock.release()
    assert "can't be removed" not in site.output()


def test_of_an_nginx_whose_agent_is_gone(make_site: MakeSite) -> None:
    """It keeps what an nginx here runs on, and only as long as that runs."""
    living, site = make_site(), make_site()
    name = started(living)
    living.start()
    os.kill(living.quiet(), signal.SIGKILL)
    eventually(lambda: not living.agents(), "the end of the agent")
    aged(living, name, OLD)
    site.configure(
        site.block("b.internal", "acme local;"), settings=f"acme_state_path {living.state};"
    )
    start_anew(site)
    assert len(there(living)) == 2
    site.stop()
    living.stop()
    aged(living, name, OLD)
    start_anew(site)
    assert name not in there(living)


def test_of_many(make_site: MakeSite) -> None:
    """Some at each start, which is not to take long."""
    site = make_site()
    ours = started(site)
    for number in range(MOST + 2):
        copied(site, ours, f"nginx.conf-{number:08x}")
    for left in (3, 1):
        start_anew(site)
        assert len(there(site)) == left
        site.stop()


def test_that_it_cannot_be_removed(make_site: MakeSite) -> None:
    """It is said, and nginx starts; the others are removed all the same."""
    site = make_site()
    ours = started(site)
    name = copied(site, ours, "nginx.conf-00000000")
    folder, _, lock, *_ = traces(site, name)
    lock.unlink()
    lock.mkdir()
    copied(site, ours, "nginx.conf-00000001")
    start_anew(site)
    assert f'"{folder}" is of an nginx that is gone, and can\'t be removed: cannot lock' in (
        site.output()
    )
    assert there(site) == {ours, name}
    assert site.shown("a.internal").body == b"a.internal"
