"""What nginx serves of how its certificates stand (`acme_status`), by real nginx."""

from __future__ import annotations

import http.client
import json
import os
import stat
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import browse
from tests.launcher import eventually
from tests.servers import LOCALHOST, ROOT, fetch_plain, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

FILES = {
    "html": ("status.html", "text/html"),
    "json": ("status.json", "application/json"),
    "prometheus": ("metrics.prom", "text/plain; version=0.0.4; charset=utf-8"),
}
AROUND = "root /none; types { text/n html json prom; } expires max; open_file_cache max=9;"
LOCATIONS = {
    "exact": ("location = /x { @; }", "/x"),
    "prefix": ("location /x { @; }", "/x"),
    "below a prefix": ("location /x { @; }", "/x/y.png"),
    "a folder": ("location /x/ { @; }", "/x/"),
    "everything": ("location / { @; }", "/"),
    "regular expression": ("location ~ ^/(a|x)$ { @; }", "/x?a=b"),
    "in another": ("location /x { return 418; location /x/y { @; } }", "/x/y"),
    "named": ("location = /x { error_page 418 = @s; return 418; } location @s { @; }", "/x"),
    "internal": ("location /x { rewrite ^ /s; } location = /s { internal; @; }", "/x"),
    "beside an if": ("location /x { @; if ($arg_q) { set $q 1; } }", "/x?q=1"),
    "settings around": (f"{AROUND} location /x {{ @; }}", "/x"),
    "for us": ("location /x { @; allow 127.0.0.1; deny all; }", "/x"),
    "one method": ("location /x { limit_except GET { deny all; } @; }", "/x"),
}
"""Servers with a status location in it, and what to ask for."""
ALONE = "acme_agent off;"
"""Nobody looks but who is told to."""
CLOSED = {
    "deny": "location /x { @; deny all; }",
    "if": "location /x { @; if ($request_method = GET) { return 403; } }",
    "method": "location /x { limit_except POST { deny all; } @; }",
    "satisfy": "location /x { satisfy all; deny all; auth_basic x; auth_basic_user_file x; @; }",
    "internal": "location /x { internal; @; }",
}


def with_servers(site: Site, *servers: str) -> int:
    """A certificate, and these servers (s0, s1, …) beside it on a port, which is given back."""
    port = free_port()
    blocks = (
        f"server {{ listen {LOCALHOST}:{port}; server_name s{number}; {inside} }}"
        for number, inside in enumerate(servers)
    )
    site.configure(site.block("a.internal", "acme local;"), *blocks, settings=ALONE)
    return port


def public(site: Site, name: str) -> Path:
    """A file that is served."""
    return site.state / "public" / "instances" / site.instance.name / name


def asked(port: int, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What comes back for a request of any kind."""
    with closing(http.client.HTTPConnection(LOCALHOST, port, timeout=10)) as connection:
        connection.request(method, "/x", headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


@pytest.mark.parametrize("form", FILES)
def test_locations(each_nginx: str, make_site: MakeSite, form: str) -> None:
    """Whatever the location and what is said around it, it serves the one file, never cached."""
    site = make_site(binary=each_nginx)
    cases = [text.replace("@;", f"acme_status {form};") for text, _ in LOCATIONS.values()]
    port = with_servers(site, *cases)
    site.start()
    name, content_type = FILES[form]
    expected = (200, content_type, "no-cache", public(site, name).read_bytes())
    for number, (case, (_, path)) in enumerate(LOCATIONS.items()):
        answer = fetch_plain(port, f"s{number}", path=path)
        found = (
            answer.status,
            answer.headers.get("Content-Type"),
            answer.headers.get("Cache-Control"),
            answer.body,
        )
        assert found == expected, case


def test_closed_locations(each_nginx: str, make_site: MakeSite) -> None:
    """What keeps people out of a location keeps them out of this one."""
    site = make_site(binary=each_nginx)
    port = with_servers(site, *(text.replace("@;", "acme_status;") for text in CLOSED.values()))
    site.start()
    answers = {
        case: fetch_plain(port, f"s{number}", path="/x").status
        for number, case in enumerate(CLOSED)
    }
    assert answers == dict.fromkeys(CLOSED, 403) | {"internal": 404}


def test_nothing_else_is_served(each_nginx: str, make_site: MakeSite) -> None:
    """No path leads from a location to another file: of the state, or of the user's own."""
    site = make_site(binary=each_nginx)
    port = with_servers(site, "location / { acme_status json; }")
    site.start()
    page = public(site, "status.json").read_bytes()
    for path in ("/status.html", "/metrics.prom", "/../../../layout", "/..%2f..%2flayout", "//x"):
        answer = fetch_plain(port, "s0", path=path)
        assert (answer.status, answer.body) in {(200, page), (400, answer.body)}, path


def test_methods(make_site: MakeSite) -> None:
    """HEAD and conditional requests are answered as for any file; nobody can write it."""
    site = make_site()
    port = with_servers(site, "location /x { acme_status; }")
    site.start()
    status, headers, body = asked(port)
    assert status == 200
    assert asked(port, "HEAD")[0::2] == (200, b"")
    assert int(asked(port, "HEAD")[1]["Content-Length"]) == len(body)
    assert asked(port, **{"If-None-Match": headers["ETag"]})[0] == 304
    for method in ("POST", "PUT", "DELETE"):
        assert asked(port, method)[0] == 405
    assert asked(port)[2] == body


def test_settings_of_its_own(each_nginx: str, make_site: MakeSite) -> None:
    """What a location says itself holds."""
    site = make_site(binary=each_nginx)
    more = "default_type text/x-own; expires 9s; open_file_cache off; types { text/y-own html; }"
    port = with_servers(site, f"location = /x {{ acme_status json; {more} }}")
    site.start()
    _, headers, _ = asked(port)
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("text/x-own", "max-age=9")


def test_in_a_browser(make_site: MakeSite, chromium: str) -> None:
    """A browser shows it as it is, and asks for nothing else."""
    site = make_site()
    port = with_servers(site, "access_log logs/page.log; location = /x { acme_status; }")
    site.start()
    seen = browse(chromium, f"http://{LOCALHOST}:{port}/x")
    assert "<h1>The certificate is well</h1>" in seen.document
    assert not seen.complaints
    (line,) = (site.folder / "logs" / "page.log").read_text().splitlines()
    assert '"GET /x HTTP/1.1" 200' in line


def test_readme(make_site: MakeSite) -> None:
    """The example of the README serves what it says, and to whom."""
    section = (ROOT / "README.md").read_text().partition("## Monitoring")[2]
    example = section.partition("```nginx\n")[2].partition("```")[0]
    site, port = make_site(), free_port()
    site.configure(example.replace(":8080", f":{port}"), settings=ALONE)
    site.start()
    assert fetch_plain(port, "any", path="/certificates").headers["Content-Type"] == "text/html"
    assert json.loads(fetch_plain(port, "any", path="/certificates.json").body)["schema"] == 1
    assert fetch_plain(port, "any", path="/metrics").status == 403


def test_before_any_certificate(make_site: MakeSite) -> None:
    """A configuration that wants no certificate has a page, too."""
    site = make_site()
    port = free_port()
    location = "location /x { acme_status; }"
    site.configure(f"server {{ listen {LOCALHOST}:{port}; {location} }}")
    site.start()
    assert b"There are no certificates" in fetch_plain(port, "any", path="/x").body


def test_it_is_tested(make_site: MakeSite) -> None:
    """`-t` finds nothing wrong with it, and writes nothing."""
    site = make_site()
    with_servers(site, "location /x { acme_status; }")
    said = site.run("-t")
    assert (said.returncode, site.state.exists()) == (0, False), said.stderr
    assert "acme_status" not in site.run("-T").stdout


# --- who writes it --------------------------------------------------------------------------


def look(site: Site) -> datetime:
    """When the certificates were last looked at, by the published document."""
    return datetime.fromisoformat(json.loads(public(site, "status.json").read_text())["last_look"])


def test_everybody_may_read(make_site: MakeSite) -> None:
    """Files for everybody's eyes in folders that everybody may enter, whatever the umask."""
    site = make_site()
    with_servers(site)
    before = os.umask(0o077)
    try:
        site.start()
    finally:
        os.umask(before)
    folder = public(site, "")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {name: 0o644 for name, _ in FILES.values()}
    above = [folder, folder.parent, folder.parent.parent]
    assert [stat.S_IMODE(path.stat().st_mode) for path in above] == [0o755] * 3


def test_the_same_as_status(make_site: MakeSite, pebble: Pebble) -> None:
    """What is published says what `status --json` says, but for what is true only of now."""
    site = make_site(pebble)
    blocks = [site.block("a.example b.example"), site.block("c.internal", "acme local;")]
    site.configure(*blocks, settings=ALONE)
    site.start()
    published: dict[str, Any] = json.loads(public(site, "status.json").read_text())
    told: dict[str, Any] = json.loads(site.run("status", "--json").stdout)
    assert published["now"] == published["last_look"] == told["last_look"]
    assert (published["nginx_pid"], told["nginx_pid"]) == (None, site.pid)
    assert published["agent_pid"] is None
    of_now = {"now", "nginx_pid", "agent_pid"}
    assert {key: published[key] for key in published.keys() - of_now} == {
        key: told[key] for key in told.keys() - of_now
    }


def test_every_look_is_told(make_site: MakeSite) -> None:
    """A renewal that has nothing to do has looked, and so has a reload; a query hasn't."""
    site = make_site()
    port = with_servers(site, "location /x { acme_status json; }")
    started = datetime.now(UTC).replace(microsecond=0)
    site.start()
    first = look(site)
    assert started <= first <= datetime.now(UTC)
    site.run("status")
    assert look(site) == first
    eventually(lambda: site.run("renew").returncode == 0 and look(site) > first, "a later look")
    assert json.loads(fetch_plain(port, "s0", path="/x").body)["last_look"] != first
    second = look(site)
    site.configure(
        site.block("a.internal", "acme local;"),
        site.block("b.internal", "acme local;"),
        settings=ALONE,
    )
    eventually(
        lambda: site.run("-s", "reload").returncode == 0 and look(site) > second, "a later look"
    )
    document = json.loads(public(site, "status.json").read_text())
    assert [row["names"] for row in document["certificates"]] == [["a.internal"], ["b.internal"]]


def test_two_of_one_state(make_site: MakeSite) -> None:
    """Two nginx that share a state directory have a page each."""
    first, second = make_site(), make_site()
    state = f"acme_state_path {first.state}; {ALONE}"
    for name, site in (("a.internal", first), ("b.internal", second)):
        location = (
            f"server {{ listen {LOCALHOST}:{site.http}; location /x {{ acme_status json; }} }}"
        )
        site.configure(site.block(name, "acme local;"), location, settings=state)
        site.start()
    shown = [json.loads(fetch_plain(s.http, "any", path="/x").body) for s in (first, second)]
    names = [[row["names"] for row in document["certificates"]] for document in shown]
    assert names == [[["a.internal"]], [["b.internal"]]]


def test_what_cannot_be_written(make_site: MakeSite) -> None:
    """A start and a renewal go on where nothing can be published, and say so."""
    site = make_site()
    with_servers(site)
    site.start()
    site.stop()
    folder = public(site, "")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    told = "[warn] how the certificates stand can't be published: cannot make the folder"
    site.conf.write_text(f"{site.conf.read_text()}\n")  # else the agent alone would publish
    site.start()
    assert told in site.output()
    renewed = site.run("renew")
    assert renewed.returncode == 0
    assert "can't be published" in renewed.stderr


def test_unwritable_state(make_site: MakeSite) -> None:
    """An nginx that runs from a private folder shows what is known there."""
    site = make_site()
    port = with_servers(site, "location /x { acme_status json; }")
    site.state.write_text("in the way")
    private = site.folder / "run"
    private.mkdir(mode=0o711)
    site._environ["RUNTIME_DIRECTORY"] = str(private)
    site.start()
    document = json.loads(fetch_plain(port, "s0", path="/x").body)
    assert [row["state"] for row in document["certificates"]] == ["temporary"]
