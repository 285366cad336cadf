"""The grammar of our directives, alone."""

from __future__ import annotations

import pytest

from nginx_acme import directives
from nginx_acme.directives import Acme, Mistake
from nginx_acme.nginx.syntax import parse


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param((), Acme(), id="one word"),
        pytest.param(("off",), Acme(off=True), id="off"),
        pytest.param(("corp",), Acme(issuers=("corp",)), id="an issuer"),
        pytest.param(
            ("key=rsa:2048", "corp", "key=ecdsa:384", "profile=tlsserver"),
            Acme(issuers=("corp",), keys=("rsa:2048", "ecdsa:384"), profile="tlsserver"),
            id="everything, in any order",
        ),
    ],
)
def test_acme(args: tuple[str, ...], expected: Acme) -> None:
    """The arguments of `acme` may come in any order."""
    assert directives.acme(args) == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(("off", "corp"), '"off" must be the only', id="off and more"),
        pytest.param(("a", "b"), "one issuer", id="two issuers"),
        pytest.param(("key=rsa:2048", "key=rsa:2048"), 'duplicate parameter "key=', id="same key"),
        pytest.param(("key=ecdsa:256", "key=ecdsa:384"), "two keys of one kind", id="one kind"),
        pytest.param(("profile=a", "profile=b"), 'duplicate parameter "profile=b"', id="profiles"),
        pytest.param(("profile=",), 'invalid parameter "profile="', id="empty"),
        pytest.param(("key=dsa:1024",), 'unsupported key type "dsa:1024"', id="key type"),
        pytest.param(("colour=red",), 'invalid parameter "colour=red"', id="unknown"),
    ],
)
def test_acme_mistakes(args: tuple[str, ...], message: str) -> None:
    """What can't be meant is refused."""
    with pytest.raises(Mistake, match=message):
        directives.acme(args)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("15s", 15, id="seconds"),
        pytest.param("60", 60, id="no unit"),
        pytest.param("1m 30s", 90, id="two units"),
        pytest.param("1h30m", 5400, id="glued"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("0", 0, id="zero"),
        pytest.param("2d", 172800, id="days"),
    ],
)
def test_seconds(value: str, expected: float) -> None:
    """Times are nginx's times."""
    assert directives.seconds(value) == expected


@pytest.mark.parametrize("value", ["", " ", "s", "-1s", "1x", "1.5s", "\u0661s", "s1"])
def test_no_time(value: str) -> None:
    """What nginx takes for no time is none."""
    with pytest.raises(Mistake, match="invalid value"):
        directives.seconds(value)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        pytest.param(("a@example.com",), ("mailto:a@example.com",), id="scheme assumed"),
        pytest.param(("mailto:a@example.com",), ("mailto:a@example.com",), id="mailto"),
        pytest.param(("tel:+49-30-123", "b@x.y"), ("tel:+49-30-123", "mailto:b@x.y"), id="several"),
    ],
)
def test_contacts(args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """Contacts are URLs (RFC 8555 §7.3)."""
    assert directives.contacts(args) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("a", id="no address"),
        pytest.param("mailto:a@b?subject=x", id="hfields"),
        pytest.param("mailto:a@b,c@d", id="two addresses"),
        pytest.param("https://example.com/", id="other scheme"),
        pytest.param("tel:call me", id="no number"),
    ],
)
def test_no_contact(value: str) -> None:
    """RFC 8555 §7.3: one address and no header fields in a mailto URL."""
    with pytest.raises(Mistake, match="invalid contact"):
        directives.contacts((value,))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            'nginx: [emerg] unknown directive "sever_name" in /etc/nginx/nginx.conf:3',
            'nginx: [emerg] unknown directive "sever_name", did you mean "server_name"?'
            " in /etc/nginx/nginx.conf:3",
            id="nginx's directive",
        ),
        pytest.param(
            'unknown directive "acme_redirct" in x:1',
            'unknown directive "acme_redirct", did you mean "acme_redirect"? in x:1',
            id="ours",
        ),
        pytest.param(
            'unknown directive "qqqq" in x:1', 'unknown directive "qqqq" in x:1', id="nothing near"
        ),
        pytest.param(
            'nginx: [emerg] unknown directive "js_content" in x:1',
            'nginx: [emerg] unknown directive "js_content", this nginx lacks it in x:1',
            id="a module's",
        ),
        pytest.param(
            'nginx: [emerg] unknown directive "acme_contact" in command line',
            'nginx: [emerg] "acme_contact" directive is not allowed in -g',
            id="ours in -g",
        ),
        pytest.param(
            'nginx: [emerg] unknown directive "acme" in /etc/rtmp.conf:7',
            'nginx: [emerg] "acme" directive is not allowed here in /etc/rtmp.conf:7',
            id="ours in a block that isn't nginx's",
        ),
        pytest.param("host not found in upstream", "host not found in upstream", id="other"),
    ],
)
def test_hint(line: str, expected: str) -> None:
    """An unknown directive comes with what is known of it."""
    assert directives.hint(line) == expected


def test_issuer_directive_twice() -> None:
    """A directive of an issuer is said once."""
    block = directives.IssuerBlock()
    (one,) = parse("ssl_verify off;", "x")
    block = directives.issuer_directive(block, one)
    assert block.verify is False
    with pytest.raises(Mistake, match='"ssl_verify" directive is duplicate'):
        directives.issuer_directive(block, one)


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        pytest.param("renew_before 20d;", "renew_before", 20 * 86400, id="days"),
        pytest.param("staging https://ca.example/s;", "staging", "https://ca.example/s", id="try"),
        pytest.param("renew_before 36h;", "renew_before", 36 * 3600, id="hours"),
        pytest.param("renew_before '1w 12h';", "renew_before", 7.5 * 86400, id="two units"),
        pytest.param("all_names on;", "all_names", True, id="all names"),
        pytest.param("all_names off;", "all_names", False, id="all names, as by default"),
    ],
)
def test_issuer_directive(text: str, field: str, expected: object) -> None:
    """When to renew, and whether a dead name may be left out, is an issuer's."""
    (one,) = parse(text, "x")
    block = directives.issuer_directive(directives.IssuerBlock(), one)
    assert getattr(block, field) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("staging ca.example;", 'invalid URL "ca.example"', id="no URL"),
        pytest.param("renew_before soon;", 'invalid value "soon" in "renew_before"', id="no time"),
        pytest.param("renew_before 0;", 'invalid value "0" in "renew_before"', id="too late"),
        pytest.param("renew_before -1d;", 'invalid value "-1d" in "renew_before"', id="later"),
        pytest.param("renew_before 1d 2d;", "invalid number of arguments", id="two times"),
        pytest.param("all_names yes;", 'must be "on" or "off"', id="yes"),
        pytest.param("ssl_verify maybe;", 'must be "on" or "off"', id="flag"),
        pytest.param("challenge dns-01;", 'unsupported challenge "dns-01"', id="challenge"),
        pytest.param("account_key ecdsa:255;", 'unsupported key type "ecdsa:255"', id="key"),
        pytest.param("profile a b;", 'invalid parameter "b"', id="profile"),
        pytest.param("uri https://a@b/;", "invalid URL", id="user in URL"),
        pytest.param("uri;", "invalid number of arguments", id="no argument"),
        pytest.param("contact { }", "is not terminated", id="block"),
    ],
)
def test_issuer_mistakes(text: str, message: str) -> None:
    """A mistake in an issuer is told as nginx tells it."""
    (one,) = parse(text, "x")
    with pytest.raises(Mistake, match=message):
        directives.issuer_directive(directives.IssuerBlock(), one)
