"""What `listen` says: the addresses that nginx would bind, in nginx's spelling."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nginx_acme.nginx.edit import quote
from nginx_acme.nginx.listen import Address, Listen, parse_listen

if TYPE_CHECKING:
    from tests.nginx.oracle import Oracle

ADDRESSES = [
    pytest.param("8080", Address("0.0.0.0", 8080), "0.0.0.0:8080", id="port"),
    pytest.param("*:8080", Address("0.0.0.0", 8080), "0.0.0.0:8080", id="star"),
    pytest.param("0.0.0.0:8080", Address("0.0.0.0", 8080), "0.0.0.0:8080", id="zeros"),
    pytest.param("*", Address("0.0.0.0", 80), "0.0.0.0:80", id="star without port"),
    pytest.param("127.0.0.1", Address("127.0.0.1", 80), "127.0.0.1:80", id="IPv4"),
    pytest.param("127.0.0.1:08080", Address("127.0.0.1", 8080), "127.0.0.1:8080", id="zero before"),
    pytest.param("127.000.0.01:1", Address("127.0.0.1", 1), "127.0.0.1:1", id="zeros in IPv4"),
    pytest.param("127..0.1:1", Address("127.0.0.1", 1), "127.0.0.1:1", id="a number left out"),
    pytest.param("[::]:8080", Address("::", 8080), "[::]:8080", id="all of IPv6"),
    pytest.param("[::1]", Address("::1", 80), "[::1]:80", id="IPv6"),
    pytest.param("[0:0::1]:1", Address("::1", 1), "[::1]:1", id="long IPv6"),
    pytest.param("[2001:DB8:0:0:1::01]:1", Address("2001:db8::1:0:0:1", 1), None, id="capitals"),
    pytest.param("[::127.0.0.1]:1", Address("::7f00:1", 1), None, id="IPv4 in IPv6"),
    pytest.param("unix:/run/x", Address("unix:/run/x", 0), "unix:/run/x", id="socket"),
    pytest.param("UNIX:/run/x", Address("unix:/run/x", 0), None, id="socket in capitals"),
    pytest.param(
        "unix:/run/x:1", Address("unix:/run/x:1", 0), "unix:/run/x:1", id="colon in a path"
    ),
]


@pytest.mark.parametrize(("text", "address", "written"), ADDRESSES)
def test_address(oracle: Oracle, text: str, address: Address, written: str | None) -> None:
    """An address has one spelling, that in which nginx tells of a duplicate."""
    (listen,) = parse_listen([text])
    assert listen.address == address
    if written:
        assert str(address) == written
        assert f"a duplicate listen {written} in" in complaint(
            oracle, f"listen {text}; listen {text};"
        )


def complaint(oracle: Oracle, server: str) -> str:
    """What nginx says against a server."""
    return oracle.complaint(f"events {{}} http {{ access_log off; server {{ {server} }} }}") or ""


@pytest.mark.parametrize(
    "spellings",
    [
        pytest.param(("8080", "*:8080", "0.0.0.0:8080"), id="all of IPv4"),
        pytest.param(("127.0.0.1", "127.0.0.1:80", "127.0.0.1:080"), id="default port"),
        pytest.param(("[::1]:8080", "[0:0:0:0:0:0:0:1]:8080"), id="IPv6"),
    ],
)
def test_one_address(oracle: Oracle, spellings: tuple[str, ...]) -> None:
    """Spellings are of one address for us if they are for nginx."""
    assert len({parse_listen([text]) for text in spellings}) == 1
    for text in spellings:
        assert "duplicate listen" in complaint(oracle, f"listen {spellings[0]}; listen {text};")


HOST_NAMES = [
    pytest.param("localhost", Address("localhost", 80), id="name"),
    pytest.param("Localhost:8080", Address("Localhost", 8080), id="name and port"),
    pytest.param("a-80", Address("a-80", 80), id="a name like a range"),
    pytest.param("80-", Address("80-", 80), id="half a range"),
    pytest.param("1.2.3.256", Address("1.2.3.256", 80), id="a name like IPv4"),
    pytest.param("1.2.3:8080", Address("1.2.3", 8080), id="a part of IPv4"),
]


@pytest.mark.parametrize(("text", "address"), HOST_NAMES)
def test_host_name(text: str, address: Address) -> None:
    """A host name stays as it is written: only nginx's look-up says what it stands for."""
    assert [listen.address for listen in parse_listen([text])] == [address]


REFUSED = [
    *(
        "0",
        "65536",
        "99999",
        "80-70",
        "80-99999",
        "0-80",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:0",
    ),
    *("127.0.0.1:80-", "127.0.0.1:90-80", "127.0.0.1:80-90-100", "::1", ":80", "", "/x", "a/b:80"),
    *(
        "a?b",
        "[::1",
        "[::1]80",
        "[::1]:",
        "[::1]:0",
        "[::1]:90-80",
        "[::1]:80/x",
        "[]:80",
        "[x]:80",
    ),
    *("[x]:0", "[::1%lo]:80", "[1:2]:80", "[::1::2]:80", "unix:", "unix:/" + "x" * 107),
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused(oracle: Oracle, text: str) -> None:
    """An address that nginx refuses is refused in its words."""
    with pytest.raises(ValueError, match="listen") as caught:
        parse_listen([text])
    assert f"{caught.value} in nginx.conf:1" == complaint(oracle, f"listen {quote(text)};")


def test_longest_socket_path(oracle: Oracle) -> None:
    """A path of 107 bytes is the longest that fits."""
    path = "unix:/" + "é" * 53
    (listen,) = parse_listen([path])
    assert listen.address == Address(path, 0)
    assert "duplicate listen" in complaint(oracle, f"listen {path}; listen {path};")


def test_no_arguments() -> None:
    """A `listen` without an address is told as nginx tells it."""
    with pytest.raises(ValueError, match=r'^invalid number of arguments in "listen" directive$'):
        parse_listen([])


def test_port_range(oracle: Oracle) -> None:
    """A range is an address for each port."""
    listens = parse_listen(["[::1]:8000-8003", "ssl"])
    assert [str(listen.address) for listen in listens] == [f"[::1]:800{n}" for n in range(4)]
    assert all(listen.ssl for listen in listens)
    assert [str(listen.address) for listen in parse_listen(["8000-8001"])] == [
        "0.0.0.0:8000",
        "0.0.0.0:8001",
    ]
    server = "listen 127.0.0.1:8000-8003; listen 127.0.0.1:8002;"
    assert "a duplicate listen 127.0.0.1:8002 in" in complaint(oracle, server)


def test_default_port() -> None:
    """A port that is not said is the one that the caller knows."""
    assert parse_listen(["127.0.0.1"], 8000)[0].address == Address("127.0.0.1", 8000)
    assert parse_listen(["[::1]"], 8000)[0].address == Address("::1", 8000)
    assert parse_listen(["8080"], 8000)[0].address == Address("0.0.0.0", 8080)


PLAIN = Listen(
    Address("0.0.0.0", 443),
    ssl=False,
    quic=False,
    default_server=False,
    proxy_protocol=False,
    ipv6only=True,
)

PARAMETERS = [
    pytest.param((), PLAIN, id="none"),
    pytest.param(("ssl",), replace(PLAIN, ssl=True), id="ssl"),
    pytest.param(("quic", "reuseport"), replace(PLAIN, quic=True), id="quic"),
    pytest.param(("default_server",), replace(PLAIN, default_server=True), id="default_server"),
    pytest.param(("default",), replace(PLAIN, default_server=True), id="the older word for it"),
    pytest.param(("proxy_protocol",), replace(PLAIN, proxy_protocol=True), id="proxy_protocol"),
    pytest.param(("ipv6only=off",), replace(PLAIN, ipv6only=False), id="ipv6only=off"),
    pytest.param(("ipv6only=off", "ipv6only=on"), PLAIN, id="the last one counts"),
    pytest.param(("backlog=511", "http2", "of-the-future"), PLAIN, id="others are left to nginx"),
]


@pytest.mark.parametrize(("parameters", "listen"), PARAMETERS)
def test_parameters(parameters: tuple[str, ...], listen: Listen) -> None:
    """A parameter says what it says; without it nginx's default holds."""
    assert parse_listen(["443", *parameters]) == (listen,)


def test_refused_ipv6only(oracle: Oracle) -> None:
    """A value of `ipv6only` that nginx does not know is refused in its words."""
    with pytest.raises(ValueError, match="ipv6only") as caught:
        parse_listen(["[::1]:80", "ipv6only=of"])
    said = complaint(oracle, "listen [::1]:80 ipv6only=of;")
    assert said == f"{caught.value} in nginx.conf:1"
