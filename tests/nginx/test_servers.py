"""Which server answers, and where TLS is spoken: nginx's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import ConfigError
from nginx_acme.nginx.listen import Address
from nginx_acme.nginx.servers import (
    Choice,
    Server,
    choices,
    merged,
    read_servers,
    speaks_tls,
    tls_addresses,
)
from nginx_acme.nginx.source import read_source

if TYPE_CHECKING:
    from collections.abc import Iterable

PORT_80 = Address("0.0.0.0", 80)


def servers_of(text: str) -> tuple[Server, ...]:
    """The servers of a configuration of one file."""
    source = read_source("/n.conf", lambda _: text.encode(), lambda _: [])
    return read_servers(source, 80)


def choice_of(servers: tuple[Server, ...]) -> Choice:
    """What nginx chooses from on port 80."""
    (choice,) = choices(servers, {PORT_80})
    return choice


def roots(servers: Iterable[Server]) -> list[str]:
    """How the tests tell servers apart."""
    return [server.own["root"][0].args[0] for server in servers]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("exact.example.com", ["exact"], id="exact"),
        pytest.param("a.example.com", ["leading"], id="leading wildcard"),
        pytest.param("b.a.example.com", ["longer"], id="the longest leading wildcard"),
        pytest.param("dot.example.org", ["dot"], id="leading dot, the name itself"),
        pytest.param("x.dot.example.org", ["dot"], id="leading dot, below"),
        pytest.param("www.example.net", ["trailing"], id="trailing wildcard"),
        pytest.param("other.test", ["regex", "default"], id="regular expression or default"),
    ],
)
def test_choice(name: str, expected: list[str]) -> None:
    """Exact, leading wildcard, trailing wildcard, regular expression, default: in this order."""
    servers = servers_of(
        "http {"
        "server { listen 80; server_name ~^x; root regex; }"
        "server { listen 80; server_name *.example.com; root leading; }"
        "server { listen 80; server_name *.a.example.com; root longer; }"
        "server { listen 80; server_name exact.example.com www.example.org; root exact; }"
        "server { listen 80; server_name .dot.example.org; root dot; }"
        "server { listen 80; server_name www.example.*; root trailing; }"
        "server { listen 80 default_server; root default; }"
        "server { listen 81 default_server; server_name exact.example.com; root elsewhere; }"
        "}"
    )
    choice = choice_of(servers)
    assert roots(choice.of(name)) == expected
    assert roots(choice.of_any({name})) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param({"a.test", "b.test"}, {"a", "b"}, id="all exact"),
        pytest.param({"a.test", "c.test"}, {"a", "regex", "default"}, id="one is not"),
        pytest.param(set(), set(), id="none"),
    ],
)
def test_choices_without_wildcards(names: set[str], expected: set[str]) -> None:
    """Where all names are exact, nothing but the rest goes to the default server."""
    servers = servers_of(
        "http {"
        "server { root default; }"
        "server { server_name a.test; root a; }"
        "server { server_name b.test; root b; }"
        "server { server_name ~c; root regex; }"
        "}"
    )
    assert set(roots(choice_of(servers).of_any(names))) == expected


def test_first_server_is_the_default() -> None:
    """Without `default_server` the first server of the address is it."""
    servers = servers_of("http { server { listen 81; } server { root a; } server { root b; } }")
    assert roots(choice_of(servers).of("x")) == ["a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("http { server { listen 443 ssl; } }", [True], id="ssl"),
        pytest.param("http { server { listen 443 quic; } }", [True], id="quic"),
        pytest.param("http { server { listen 80; } }", [False], id="plain"),
        pytest.param(
            "http { server { listen 443 ssl; } server { listen 443; } }",
            [True, True],
            id="ssl belongs to the address",
        ),
        pytest.param(
            "http { server { listen 443 ssl; } server { listen [::]:443; } }",
            [True, False],
            id="another address",
        ),
        pytest.param("http { server { listen 443; ssl on; } }", [True], id="ssl on"),
        pytest.param("http { ssl on; server { listen 443; } }", [True], id="ssl on in http"),
        pytest.param("mail { server { listen 25; starttls on; } }", [True], id="starttls"),
        pytest.param("mail { starttls only; server { listen 25; } }", [True], id="inherited"),
        pytest.param("mail { server { listen 25; starttls off; } }", [False], id="starttls off"),
        pytest.param("stream { server { listen 1 ssl; } }", [True], id="stream"),
        pytest.param(
            "http { server { listen 443 quic; } server { listen 443; } }",
            [True, False],
            id="QUIC is another socket",
        ),
    ],
)
def test_speaks_tls(text: str, expected: list[bool]) -> None:
    """A server speaks TLS by its own words, by its address's, or by STARTTLS."""
    servers = servers_of(text)
    tls = tls_addresses(servers)
    assert [speaks_tls(server, tls) for server in servers] == expected


def test_a_listen_that_nginx_refuses() -> None:
    """A wrong address has nginx's message and its place."""
    with pytest.raises(ConfigError, match=r" in /n\.conf:2$"):
        servers_of("http { server {\nlisten 80:80:80; } }")


def test_servers_in_included_blocks() -> None:
    """A server takes what is included into it, and from http what it doesn't say itself."""
    files = {
        "/n.conf": b"http { ssl_certificate a; include s; }",
        "/s": b"server { include t; } server { ssl_certificate c; }",
        "/t": b"ssl_protocols TLSv1.3;",
    }
    source = read_source("/n.conf", files.__getitem__, lambda _: [])
    one, two = read_servers(source, 80)
    assert one.inherited("ssl_certificate")[0].args == ("a",)
    assert one.says("ssl_protocols", "tlsv1.3")
    assert two.inherited("ssl_certificate")[0].args == ("c",)


def test_names_of_mail() -> None:
    """In `mail` and nowhere else a server has the names of its block if it has none."""
    block = (
        "server_name Mail.example.com; server { listen 25; } server { listen 26; server_name b; }"
    )
    assert [s.names for s in servers_of(f"mail {{ {block} }}")] == [("mail.example.com",), ("b",)]
    assert servers_of(f"http {{ {block} }}")[0].names == ()


def test_merged() -> None:
    """What one server says of an address holds for the others there."""
    servers = servers_of(
        "http { server { listen 80 proxy_protocol; listen [::]:80 ipv6only=off; }"
        " server { listen 80; listen [::]:80; } }"
    )
    found = merged(listen for server in reversed(servers) for listen in server.listens)
    assert [(str(x.address), x.proxy_protocol, x.ipv6only) for x in found.values()] == [
        ("0.0.0.0:80", True, True),
        ("[::]:80", False, False),
    ]


def test_udp() -> None:
    """UDP takes no address away from TCP."""
    assert servers_of("stream { server { listen 80 udp; } }")[0].listens == ()
