"""Finding nginx, asking it what it was built with, and knowing its paths."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from nginx_acme.binary import (
    Nginx,
    conf_path,
    error_log_path,
    find_nginx,
    nginx_of,
    pid_path,
    prefix_path,
)
from nginx_acme.commandline import parse
from nginx_acme.errors import NginxMissing
from nginx_acme.judgement import judge
from nginx_acme.process import Run
from tests.servers import ROOT, nginx_version

if TYPE_CHECKING:
    from pathlib import Path


def ask(path: str) -> Nginx:
    """The nginx of that path."""
    return nginx_of(Run(path, ["-V"]))


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
    answer = judge(nginx, arguments, str).lines[-1]
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
    assert judge(real, argv, str).ok
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
