"""What a name of `server_name` means to a CA."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.identifiers import Name, NotCertifiable, name_of, why_not_public


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("example.com", Name("example.com"), id="plain"),
        pytest.param("WWW.Example.COM", Name("www.example.com"), id="upper case"),
        pytest.param("example.com.", Name("example.com"), id="trailing dot"),
        pytest.param("*.example.com", Name("*.example.com"), id="wildcard"),
        pytest.param("bücher.example", Name("xn--bcher-kva.example"), id="U-label"),
        pytest.param("*.bücher.example", Name("*.xn--bcher-kva.example"), id="wildcard U-label"),
        pytest.param("_dmarc.example.com", Name("_dmarc.example.com"), id="underscore"),
        pytest.param("192.0.2.1", Name("192.0.2.1", is_ip=True), id="IPv4"),
        pytest.param("[2001:DB8::0:1]", Name("2001:db8::1", is_ip=True), id="IPv6"),
        pytest.param("localhost", Name("localhost"), id="no dot"),
    ],
)
def test_name_of(text: str, expected: Name) -> None:
    """A name has one canonical text."""
    assert name_of(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("www.example.*", "wildcard", id="trailing wildcard"),
        pytest.param("a.*.example.com", "wildcard", id="inner wildcard"),
        pytest.param("a/../b.example.com", "not a host name", id="path"),
        pytest.param("a b.example.com", "not a host name", id="space"),
        pytest.param("a\nb.example.com", "not a host name", id="newline"),
        pytest.param("a\0.example.com", "not a host name", id="NUL"),
        pytest.param("-a.example.com", "not a host name", id="hyphen first"),
        pytest.param("a..b", "not a host name", id="empty label"),
        pytest.param("a" * 64 + ".com", "not a host name", id="label of 64"),
        pytest.param("a." * 127 + "com", "longer than 253", id="too long"),
        pytest.param("[fe80::1%eth0]", "not a host name", id="address with a zone"),
        pytest.param("\udcff.example.com", "internationalized", id="no UTF-8"),
        pytest.param("a\u00a0b.example", "host name", id="no-break space"),
    ],
)
def test_what_is_no_name(text: str, reason: str) -> None:
    """What no CA could certify is told with the reason."""
    with pytest.raises(NotCertifiable, match=reason):
        name_of(text)


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is either an identifier that stands for itself or told to be none."""
    try:
        name = name_of(text)
    except NotCertifiable:
        return
    assert name_of(name.value) == name
    assert name.value.isascii()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("example.com", None, id="public"),
        pytest.param("*.example.com", None, id="public wildcard"),
        pytest.param("8.8.8.8", None, id="public address"),
        pytest.param("printer", "no dot", id="no dot"),
        pytest.param("app.internal", '".internal"', id="internal"),
        pytest.param("fritz.box.home.arpa", '".arpa"', id="home.arpa"),
        pytest.param("abc.onion", '".onion"', id="onion"),
        pytest.param("10.1.2.3", "public address", id="private address"),
        pytest.param("[::1]", "public address", id="loopback"),
    ],
)
def test_why_not_public(name: str, why: str | None) -> None:
    """What no public CA certifies is known before it is asked."""
    reason = why_not_public(name_of(name))
    assert (reason is None) == (why is None)
    assert why is None or why in str(reason)
