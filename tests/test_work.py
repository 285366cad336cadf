"""What is left to do for a generation: it comes back from the disk as it went there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import StateError
from nginx_acme.nginx.source import read_source
from nginx_acme.plan import Facts, make_plan
from nginx_acme.work import Work, from_json, to_json, work_of

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = """
acme_hook deployed /bin/true;
acme_hook failed hooks/told.sh;
acme_issuer corp { uri https://ca.example/dir; contact a@b.example tel:+1; renew_before 20d; }
http {
    acme_challenge_answer any;
    server {
        listen 443 ssl;
        listen [::1]:8443 ssl proxy_protocol;
        server_name .one.example 2001:db8::1;
        acme corp key=ecdsa:256 key=rsa:2048 profile=shortlived;
    }
    server { listen 443 ssl; server_name a.internal; acme local; }
    server { listen 443 ssl; server_name a.internal; acme local key=rsa:2048; }
}
mail { server { listen 993 ssl; server_name mail.example.com; acme; } }
"""


def work_for(conf: str, *, options: tuple[str, ...] = (), source: str | None = None) -> Work:
    """What a configuration leaves to do."""
    read = read_source("/etc/nginx/nginx.conf", lambda _: conf.encode(), lambda _: ())
    plan = make_plan(read, Facts((1, 28), "host"))
    return work_of(plan, options=options, pid_file="/run/p", error_log="stderr", source=source)


def test_round_trip() -> None:
    """Every issuer, name, address, key type, place and hook is the same afterwards."""
    options = ("-c", b"/etc/\xff.conf".decode("utf-8", "surrogateescape"), "-g", "user ü;")
    work = work_for(CONF, options=options, source="/mnt/acme")
    assert len(work.certificates) == 3
    assert len(work.shown) == 4
    assert from_json(to_json(work), "w") == work


def test_nothing_to_do() -> None:
    """A configuration without certificates leaves nothing, and that comes back as well."""
    work = work_for("http { acme_redirect off; }")
    assert from_json(to_json(work), "w") == work


def test_issuers_are_shared() -> None:
    """Ten thousand certificates of one issuer have one, in memory as on disk."""
    servers = "".join(
        f"server {{ listen 443 ssl; server_name {n}.example.com; acme; }}" for n in range(9)
    )
    text = to_json(work_for(f"http {{ {servers} }}"))
    assert text.count(b"directory_url") == 1
    assert len({id(one.issuer) for one in from_json(text, "w").certificates}) == 1


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(lambda text: text[:-40], id="cut off"),
        pytest.param(lambda text: bytes(len(text)), id="zeros"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"[]", id="something else"),
        pytest.param(lambda text: changed(text, "issuers", []), id="an issuer that is not listed"),
        pytest.param(lambda text: changed(text, "listens", None), id="no listens"),
        pytest.param(lambda text: changed(text, "certificates", ["x"]), id="no certificates"),
    ],
)
def test_damaged(damaged: Callable[[bytes], bytes]) -> None:
    """What was not written like that is no work, and the operator is told what to do."""
    text = damaged(to_json(work_for(CONF)))
    with pytest.raises(StateError, match="is damaged, reload nginx"):
        from_json(text, "/w.json")


def changed(text: bytes, name: str, value: object) -> bytes:
    """The same with another value."""
    return json.dumps({**json.loads(text), name: value}).encode()
