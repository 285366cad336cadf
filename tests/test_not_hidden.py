"""Nothing of the user's hides a challenge, and nothing of ours hides what is the user's."""

from __future__ import annotations

import base64
import re
import socket
from typing import TYPE_CHECKING

import pytest

from nginx_acme.acme.jws import AccountKey
from tests.launcher import issuer
from tests.servers import LOCALHOST, fetch_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.launcher import Silent, Site

    MakeSite = Callable[..., Site]

PATH = "/.well-known/acme-challenge/"
TOKEN = "a-Token_of-22-letters0"  # noqa: S105 - no secret
ZONE = "limit_req_zone all zone=slow:1m rate=1r/m;"

SERVERS = {
    "redirect.example": "return 301 https://elsewhere$request_uri;",
    "silent.example": "return 444;",
    "rewritten.example": "rewrite ^ /gone permanent;",
    "chosen.example": "set $no 1; if ($no) { return 403; }",
    "denied.example": "deny all;",
    "password.example": "auth_basic who; auth_basic_user_file nowhere;",
    "asked.example": "auth_request /ask; location = /ask { return 401; }",
    "satisfied.example": "satisfy all; deny all; auth_basic who; auth_basic_user_file nowhere;",
    "slow.example": "limit_req zone=slow;",
    "method.example": "location / { limit_except POST { deny all; } }",
    "proxied.example": f"location / {{ proxy_pass http://{LOCALHOST}:1; }}",
    "other-client.example": f"location ^~ {PATH} {{ return 200 theirs; }}",
    "exact.example": f"location = {PATH}{TOKEN} {{ return 200 theirs; }}",
    "files.example": "root nowhere; try_files $uri =404;",
}
"""What a server says that has the name."""
OTHERS = {
    "a.wild.example": "server_name *.wild.example; return 200 wild;",
    "a.regex.example": r"server_name ~^\w+\.regex\.example$; return 200 regex;",
    "a.last.example": "server_name a.last.*; return 200 last;",
    "nobodys.example": "server_name _; return 200 default;",
}
"""A server that nginx chooses for the name, though it doesn't have it; the last is the default."""


@pytest.fixture
def site(make_site: MakeSite, each_nginx: str, silent: Silent) -> Site:
    """All of these names with one account, and a token that is open for it."""
    made = make_site(binary=each_nginx)
    listen = f"listen {LOCALHOST}:{made.http}"
    names = [*SERVERS, *OTHERS]
    plain = [f"{listen}; server_name {name}; {said}" for name, said in SERVERS.items()]
    plain += [f"{listen}{' default_server' * ('name _;' in x)}; {x}" for x in OTHERS.values()]
    made.configure(
        *(made.block(name, "acme ca;") for name in names),
        *(f"server {{ {server} }}" for server in plain),
        settings=f"{issuer('ca', silent.url, None)} acme_start_wait 0; {ZONE}",
    )
    made.start()
    (challenges,) = made.state.glob("public/challenges/ca_*")
    (challenges / TOKEN).touch()
    return made


def right(site: Site) -> bytes:
    """The answer to the open token."""
    (key,) = site.state.glob("accounts/ca_*/key.pem")
    return f"{TOKEN}.{AccountKey(key.read_bytes()).thumbprint}".encode()


def ask(site: Site, *lines: str) -> tuple[int, bytes]:
    """Status and body of what is answered to a request."""
    with socket.create_connection((LOCALHOST, site.http), timeout=10) as plain:
        plain.sendall("".join(f"{line}\r\n" for line in (*lines, "Connection: close", "")).encode())
        answer = b"".join(_chunks(plain))
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d+)", head)
    return int(status[1]) if status else 0, body


def _chunks(plain: socket.socket) -> Iterator[bytes]:
    while chunk := plain.recv(4096):
        yield chunk


def test_hidden_by_nothing(site: Site) -> None:
    """An open token is answered whatever the server does; any other request is the server's own."""
    wanted = right(site)
    answers = {name: fetch_plain(site.http, name, path=PATH + TOKEN) for name in SERVERS | OTHERS}
    assert {name: (x.status, x.body) for name, x in answers.items()} == dict.fromkeys(
        answers, (200, wanted)
    )
    others = {
        name: ask(site, f"GET {PATH}another-token-of-22-l HTTP/1.1", f"Host: {name}")
        for name in SERVERS | OTHERS
    }
    assert {name: status for name, (status, _) in others.items()} == {
        **dict.fromkeys(("redirect.example", "rewritten.example"), 301),
        "silent.example": 0,
        **dict.fromkeys(("chosen.example", "denied.example", "satisfied.example"), 403),
        **dict.fromkeys(("password.example", "asked.example"), 401),
        "slow.example": 404,
        "method.example": 403,
        "proxied.example": 502,
        **dict.fromkeys(("exact.example", "files.example"), 404),
        "other-client.example": 200,
        **dict.fromkeys(OTHERS, 200),
    }
    assert others["other-client.example"][1] == b"theirs"
    assert [others[name][1] for name in OTHERS] == [b"wild", b"regex", b"last", b"default"]


def test_however_it_is_asked(site: Site) -> None:
    """The host may be written in any way that means it, and the request be any that reads."""
    wanted = (200, right(site))
    get = f"GET {PATH}{TOKEN} HTTP/1.1"
    for host in ("REDIRECT.example", "redirect.example.", "Redirect.Example.:80"):
        assert ask(site, get, f"Host: {host}") == wanted, host
    absolute = f"GET http://redirect.example{PATH}{TOKEN} HTTP/1.1"
    assert ask(site, absolute, "Host: silent.example") == wanted
    assert ask(site, f"GET {PATH}{TOKEN}?x HTTP/1.1", "Host: denied.example") == wanted
    assert ask(site, get, "Host: denied.example", "Range: bytes=3-4") == wanted
    since = "If-Modified-Since: Thu, 26 Nov 2026 00:00:00 GMT"
    assert ask(site, get, "Host: denied.example", since) == wanted
    assert ask(site, get.replace("GET", "HEAD"), "Host: denied.example") == (200, b"")


def test_files_of_workers(make_site: MakeSite) -> None:
    """What workers open for a request may come later, and lie where they can go alone."""
    site = make_site()
    site.settings = "acme_state_path kept/state;"
    (site.folder / "kept").mkdir(mode=0o700)
    protected = "auth_basic who; auth_basic_user_file"
    locations = (
        f"location /now {{ {protected} now; }} location /later {{ {protected} $host.pass; }}"
    )
    server = f"server {{ listen {LOCALHOST}:{site.http}; {locations} }}"
    (site.folder / "now").write_text("user:{PLAIN}secret\n")
    site.configure(site.block("a.internal", "acme local;"), server)
    site.start()
    (site.folder / "a.internal.pass").write_text("user:{PLAIN}secret\n")
    password = f"Authorization: Basic {base64.b64encode(b'user:secret').decode()}"
    for path in ("/now", "/later"):
        assert ask(site, f"GET {path} HTTP/1.1", "Host: a.internal")[0] == 401
        assert ask(site, f"GET {path} HTTP/1.1", "Host: a.internal", password)[0] == 404
