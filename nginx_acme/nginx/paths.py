"""Which arguments of nginx's directives are paths, and what they are relative to.

nginx resolves some relative paths from the folder of the main file (the one given with ``-c``)
and others from its prefix (``-p``). A copy of the main file that lies elsewhere changes the first
and not the second. Most of them are found again by a mirror of the folder. Not found are those
that climb out of it with ``..``, and those that nginx's workers open while it runs: the file may
come later than the mirror, and they may not be allowed to pass through it. These must be made
absolute. Made absolute from the wrong place they would change what is served (``root ../html`` is
from the prefix), hence a table and no pattern.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nginx_acme.nginx.syntax import Directive

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

_FOR_EACH_REQUEST = frozenset({"auth_basic_user_file"})
"""Those that workers open whatever is said; they open others where a variable is said."""
_VARIABLES = _FOR_EACH_REQUEST | {
    "auth_jwt_key_file",
    *(f"{module}ssl_certificate{key}" for module in _MODULES for key in ("", "_key")),
}
"""Those in which variables may be said, and a dollar sign is never anything else."""
_SOME = re.compile(r"\.\.|auth_(?:basic_user|jwt_key)_file|certificate(?:_key)?\s[^;]*\$")
"""What a text has where `unmirrored` may find anything in it."""

_NO_PATH = ("/", "$", "data:", "engine:", "store:")
_HOST = re.compile(r"\$\{?(?:host|hostname|http_host|server_name|ssl_server_name)\b")
"""Variables that begin no absolute path; what others have nobody knows."""


def may_be_unmirrored(text: str) -> bool:
    """Whether it is worth while to look at the directives of a text."""
    return _SOME.search(text) is not None


def unmirrored(directive: Directive, folder: str) -> Iterator[tuple[int, str]]:
    """Each argument that is a path which a mirror of the main file's folder hasn't.

    That is its index and the absolute path; none where that can't be written.
    """
    if directive.name not in FROM_FOLDER:
        return
    takes_variables = directive.name in _VARIABLES
    if takes_variables and "$" in folder:
        return
    for index, argument in enumerate(directive.args):
        later = directive.name in _FOR_EACH_REQUEST or (takes_variables and "$" in argument)
        relative = not argument.startswith(_NO_PATH) or _HOST.match(argument)
        if relative and (later or ".." in argument.split("/")):
            yield index, f"{folder}/{argument}"


def inside(folder: str, path: str) -> str | None:
    """The part of `path` below `folder`, None where it is elsewhere or climbs."""
    prefix = folder.rstrip("/") + "/"
    rest = path[len(prefix) :] if path.startswith(prefix) else ""
    if not rest or ".." in rest.split("/"):
        return None
    return posixpath.normpath(rest)
