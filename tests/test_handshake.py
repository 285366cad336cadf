"""What a handshake with a real nginx shows."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from nginx_acme.certificate import leaf_der
from nginx_acme.handshake import Question, Refused, Unseen, ask, questions
from nginx_acme.nginx.listen import parse_listen
from tests.servers import LOCALHOST, free_port, nginx_conf
from tests.store.bundles import issue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nginx_acme.bundle import Bundle
    from tests.servers import NginxServer

    StartNginx = Callable[..., NginxServer]

NAMES = ("a.example", "*.wild.example", "192.0.2.1")
ECDSA = issue(NAMES)
RSA = issue(NAMES, "rsa:2048")
OTHER = issue(("other.example",))


def server(folder: Path, listen: str, names: str, *bundles: Bundle, more: str = "") -> str:
    """A server block, its certificates in files."""
    lines = []
    for bundle in bundles:
        path = folder / f"{bundle.facts.serial:x}.pem"
        path.write_bytes(bundle.pem)
        lines.append(f"ssl_certificate {path}; ssl_certificate_key {path};")
    return (
        f"server {{ listen {listen}; server_name {names}; {' '.join(lines)} {more} return 204; }}"
    )


def question(listen: str, name: str = "a.example", kind: str | None = None) -> Question:
    """The first way to ask there."""
    (parsed,) = parse_listen(listen.split())
    return next(questions(parsed, name, kind))


def seen(asked: Question) -> bytes | str:
    """What is shown, or why nothing is."""
    try:
        return ask(asked, 2)
    except (Refused, Unseen) as why:
        return str(why)


def test_by_name(start_nginx: StartNginx, each_nginx: str, open_path: Path) -> None:
    """What a client with this name would see is seen: by SNI, under a wildcard, as an address."""
    port, address = free_port(), free_port()
    start_nginx(
        nginx_conf(
            "\n".join(
                (
                    server(open_path, f"{port} ssl", "other.example", OTHER),
                    server(open_path, f"{port} ssl", "a.example *.wild.example", ECDSA),
                    server(open_path, f"{LOCALHOST}:{address} ssl", "192.0.2.1", RSA),
                )
            )
        ),
        binary=each_nginx,
    )
    assert ask(question(str(port), "other.example")) == leaf_der(OTHER)
    assert ask(question(str(port))) == leaf_der(ECDSA)
    assert ask(question(str(port), "*.wild.example")) == leaf_der(ECDSA)
    assert ask(question(str(port), "nobody.example")) == leaf_der(OTHER)
    assert ask(question(f"{LOCALHOST}:{address}", "192.0.2.1")) == leaf_der(RSA)


def test_kinds_of_keys(start_nginx: StartNginx, each_nginx: str, open_path: Path) -> None:
    """Of two kinds side by side each can be asked for, but where TLS 1.2 is off."""
    new, old = free_port(), free_port()
    start_nginx(
        nginx_conf(
            server(open_path, f"{old} ssl", "a.example", ECDSA, RSA)
            + server(
                open_path, f"{new} ssl", "a.example", ECDSA, RSA, more="ssl_protocols TLSv1.3;"
            )
        ),
        binary=each_nginx,
    )
    assert ask(question(str(old), kind="ecdsa")) == leaf_der(ECDSA)
    assert ask(question(str(old), kind="rsa")) == leaf_der(RSA)
    assert ask(question(str(new))) in {leaf_der(ECDSA), leaf_der(RSA)}
    with pytest.raises(Refused, match=r"refuses the handshake: .*alert protocol version"):
        ask(question(str(new), kind="rsa"))


def test_ways_in(start_nginx: StartNginx, each_nginx: str, open_path: Path) -> None:
    """A socket, a listener that wants a PROXY header, and one that wants to see certificates."""
    proxied, strict = free_port(), free_port()
    root = open_path / "root.pem"
    root.write_bytes(ECDSA.pem)
    listens = (f"unix:{open_path}/s ssl", f"{proxied} ssl proxy_protocol", f"{strict} ssl")
    verify = f"ssl_client_certificate {root}; ssl_verify_client on;"
    start_nginx(
        nginx_conf(
            "\n".join(
                server(open_path, listen, "a.example", ECDSA, more=verify) for listen in listens
            )
        ),
        binary=each_nginx,
    )
    for listen in listens:
        assert ask(question(listen)) == leaf_der(ECDSA)
    assert "closes the connection" in str(seen(question(f"{proxied} ssl")))


@pytest.mark.ipv6
def test_ipv6(start_nginx: StartNginx, open_path: Path) -> None:
    """IPv6's wildcard is asked on its own loopback."""
    port = free_port()
    start_nginx(nginx_conf(server(open_path, f"[::]:{port} ssl", "a.example", ECDSA)))
    assert ask(question(f"[::]:{port}")) == leaf_der(ECDSA)
    assert str(question(f"[::]:{port}")) == f"[::1]:{port}"


def test_two_ways_to_a_wildcard() -> None:
    """One loopback address may have a server of its own, so there is a second one."""
    (listen,) = parse_listen(["443", "ssl"])
    assert [each.host for each in questions(listen, "a.example")] == ["127.0.0.1", "127.0.0.2"]


def test_refused(start_nginx: StartNginx, each_nginx: str, open_path: Path) -> None:
    """A name may have no certificate, and nginx says so in OpenSSL's words."""
    port = free_port()
    reject = f"server {{ listen {port} ssl default_server; ssl_reject_handshake on; }}"
    start_nginx(
        nginx_conf(reject + server(open_path, f"{port} ssl", "a.example", ECDSA)),
        binary=each_nginx,
    )
    assert ask(question(str(port))) == leaf_der(ECDSA)
    with pytest.raises(Refused, match=r"refuses the handshake: .*unrecognized name"):
        ask(question(str(port), "b.example"))


def test_nobody(tmp_path: Path) -> None:
    """Who can't be reached from here proves nothing, and it is said why."""
    port = free_port()
    assert seen(question(f"{LOCALHOST}:{port}")) == (
        f"{LOCALHOST}:{port} can't be reached: Connection refused"
    )
    assert seen(question("198.51.100.7:443")) == "198.51.100.7 is no address of this machine"
    assert seen(question(f"unix:{tmp_path}/none")) == (
        f"unix:{tmp_path}/none can't be reached: No such file or directory"
    )
    assert str(seen(question("nobody.invalid:443"))).startswith("nobody.invalid:443 can't be")


def test_silence() -> None:
    """Who accepts and says nothing is waited for no longer than it may take."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Unseen, match=f"{port} gives no answer"):
            ask(question(f"{LOCALHOST}:{port}"), 0.2)
