"""Which nginx it is: found, asked what it was built with, and where that puts its files.

What may live here: what is known of nginx as a program, and where it and a command line put its
files. What a configuration says of them is an argument.

Imported at every start, so its data are plain classes with slots, and what is not needed at
every start is imported where it is needed.
"""

from __future__ import annotations

import os

from nginx_acme.errors import NginxMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nginx_acme.commandline import CommandLine
    from nginx_acme.process import Run

NAMES = ("nginx", "openresty", "angie", "freenginx", "tengine")
"""What the binary may be called, and what nginx and its relatives call themselves."""

SBIN_FOLDERS = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/sbin",
    "/usr/local/nginx/sbin",
    "/usr/local/openresty/nginx/sbin",
    "/usr/local/angie/sbin",
    "/usr/local/tengine/sbin",
    "/opt/nginx/sbin",
    "/opt/angie/sbin",
)
"""Where nginx is installed, whether or not PATH leads there."""

_OUR_NAMES = (b"nginx_acme", b"nginx-acme")
_ANGIE_1_0 = (1, 23, 1)
"""The nginx that the first Angie was made from; not all of them tell theirs."""
_KNOWS_ERROR_LOG = (1, 19, 5)
"""The first nginx with the option -e."""

_LEFT_OUT = {
    "ngx_http_core_module": ("without-http",),
    "ngx_http_map_module": ("without-http", "without-http_map_module"),
    "ngx_http_rewrite_module": ("without-http", "without-http_rewrite_module", "without-pcre"),
}
"""Modules that every nginx has, but where one of these options of `configure` was given."""
_TLS_MODULES = ("ngx_http_ssl_module", "ngx_mail_ssl_module", "ngx_stream_ssl_module")
_SPEAKS_TLS = "TLS SNI support"
"""What -V says of TLS, if there is any: which options bring it differs among nginx's relatives."""


# --- which nginx ----------------------------------------------------------------------------


def find_nginx(environ: Mapping[str, str], this: str) -> str:
    """The absolute path of the nginx to start; NginxMissing if there is none.

    NGINX_ACME_NGINX names it, by its path or a name on PATH; else it is the first of NAMES on
    PATH and then in SBIN_FOLDERS. `this` is our own argv[0]: we may be installed under the name
    `nginx` ourselves, and a wrapper that starts us would lead back here for ever.
    """
    folders = (*environ.get("PATH", os.defpath).split(":"), *SBIN_FOLDERS)
    named = environ.get("NGINX_ACME_NGINX")
    if named:
        return _named_nginx(named, folders, this)
    for name in NAMES:
        path = _search(name, folders, this)
        if path:
            return path
    raise NginxMissing("there is no nginx on PATH; NGINX_ACME_NGINX may name it")


def _named_nginx(named: str, folders: Iterable[str], this: str) -> str:
    if "/" not in named:
        path = _search(named, folders, this)
        if path is None:
            raise NginxMissing(f'NGINX_ACME_NGINX: there is no "{named}" on PATH')
        return path
    path = os.path.abspath(named)
    if not _is_program(path):
        raise NginxMissing(f'NGINX_ACME_NGINX: "{path}" is not a program')
    if _is_ours(path, this):
        raise NginxMissing(f'NGINX_ACME_NGINX: "{path}" is nginx-acme itself')
    return path


def _search(name: str, folders: Iterable[str], this: str) -> str | None:
    """The first such program; only absolute folders count, no nginx is taken from the cwd."""
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isabs(path) and _is_program(path) and not _is_ours(path, this):
            return path
    return None


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_ours(path: str, this: str) -> bool:
    """Whether this is our own program: the same file, or a script that starts us."""
    try:
        if os.path.samefile(path, this):
            return True
    except OSError:  # `this` may be a name that was looked up on PATH
        pass
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if not head.startswith(b"#!"):
        return False
    for word in _OUR_NAMES:
        head = head.replace(word + b"/", b"")  # a folder of that name is not us
    return any(word in head for word in _OUR_NAMES)


# --- what it was built with -----------------------------------------------------------------


class Nginx:
    """An nginx binary and what it was built with. `configure` is the line `configure arguments`.

    - `path`: absolute;
    - `name`: what it calls itself, one of NAMES or another;
    - `version`: of nginx, also for those relatives that count their own;
    - `prefix`: ends with a slash; empty where the build has none (then it is the cwd);
    - `conf`, `pid`, `error_log`: as built, so relative to a prefix or absolute; `error_log` may
      be `stderr`;
    - `tls`: whether any part of it speaks TLS.
    """

    __slots__ = (
        "_options",
        "conf",
        "configure",
        "error_log",
        "name",
        "path",
        "pid",
        "prefix",
        "tls",
        "version",
    )

    def __init__(
        self, path: str, name: str, version: tuple[int, ...], configure: str, *, tls: bool = True
    ) -> None:
        own = "angie" if name == "angie" else "nginx"
        self.path = path
        self.name = name
        self.version = version
        self.configure = configure
        self.tls = tls
        self._options = _configure_options(configure)
        prefix = self._options.get("prefix") or f"/usr/local/{own}"
        self.prefix = "" if prefix == "!" else f"{prefix}/"
        self.conf = self._options.get("conf-path") or f"conf/{own}.conf"
        self.pid = self._options.get("pid-path") or f"logs/{own}.pid"
        self.error_log = self._options.get("error-log-path") or "logs/error.log"

    @property
    def takes_error_log(self) -> bool:
        """Whether it knows the option -e."""
        return self.version >= _KNOWS_ERROR_LOG

    @property
    def lacks(self) -> frozenset[str]:
        """The modules that it surely has not, of those that `acme` may need."""
        left_out = {m for m, options in _LEFT_OUT.items() if self._options.keys() & set(options)}
        return frozenset(left_out if self.tls else {*left_out, *_TLS_MODULES})

    def option(self, name: str) -> str | None:
        """The value of an option of `configure` (without dashes); None where it wasn't given."""
        return self._options.get(name)


def nginx_of(asked: Run) -> Nginx:
    """What `nginx -V` says; NginxMissing if it is not nginx that answers."""
    path = asked.path
    status, _, answer = asked.result()
    head, _, configure = os.fsdecode(answer).partition("configure arguments:")
    name = head.partition(" version: ")[2].partition("/")[0].lower()
    if status != 0 or not name:
        words = head.strip().partition("\n")[0]
        raise NginxMissing(
            f'"{path}" is not nginx; to "-V" it says: "{words}" (exit code {status})'
        )
    options = configure.strip().partition("\n")[0]
    return Nginx(path, name, _version(name, head), options, tls=_SPEAKS_TLS in head)


def _version(name: str, head: str) -> tuple[int, ...]:
    """Read `nginx version: nginx/1.22.1 (Ubuntu)`, and what its relatives say in place of it.

    Tengine and Angie tell nginx's version beside their own, in another line or behind it.
    """
    _, of_nginx, words = head.partition("nginx/")
    if name == "angie" and not of_nginx:
        return _ANGIE_1_0
    if not of_nginx:
        words = head.partition("/")[2]
    digits = words[: len(words) - len(words.lstrip("0123456789."))]
    return tuple(int(number) for number in digits.split(".") if number)


def _configure_options(configure: str) -> dict[str, str]:
    """The options by name, without dashes; of one given twice the last counts, as in configure.

    A value with a space stands in single quotes and may itself have ` --` and quotes in it.
    """
    options: dict[str, str] = {}
    name = value = ""
    for part in f" {configure}".split(" --")[1:]:
        if value[:1] == "'" and (value == "'" or value[-1] != "'"):
            value += f" --{part}"
        else:
            name, _, value = part.rstrip().partition("=")
        options[name] = value[1:-1] if value[:1] == "'" else value
    return options


# --- its paths, for a command line ----------------------------------------------------------


def prefix_path(nginx: Nginx, command: CommandLine) -> str:
    """The prefix (`-p`, or as built), absolute, with a slash at its end (ngx_process_options)."""
    prefix = nginx.prefix if command.prefix is None else command.prefix
    if not prefix.startswith("/"):
        prefix = f"{os.getcwd()}/{prefix}"
    return prefix if prefix.endswith("/") else f"{prefix}/"


def conf_path(nginx: Nginx, command: CommandLine) -> str:
    """The absolute path of the main file: `-c`, or as built, from the prefix."""
    name = nginx.conf if command.conf is None else command.conf
    return _full_name(name, nginx, command)


def pid_path(nginx: Nginx, command: CommandLine, directive: str | None) -> str:
    """The absolute path of the pid file: the configuration's `pid`, the one in -g, or as built."""
    return _full_name(directive or _global(command, "pid") or nginx.pid, nginx, command)


def error_log_path(nginx: Nginx, command: CommandLine, directive: str | None) -> str:
    """Where nginx logs: an absolute path, `stderr`, or what it calls `syslog:…`, `memory:…`.

    That is the first argument of the configuration's `error_log` in the main context, else of one
    in -g, else -e, else as built.
    """
    name = directive or _global(command, "error_log")
    if name is None:
        return startup_log_path(nginx, command)
    return _log_path(name, nginx, command)


def startup_log_path(nginx: Nginx, command: CommandLine) -> str:
    """The same of the log that it begins with, before it has read anything (ngx_log_init)."""
    name = nginx.error_log if command.error_log is None else command.error_log
    return _log_path(name, nginx, command)


def _log_path(name: str, nginx: Nginx, command: CommandLine) -> str:
    if name.startswith(("syslog:", "memory:")):
        return name
    return "stderr" if name in {"", "stderr"} else _full_name(name, nginx, command)


def _full_name(name: str, nginx: Nginx, command: CommandLine) -> str:
    """As ngx_conf_full_name does it: nothing is made shorter, `..` stays."""
    return name if name.startswith("/") else prefix_path(nginx, command) + name


def _global(command: CommandLine, name: str) -> str | None:
    """The first argument of such a directive in -g."""
    if not command.directives or name not in command.directives:
        return None
    from nginx_acme.nginx.syntax import parse_until_mistake

    for directive in parse_until_mistake(command.directives, "command line")[0]:
        if directive.name == name and directive.args:
            return directive.args[0]
    return None
