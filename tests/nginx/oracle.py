"""What the real nginx makes of a text, word for word, and of a configuration, block for block.

`nginx -t` tells no more than its first complaint. But inside ``types { … }`` it takes any words,
and of an extension that comes a second time it says, once for each, how it read the extension and
the type: so one run tells how it read every word of a text.

Which block a directive belongs to no message tells. A running nginx does: to a request it answers
with every `add_header` of the block that the request meant, in order.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING, NamedTuple

from tests.servers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_COMPLAINT = re.compile(r"^nginx: \[(?:emerg|crit)\] (.*)$", re.MULTILINE | re.DOTALL)
_WARNING = re.compile(r"^nginx: \[warn\] ", re.MULTILINE)
_DUPLICATE = re.compile(
    r'duplicate extension "(.*?)", content type: "(.*?)", '
    r'previous content type: ".*?" in \S*/(text|again)\.conf:([0-9]+)\n.*',
    re.DOTALL,
)
_OPENED = re.compile(r"^# configuration file (.*):$", re.MULTILINE)
_END = re.compile(r"\nnginx: (?:the )?configuration file .*", re.DOTALL)

SETTINGS = "access_log off;" + "".join(
    f" {name}_temp_path temp_{name};"
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
"""What keeps an `http` block from writing outside of the prefix."""


class Argument(NamedTuple):
    """An argument as nginx read it, in `ascii_lower`; `line` is that of the end of the directive."""

    name: str
    argument: str
    line: int

    @property
    def cut(self) -> bool:
        """Whether it is too long for a message (1024 bytes, with the name twice)."""
        return (
            len(
                self.argument.encode("utf-8", "surrogateescape")
                + 2 * self.name.encode("utf-8", "surrogateescape")
            )
            > 700
        )


class Oracle:
    """An nginx, with these modules, that is only asked what it thinks of a configuration."""

    def __init__(self, binary: str, folder: Path, modules: Iterable[str] = ()) -> None:
        self.folder = folder
        self._binary = binary
        self._loads = "".join(f"load_module {module};" for module in modules)

    def complaint(self, config: str) -> str | None:
        """What `nginx -t` refuses a main file for, without the folder; None if it does not."""
        return self.complaint_of(self.write("nginx.conf", config))

    def complaint_of(self, main: str) -> str | None:
        """The same of a main file that exists."""
        return self._complaint(_decode(self._ask("-t", main).stderr))

    def opened(self, main: str) -> list[str]:
        """The files that nginx opens for a main file, each once, in order."""
        return _OPENED.findall(_decode(self._ask("-T", main).stdout))

    def dump(self, main: str) -> tuple[dict[str, bytes], str | None]:
        """Each file that nginx opens with its bytes, in order, and what it complains of, if it does.

        It shows no file where it complains.
        """
        answer = self._ask("-T", main)
        parts = re.split(rb"^# configuration file (.*):\n", answer.stdout, flags=re.MULTILINE)
        files = {
            _decode(path): text[:-1] for path, text in zip(parts[1::2], parts[2::2], strict=True)
        }
        return files, self._complaint(_decode(answer.stderr))

    def headers(self, main: str, requests: Iterable[tuple[str, str]]) -> list[bytes]:
        """What every `add_header` puts into the answer to each request: a host and a URI.

        The configuration must listen on `address`, which is open before nginx starts.
        """
        asked = "".join(f"HEAD {uri} HTTP/1.1\r\nHost: {host}\r\n\r\n" for host, uri in requests)
        with (
            self._listening() as listener,
            socket(AF_UNIX) as client,
            self._running(main, listener),
        ):
            client.settimeout(60)
            client.connect(self.address)
            client.sendall(f"{asked}HEAD / HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        return re.findall(
            rb"^Connection: keep-alive\r\n(.*?)\r\nHTTP/1.1 ", answer, re.MULTILINE | re.DOTALL
        )

    @property
    def address(self) -> str:
        """The path of what `headers` asks."""
        return f"{self.folder}/socket"

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket]:
        with socket(AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            try:
                yield listener
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.address)

    @contextlib.contextmanager
    def _running(self, main: str, listener: socket) -> Iterator[None]:
        """Nginx with a socket that it inherits, as in its binary upgrade."""
        command = self._command(main, "daemon off;")
        inherited = {"NGINX": f"{listener.fileno()};"}
        nginx = subprocess.Popen(
            command,
            env=os.environ | inherited,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            os.killpg(nginx.pid, signal.SIGKILL)  # its worker, too
            nginx.wait()

    def arguments(self, text: str) -> list[Argument] | str:
        """Every argument of a text of plain directives, or what nginx says of the first mistake.

        Those that are `cut` are not among them: nginx's messages have an end.
        """
        self.write("text.conf", text)
        self.write("again.conf", text)
        main = self.write(
            "nginx.conf",
            "events {} http { types_hash_bucket_size 65536;"
            " types { include text.conf; include again.conf; } }",
        )
        answer = _decode(self._ask("-t", main).stderr)
        complaint = self._complaint(answer)
        if complaint and " in text.conf:" in complaint:
            return complaint
        told = map(_DUPLICATE.fullmatch, _WARNING.split(answer))
        return [
            Argument(found[2], found[1], int(found[4]))
            for found in told
            if found and found[3] == "again"
        ]

    def write(self, name: str, text: str) -> str:
        """Write a file of the folder, or of one in it; its path."""
        path = f"{self.folder}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path.encode("utf-8", "surrogateescape"), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        return path

    def _ask(self, how: str, main: str) -> subprocess.CompletedProcess[bytes]:
        command = (*self._command(main), how)
        return subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE)

    def _command(self, main: str, directives: str = "") -> tuple[str, ...]:
        return (
            *(self._binary, "-e", "/dev/null", "-p", f"{self.folder}/", "-c", main),
            *("-g", f"{self._loads} pid {self.folder}/pid; {directives}"),
        )

    def _complaint(self, answer: str) -> str | None:
        found = _COMPLAINT.search(answer)
        return _END.sub("", found[1]).replace(f"{self.folder}/", "") if found else None


def ascii_lower(text: str) -> str:
    """`text` with the capital letters that nginx knows in lower case."""
    return re.sub("[A-Z]+", lambda letters: letters[0].lower(), text)


def _decode(answer: bytes) -> str:
    return answer.decode("utf-8", "surrogateescape")
