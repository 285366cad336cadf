"""Whether a CA finds this nginx, by what can be seen from here."""

from __future__ import annotations

import pytest

from nginx_acme.doctor.finding import Verdict
from nginx_acme.doctor.names import Route, Sight, judge_addresses, judge_answer, listener_for
from nginx_acme.identifiers import Name
from nginx_acme.nginx.listen import Listen, parse_listen
from nginx_acme.preflight import Answer
from nginx_acme.preflight import Verdict as Said

NAME = Name("example.com")
RIGHT = Answer(Said.RIGHT)
WRONG = Answer(Said.WRONG, "404 on it")
SILENT = Answer(Said.UNKNOWN, "it gives no answer")
V4, V6 = "1.1.1.1", "2606:4700::1111"


def sight(*routes: Route, public: bool = True, optional: bool = False) -> Sight:
    """What DNS has for the name."""
    return Sight(NAME, public, optional, routes)


@pytest.mark.parametrize(
    ("route", "verdict", "words"),
    [
        pytest.param(Route(V4, True, True, RIGHT), "ok", "leads here by 1.1.1.1", id="here"),
        pytest.param(Route(V4, False, False, RIGHT), "ok", "leads here", id="NAT that leads here"),
        pytest.param(Route(V4, True, True, None), "ok", "leads here", id="here, not tried"),
        pytest.param(
            Route(V4, True, True, WRONG), "error", "here by 1.1.1.1, but 404", id="wrongly"
        ),
        pytest.param(
            Route(V4, True, False, WRONG), "error", "another program", id="another program"
        ),
        pytest.param(Route(V4, True, True, SILENT), "warning", "no answer", id="silent"),
        pytest.param(Route(V4, True, False, SILENT), "warning", "IPv6 only", id="no IPv4"),
        pytest.param(Route(V6, True, False, SILENT), "warning", "IPv4 only", id="no IPv6"),
        pytest.param(Route(V6, True, False, None), "warning", "IPv4 only", id="no IPv6, not tried"),
        pytest.param(Route(V4, False, False, None), "warning", "not this host", id="elsewhere"),
        pytest.param(Route(V4, False, False, SILENT), "warning", "(it gives no", id="hairpin"),
        pytest.param(Route(V4, False, False, WRONG), "warning", "another server", id="a proxy"),
        pytest.param(
            Route(V6, False, False, SILENT), "warning", "goes there first", id="AAAA elsewhere"
        ),
        pytest.param(
            Route(V6, False, False, WRONG),
            "error",
            "asks nowhere else",
            id="AAAA of another server",
        ),
        pytest.param(Route("10.0.0.1", True, True, RIGHT), "error", "no public CA", id="private"),
        pytest.param(Route("127.0.0.1", True, True, RIGHT), "error", "no public CA", id="loopback"),
    ],
)
def test_one_address(route: Route, verdict: str, words: str) -> None:
    """Proof is an error; what only looks odd from here is a warning, with what may make it right."""
    found = judge_addresses(sight(route))
    assert found.verdict is Verdict(verdict)
    assert words in found.words


def test_private_ca() -> None:
    """A CA of a private network gets to a private address."""
    found = judge_addresses(sight(Route("10.0.0.1", True, True, RIGHT), public=False))
    assert found.verdict is Verdict.FINE


def test_several_addresses() -> None:
    """One wrong address among right ones is what is told."""
    found = judge_addresses(
        sight(
            Route(V4, True, True, RIGHT),
            Route("1.0.0.1", False, False, None),
            Route(V6, False, False, WRONG),
        )
    )
    assert found.verdict is Verdict.WRONG
    assert V4 not in found.words
    assert "1.0.0.1" in found.words
    assert found.advice == "change or remove the AAAA record"


@pytest.mark.parametrize(
    ("public", "optional", "verdict"),
    [
        pytest.param(True, False, "error", id="public"),
        pytest.param(False, False, "warning", id="the CA may ask another DNS"),
        pytest.param(True, True, "ok", id="nobody asked for it"),
    ],
)
def test_no_address(public: bool, optional: bool, verdict: str) -> None:  # noqa: FBT001
    """A name without an address can't be certified."""
    found = judge_addresses(sight(public=public, optional=optional))
    assert found.verdict is Verdict(verdict)
    assert "no address" in found.words


def test_blind() -> None:
    """A DNS that doesn't know the CA knows nothing of the internet."""
    found = judge_addresses(Sight(NAME, True, False, (), blind=True))
    assert found.verdict is Verdict.ODD
    assert "doesn't know the CA either" in found.words


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        pytest.param(RIGHT, "ok", id="right"),
        pytest.param(WRONG, "error", id="wrong"),
        pytest.param(SILENT, "warning", id="unknown"),
    ],
)
def test_answer(answer: Answer, verdict: str) -> None:
    """What our own nginx answers is proof, if it answers."""
    found = judge_answer(NAME, answer)
    assert found.verdict is Verdict(verdict)
    assert answer.words in found.words


def listens(*texts: str) -> list[Listen]:
    """What `listen` directives with these arguments listen on."""
    return [listen for text in texts for listen in parse_listen(text.split())]


@pytest.mark.parametrize(
    ("address", "where", "expected"),
    [
        pytest.param("192.0.2.1", ["80"], "0.0.0.0:80", id="a wildcard"),
        pytest.param("2001:db8::1", ["80"], None, id="IPv4 only"),
        pytest.param("2001:db8::1", ["80", "[::]:80"], "[::]:80", id="both"),
        pytest.param("192.0.2.1", ["[::]:80"], None, id="IPv6 only"),
        pytest.param("192.0.2.1", ["[::]:80 ipv6only=off"], "[::]:80", id="one for both"),
        pytest.param("192.0.2.1", ["192.0.2.2:80"], None, id="another address"),
        pytest.param("192.0.2.1", ["8080", "192.0.2.1:80"], "192.0.2.1:80", id="port 80"),
        pytest.param("192.0.2.1", ["8080"], "0.0.0.0:8080", id="another port"),
    ],
)
def test_listener(address: str, where: list[str], expected: str | None) -> None:
    """A connection is taken by its address, by a wildcard of its family or by one for both."""
    found = listener_for(address, listens(*where))
    assert (found and str(found.address)) == expected
