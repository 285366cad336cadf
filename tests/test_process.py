"""Finding nginx, asking it, and becoming it without a trace of Python."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nginx_acme.commandline import parse
from nginx_acme.errors import NginxMissing
from nginx_acme.process import (
    DETACHED_PATH,
    Nginx,
    Run,
    bindable,
    check,
    conf_path,
    error_log_path,
    find_nginx,
    found_environ,
    nginx_of,
    pid_path,
    prefix_path,
    spawn_detached,
)
from tests.launcher import PATIENCE
from tests.servers import ROOT, free_port, nginx_version, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def ask(path: str) -> Nginx:
    """The nginx of that path."""
    return nginx_of(Run(path, ["-V"]))


def run(path: str, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
    """What a program answers."""
    return Run(path, argv).result()


# --- which nginx ----------------------------------------------------------------------------

CONSOLE_SCRIPT = (ROOT / "conf" / "nginx-acme").read_text()
WRAPPER = '#!/bin/sh\nexec nginx-acme "$@"\n'
PROGRAM = "#!/bin/sh\n"


def install(path: Path, content: str = PROGRAM, mode: int = 0o755) -> str:
    """Put a program there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return str(path)


def find(root: Path, **environ: str) -> str:
    """The nginx that is found with `root`/a and `root`/b on PATH; we are `root`/a/nginx-acme."""
    environ = {"PATH": f"{root}/a:{root}/b"} | environ
    return find_nginx(environ, f"{root}/a/nginx-acme")


def test_find_first_on_path(tmp_path: Path) -> None:
    """It is the first nginx on PATH; what can't be executed is none."""
    install(tmp_path / "a" / "nginx", mode=0o644)
    (tmp_path / "a" / "openresty").mkdir(parents=True)
    expected = install(tmp_path / "b" / "nginx")
    assert find(tmp_path) == expected


def test_find_relatives(tmp_path: Path) -> None:
    """A relative is taken only if there is no nginx at all, in our order and not in that of PATH."""
    install(tmp_path / "a" / "tengine")
    install(tmp_path / "a" / "angie")
    install(tmp_path / "b" / "openresty")
    nginx = install(tmp_path / "b" / "nginx")
    assert find(tmp_path) == nginx


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(CONSOLE_SCRIPT, id="our console script"),
        pytest.param(WRAPPER, id="a script that starts us"),
    ],
)
def test_find_not_ourselves(tmp_path: Path, content: str) -> None:
    """We may be called nginx ourselves, earlier on PATH."""
    install(tmp_path / "a" / "nginx", content)
    expected = install(tmp_path / "b" / "nginx")
    assert find(tmp_path) == expected


def test_find_wrapper(tmp_path: Path) -> None:
    """A script that starts the real nginx is nginx, also from a folder that is called as we are."""
    content = "#!/opt/nginx_acme/bin/sh\nexec '/srv/nginx-acme/root/usr/sbin/nginx' \"$@\"\n"
    expected = install(tmp_path / "a" / "nginx", content)
    assert find(tmp_path) == expected


def test_find_not_our_own_file(tmp_path: Path) -> None:
    """A link named nginx that leads to us is not nginx, whatever kind of program we are."""
    install(tmp_path / "a" / "nginx-acme", "\x7fELF")
    (tmp_path / "a" / "nginx").symlink_to("nginx-acme")
    expected = install(tmp_path / "b" / "nginx")
    assert find(tmp_path) == expected


def test_find_not_in_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No nginx is taken from the folder where the user happens to be."""
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "nginx")
    expected = install(tmp_path / "b" / "nginx")
    assert find(tmp_path, PATH=f":.:{tmp_path}/b") == expected


def test_find_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NGINX_ACME_NGINX is a path, also a relative one, or a name on PATH; an empty one is none."""
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "a" / "nginx")
    mine = install(tmp_path / "b" / "my-nginx")
    assert find(tmp_path, NGINX_ACME_NGINX=mine) == mine
    assert find(tmp_path, NGINX_ACME_NGINX="b/my-nginx") == mine
    assert find(tmp_path, NGINX_ACME_NGINX="my-nginx") == mine
    assert find(tmp_path, NGINX_ACME_NGINX="") == f"{tmp_path}/a/nginx"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        pytest.param("{}/nowhere", 'NGINX_ACME_NGINX: "{}/nowhere" is not a program', id="path"),
        pytest.param("nowhere", 'NGINX_ACME_NGINX: there is no "nowhere" on PATH', id="name"),
        pytest.param("{}/a/nginx-acme", 'NGINX_ACME_NGINX: "{}/a/nginx-acme" is nginx-acme itself',
                     id="ourselves"),
    ],
)  # fmt: skip
def test_find_named_wrongly(tmp_path: Path, named: str, message: str) -> None:
    """What the user named is never replaced by another nginx."""
    install(tmp_path / "a" / "nginx")
    install(tmp_path / "a" / "nginx-acme", CONSOLE_SCRIPT)
    with pytest.raises(NginxMissing) as missing:
        find(tmp_path, NGINX_ACME_NGINX=named.format(tmp_path))
    assert str(missing.value) == message.format(tmp_path)


# --- what it was built with -----------------------------------------------------------------

DEBIAN = """\
nginx version: nginx/1.22.1
built with OpenSSL 3.0.15 3 Sep 2024
TLS SNI support enabled
configure arguments: --with-cc-opt='-g -O2 -ffile-prefix-map=/build/nginx-1.22.1=. -Wformat' --with-ld-opt='-Wl,-z,relro -Wl,-z,now -fPIC' --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --http-log-path=/var/log/nginx/access.log --error-log-path=stderr --pid-path=/run/nginx.pid --with-http_ssl_module --with-http_v2_module --with-stream=dynamic
"""
NGINX_ORG = """\
nginx version: nginx/1.18.0
built by gcc 8.3.0 (Debian 8.3.0-6)
built with OpenSSL 1.1.1c  28 May 2019 (running with OpenSSL 1.1.1d  10 Sep 2019)
TLS SNI support enabled
configure arguments: --prefix=/etc/nginx --sbin-path=/usr/sbin/nginx --conf-path=/etc/nginx/nginx.conf --error-log-path=/var/log/nginx/error.log --http-log-path=/var/log/nginx/access.log --pid-path=/var/run/nginx.pid --with-http_v2_module --with-stream --with-cc-opt='-g -O2 -fdebug-prefix-map=/data/builder/debuild/nginx-1.18.0/debian/debuild-base/nginx-1.18.0=. -fPIC' --with-ld-opt='-Wl,-z,relro -Wl,--as-needed -pie'
"""
PLAIN = """\
nginx version: nginx/1.30.0 (my-build)
built by gcc 14.2.0 (Debian 14.2.0-19)
configure arguments:
"""
TWICE = """\
nginx version: nginx/1.26.2
configure arguments: --prefix=/first --prefix='/with a space' --conf-path=etc/my.conf --with-cc-opt='-DA -- --prefix=/no -DB='x' -DC' --with-ld-opt=' --pid-path=/no'
"""
NO_PREFIX = """\
nginx version: nginx/1.26.2
configure arguments: --prefix=!
"""
NGINX_PLUS = """\
nginx version: nginx/1.25.5 (nginx-plus-r32-p1)
built by gcc 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
built with OpenSSL 3.0.2 15 Mar 2022
TLS SNI support enabled
configure arguments: --prefix=/etc/nginx --sbin-path=/usr/sbin/nginx --conf-path=/etc/nginx/nginx.conf --error-log-path=/var/log/nginx/error.log --pid-path=/var/run/nginx.pid --build=nginx-plus-r32-p1 --with-http_ssl_module --with-http_api_module
"""
OPENRESTY = """\
nginx version: openresty/1.25.3.1
built with OpenSSL 1.1.1w  11 Sep 2023
TLS SNI support enabled
configure arguments: --prefix=/usr/local/openresty/nginx --with-cc-opt='-O2 -DNGX_LUA_ABORT_AT_PANIC -I/usr/local/openresty/zlib/include' --add-module=../ngx_devel_kit-0.3.3 --add-module=../ngx_lua-0.10.26 --with-ld-opt='-Wl,-rpath,/usr/local/openresty/luajit/lib' --with-stream --without-pcre2 --with-http_v3_module --with-stream_ssl_module --with-http_ssl_module
"""
ANGIE = """\
Angie version: Angie/1.11.0
nginx version: nginx/1.29.3
built on Wed, 24 Dec 2025 10:16:08 GMT
built with OpenSSL 3.5.4 30 Sep 2025
TLS SNI support enabled
configure arguments: --prefix=/etc/angie --conf-path=/etc/angie/angie.conf --error-log-path=/var/log/angie/error.log --pid-path=/run/angie.pid --http-acme-client-path=/var/lib/angie/acme --with-http_acme_module --with-http_ssl_module --feature-cache=../angie-feature-cache
"""
OLD_ANGIE = """\
Angie version: Angie/1.0.0
configure arguments: --without-pcre
"""
TENGINE = """\
Tengine version: Tengine/3.1.0
nginx version: nginx/1.24.0
built by gcc 12.2.0 (Debian 12.2.0-14)
built with OpenSSL 3.0.11 19 Sep 2023
TLS SNI support enabled
configure arguments: --prefix=/usr/local/tengine --add-module=modules/ngx_http_upstream_check_module
"""
OLD_TENGINE = """\
Tengine version: Tengine/2.2.3 (nginx/1.8.1)
built by gcc 4.8.5 20150623 (Red Hat 4.8.5-36) (GCC)
TLS SNI support enabled
configure arguments: --prefix=/opt/tengine
nginx: loaded modules:
nginx:     ngx_http_ssl_module (static)
"""
FREENGINX = """\
nginx version: freenginx/1.27.1 (110624-143212-almalinux8)
built with OpenSSL 1.1.1 (compatible; AWS-LC 1.29.0) (running with AWS-LC 1.29.0)
TLS SNI support enabled
configure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf
"""


def nginx_that_says(folder: Path, answer: str, status: int = 0) -> str:
    """The path of a program that answers this, on stderr as nginx does."""
    script = f"#!/bin/sh\nprintf %s {shlex.quote(answer)} >&2\nexit {status}\n"
    return install(folder / "fake nginx", script)


@pytest.mark.parametrize(
    ("answer", "name", "version"),
    [
        pytest.param(DEBIAN, "nginx", (1, 22, 1), id="Debian"),
        pytest.param(NGINX_ORG, "nginx", (1, 18, 0), id="nginx.org"),
        pytest.param(PLAIN, "nginx", (1, 30, 0), id="plain"),
        pytest.param(NGINX_PLUS, "nginx", (1, 25, 5), id="NGINX Plus"),
        pytest.param(OPENRESTY, "openresty", (1, 25, 3, 1), id="OpenResty"),
        pytest.param(ANGIE, "angie", (1, 29, 3), id="Angie"),
        pytest.param(OLD_ANGIE, "angie", (1, 23, 1), id="Angie that tells no version of nginx"),
        pytest.param(TENGINE, "tengine", (1, 24, 0), id="Tengine"),
        pytest.param(OLD_TENGINE, "tengine", (1, 8, 1), id="old Tengine"),
        pytest.param(FREENGINX, "freenginx", (1, 27, 1), id="freenginx"),
    ],
)
def test_version(tmp_path: Path, answer: str, name: str, version: tuple[int, ...]) -> None:
    """Every relative of nginx is known by its name, and by the version of nginx that it is."""
    nginx = ask(nginx_that_says(tmp_path, answer))
    assert (nginx.name, nginx.version) == (name, version)
    assert nginx.path == f"{tmp_path}/fake nginx"


@pytest.mark.parametrize(
    ("answer", "paths"),
    [
        pytest.param(DEBIAN, ("/usr/share/nginx/", "/etc/nginx/nginx.conf", "/run/nginx.pid",
                              "stderr"), id="Debian"),
        pytest.param(NGINX_ORG, ("/etc/nginx/", "/etc/nginx/nginx.conf", "/var/run/nginx.pid",
                                 "/var/log/nginx/error.log"), id="nginx.org"),
        pytest.param(PLAIN, ("/usr/local/nginx/", "conf/nginx.conf", "logs/nginx.pid",
                             "logs/error.log"), id="nothing said"),
        pytest.param(TWICE, ("/with a space/", "etc/my.conf", "logs/nginx.pid", "logs/error.log"),
                     id="said twice, and in quotes"),
        pytest.param(NO_PREFIX, ("", "conf/nginx.conf", "logs/nginx.pid", "logs/error.log"),
                     id="no prefix"),
        pytest.param(OLD_ANGIE, ("/usr/local/angie/", "conf/angie.conf", "logs/angie.pid",
                                 "logs/error.log"), id="Angie, nothing said"),
        pytest.param(OLD_TENGINE, ("/opt/tengine/", "conf/nginx.conf", "logs/nginx.pid",
                                   "logs/error.log"), id="more lines"),
    ],
)  # fmt: skip
def test_built_paths(tmp_path: Path, answer: str, paths: tuple[str, ...]) -> None:
    """The paths that a binary was built with are known, or nginx's own defaults."""
    nginx = ask(nginx_that_says(tmp_path, answer))
    assert (nginx.prefix, nginx.conf, nginx.pid, nginx.error_log) == paths


NO_TLS = {"ngx_http_ssl_module", "ngx_mail_ssl_module", "ngx_stream_ssl_module"}
NO_REWRITE = {"ngx_http_rewrite_module"}
NO_HTTP = {"ngx_http_core_module", "ngx_http_map_module", *NO_REWRITE}


def built(configure: str, tls: str = "TLS SNI support enabled\n") -> str:
    """The answer of an nginx with these options."""
    return f"nginx version: nginx/1.31.5\n{tls}configure arguments: {configure}\n"


@pytest.mark.parametrize(
    ("answer", "lacks"),
    [
        pytest.param(DEBIAN, set(), id="Debian"),
        pytest.param(NGINX_ORG, set(), id="nginx.org"),
        pytest.param(OPENRESTY, set(), id="OpenResty"),
        pytest.param(ANGIE, set(), id="Angie"),
        pytest.param(TENGINE, set(), id="Tengine, which has TLS without being told"),
        pytest.param(OLD_TENGINE, set(), id="old Tengine"),
        pytest.param(FREENGINX, set(), id="freenginx"),
        pytest.param(built("--with-http_v3_module"), set(), id="HTTP/3 brings TLS"),
        pytest.param(PLAIN, NO_TLS, id="nothing said"),
        pytest.param(
            built("--without-http_rewrite_module --with-pcre"), NO_REWRITE, id="no rewrite"
        ),
        pytest.param(built("--without-pcre"), NO_REWRITE, id="no PCRE"),
        pytest.param(built("--without-pcre2"), set(), id="the older PCRE"),
        pytest.param(built("--without-http_map_module"), {"ngx_http_map_module"}, id="no map"),
        pytest.param(built("--without-http --with-stream"), NO_HTTP, id="no http"),
        pytest.param(built("--without-http", tls=""), NO_HTTP | NO_TLS, id="neither"),
        pytest.param(
            built("--with-cc-opt='-DA --without-http -DB'"), set(), id="an option of the compiler"
        ),
    ],
)
def test_lacks(tmp_path: Path, answer: str, lacks: set[str]) -> None:
    """What a build surely lacks is known, and nothing else is said to be missing."""
    assert ask(nginx_that_says(tmp_path, answer)).lacks == lacks


def test_option(tmp_path: Path) -> None:
    """What was given to `configure` can be asked for."""
    nginx = ask(nginx_that_says(tmp_path, ANGIE))
    assert nginx.option("http-acme-client-path") == "/var/lib/angie/acme"
    assert nginx.option("user") is None


def test_takes_error_log() -> None:
    """-e came with nginx 1.19.5."""
    assert not Nginx("/nginx", "nginx", (1, 19, 4), "").takes_error_log
    assert Nginx("/nginx", "nginx", (1, 19, 5), "").takes_error_log
    assert Nginx("/nginx", "openresty", (1, 21, 4, 1), "").takes_error_log


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param("GNU coreutils 9.1\nCopyright\n", 0, id="another program"),
        pytest.param("", 0, id="silence"),
        pytest.param(DEBIAN, 1, id="failure"),
    ],
)
def test_not_nginx(tmp_path: Path, answer: str, status: int) -> None:
    """What doesn't answer as nginx is said to be none, with its words."""
    path = nginx_that_says(tmp_path, answer, status)
    with pytest.raises(NginxMissing) as missing:
        ask(path)
    words = answer.partition("\n")[0]
    expected = f'"{path}" is not nginx; to "-V" it says: "{words}" (exit code {status})'
    assert str(missing.value) == expected


def test_ask_real(every_nginx: str) -> None:
    """The real nginx says what it is."""
    nginx = ask(every_nginx)
    assert nginx.name == "nginx"
    assert nginx.version == nginx_version(every_nginx)
    assert nginx.conf == "/etc/nginx/nginx.conf"
    assert not nginx.lacks


# --- its paths, for a command line ----------------------------------------------------------

BUILT = Nginx("/nginx", "nginx", (1, 26), "--prefix=/built --conf-path=etc/nginx.conf")


@pytest.mark.parametrize(
    ("argv", "prefix", "conf"),
    [
        pytest.param([], "/built/", "/built/etc/nginx.conf", id="as built"),
        pytest.param(["-c", "my.conf"], "/built/", "/built/my.conf", id="-c is from the prefix"),
        pytest.param(["-c", "/a/b.conf"], "/built/", "/a/b.conf", id="an absolute -c"),
        pytest.param(["-p", "/a"], "/a/", "/a/etc/nginx.conf", id="-p"),
        pytest.param(["-p", "/a//"], "/a//", "/a//etc/nginx.conf", id="its slashes stay"),
        pytest.param(["-p", "a/../b"], "CWD/a/../b/", "CWD/a/../b/etc/nginx.conf",
                     id="-p is from the cwd"),
        pytest.param(["-p", "."], "CWD/./", "CWD/./etc/nginx.conf", id="a dot"),
        pytest.param(["-p", ""], "CWD/", "CWD/etc/nginx.conf", id="an empty -p"),
        pytest.param(["-p", "/a", "-c", "../b"], "/a/", "/a/../b", id="both"),
        pytest.param(["-c", ""], "/built/", "/built/", id="an empty -c"),
    ],
)  # fmt: skip
def test_conf_path(argv: list[str], prefix: str, conf: str) -> None:
    """The prefix and the main file are where nginx looks for them."""
    command = parse(argv)
    cwd = os.getcwd()
    assert prefix_path(BUILT, command) == prefix.replace("CWD", cwd)
    assert conf_path(BUILT, command) == conf.replace("CWD", cwd)


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param([], id="as built"),
        pytest.param(["-c", "a.conf"], id="relative -c"),
        pytest.param(["-c", "/nowhere/a.conf"], id="absolute -c"),
        pytest.param(["-p", "sub/x", "-c", "a/../b"], id="relative -p"),
        pytest.param(["-p", "sub/", "-c../b"], id="relative -p with its slash"),
        pytest.param(["-p", "/nowhere"], id="-p alone"),
        pytest.param(["-p", "", "-c", "a.conf"], id="empty -p"),
        pytest.param(["-p", "sub", "-c", ""], id="empty -c"),
    ],
)
def test_conf_path_real(each_nginx: str, tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """The real nginx looks for the main file at the same place."""
    monkeypatch.chdir(tmp_path)
    nginx = ask(each_nginx)
    arguments = ["-t", "-e", "/dev/null", "-g", "oops", *argv]
    answer = check(nginx, arguments, str).lines[-1]
    looked_at = answer.removeprefix("nginx: configuration file ").removesuffix(" test failed")
    expected = conf_path(nginx, parse(arguments))
    assert os.path.join(tmp_path, looked_at) == expected.replace(f"{tmp_path}//", f"{tmp_path}/")


@pytest.mark.parametrize(
    ("argv", "directive", "path"),
    [
        pytest.param([], None, "/built/logs/nginx.pid", id="as built"),
        pytest.param([], "my.pid", "/built/my.pid", id="the configuration's"),
        pytest.param(["-p", "/a"], "/run/x.pid", "/run/x.pid", id="an absolute one"),
        pytest.param(["-p/a", "-g", "daemon off; pid 'my run/x.pid'; user root;"], None,
                     "/a/my run/x.pid", id="in -g"),
        pytest.param(["-g", "daemon off; #pid"], None, "/built/logs/nginx.pid", id="not in -g"),
    ],
)  # fmt: skip
def test_pid_path(argv: list[str], directive: str | None, path: str) -> None:
    """The pid file is where nginx writes it."""
    assert pid_path(BUILT, parse(argv), directive) == path


def test_pid_path_real(nginx: str, tmp_path: Path) -> None:
    """The real nginx makes the pid file there, already when it tests."""
    (tmp_path / "nginx.conf").write_text("events {}")
    argv = ["-t", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "e.log", "-g", "pid my.pid;"]
    real = ask(nginx)
    assert check(real, argv, str).ok
    assert os.path.exists(pid_path(real, parse(argv), None))
    assert os.path.exists(error_log_path(real, parse(argv), None))


@pytest.mark.parametrize(
    ("argv", "directive", "path"),
    [
        pytest.param([], None, "/built/logs/error.log", id="as built"),
        pytest.param(["-e", "x"], None, "/built/x", id="-e"),
        pytest.param(["-e", "x"], "y", "/built/y", id="the configuration's"),
        pytest.param(["-e", "x", "-g", "error_log /z;"], None, "/z", id="in -g"),
        pytest.param(["-e", ""], None, "stderr", id="an empty -e"),
        pytest.param(["-e", "stderr"], None, "stderr", id="stderr"),
        pytest.param([], "stderr", "stderr", id="stderr of the configuration"),
        pytest.param([], "syslog:server=::1", "syslog:server=::1", id="syslog"),
    ],
)
def test_error_log_path(argv: list[str], directive: str | None, path: str) -> None:
    """The error log is where nginx writes it."""
    assert error_log_path(BUILT, parse(argv), directive) == path


# --- running it -----------------------------------------------------------------------------


def test_check(nginx: str, tmp_path: Path) -> None:
    """What nginx says of a configuration comes with the user's paths in it, line by line."""
    conf = tmp_path / "generated.conf"
    conf.write_text("events {}\noops;\n")
    argv = ["-t", "-p", str(tmp_path), "-e", "/dev/null", "-c", str(conf)]
    answer = check(ask(nginx), argv, lambda line: line.replace(str(conf), "/my/nginx.conf"))
    assert (answer.ok, answer.returncode, answer.output) == (False, 1, b"")
    assert answer.lines == (
        'nginx: [emerg] unknown directive "oops" in /my/nginx.conf:2',
        "nginx: configuration file /my/nginx.conf test failed",
    )


def test_dump(nginx: str, tmp_path: Path) -> None:
    """-T gives the configuration byte for byte, beside what nginx says."""
    conf = tmp_path / "nginx.conf"
    conf.write_bytes(b"events {} # caf\xe9\n")
    argv = ["-Tq", "-p", str(tmp_path), "-e", "/dev/null", "-g", "pid my.pid;", "-c", str(conf)]
    answer = check(ask(nginx), argv, str)
    assert (answer.ok, answer.lines) == (True, ())
    assert answer.output.endswith(b"nginx.conf:\nevents {} # caf\xe9\n\n")


def test_run_much() -> None:
    """However much comes on both pipes in whatever order, it all arrives."""
    script = "head -c 300000 /dev/zero >&2; head -c 400000 /dev/zero; head -c 200000 /dev/zero >&2"
    status, output, messages = run("/bin/sh", ["-c", script])
    assert (status, len(output), len(messages)) == (0, 400_000, 500_000)


def test_run_status() -> None:
    """The exit code is told, and the signal that ended a program."""
    assert run("/bin/sh", ["-c", "exit 3"])[0] == 3
    assert run("/bin/sh", ["-c", "kill -9 $$"])[0] == -9


def test_run_environ() -> None:
    """A program has the environment that we were started with."""
    with open("/proc/self/environ", "rb") as file:
        assert run("/bin/cat", ["/proc/self/environ"])[1] == file.read()


@pytest.mark.parametrize("name", ["nowhere", "folder", "not executable"])
def test_run_nothing(tmp_path: Path, name: str) -> None:
    """What can't be run is said to be missing, with the reason."""
    (tmp_path / "folder").mkdir()
    install(tmp_path / "not executable", mode=0o644)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NginxMissing, match=rf'"{tmp_path}/{name}" can\'t be run \(\d+: '):
        run(f"{tmp_path}/{name}", [])
    assert os.listdir("/proc/self/fd") == before


def test_run_without_streams(nginx: str, tmp_path: Path) -> None:
    """A launcher without stdin, stdout and stderr can ask nginx all the same."""
    code = f"open('answer', 'w').write(nginx_of(Run({nginx!r}, ['-V'])).name)"
    script = f"exec {shlex.join(python(code))} <&- >&- 2>&-"
    subprocess.run(["/bin/sh", "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "answer").read_text() == "nginx"


# --- becoming it ----------------------------------------------------------------------------

CAT = "/bin/cat"
PROBE = ("/proc/self/status", "/proc/self/environ", "/proc/self/cmdline")


def python(code: str) -> list[str]:
    """Argv of a Python that runs this code with everything of the module at hand."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nginx_acme.process import *; "
    return [sys.executable, "-c", f"{start}import asyncio, os, signal, time; {code}"]


def become(argv: Sequence[str], before: str = "pass") -> list[str]:
    """Argv of a launcher that does something and then becomes another program."""
    code = "signals = end_on_signals(); become(argv[0], argv[1:], found_environ(), signals)"
    return python(f"{before}; argv = {list(argv)!r}; {code}")


def answers(
    argv: Sequence[str], env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> bytes:
    """What a program writes to stdout."""
    return subprocess.run(
        argv, stdout=subprocess.PIPE, check=True, env=env, pass_fds=pass_fds
    ).stdout


def signals_of(status: bytes) -> list[bytes]:
    """The lines of /proc/PID/status that tell what its signals do."""
    return [line for line in status.split(b"\n") if line.startswith((b"SigI", b"SigB", b"SigC"))]


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no environment"),
        pytest.param({"LC_CTYPE": "C", "B": "", "A": "x=y"}, id="a locale that Python changes"),
        pytest.param({"LANG": "C.UTF-8", "NGINX": "3;", "X": "\udce9"}, id="odd values"),
    ],
)
def test_no_trace(environ: dict[str, str]) -> None:
    """Signals, environment and arguments are those of a program that was started directly."""
    argv = (CAT, *PROBE)
    direct = answers(argv, env=environ)
    ours = answers(become(argv), env=environ)
    assert signals_of(ours) == signals_of(direct)
    assert (
        ours.partition(b"nonvoluntary")[2].partition(b"\n")[2]
        == (direct.partition(b"nonvoluntary")[2].partition(b"\n")[2])
    )


def test_trace_of_python() -> None:
    """Python alone would leave traces: what the test above looks at is worth looking at."""
    code = f"os.execv({CAT!r}, {(CAT, *PROBE)!r})"
    direct = answers((CAT, *PROBE), env={})
    plain = answers(python(code), env={})
    assert signals_of(plain) != signals_of(direct)
    assert b"LC_CTYPE" in plain


def test_signals_found_ignored() -> None:
    """What was ignored when we were started stays ignored."""
    ignore = ["/bin/sh", "-c", 'trap "" HUP INT USR2; exec "$@"', "sh"]
    direct = answers([*ignore, CAT, *PROBE])
    ours = answers([*ignore, *become([CAT, *PROBE])])
    assert signals_of(ours) == signals_of(direct)


def test_signals_found_blocked() -> None:
    """A signal that was blocked reaches nginx."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    assert b"SigBlk:\t0000000000000000" in answers(become([CAT, *PROBE], block))


def test_descriptors() -> None:
    """Files and sockets of ours are closed; those that we were started with stay open."""
    probe = ["/bin/ls", "/proc/self/fd"]
    opened = (
        "file = open('/dev/null'); loop = asyncio.new_event_loop(); Run('/bin/true', []).result()"
    )
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(open(os.devnull, "rb")).fileno() for _ in range(2)]
        direct = answers(probe, pass_fds=found)
        assert answers(become(probe, opened), pass_fds=found) == direct


def test_become_keeps_pid_and_output() -> None:
    """The pid stays, and what was written before is not lost."""
    launcher = become(["/bin/sh", "-c", "echo after $$"], "print('before', os.getpid())")
    before, after = answers(launcher, env={}).split(b"\n")[:2]
    assert before.replace(b"before", b"after") == after


def test_become_without_streams(tmp_path: Path) -> None:
    """Where there is no stdout and no stderr, there is nothing to lose."""
    launcher = shlex.join(become(["/bin/touch", f"{tmp_path}/done"]))
    subprocess.run(["/bin/sh", "-c", f"exec {launcher} >&- 2>&-"], check=True)
    assert (tmp_path / "done").exists()


def test_become_nothing(tmp_path: Path) -> None:
    """What can't be run is said to be missing."""
    launcher = become([f"{tmp_path}/nginx"])
    answer = subprocess.run(launcher, capture_output=True, text=True, check=False)
    assert answer.stderr.endswith(f'"{tmp_path}/nginx" can\'t be run (2: No such file or directory)\n')  # fmt: skip


# --- signals --------------------------------------------------------------------------------

ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
WAITS = {
    "sleeping": "print('ready'); time.sleep(60)",
    "computing": "print('ready')\nwhile True: pass",
    "in asyncio": """
async def wait():
    print('ready')
    await asyncio.sleep(60)
asyncio.run(wait())""",
    "in a thread": """
asyncio.run(asyncio.to_thread(lambda: (print('ready'), time.sleep(60))))""",
    "waiting for nginx": """
Run('/bin/sh', ['-c', 'echo ready >/proc/$PPID/fd/1; while sleep 0.05; do echo; done']).result()""",
    "where exceptions are swallowed": """
while True:
    try:
        print('ready')
        time.sleep(60)
    except BaseException:
        pass""",
}


UNSEEN = f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(number) for number in ENDING]})\n"
"""Keeps these signals from the main thread, as a system call does that began in a bad moment."""


@contextlib.contextmanager
def waiting(code: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A launcher that has ended its preparations and does this."""
    start = python("signals = end_on_signals()")
    start[-1] += f"\n{code}"
    start.insert(1, "-u")
    launcher = subprocess.Popen(
        [*prefix, *start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with launcher:
        try:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "ready\n", launcher.communicate()[1]
            yield launcher
        finally:
            launcher.kill()


@pytest.mark.parametrize("number", ENDING)
def test_end(number: signal.Signals) -> None:
    """TERM, INT and QUIT end us as they end nginx: at once, quietly, with exit code 0."""
    with waiting(WAITS["sleeping"]) as launcher:
        launcher.send_signal(number)
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in WAITS.items()])
def test_end_at_any_moment(code: str) -> None:
    """Whatever we are doing."""
    with waiting(code) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


def test_end_though_main_thread_is_busy() -> None:
    """A signal that the main thread doesn't see ends us, too, a moment later."""
    farewell = "signals.before_end(lambda: os.write(1, b'bye'))\n"
    with waiting(farewell + UNSEEN + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("bye", "")
        assert launcher.returncode == 0


def test_end_as_pid_1(tmp_path: Path) -> None:
    """In a container we are PID 1, for which the kernel knows no default action."""
    unshare = ["unshare", "--map-root-user", "--fork", "--pid", "--kill-child"]
    if subprocess.run([*unshare, "/bin/true"], check=False, cwd=tmp_path).returncode != 0:
        pytest.skip("no namespaces here")
    code = "assert os.getpid() == 1; " + WAITS["sleeping"]
    with waiting(code, unshare) as outer:
        with open(f"/proc/{outer.pid}/task/{outer.pid}/children", encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGQUIT)
        assert outer.wait(PATIENCE) == 0


def test_ignored() -> None:
    """HUP, USR1, USR2 and WINCH, which would make nginx do something, do nothing."""
    with waiting(WAITS["sleeping"]) as launcher:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            launcher.send_signal(number)
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0


def test_farewells() -> None:
    """What was opened last is closed first; what goes wrong there stays unsaid."""
    code = """
signals.before_end(lambda: os.write(1, b'first'))
signals.before_end(lambda: os.write(1, b'second '))
signals.before_end(lambda: os.write(1, b'third '))
print('ready')
time.sleep(60)"""
    with waiting(code) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("third second first", "")
        assert launcher.returncode == 0
    with waiting("signals.before_end(lambda: 1 / 0)\n" + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.communicate(timeout=PATIENCE) == ("", "")
        assert launcher.returncode == 0


@pytest.mark.parametrize("unseen", [False, True])
def test_farewell_that_hangs(*, unseen: bool) -> None:
    """A farewell that takes too long doesn't keep us, whoever calls it."""
    farewell = "signals.before_end(lambda: time.sleep(60))\n"
    with waiting(farewell + (UNSEEN if unseen else "") + WAITS["sleeping"]) as launcher:
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0


def test_second_signal() -> None:
    """A farewell that takes long is not waited for when we are told to end again."""
    code = "signals.before_end(lambda: (os.write(1, b'bye\\n'), time.sleep(60)))\n"
    with waiting(code + WAITS["sleeping"]) as launcher:
        launcher.send_signal(signal.SIGQUIT)
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "bye\n"
        launcher.terminate()
        assert launcher.wait(PATIENCE) == 0


# --- beside it ------------------------------------------------------------------------------

DETACHED = """
ls /proc/self/fd >"$OUT/fds"
streams=$(readlink /proc/$$/fd/0 /proc/$$/fd/1)
echo "$streams" >"$OUT/streams"
cat /proc/$$/environ >"$OUT/environ"
cat /proc/self/status >"$OUT/status"
{ readlink /proc/$$/cwd; cat /proc/$$/stat; } >"$OUT/process"
echo "$1" >&2
mv "$OUT/process" "$OUT/done"
"""


def detach(out: Path, *, stderr_of: str = "None") -> tuple[int, int, str]:
    """Have a launcher start the script above: their pids and what was on the launcher's stderr."""
    argv = ["/bin/sh", "-c", DETACHED, "sh", "heard"]
    code = f"""
signals = end_on_signals()
inherited = os.dup2(os.pipe()[0], 77, inheritable=True)
print(os.getpid(), spawn_detached({argv!r}, {{'OUT': {str(out)!r}}}, stderr_of={stderr_of}))"""
    start = python("pass")
    start[-1] += code
    launcher = subprocess.run(
        start,
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "Asia/Tokyo", "HOME": "/root", "LC_ALL": "C"},
    )
    wait_for((out / "done").exists)
    ours, detached = map(int, launcher.stdout.split())
    return ours, detached, launcher.stderr


def test_detached(tmp_path: Path) -> None:
    """A detached program is nobody's child and has nothing of ours, not even our descriptors."""
    ours, detached, heard = detach(tmp_path)
    cwd, stat = (tmp_path / "done").read_text().splitlines()
    pid, _, _, parent, _, session = stat.split()[:6]
    assert cwd == "/"
    assert int(pid) == detached
    assert int(parent) != ours
    assert int(session) not in {ours, detached, os.getsid(0)}
    assert heard == ""
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]
    assert (tmp_path / "streams").read_text().split() == ["/dev/null", "/dev/null"]


def test_detached_environment(tmp_path: Path) -> None:
    """Its environment and signals don't depend on who started nginx."""
    detach(tmp_path)
    environ = (tmp_path / "environ").read_bytes().rstrip(b"\0").decode().split("\0")
    assert sorted(environ) == [
        *("LANG=C", f"OUT={tmp_path}", f"PATH={DETACHED_PATH}", "TZ=Asia/Tokyo"),
    ]
    assert signals_of((tmp_path / "status").read_bytes()) == (
        signals_of(answers([CAT, "/proc/self/status"]))
    )


def test_detached_stderr(tmp_path: Path) -> None:
    """Stderr stays if it is asked for: where nginx logs there, the agent does, too."""
    assert detach(tmp_path, stderr_of="os.getpid()")[2] == "heard\n"


def test_detached_stderr_of_another(tmp_path: Path) -> None:
    """From nginx's own, whoever starts it: it must neither hold a terminal nor lose its voice."""
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as nginx:
        assert nginx.stderr is not None
        assert detach(tmp_path, stderr_of=str(nginx.pid))[2] == ""
        assert nginx.stderr.readline() == b"heard\n"


def test_detached_stderr_that_is_a_socket(tmp_path: Path) -> None:
    """Ours, where it can't be opened, as below systemd."""
    ours, theirs = socket.socketpair()
    cat = subprocess.Popen(("cat",), stdin=subprocess.PIPE, stderr=theirs.fileno())
    with ours, theirs, cat as nginx:
        assert detach(tmp_path, stderr_of=str(nginx.pid))[2] == "heard\n"


def test_detached_nothing() -> None:
    """A program that can't be run is told to the caller, who still is the only one of its kind."""
    with pytest.raises(FileNotFoundError, match="/nowhere/agent"):
        spawn_detached(["/nowhere/agent"], {})


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on all IPv4 addresses."""
    with socket.create_server(("0.0.0.0", free_port())) as server:
        yield server


def test_bindable(listener: socket.socket) -> None:
    """An address is free unless somebody listens there, also on another address of its port."""
    port = listener.getsockname()[1]
    taken = f"bind() to {{}}:{port} failed (98: Address already in use)"
    assert bindable("0.0.0.0", free_port()) is None
    assert bindable("0.0.0.0", port) == taken.format("0.0.0.0")
    assert bindable("127.0.0.1", port) == taken.format("127.0.0.1")
    assert bindable("::", port, ipv6only=False) == taken.format("[::]")
    assert bindable("::", port) is None


def test_bindable_leaves_nothing() -> None:
    """Asking doesn't take the address."""
    port = free_port()
    assert bindable("127.0.0.1", port) is None
    with socket.create_server(("127.0.0.1", port)):
        assert bindable("127.0.0.1", port) is not None


def test_bindable_elsewhere() -> None:
    """An address that is not of this machine can't be bound, and the reason is told."""
    reason = "bind() to {}:80 failed (99: Cannot assign requested address)"
    assert bindable("192.0.2.1", 80) == reason.format("192.0.2.1")
    assert bindable("2001:db8::1", 80) == reason.format("[2001:db8::1]")


def test_found_environ() -> None:
    """What was found is what the kernel says, whatever was changed since."""
    assert found_environ() == dict(entry.split("=", 1) for entry in raw_environ())


def raw_environ() -> list[str]:
    """The entries that the kernel knows."""
    with open("/proc/self/environ", "rb") as file:
        return os.fsdecode(file.read()).rstrip("\0").split("\0")
