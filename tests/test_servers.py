"""The servers that all other tests lean on."""

from __future__ import annotations

import os
import signal
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.servers import (
    LOCALHOST,
    Pebble,
    Program,
    ServerFailed,
    fetch,
    fetch_plain,
    free_port,
    listens,
    nginx_conf,
    nginx_version,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import NginxServer


def test_ports() -> None:
    """A port is given once."""
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert not any(map(listens, ports))


def test_wait_ends() -> None:
    """Waiting has an end, and says for what it waited."""
    with pytest.raises(TimeoutError, match="godot"):
        wait_for(lambda: False, 0.05, "godot")


def test_failure_is_shown(tmp_path: Path) -> None:
    """A server that doesn't come up is told with its own words."""
    program = Program(["sh", "-c", "echo no luck; exit 3"], tmp_path / "log")
    with pytest.raises(ServerFailed, match=r"exit code 3\nno luck"):
        program.start(lambda: False)


def test_pebble_hangs(start_pebble: Callable[..., Pebble]) -> None:
    """A pebble that hangs is told from one that answers, and from one that has ended."""
    pebble = start_pebble()
    assert not pebble.hangs()
    os.kill(pebble.server.pid, signal.SIGSTOP)
    try:
        assert pebble.hangs(0.1)
    finally:
        os.kill(pebble.server.pid, signal.SIGCONT)
    pebble.stop()
    assert not pebble.hangs()


def test_pebble(each_pebble: Pebble) -> None:
    """Pebble answers with the certificate that its own root verifies, and names the root it issues from."""
    port = int(each_pebble.directory_url.rpartition(":")[2].partition("/")[0])
    answer = fetch(port, "localhost", each_pebble.api_root.read_bytes(), path="/dir")
    assert answer.status == 200
    assert b"newOrder" in answer.body
    root = x509.load_pem_x509_certificate(each_pebble.issuer_root())
    assert root.subject == root.issuer
    assert each_pebble.version >= (2, 4)


def test_pebble_is_gone(tmp_path: Path, pebble: Pebble) -> None:
    """Stopped means that nothing of it is left."""
    with Pebble(tmp_path, binary=pebble.binary, chain_length=2, alternate_roots=1) as other:
        assert other.issuer_root(0) != other.issuer_root(1)
    assert other.server.returncode is not None
    assert other.dns.returncode is not None


def test_nginx(each_nginx: str, start_nginx: Callable[..., NginxServer], pebble: Pebble) -> None:
    """Nginx serves plain and TLS, survives a reload, and a wrong root is refused."""
    plain, tls = free_port(), free_port()
    server = start_nginx(
        nginx_conf(f"""
    server {{
        listen {LOCALHOST}:{plain};
        listen {LOCALHOST}:{tls} ssl;
        ssl_certificate {pebble.folder}/api.pem;
        ssl_certificate_key {pebble.folder}/api-key.pem;
        return 200 "host $host";
    }}
"""),
        binary=each_nginx,
    )
    assert fetch_plain(plain, "example.test").body == b"host example.test"
    server.reload()
    answer = fetch(tls, "localhost", pebble.api_root.read_bytes())
    assert answer.body == b"host localhost"
    assert fetch(tls, "other.test", None).leaf == answer.leaf
    with pytest.raises(ssl.SSLCertVerificationError):
        fetch(tls, "localhost", pebble.issuer_root())
    assert nginx_version(each_nginx) >= (1, 22)
