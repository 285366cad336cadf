"""Where notes of an earlier start are looked for."""

from __future__ import annotations

import pytest

from nginx_acme.state_path import STATE_PATH_VARIABLE, state_path, state_path_hints


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        pytest.param(b"acme_state_path /srv/a;", ["/srv/a"], id="absolute"),
        pytest.param(b"http {\r\n\tacme_state_path\r\n a ; }", ["/etc/nginx/a"], id="relative"),
        pytest.param(
            b"# acme_state_path is below\nacme_state_path /b; acme_state_path /c;",
            ["/b", "/c"],
            id="after a comment",
        ),
        pytest.param(b"acme_state_path \xfc;", ["/etc/nginx/\udcfc"], id="a byte"),
        pytest.param(b"acme_state_path '/a b';", [], id="quoted"),
        pytest.param(b"acme_state_path $a;", [], id="a variable"),
        pytest.param(b"acme_state_paths /a;", [], id="another word"),
        pytest.param(b"acme_state_path /a", [], id="no end"),
        pytest.param(b"acme_state_path ;", [], id="no word"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_hints(text: bytes, hints: list[str]) -> None:
    """Every plain word is one."""
    assert list(state_path_hints(text, "/etc/nginx")) == hints


def test_state_path() -> None:
    """The configuration counts before the environment, and that before the usual place."""
    environ = {STATE_PATH_VARIABLE: "/var/lib/x"}
    assert state_path(environ, "/etc/nginx", "/srv/a") == "/srv/a"
    assert state_path(environ, "/etc/nginx", None) == "/var/lib/x"
    assert state_path({}, "/etc/nginx", None) == "/etc/nginx/acme"
