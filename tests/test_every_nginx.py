"""Whatever release of nginx it is: certificates, edits, mistakes and ends are what they are with ours.

Each test runs with the installed nginx and with those that `tests/releases.sh` has unpacked.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.launcher import eventually, issuer
from tests.servers import (
    LOCALHOST,
    PATIENCE,
    fetch_plain,
    find_program,
    free_port,
    has_ipv6,
    nginx_conf,
    nginx_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]

LOCAL = "acme local;"
ERROR_LOG_OPTION = (1, 19, 5)
HTTP2_DIRECTIVE = (1, 25, 1)
STREAM_SERVER_NAME = (1, 25, 5)


def site_of(make_site: MakeSite, binary: str, ca: Pebble | None = None) -> Site:
    """A site that is served by this nginx."""
    return make_site(ca, binary=binary, log_option=nginx_version(binary) >= ERROR_LOG_OPTION)


def protocol(port: int, name: str) -> str | None:
    """What a client that would like HTTP/2 agrees on with nginx."""
    context = trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((LOCALHOST, port), timeout=PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.selected_alpn_protocol()


def test_first_start(make_site: MakeSite, pebble: Pebble, every_nginx: str) -> None:
    """A first start gets a certificate, beside HTTP/2 and IPv6 as this nginx spells them."""
    site = site_of(make_site, every_nginx, pebble)
    is_new = nginx_version(every_nginx) >= HTTP2_DIRECTIVE
    parameter, directive = ("", "http2 on;") if is_new else (" http2", "")
    listen = f"{LOCALHOST}:{site.tls}"
    if has_ipv6():
        listen = f"[::1]:{site.tls} ssl{parameter} ipv6only=on; listen {listen}"
    site.configure(
        f"server {{ listen {listen} ssl{parameter}; {directive} server_name one.example;"
        ' acme pebble; return 200 "one"; }'
    )
    site.start()
    assert site.verified("one.example").body == b"one"
    assert protocol(site.tls, "one.example") == "h2"
    if has_ipv6():
        assert site.verified("one.example", host="::1").body == b"one"
    assert site.one_status()["state"] == "valid"
    assert "[emerg]" not in site.output() + site.error_log()
    site.quiet()
    quit_ = site.run("-s", "quit")
    assert (quit_.returncode, quit_.stderr) == (0, "")
    eventually(lambda: site.server.returncode == 0, "a graceful end")


def test_edits(make_site: MakeSite, every_nginx: str) -> None:
    """A reload and a plain HUP take up an edit; a mistake is told with its line, and nothing ends."""
    site = site_of(make_site, every_nginx)
    first, second, third = (site.block(f"{name}.internal", LOCAL) for name in "abc")
    site.configure(first)
    site.start()
    site.quiet()
    pid = site.pid
    site.configure(first, second)
    answer = site.run("-s", "reload")
    assert answer.returncode == 0, answer.stderr
    assert site.shown("b.internal").body == b"b.internal"
    site.configure(first, second, third)
    site.hang_up()
    eventually(lambda: site.shown("c.internal").body == b"c.internal")

    site.configure(first, "server {", "  lissen 1;", "}")
    line = site.conf.read_text().splitlines().index("  lissen 1;") + 1
    words = f'unknown directive "lissen", did you mean "listen"? in {site.conf}:{line}'
    for argv in (["-t"], ["-s", "reload"]):
        answer = site.run(*argv)
        assert answer.returncode == 1
        assert f"nginx: [emerg] {words}\n" in answer.stderr
        assert str(site.state) not in answer.stderr
    before = site.error_log().count(words)
    site.hang_up()
    eventually(lambda: site.error_log().count(words) > before)
    assert site.shown("c.internal").body == b"c.internal"
    assert site.pid == pid


def modules(binary: str) -> str:
    """The lines that load the modules for mail and stream, which Debian packages by themselves."""
    root = Path(binary).parent.parent / "root"
    folder = (root if root.is_dir() else Path("/")) / "usr/lib/nginx/modules"
    paths = [folder / f"ngx_{kind}_module.so" for kind in ("mail", "stream")]
    if not all(path.exists() for path in paths):
        pytest.skip(f"there are no modules in {folder}")
    return " ".join(f"load_module {path};" for path in paths)


def test_modules(make_site: MakeSite, every_nginx: str) -> None:
    """`acme` in mail and stream servers works with modules that are loaded, or says why it can't."""
    site = site_of(make_site, every_nginx)
    imap, stream, loads = free_port(), free_port(), modules(every_nginx)
    mail = (
        f"mail {{ auth_http {LOCALHOST}; server {{ listen {LOCALHOST}:{imap} ssl; protocol imap;"
        " server_name mail.internal; acme local; } }"
    )
    server = (
        f"stream {{ server {{ listen {LOCALHOST}:{stream} ssl; server_name stream.internal;"
        f" acme local; return stream; }} }}"
    )
    site.configure(main=f"{loads}\n{mail}\n{server}")
    if nginx_version(every_nginx) < STREAM_SERVER_NAME:
        refused = site.run()
        words = '"acme" in a stream server needs "server_name", so nginx 1.25.5 or newer'
        assert refused.stderr == f"nginx-acme: [emerg] {words} in {site.conf}:3\n"
        assert refused.returncode == 1
        site.configure(main=f"{loads}\n{mail}")
    site.start()
    authority = "CN=nginx-acme local"
    for port, name in ((imap, "mail.internal"), (stream, "stream.internal")):
        if port == imap or nginx_version(every_nginx) >= STREAM_SERVER_NAME:
            assert shown_at(port, name).startswith(authority)


@pytest.mark.parametrize(
    ("built", "module"),
    [
        pytest.param("--without-http_rewrite_module", "ngx_http_rewrite_module", id="no rewrite"),
        pytest.param("--without-http_map_module", "ngx_http_map_module", id="no map"),
        pytest.param("--without-pcre", "ngx_http_rewrite_module", id="no PCRE"),
        pytest.param("", "ngx_http_ssl_module", id="no TLS"),
    ],
)
def test_crippled(
    make_site: MakeSite, silent: Silent, tmp_path: Path, built: str, module: str
) -> None:
    """What `acme` needs and a build lacks is told before anything else is done.

    Without `acme` it is none of our business.
    """
    site = make_site(binary=crippled(tmp_path / "nginx", built))
    site.configure(site.block("a.example", "acme ca;"), settings=issuer("ca", silent.url, None))
    words = f'"acme" requires {module}, which this nginx was built without'
    for argv in ([], ["-t"], ["plan"]):
        refused = site.run(*argv)
        assert refused.returncode == 1
        message, *verdict = refused.stderr.splitlines()
        assert message == f"nginx-acme: [emerg] {words} in {site.conf}:13"
        assert len(verdict) == ("-t" in argv)
    assert not site.state.exists()
    assert not silent.connections
    site.conf.write_text(nginx_conf(f"server {{ listen {LOCALHOST}:{site.http}; return 200 x; }}"))
    site.start()
    assert fetch_plain(site.http, "a.example").body == b"x"


def crippled(path: Path, built: str) -> str:
    """The path of a real nginx that says to have been built so; without a word it has no TLS."""
    tls = "TLS SNI support enabled" if built else ""
    path.write_text(f"""#!/bin/sh
[ "$1" != -V ] || {{
    printf '%s\\n' 'nginx version: nginx/1.31.5' '{tls}' 'configure arguments: {built}' >&2
    exit
}}
exec {find_program("nginx")} "$@"
""")
    path.chmod(0o755)
    return str(path)


def shown_at(port: int, name: str) -> str:
    """Who issued the certificate that is shown there, whatever protocol comes after."""
    with (
        socket.create_connection((LOCALHOST, port), timeout=PATIENCE) as plain,
        trusting().wrap_socket(plain, server_hostname=name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).issuer.rfc4514_string()


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
