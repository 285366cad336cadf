"""An nginx without us and one with us, in the same form: what they say is compared.

Both have the same configuration at paths of the same length, the one with a certificate of its
own and the other with `acme`. What they have to differ in (paths, ports, times, pids, the lines of
the certificate) is made the same in what they say.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme.nginx.edit import quote
from tests.launcher import LAUNCHER, eventually
from tests.servers import LOCALHOST, environment, fetch, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
MOST_SECONDS = 60

_SAME = (
    (r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\b\d+#\d+: ", "PID: "),
    (r" ssl_certificate(?:_key)? [^;]*;", ""),
    (r"[ \t]+", " "),
    (r" +\n", "\n"),
)


class Said(NamedTuple):
    """How a command ended, and what was on its streams."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Form:
    """A way to start nginx. ``{top}`` stands for the folder of everything, ``{site}`` for the
    one of the configuration below it.

    - `argv`: its options;
    - `site`: the name of the configuration's folder;
    - `main`, `http`: what the configuration has in these blocks;
    - `ours`: what it has in `http` of ours beside `acme`;
    - `shape`: what is done to the folders before the first start;
    - `through`: a program that starts it;
    - `environ`: in place of the one that tests have;
    - `cwd`: where it is started, from the folder of everything.
    """

    argv: Sequence[str] = ("-p", "{site}", "-c", "nginx.conf", "-e", "logs/error.log")
    site: str = "site"
    main: str = "pid logs/nginx.pid;"
    http: str = ""
    ours: str = "acme_agent off;"
    shape: Callable[[Twin], None] | None = None
    through: Sequence[str] = ()
    environ: Mapping[str, str] | None = None
    cwd: str = "."


@dataclass
class Twin:
    """One of the two; `top` is its folder, `nginx` the real one, `certificate` one of its own."""

    form: Form
    top: Path
    nginx: str
    certificate: Path | None
    through: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        """Make its folders."""
        form, self.site = self.form, self.top / self.form.site
        for folder in (self.site / "logs", self.site / "sites", self.top / "temp"):
            folder.mkdir(parents=True)
        kinds = ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
        http = [f"{kind}_temp_path {quote(f'{self.top}/temp/{kind}')};" for kind in kinds]
        certificate = "acme local;"
        if self.certificate is not None:
            path = quote(str(self.certificate))
            certificate = f"ssl_certificate {path}; ssl_certificate_key {path};"
        else:
            http.append(self._filled(form.ours))
        self.write(
            "nginx.conf",
            f"{self._filled(form.main)}\nevents {{ }}\nhttp {{ access_log off; {' '.join(http)}\n"
            f"{self._filled(form.http)}\ninclude sites/*.conf;\n}}\n",
        )
        self.write(
            "sites/a.conf",
            f"server {{ listen {LOCALHOST}:{self.port} ssl; server_name a.internal; {certificate}"
            " return 200 served; }\n",
        )
        self.through = tuple(self._filled(word) for word in form.through)
        if form.shape is not None:
            form.shape(self)

    def write(self, name: str, text: str) -> None:
        """A file of the configuration."""
        (self.site / name).write_bytes(text.encode("utf-8", "surrogateescape"))

    def run(self, *more: str) -> Said:
        """Run it in this form, with these arguments at the end; a daemon stays behind."""
        program = [self.nginx] if self.certificate is not None else LAUNCHER
        argv = [*self.through, *program, *map(self._filled, self.form.argv), *more]
        environ = environment() if self.form.environ is None else self.form.environ
        if self.certificate is None and self.form.environ is None:
            environ = {**environ, "NGINX_ACME_NGINX": self.nginx}
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            ended = subprocess.run(
                argv,
                cwd=self.top / self.form.cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=MOST_SECONDS,
                check=False,
            )
            streams = []
            for stream in (stdout, stderr):
                stream.seek(0)
                streams.append(self._same(stream.read().decode("utf-8", "backslashreplace")))
        return Said(ended.returncode, *streams)

    def serves(self) -> bool:
        """Whether it answers a request."""
        return fetch(self.port, "a.internal", None).body == b"served"

    def wait_for_end(self) -> None:
        """Wait until nobody listens there any more, and the pid file is gone."""
        eventually(lambda: not listens(self.port) and not self._pid_files(), "the end of nginx")

    def stop(self) -> None:
        """End it, if it runs."""
        if listens(self.port):
            (pid_file,) = self._pid_files()
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            self.wait_for_end()

    def _pid_files(self) -> list[Path]:
        return [path for path in self.top.rglob("*.pid") if not path.is_symlink()]

    def left(self) -> list[str]:
        """What there is below its folder, but for our state."""
        found = (str(path.relative_to(self.top)) for path in self.top.rglob("*"))
        return sorted(path for path in found if "acme" not in Path(path).parts)

    def _filled(self, word: str) -> str:
        return word.replace("{top}", str(self.top)).replace("{site}", str(self.site))

    def _same(self, text: str) -> str:
        cwd = self.top / self.form.cwd
        for words in (f"{cwd}/", f"{self.top}/"):
            text = text.replace(words, "")
        text = text.replace(str(self.top), "TOP").replace(str(self.port), "PORT")
        for pattern, name in _SAME:
            text = re.sub(pattern, name, text)
        return text
