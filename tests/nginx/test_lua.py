"""Blocks of Lua code, read by the Lua module itself and by our reader.

The module is that of the distribution, for the nginx of the distribution.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nginx_acme.nginx.syntax import parse_until_mistake
from tests.nginx.oracle import Oracle
from tests.nginx.writer import examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nginx_acme.nginx.syntax import Directive

FOLDER = "/usr/lib/nginx/modules"
MODULES = (f"{FOLDER}/ndk_http_module.so", f"{FOLDER}/ngx_http_lua_module.so")
KNOWN = ("events", "http", "upstream", "server", "location", "content_by_lua_block")


@pytest.fixture(scope="module")
def lua(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """An nginx that knows Lua."""
    if not all(map(os.path.exists, MODULES)):
        if os.environ.get("CI") == "true":
            pytest.fail("there is no Lua module", pytrace=False)
        pytest.skip("there is no Lua module; root could try: apt-get install libnginx-mod-http-lua")
    return Oracle(nginx, tmp_path_factory.mktemp("lua"), MODULES)


NAMES = [
    "init_by_lua_block",
    "init_worker_by_lua_block",
    "exit_worker_by_lua_block",
    "set_by_lua_block $x",
    "server_rewrite_by_lua_block",
    "rewrite_by_lua_block",
    "access_by_lua_block",
    "content_by_lua_block",
    "header_filter_by_lua_block",
    "body_filter_by_lua_block",
    "log_by_lua_block",
    "balancer_by_lua_block",
    "ssl_client_hello_by_lua_block",
    "ssl_certificate_by_lua_block",
    "ssl_session_fetch_by_lua_block",
    "ssl_session_store_by_lua_block",
]
AROUND = {
    "init_by_lua_block": "{}",
    "init_worker_by_lua_block": "{}",
    "exit_worker_by_lua_block": "{}",
    "ssl_session_fetch_by_lua_block": "{}",
    "ssl_session_store_by_lua_block": "{}",
    "content_by_lua_block": "server {{ location / {{ {} }} }}",
    "balancer_by_lua_block": "upstream x {{ server 127.0.0.1; {} }}",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_block(lua: Oracle, name: str) -> None:
    """Whatever block of the module it is, its code is no directives, and what follows is."""
    block = f'{name} {{ local a = {{"}}"}} -- }}\n }}\n after;'
    inside = AROUND.get(name, "server {{ {} }}").format(block)
    text = f"events {{}} http {{ {inside} }}"
    assert lua.complaint(text) == 'unknown directive "after" in nginx.conf:3'
    assert expected(text) == lua.complaint(text)


pieces = st.sampled_from(
    (
        *("x", "y = ", " ", "\n", "\n", "{", "}", "}", "{}", "'", '"', "\\", "\\\n", "\\'", '\\"'),
        *("--", "-- }\n", "-", "[[", "]]", "[=[", "]=]", "--[[", "--[==[", "]==]", "[", "]", "="),
        *("'}'", '"{"', "'\n'", "#", ";", "end;", "$", "\r\n", "\t", "\udce9"),
    )
)


@examples(40)
@given(code=st.lists(pieces, max_size=20).map("".join))
def test_any_code(lua: Oracle, code: str) -> None:
    """Of any text the Lua module and the reader take the same for code."""
    text = f"events {{}} http {{ server {{ location / {{ content_by_lua_block {{ x{code}"
    for end in ("", "\n}}}} after;", "} after; }}}"):
        said = lua.complaint(text + end)
        wanted = expected(text + end)
        assume(said is None or "is not allowed here" not in said)
        assert said == wanted


def expected(text: str) -> str | None:
    """What nginx would say of a text, of which it knows no other directives: the first, or a mistake."""
    directives, mistake = parse_until_mistake(text, "nginx.conf")
    unknown = [
        one for one in _flat(directives) if one.name not in KNOWN and "_by_lua" not in one.name
    ]
    if unknown:
        first = min(unknown, key=lambda one: one.start)
        end = first.end if first.block is None else first.opens
        return (
            f'unknown directive "{first.name}" in nginx.conf:{text.count(chr(10), 0, end - 1) + 1}'
        )
    return str(mistake) if mistake else None


def _flat(directives: Iterable[Directive]) -> Iterator[Directive]:
    for directive in directives:
        yield directive
        yield from _flat(directive.block or ())
