"""`acme_challenge_answer any`: nginx answers each token, for hosts of ours alone; on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nginx_acme.acme.jws import AccountKey
from nginx_acme.nginx.maps import key, sizes
from tests.launcher import issuer
from tests.servers import fetch_plain, has_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site

    MakeSite = Callable[..., Site]

CHALLENGE = "/.well-known/acme-challenge/"
TOKEN = "a-Token_of-22-letters0"  # noqa: S105 - no secret


def thumbprints(site: Site) -> dict[str, str]:
    """That of each account, by its issuer."""
    return {
        path.parent.name.rpartition("_")[0]: AccountKey(path.read_bytes()).thumbprint
        for path in site.state.glob("accounts/*/key.pem")
    }


def answer(site: Site, host: str, path: str = CHALLENGE + TOKEN) -> str | int:
    """What it says to a CA; its status where that isn't 200."""
    found = fetch_plain(site.http, host, path=path)
    return found.body.decode() if found.status == 200 else found.status


def test_any(make_site: MakeSite, each_nginx: str, silent: Silent) -> None:
    """Each token of each host is answered for its account, and nothing else is."""
    site = make_site(binary=each_nginx)
    said = issuer("one", silent.url, None) + issuer("two", f"{silent.url}2", None)
    said += "acme_challenge_answer any; acme_start_wait 0;"
    page = f"server {{ listen 127.0.0.1:{site.http}; server_name www.b.example; return 200 page; }}"
    site.configure(
        site.block("a.example include", "acme one;"),
        site.block("B.example www.B.example 2001:DB8::1", "acme two;"),
        page,
        settings=said,
    )
    site.start()
    known = thumbprints(site)
    one, two = f"{TOKEN}.{known['one']}", f"{TOKEN}.{known['two']}"
    assert known["one"] != known["two"]
    assert [answer(site, host) for host in ("a.example", "A.Example", "include")] == [one] * 3
    hosts = ("b.example", "www.b.example", "2001:db8::1")
    assert [answer(site, host) for host in hosts] == [two] * 3
    assert answer(site, "a.example", f"{CHALLENGE}{TOKEN}?x=y") == one
    assert answer(site, "www.b.example", "/") == "page"
    assert answer(site, "www.b.example", f"{CHALLENGE}{TOKEN}/more") == "page"
    assert answer(site, "www.b.example", f"{CHALLENGE}{TOKEN}.key") == "page"
    assert answer(site, "other.example") == "page"


def test_open_tokens_come_first(make_site: MakeSite, nginx: str, silent: Silent) -> None:
    """A host of two issuers answers an open token for the account that opened it."""
    site = make_site(binary=nginx)
    said = issuer("one", silent.url, None) + issuer("two", f"{silent.url}2", None)
    said += "acme_challenge_answer any; acme_start_wait 0;"
    other = site.block("a.example", "acme two;", listen="127.0.0.2:" + str(site.tls))
    site.configure(site.block("a.example", "acme one;"), other, settings=said)
    site.start()
    assert 'answers for a.example as "one" wants it' in site.output()
    known = thumbprints(site)
    assert answer(site, "a.example") == f"{TOKEN}.{known['one']}"
    (folder,) = site.state.glob("public/challenges/two_*")
    (folder / TOKEN).touch()
    assert answer(site, "a.example") == f"{TOKEN}.{known['two']}"


@pytest.mark.parametrize(
    ("length", "count"), [(253, 1000), (46, 300), (30, 3000)], ids=["long", "some", "many"]
)
def test_room(
    make_site: MakeSite, each_nginx: str, silent: Silent, length: int, count: int
) -> None:
    """However many and long the hosts are, nginx finds room for them and doesn't warn."""
    site = make_site(binary=each_nginx)
    names = [name(number, length) for number in range(count)]
    said = issuer("one", silent.url, None) + "acme_challenge_answer any; acme_start_wait 0;"
    said += "server_names_hash_bucket_size 2048; server_names_hash_max_size 32768;"
    blocks = (" ".join(names[i : i + 50]) for i in range(0, count, 50))
    body = f"listen 127.0.0.1:{site.tls} ssl; acme one; return 204;"
    site.configure(*(f"server {{ server_name {x}; {body} }}" for x in blocks), settings=said)
    tested = site.run("-t")
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr


def name(number: int, length: int) -> str:
    """A host name of so many characters."""
    labels = ".".join(["x" * 49] * 5)
    return f"n{number}-{labels}"[: length - len(".example")].rstrip(".-") + ".example"


def test_the_answer_is_on_ipv6_too(make_site: MakeSite, nginx: str, silent: Silent) -> None:
    """An address that we add answers as the user's do."""
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")
    site = make_site(binary=nginx)
    site.settings = f"acme_http_listen [::1]:{site.http};"
    said = issuer("one", silent.url, None) + "acme_challenge_answer any; acme_start_wait 0;"
    site.configure(site.block("a.example", "acme one;"), settings=said)
    site.start()
    found = fetch_plain(site.http, "a.example", path=CHALLENGE + TOKEN, host="::1")
    assert found.body.decode() == f"{TOKEN}.{thumbprints(site)['one']}"


# --- the table alone ------------------------------------------------------------------------


def test_sizes() -> None:
    """Nothing is said where nginx has room enough; else what has."""
    assert sizes(["a" * 46] * 256) == {}
    assert sizes([]) == {}
    assert sizes(["a" * 47]) == {"map_hash_bucket_size": 512, "map_hash_max_size": 2048}
    assert sizes(["a"] * 257) == {"map_hash_bucket_size": 128, "map_hash_max_size": 2048}
    assert sizes(["a" * 253] * 5000) == {"map_hash_bucket_size": 2048, "map_hash_max_size": 16384}


def test_key() -> None:
    """A host may be called as a word that is no key."""
    assert key("a.example") == "a.example"
    assert [key(word) for word in ("default", "volatile")] == [r'"\\default"', r'"\\volatile"']
