"""A node that asks a CA, and another one on this machine that lives from its state directory.

Like `launcher` it knows nothing of pytest.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mounts import bound
from tests.servers import LOCALHOST, fetch_plain, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

CHALLENGE = "/.well-known/acme-challenge/"
README = Path(__file__).parent.parent / "README.md"


class Pair:
    """Two nodes with one configuration but for their ports: `issuing`, and `other` that takes.

    `state` is where the other one looks for the state directory.
    """

    def __init__(self, make_site: MakeSite, ca: Pebble, state: Path, rsync: str) -> None:
        self.issuing = make_site(ca)
        runtime = state.parent / "run"
        runtime.mkdir()
        self.other = make_site(ca, environ={"RUNTIME_DIRECTORY": str(runtime)})
        self.other.http = free_port()
        old, new = (f"{LOCALHOST}:{port};" for port in (ca.http_port, self.other.http))
        self.other.settings = self.other.settings.replace(old, new)
        self.state = state
        self._rsync = rsync
        self.runtime = self.other.runtime = runtime

    def configure(self, *names: str, acme: str = "acme pebble;", settings: str = "") -> None:
        """A server for each of these names on both."""
        self.issuing.configure(
            *(self.issuing.block(name, acme) for name in names), settings=settings
        )
        self.other.configure(
            *(self.other.block(name, acme) for name in names),
            settings=f"{settings} acme_issue off; acme_state_path {self.state};",
        )

    def copy(self) -> None:
        """Copy the state, by the command of the README."""
        self.state.mkdir(exist_ok=True)
        command = re.findall(r"^ +(rsync (?:.*\\\n)*.*)$", README.read_text(), re.MULTILINE)[0]
        _, *options, _, _ = shlex.split(command.replace("\\\n", ""))
        subprocess.run(
            [self._rsync, *options, f"{self.issuing.state}/", f"{self.state}/"], check=True
        )

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """The state, mounted where the other one can't write it."""
        self.state.mkdir()
        with bound(self.issuing.state, self.state, read_only=True):
            yield
        self.state.rmdir()

    def start(self) -> None:
        """Start the other one, and wait until its agent has looked at all."""
        self.other.start()
        self.other.quiet()

    def renew(self, name: str) -> None:
        """Renew a certificate on the node that issues."""
        done = self.issuing.run("renew", "--force", name)
        assert done.returncode == 0, done.stderr

    def answer(self, host: str, token: str) -> str | None:
        """What the other one says to a CA that asks for a challenge; None where it knows none."""
        found = fetch_plain(self.other.http, host, path=CHALLENGE + token)
        return found.body.decode() if found.status == 200 else None

    def account(self) -> Path:
        """The folder of the open challenges of the only account."""
        (folder,) = (self.issuing.state / "public" / "challenges").iterdir()
        return folder

    def wake(self) -> None:
        """Let the other one's agent look now."""
        (instance,) = self.runtime.glob("*/instances/*")
        (instance / "new").touch()
        (instance / "new").rename(instance / "wake")

    def lose(self) -> Path:
        """Take the state away from the other one, as when a mount is gone; where it is now."""
        aside = self.state.with_name("aside")
        shutil.move(self.state, aside)
        self.state.mkdir()
        return aside


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder: mode, time and content."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
