"""The demo: a certificate authority, nginx-acme on a small site, and a verified HTTPS answer.

`make demo` runs it; ONCE=1 ends it after the answer. It stands with the tests because it starts
the same servers. Whatever ends it, its servers are stopped and its one folder is removed.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import os
import signal
import ssl
import sys
import tempfile
import textwrap
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.servers import (
    LOCALHOST,
    Answer,
    NginxServer,
    Pebble,
    ServerFailed,
    ServerMissing,
    fetch,
    find_program,
    free_port,
    nginx_conf,
    nginx_version,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "localhost"
"""The one name that leads to this machine everywhere, so that a browser can look, too."""

SITE = """
    acme_state_path acme;
    acme_http_listen {http};{declaration}

    server {{
        listen {tls} ssl;
        server_name {name};
        acme {issuer};
        root site;
        location = /certificates {{ acme_status; }}
    }}
"""

PEBBLE = """
    acme_issuer pebble {{
        uri {url};
        ssl_trusted_certificate {root};
        accept_terms_of_service;
    }}"""

GREETING = "Hello from nginx, over HTTPS.\n"


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issues: its name in the config, its declaration there, and its root (PEM)."""

    issuer: str
    declaration: str
    root: Callable[[], bytes]


class Ended(Exception):
    """Ctrl-C, or another signal that means the end."""


def main() -> int:
    """The exit code: 0 only if the verified answer came."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    answered = False
    try:
        with ExitStack() as stack:
            server = _show(stack)
            answered = True
            if not os.environ.get("ONCE"):
                _stay(server)
    except Ended:
        print("\nEverything is stopped, and its folder is gone.")
    except (ServerMissing, ServerFailed, TimeoutError, OSError) as error:
        print(f"nginx-acme: {error}", file=sys.stderr)
        return 1
    return 0 if answered else 130


def _end(*_: object) -> NoReturn:
    raise Ended


def _show(stack: ExitStack) -> NginxServer:
    """Start everything, and print the answer and its certificate."""
    nginx = find_program("nginx")
    folder = _folder(stack)
    http_port, tls_port = free_port(), free_port()
    authority = _pebble(stack, folder, http_port) or _local(folder)
    site = SITE.format(
        http=f"{LOCALHOST}:{http_port}",
        tls=f"{LOCALHOST}:{tls_port}",
        name=NAME,
        issuer=authority.issuer,
        declaration=authority.declaration,
    )
    print(f"Config     {folder}/nginx.conf, in its http block:\n{_indented(site)}\n")
    print(f"Starting   nginx-acme, which becomes nginx {'.'.join(map(str, nginx_version(nginx)))}")
    launcher = Path(sys.executable).with_name("nginx-acme")
    server = NginxServer(folder, nginx_conf(site), binary=nginx, launcher=[str(launcher)])
    stack.callback(server.stop)
    began = time.monotonic()
    server.start(60)
    print(_indented(server.server.output()))
    answer = _verified(server, tls_port, authority)
    print(f"\nAnswer     {time.monotonic() - began:.1f} s later: https://{NAME}:{tls_port}/")
    root = folder / "root.pem"
    root.write_bytes(authority.root())
    _print_answer(answer, x509.load_pem_x509_certificate(root.read_bytes()))
    if not os.environ.get("ONCE"):
        for generated in folder.glob("acme/instances/*/generated/nginx.conf"):
            print(f"Generated  {generated}")
        print(f"Look       curl --cacert {root} https://{NAME}:{tls_port}/")
        print(
            f"           https://{NAME}:{tls_port}/certificates in a browser, which warns of the CA"
        )
    return server


def _folder(stack: ExitStack) -> Path:
    """A folder for all of it, with the page of the site; nginx's workers may enter it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nginx-acme-demo-")))
    folder.chmod(0o755)
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text(GREETING)
    return folder


def _pebble(stack: ExitStack, folder: Path, http_port: int) -> Authority | None:
    try:
        pebble = Pebble(folder / "pebble", http_port=http_port)
    except ServerMissing as missing:
        print(f"CA         the built-in issuer `local`, since {missing}")
        return None
    stack.callback(pebble.stop)
    pebble.start()
    print(f"CA         pebble {'.'.join(map(str, pebble.version))}, {pebble.directory_url}")
    declaration = PEBBLE.format(url=pebble.directory_url, root=pebble.api_root)
    return Authority("pebble", declaration, pebble.issuer_root)


def _local(folder: Path) -> Authority:
    return Authority("local", "", (folder / "acme" / "local" / "root.pem").read_bytes)


def _indented(text: str) -> str:
    return textwrap.indent(text.strip("\n"), " " * 7).rstrip()


def _verified(server: NginxServer, port: int, authority: Authority) -> Answer:
    """The answer that the root verifies; nginx may have started before its certificate came."""

    def ask() -> Answer | None:
        if server.server.returncode is not None:
            raise ServerFailed(f"nginx ended\n{_words(server)}")
        try:
            return fetch(port, NAME, authority.root())
        except (ssl.SSLCertVerificationError, FileNotFoundError):
            return None

    try:
        answer = wait_for(ask, 60, "a certificate that the CA's root verifies")
    except TimeoutError as late:
        raise ServerFailed(f"{late}\n{_words(server)}") from late
    if answer is None or answer.body != GREETING.encode():
        raise ServerFailed(f"an unexpected answer: {answer}\n{_words(server)}")
    return answer


def _words(server: NginxServer) -> str:
    return f"{server.server.output()}\n{server.error_log()}".strip()


def _print_answer(answer: Answer, root: x509.Certificate) -> None:
    leaf = answer.leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    print(f"           {answer.status} {answer.body.decode().strip()}")
    print(f"Verified   with {_common_name(root.subject)}")
    print(f"Names      {', '.join(names.get_values_for_type(x509.DNSName))}")
    print(f"Issued by  {_common_name(leaf.issuer)}")
    print(f"Until      {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


def _common_name(name: x509.Name) -> str:
    values = [
        str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    return values[0] if values else name.rfc4514_string()


def _stay(server: NginxServer) -> None:
    print("\nIt stays up until Ctrl-C.", flush=True)
    code = server.server.wait(None)
    raise ServerFailed(f"nginx ended with exit code {code}\n{_words(server)}")


if __name__ == "__main__":
    sys.exit(main())
