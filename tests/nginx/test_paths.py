"""Which arguments are paths that a mirror of the main file's folder hasn't."""

from __future__ import annotations

import pytest

from nginx_acme.nginx.paths import inside, may_be_unmirrored, unmirrored
from nginx_acme.nginx.syntax import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ssl_dhparam ../dh.pem;", ["../dh.pem"], id="from the folder"),
        pytest.param("ssl_dhparam tls/../../dh.pem;", ["tls/../../dh.pem"], id="by a way down"),
        pytest.param("ssl_dhparam dh..pem;", [], id="two dots in a name"),
        pytest.param("ssl_dhparam /etc/../dh.pem;", [], id="absolute"),
        pytest.param("root ../html;", [], id="from the prefix"),
        pytest.param("ssl_certificate_key engine:a:../b;", [], id="an engine's"),
        pytest.param("ssl_certificate data:$x/../y;", [], id="data"),
        pytest.param("auth_basic_user_file $dir/../x;", [], id="a variable first"),
        pytest.param("auth_basic_user_file users;", ["users"], id="opened for each request"),
        pytest.param("ssl_certificate tls/$name;", ["tls/$name"], id="a name that is not known"),
        pytest.param(
            "proxy_ssl_certificate_key tls/$name;", ["tls/$name"], id="a key's, to a backend"
        ),
        pytest.param("ssl_certificate tls/name;", [], id="opened at the start"),
        pytest.param("ssl_certificate ${host}.crt;", ["${host}.crt"], id="a host first"),
        pytest.param("ssl_certificate $hosts;", [], id="what may be a path"),
        pytest.param("ssl_dhparam a$b;", [], id="no variable"),
        pytest.param(
            "ssl_certificate ../$ssl_server_name;", ["../$ssl_server_name"], id="variable"
        ),
        pytest.param(
            "js_import main from ../js/main.js;", ["../js/main.js"], id="a later argument"
        ),
        pytest.param("ssl_conf_command VerifyCAFile ../ca.pem;", ["../ca.pem"], id="OpenSSL's"),
        pytest.param("proxy_ssl_conf_command VerifyCAFile ../ca;", ["../ca"], id="to a backend"),
        pytest.param("lua_ssl_trusted_certificate ../ca;", ["../ca"], id="Lua's"),
        pytest.param("js_fetch_trusted_certificate ../ca;", ["../ca"], id="JavaScript's"),
    ],
)
def test_unmirrored(text: str, expected: list[str]) -> None:
    """What nginx resolves from the folder, and a mirror of it would miss."""
    (directive,) = parse(text, "/n.conf")
    found = [path for _, path in unmirrored(directive, "/etc/nginx")]
    assert found == [f"/etc/nginx/{path}" for path in expected]
    assert may_be_unmirrored(text) or not expected


def test_folder_with_a_dollar_sign() -> None:
    """A path that would have a variable in it stays as it is."""
    (users,) = parse("auth_basic_user_file users;", "/n.conf")
    assert not list(unmirrored(users, "/srv/a$b"))
    (group,) = parse("ssl_dhparam ../dh.pem;", "/n.conf")
    assert [path for _, path in unmirrored(group, "/srv/a$b")] == ["/srv/a$b/../dh.pem"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/etc/nginx/conf.d/x", "conf.d/x", id="below"),
        pytest.param("/etc/nginx/./x", "x", id="with a dot"),
        pytest.param("/etc/nginx/", None, id="the folder itself"),
        pytest.param("/etc/nginx2/x", None, id="a longer name"),
        pytest.param("/etc/nginx/../x", None, id="climbs"),
        pytest.param("/etc/nginx/a/../x", None, id="climbs inside, by what may be a link"),
    ],
)
def test_inside(path: str, expected: str | None) -> None:
    """Where a path lies in the folder."""
    assert inside("/etc/nginx", path) == expected
