"""Which arguments of nginx's directives are paths, and what they are relative to.

nginx resolves some relative paths from the folder of the main file (the one given with ``-c``)
and others from its prefix (``-p``). A copy of the main file that lies elsewhere changes the first
and not the second. Most of them are found again by a mirror of the folder; those that climb out
of it with ``..`` are not, and must be made absolute. Made absolute from the wrong place they would
change what is served (``root ../html`` is from the prefix), hence a table and no pattern.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.source import Directive

_SSL = (
    "certificate",
    "certificate_key",
    "conf_command",
    "crl",
    "password_file",
    "trusted_certificate",
)

_MODULES = ("", "grpc_", "lua_", "proxy_", "uwsgi_")

FROM_FOLDER = frozenset(
    {
        "auth_basic_user_file",
        "auth_jwt_key_file",
        "include",
        "js_fetch_trusted_certificate",
        "js_import",
        "js_include",
        "js_path",
        "js_preload_object",
        "lua_ssl_key_log",
        "proxy_quic_host_key",
        "quic_host_key",
        "ssl_client_certificate",
        "ssl_dhparam",
        "ssl_ech_file",
        "ssl_encrypted_hello_key",
        "ssl_session_ticket_key",
        "ssl_stapling_file",
    }
    | {f"{module}ssl_{name}" for module in _MODULES for name in _SSL}
)
"""Directives whose path nginx resolves from the folder of the main file, and so do its relatives
and the modules for Lua and JavaScript.

Everything else of nginx is from the prefix (`root`, `alias`, `error_log`, `pid`, `load_module`,
the `_temp_path`s and caches), or from nowhere (`unix:` sockets).
"""

_NO_PATH = ("/", "$", "data:", "engine:", "store:")


def climbing(directive: Directive) -> Iterator[tuple[int, str]]:
    """Index and text of each argument that is a path out of the main file's folder."""
    if directive.name not in FROM_FOLDER:
        return
    for index, argument in enumerate(directive.args):
        if ".." in argument.split("/") and not argument.startswith(_NO_PATH):
            yield index, argument


def inside(folder: str, path: str) -> str | None:
    """The part of `path` below `folder`, None where it is elsewhere or climbs."""
    prefix = folder.rstrip("/") + "/"
    rest = path[len(prefix) :] if path.startswith(prefix) else ""
    if not rest or ".." in rest.split("/"):
        return None
    return posixpath.normpath(rest)
