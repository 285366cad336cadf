"""What the real nginx makes of a text, word for word.

`nginx -t` tells no more than its first complaint. But inside ``types { … }`` it takes any words,
and of an extension that comes a second time it says, once for each, how it read the extension and
the type: so one run tells how it read every word of a text.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_COMPLAINT = re.compile(r"^nginx: \[(?:emerg|crit)\] (.*)$", re.MULTILINE | re.DOTALL)
_DUPLICATE = re.compile(
    r'^nginx: \[warn\] duplicate extension "(.*?)", content type: "(.*?)", '
    r'previous content type: ".*?" in \S*/(text|again)\.conf:([0-9]+)$',
    re.MULTILINE | re.DOTALL,
)
_OPENED = re.compile(r"^# configuration file (.*):$", re.MULTILINE)
_END = re.compile(r"\nnginx: (?:the )?configuration file .*", re.DOTALL)


class Argument(NamedTuple):
    """An argument as nginx read it, in `ascii_lower`; `line` is that of the end of the directive."""

    name: str
    argument: str
    line: int


class Oracle:
    """An nginx that is only asked what it thinks of a configuration."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.folder = folder
        self._binary = binary

    def complaint(self, config: str) -> str | None:
        """What `nginx -t` refuses a main file for, without the folder; None if it does not."""
        return self.complaint_of(self.write("nginx.conf", config))

    def complaint_of(self, main: str) -> str | None:
        """The same of a main file that exists."""
        return self._complaint(_decode(self._ask("-t", main).stderr))

    def opened(self, main: str) -> list[str]:
        """The files that nginx opens for a main file, each once, in order."""
        return _OPENED.findall(_decode(self._ask("-T", main).stdout))

    def arguments(self, text: str) -> list[Argument] | str:
        """Every argument of a text of plain directives, or what nginx says of the first mistake."""
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
        return [
            Argument(name, argument, int(line))
            for argument, name, file, line in _DUPLICATE.findall(answer)
            if file == "again"
        ]

    def write(self, name: str, text: str) -> str:
        """Write a file of the folder; its path."""
        path = self.folder / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return str(path)

    def _ask(self, how: str, main: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            (
                *(self._binary, how, "-e", "/dev/null", "-p", f"{self.folder}/", "-c", main),
                *("-g", f"pid {self.folder}/pid;"),
            ),
            capture_output=True,
            check=False,
            timeout=30,
        )

    def _complaint(self, answer: str) -> str | None:
        found = _COMPLAINT.search(answer)
        return _END.sub("", found[1]).replace(f"{self.folder}/", "") if found else None


def ascii_lower(text: str) -> str:
    """`text` with the capital letters that nginx knows in lower case."""
    return re.sub("[A-Z]+", lambda letters: letters[0].lower(), text)


def _decode(answer: bytes) -> str:
    return answer.decode("utf-8", "surrogateescape")
