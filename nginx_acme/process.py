"""Find nginx, ask it, and become it.

What may live here: what has to do with nginx as a program and with ourselves as a process:
which binary, which paths it was built with, running it, turning into it. After exec nothing may
tell that Python was there; what it would leave behind is undone in `become`.

Imported at every start, so its data are plain classes with slots, and what is not needed at
every start is imported where it is needed. subprocess is not used at all: importing it costs
more than asking nginx for its version.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

from nginx_acme.errors import NginxMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import FrameType
    from typing import NoReturn

    from nginx_acme.commandline import CommandLine
else:
    # The modules without the dash make enums of all that is in these. Importing them would take
    # longer than the rest of a start with nothing to do.
    import _signal as signal
    import _socket as socket

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

DETACHED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a detached process: not that of whoever happened to start nginx."""

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

_ENDING = ("SIGTERM", "SIGINT", "SIGQUIT")
_IGNORED = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_CHANGED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
_FAREWELL_SECONDS = 1
_STDERR = 2

_VERDICTS = ("the configuration file ", "configuration file ")
"""How `-t` begins what it says of the whole; after nginx's name."""


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
    from nginx_acme.nginx.source import parse_until_mistake

    for directive in parse_until_mistake(command.directives, "command line")[0]:
        if directive.name == name and directive.args:
            return directive.args[0]
    return None


# --- running it -----------------------------------------------------------------------------


class Check:
    """What `nginx -t` said: `lines` on stderr, for the user; `output` on stdout (`-T`).

    `messages` are the lines without its verdict, which only a test has: nginx says so much of a
    configuration when it is started.
    """

    __slots__ = ("lines", "messages", "ok", "output", "returncode")

    def __init__(self, returncode: int, lines: tuple[str, ...], output: bytes) -> None:
        self.ok = returncode == 0
        self.returncode = returncode
        self.lines = lines
        self.messages = tuple(line for line in lines if not _is_verdict(line))
        self.output = output


def _is_verdict(line: str) -> bool:
    name, _, words = line.partition(": ")
    return name in NAMES and words.startswith(_VERDICTS)


def check(nginx: Nginx, argv: Sequence[str], translate: Callable[[str], str]) -> Check:
    """Run nginx with `argv`, which has `-t` or `-T`; `translate` puts the user's paths in a line.

    Lines stay as nginx writes them (`nginx: [emerg] …`), without the end of the line.
    """
    return checked(Run(nginx.path, argv), translate)


def checked(testing: Run, translate: Callable[[str], str]) -> Check:
    """The same of an nginx that runs already."""
    returncode, output, messages = testing.result()
    lines = os.fsdecode(messages).removesuffix("\n").split("\n") if messages else ()
    return Check(returncode, tuple(map(translate, lines)), output)


class Run:
    """A program that runs beside us, with the environment and signals that we were started with.

    NginxMissing where it can't be started. Nobody reads what it writes before `result`; what
    doesn't fit into a pipe (64 KiB) waits until then.
    """

    __slots__ = ("_child", "_err", "_out", "path")

    def __init__(self, path: str, argv: Sequence[str]) -> None:
        self.path = path
        self._out, out_of_child = os.pipe()
        self._err, err_of_child = os.pipe()
        try:
            self._child = _spawn(path, argv, out_of_child, err_of_child)
        except OSError as error:
            self._close()
            raise _not_run(path, error) from error
        finally:
            os.close(out_of_child)
            os.close(err_of_child)

    def result(self) -> tuple[int, bytes, bytes]:
        """Once: its exit code (of a signal: its number, negative), stdout and stderr to the end."""
        try:
            output, messages = _read_all(self._out, self._err)
        finally:
            self._close()
            _, status = os.waitpid(self._child, 0)
        return os.waitstatus_to_exitcode(status), output, messages

    def _close(self) -> None:
        os.close(self._out)
        os.close(self._err)


def _spawn(path: str, argv: Sequence[str], stdout: int, stderr: int) -> int:
    return os.posix_spawn(
        path,
        [path, *argv],
        found_environ(),
        file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)],
        setsigmask=[],
        setsigdef=[getattr(signal, name) for name in (*_IGNORED, *_CHANGED_BY_PYTHON)],
    )


def _read_all(*descriptors: int) -> list[bytes]:
    """What comes through these pipes, read as it comes: a child never waits for us to read."""
    import select

    chunks: dict[int, list[bytes]] = {descriptor: [] for descriptor in descriptors}
    waiting = set(descriptors)
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        for descriptor, _ in poll.poll():
            chunk = os.read(descriptor, 65536)
            chunks[descriptor].append(chunk)
            if not chunk:
                poll.unregister(descriptor)
                waiting.remove(descriptor)
    return [b"".join(chunks[descriptor]) for descriptor in descriptors]


def _not_run(path: str, error: OSError) -> NginxMissing:
    return NginxMissing(f'"{path}" can\'t be run ({error.errno}: {error.strerror})')


# --- becoming it ----------------------------------------------------------------------------


def found_environ() -> dict[str, str]:
    """The environment that we were started with.

    os.environ may have more: without a locale Python puts LC_CTYPE=C.UTF-8 there (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def become(
    path: str, argv: Sequence[str], environ: Mapping[str, str], signals: Signals
) -> NoReturn:
    """Be this program from now on, with the same pid; NginxMissing if it can't be run.

    argv[0] is its absolute path: nginx's binary upgrade (USR2) starts that again. Our own files
    are closed by exec (PEP 446); descriptors that we were started with stay open.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError):  # there is none, or nobody reads it
            continue
    signals.put_back()
    try:
        os.execve(path, [path, *argv], environ)  # noqa: S606 - what a launcher is for
    except OSError as error:
        raise _not_run(path, error) from error


class Signals:
    """What signals do until nginx runs; made by `end_on_signals`.

    `hung_up`: a HUP has come; nginx, which we become, is to read its configuration again then.
    """

    __slots__ = ("_farewells", "_found", "hung_up")

    def __init__(self) -> None:
        import _thread

        self.hung_up = False
        self._farewells: list[Callable[[], object]] = []
        self._found = {
            number: signal.signal(number, action)
            for names, action in ((_ENDING, self._end), (_IGNORED, signal.SIG_IGN))
            for number in (getattr(signal, name) for name in names)
        }
        if self._found[signal.SIGHUP] != signal.SIG_IGN:  # nohup(1)
            signal.signal(signal.SIGHUP, self._hang_up)
        knock, knock_of_signals = os.pipe()
        os.set_blocking(knock_of_signals, False)
        signal.set_wakeup_fd(knock_of_signals, warn_on_full_buffer=False)
        _thread.start_new_thread(self._end_soon, (knock,))

    def before_end(self, farewell: Callable[[], object]) -> None:
        """Call this when a signal ends us, the last one first: a cursor to show, a folder to remove.

        It has to bear being called at any moment. It has a second; another signal doesn't wait.
        """
        self._farewells.append(farewell)

    def put_back(self) -> None:
        """Make signals what they were, for a program that is about to take our place.

        TERM, INT and QUIT end us until then, which as PID 1 the default would not: those with a
        handler are made default by exec itself (execve(2)).
        """
        _default_signals(*_IGNORED, *_CHANGED_BY_PYTHON)
        for number, found in self._found.items():
            if found == signal.SIG_IGN:
                signal.signal(number, signal.SIG_IGN)

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self.hung_up = True

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        farewells, self._farewells = self._farewells, []
        try:
            for farewell in reversed(farewells):
                farewell()
        finally:
            os._exit(0)

    def _end_soon(self, knock: int) -> None:
        """In a thread: end us a second after such a signal if the main thread didn't.

        Python calls handlers between two of its instructions. A signal that comes just before a
        system call that waits, or into a library, is not seen until that returns. Then farewells
        are called from here, in one more thread, since they may hang as well.
        """
        import _thread

        ending = {getattr(signal, name) for name in _ENDING}
        while ending.isdisjoint(os.read(knock, 1)):
            continue
        time.sleep(_FAREWELL_SECONDS)
        _thread.start_new_thread(self._end, (0, None))
        time.sleep(_FAREWELL_SECONDS)
        os._exit(0)


def end_on_signals() -> Signals:
    """From now on TERM, INT and QUIT end us with exit code 0, as they end nginx, at any moment.

    USR1, USR2 and WINCH, which mean something to nginx, are ignored, a HUP is remembered. Raising SystemExit in
    the handler was no way: asyncio would first wait for its tasks, and an exception out of
    nowhere can be swallowed. So the process ends here; a child of ours ends with its stdin.
    """
    return Signals()


def _default_signals(*names: str) -> None:
    for name in names:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


# --- beside it ------------------------------------------------------------------------------


def spawn_detached(
    argv: Sequence[str], more: Mapping[str, str], *, stderr_of: int | None = None
) -> int:
    """Start a program that is nobody's child, in its own session, and return its pid.

    Forked twice, since nginx, which we become, complains about children that it doesn't know.
    It gets a fixed environment (PATH, LANG, our TZ) and `more`, `/` as its folder, and no
    descriptors but /dev/null as stdin, stdout and stderr, or as stderr that of a process.
    `argv[0]` is a path. Raises the OSError of its execve.
    """
    timezone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    environ = {"PATH": DETACHED_PATH, "LANG": "C", **timezone, **more}
    stderr = None if stderr_of is None else _stderr_of(stderr_of)
    answer, answer_of_child = os.pipe()
    child = os.fork()
    if child == 0:
        _detach(argv, environ, answer_of_child, stderr)
    os.close(answer_of_child)
    os.waitpid(child, 0)
    if stderr not in {None, _STDERR}:
        os.close(stderr)
    with open(answer, "rb") as pipe:
        pid, _, failure = pipe.read().partition(b" ")
    if failure:
        raise OSError(int(failure), os.strerror(int(failure)), argv[0])
    return int(pid)


def _stderr_of(process: int) -> int:
    """The stderr of a process; ours where that can't be opened, such as a socket of journald's.

    Without waiting: nobody may be reading it.
    """
    if process == os.getpid():
        return _STDERR
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
    try:
        stderr = os.open(f"/proc/{process}/fd/{_STDERR}", flags)
    except OSError:
        return _STDERR
    os.set_blocking(stderr, True)
    return stderr


def _detach(
    argv: Sequence[str], environ: Mapping[str, str], answer: int, stderr: int | None
) -> NoReturn:
    """In the forked child: fork again and become the program.

    The answer is the pid and, if exec fails, the error's number; exec closes the pipe.
    """
    try:
        signal.set_wakeup_fd(-1)
        _default_signals(*_ENDING, *_IGNORED, *_CHANGED_BY_PYTHON)
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        answer = fcntl.fcntl(answer, fcntl.F_DUPFD_CLOEXEC, 3)
        if stderr not in {None, _STDERR}:
            stderr = fcntl.fcntl(stderr, fcntl.F_DUPFD_CLOEXEC, 3)
        os.write(answer, b"%d" % os.getpid())
        os.chdir("/")
        _close_all_but(answer, stderr)
        os.execve(argv[0], list(argv), environ)  # noqa: S606 - a list needs no shell
    except OSError as error:
        os.write(answer, b" %d" % (error.errno or 0))
    finally:
        os._exit(127)


def _close_all_but(kept: int, stderr: int | None) -> None:
    """Point the standard streams to /dev/null and stderr; close all else that we were given."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream, goes_to in enumerate((null, null, null if stderr is None else stderr)):
        os.dup2(goes_to, stream)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR and int(name) != kept:
            try:
                os.close(int(name))
            except OSError:  # the descriptor that listed them
                continue


def bindable(host: str, port: int, *, ipv6only: bool = True) -> str | None:
    """Why nginx could not listen on this address now; None if it could.

    Bound as nginx binds (ngx_open_listening_sockets), and never listened on: nobody can connect.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return f"socket() failed ({error.errno}: {error.strerror})"
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ipv6only))
        probe.bind((host, port))
    except OSError as error:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        return f"bind() to {shown}:{port} failed ({error.errno}: {error.strerror})"
    finally:
        probe.close()
    return None
