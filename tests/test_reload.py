"""The running nginx: who it is, where it listens, and whether it took a new configuration."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.errors import ReloadFailed
from nginx_acme.master import (
    Master,
    _children_by_parent,
    _listed_children,
    find_master,
    is_forking,
    is_reading,
    serves,
    worker_marks,
    workers,
)
from nginx_acme.nginx.listen import Address
from nginx_acme.reload import _Patience, _Words, reload, settled_workers, was_reloaded
from nginx_acme.sockets import listening
from tests.launcher import eventually
from tests.servers import ROOT, NginxServer, fetch_plain, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartNginx = Callable[..., NginxServer]

CONF = """
worker_processes 2;
events {{}}
http {{
    server {{ listen 127.0.0.1:{port}; return 200 "{answer}"; }}
}}
"""


def configured(answer: str = "first", port: int | None = None) -> str:
    """A configuration that answers so."""
    return CONF.format(port=port or free_port(), answer=answer)


def found(server: NginxServer) -> Master:
    """The master that the server's pid file names."""
    master = find_master(str(server.folder / "logs" / "nginx.pid"))
    assert master is not None
    return master


@contextlib.contextmanager
def process(title: str) -> Iterator[int]:
    """The pid of a process with this title."""
    with subprocess.Popen([title], executable="/bin/cat", stdin=subprocess.PIPE) as child:
        command_line = Path(f"/proc/{child.pid}/cmdline")
        wait_for(command_line.read_bytes)  # empty for a moment while it becomes the program
        yield child.pid


# --- which master ---------------------------------------------------------------------------


def test_find(start_nginx: StartNginx, each_nginx: str) -> None:
    """A running master is found by its pid file, and what it was started with is known."""
    server = start_nginx(configured(), binary=each_nginx)
    master = found(server)
    assert (master.pid, master.single) == (server.server.pid, False)
    assert master.uses(str(server.conf))
    assert master.conf == str(server.conf)
    assert not master.uses(f"{server.conf}.bak")
    assert not master.uses(str(server.folder))


@pytest.mark.parametrize(
    ("command_line", "conf"),
    [
        pytest.param("nginx: master process /usr/sbin/nginx -c {}", "{}", id="nginx"),
        pytest.param("nginx: master process nginx -c{} -g daemon off;", "{}", id="glued"),
        pytest.param("nginx: master process nginx -c /a -c {} -p /b", "{}", id="the last counts"),
        pytest.param("angie: master process v1.11.5 #1 [/usr/sbin/angie -c {}]", "{}", id="Angie"),
        pytest.param("/usr/sbin/nginx -g daemon off; -c {}", "{}", id="single"),
    ],
)
def test_uses(command_line: str, conf: str) -> None:
    """The main file is recognised in every title, also with a space in its path."""
    for path in ("/etc/nginx/nginx.conf", "/srv/my conf/nginx.conf"):
        master = Master(1, command_line.format(path), single=False)
        assert master.uses(path)
        assert not master.uses(path[:-1])
        assert not master.uses(path[1:])
        assert master.conf == conf.format(path)


def test_no_conf() -> None:
    """A master without -c uses the file of its build, which its title doesn't tell."""
    master = Master(1, "nginx: master process /usr/sbin/nginx -g daemon on;", single=False)
    assert master.conf is None
    assert not master.uses("/etc/nginx/nginx.conf")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="no file"),
        pytest.param("", id="empty, as nginx -t makes it"),
        pytest.param("\n", id="an empty line"),
        pytest.param("0\n", id="nobody"),
        pytest.param("-1\n", id="everybody"),
        pytest.param("12 \n", id="what nginx would not read"),
        pytest.param("4194305\n", id="a pid that can't be"),
        pytest.param("9" * 40, id="a number that can't be"),
        pytest.param(f"{os.getpid()}\n", id="ourselves"),
        pytest.param(f"{os.getppid()}\n", id="another program"),
    ],
)
def test_no_master(tmp_path: Path, content: str | None) -> None:
    """A pid file that leads to no master is as good as none."""
    path = tmp_path / "nginx.pid"
    if content is not None:
        path.write_text(content)
    assert find_master(str(path)) is None


@pytest.mark.parametrize(
    ("title", "is_master"),
    [
        ("nginx: master process /usr/sbin/nginx", True),
        ("angie: master process v1.11.5 #1 [/usr/sbin/angie]", True),
        ("nginx: worker process", False),
        ("nginx: cache manager process", False),
        ("vi nginx: master process", False),
        ("/usr/sbin/nginx", False),
    ],
)
def test_recycled_pid(tmp_path: Path, title: str, is_master: bool) -> None:  # noqa: FBT001
    """A process is a master by its title; a program that only is called nginx is none."""
    with process(title) as pid:
        (tmp_path / "nginx.pid").write_text(f"{pid}\n")
        assert (find_master(str(tmp_path / "nginx.pid")) is not None) is is_master


def test_ended(tmp_path: Path) -> None:
    """A process that has ended is no master, also while nobody has collected it."""
    with subprocess.Popen(["nginx: master process"], executable="/bin/true") as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        (tmp_path / "nginx.pid").write_text(f"{child.pid}\n")
        assert find_master(str(tmp_path / "nginx.pid")) is None


# --- its workers and its sockets ------------------------------------------------------------


def test_workers(start_nginx: StartNginx, each_nginx: str) -> None:
    """Workers are the children that serve; helpers for the cache are none."""
    cache = "proxy_cache_path temp/cache keys_zone=cache:1m;"
    server = start_nginx(configured().replace("http {", f"http {{ {cache}"), binary=each_nginx)
    wait_for(lambda: len(workers(server.server.pid)) == 2 and len(server.workers()) > 2)
    assert workers(server.server.pid) < server.workers()
    assert workers(os.getpid()) == frozenset()


def test_children() -> None:
    """Children are known where the kernel doesn't list them, too."""
    with process("a) name (of 1 2") as child:
        for find in (_listed_children, _children_by_parent):
            assert child in find(os.getpid())
            assert os.getpid() not in find(os.getpid())


@pytest.mark.ipv6
def test_listening(start_nginx: StartNginx, each_nginx: str) -> None:
    """A master holds the addresses of its configuration, and nobody else's."""
    ports = [free_port() for _ in range(5)]
    lines = (
        f"listen 127.0.0.1:{ports[0]}; listen {ports[1]}; "
        f"listen [::1]:{ports[2]}; listen [::]:{ports[3]};"
    )
    server = start_nginx(f"events {{}} http {{ server {{ {lines} }} }}", binary=each_nginx)
    with socket.create_server(("127.0.0.1", ports[4])):
        assert listening(server.server.pid) == {
            Address("127.0.0.1", ports[0]),
            Address("0.0.0.0", ports[1]),
            Address("::1", ports[2]),
            Address("::", ports[3]),
        }
        assert Address("127.0.0.1", ports[4]) in listening(os.getpid())
    assert listening(server.server.pid).isdisjoint(listening(os.getpid()))


def test_listening_nobody() -> None:
    """Nothing is known of a process that is not there."""
    assert listening(4_194_305) == frozenset()


# --- reload ---------------------------------------------------------------------------------


def test_reload(start_nginx: StartNginx, each_nginx: str) -> None:
    """After a proved reload every answer is the new configuration's."""
    port = free_port()
    server = start_nginx(configured("first", port), binary=each_nginx)
    assert fetch_plain(port, "a.example").body == b"first"
    server.conf.write_text(configured("second", port))
    assert reload(found(server), 20, error_log="log") is True
    assert {fetch_plain(port, "a.example").body for _ in range(20)} == {b"second"}


def test_reload_again(start_nginx: StartNginx) -> None:
    """Reloads that follow each other are each proved, also right after the start."""
    port = free_port()
    server = start_nginx(configured("0", port))
    for answer in ("1", "2", "3"):
        server.conf.write_text(configured(answer, port))
        assert reload(found(server), 20, error_log="log") is True
        assert fetch_plain(port, "a.example").body.decode() == answer


def test_reload_with_open_connection(start_nginx: StartNginx) -> None:
    """An old worker that only ends what it began is no reason to doubt."""
    port = free_port()
    server = start_nginx(configured("slow" * 500, port).replace("return", "limit_rate 100; return"))
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(1)
        wait_for(lambda: len(workers(server.server.pid)) == 2)
        old = workers(server.server.pid)
        server.conf.write_text(configured("second", port))
        assert reload(found(server), 20, error_log="log") is True
        assert old & server.workers()
        assert fetch_plain(port, "a.example").body == b"second"


def test_reload_that_takes_longer(start_nginx: StartNginx) -> None:
    """While nginx reads it is waited for, and after that until new workers have taken over."""
    server = start_nginx(configured())
    master = found(server)
    wait_for(lambda: len(workers(master.pid)) == 2)
    old, noted = workers(master.pid), worker_marks(master.pid)
    gate = server.folder / "gate.conf"
    os.mkfifo(gate)
    server.conf.write_text(f"include {gate};" + configured())
    os.kill(master.pid, signal.SIGHUP)
    wait_for(lambda: is_reading(master.pid, str(server.conf)))
    patience = _Patience(master, 0, _Words("log", master.pid))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(was_reloaded, master.pid, noted, str(server.conf))
        for _ in range(3):
            patience.wait()
        assert workers(master.pid) == old
        gate.write_bytes(b"")
        while any(map(serves, old)):
            patience.wait()
        assert asked.result()


def test_reload_refused(start_nginx: StartNginx) -> None:
    """A configuration that the master refuses is no success, and the old one goes on."""
    port = free_port()
    server = start_nginx(configured("first", port))
    master = found(server)
    wait_for(lambda: len(workers(master.pid)) == 2)
    old = workers(master.pid)
    server.conf.write_text("oops;")
    with pytest.raises(ReloadFailed) as failed:
        reload(master, 0.5, error_log="/var/log/nginx/error.log")
    assert str(failed.value) == (
        f"nginx (pid {master.pid}) did not take the new configuration; "
        "its error log says why: /var/log/nginx/error.log"
    )
    assert workers(master.pid) == old
    assert fetch_plain(port, "a.example").body == b"first"


def test_reload_refused_in_words(start_nginx: StartNginx) -> None:
    """What the master writes to its error log is told, and not waited longer for."""
    server = start_nginx(configured())
    master = found(server)
    server.conf.write_text("oops;")
    with pytest.raises(ReloadFailed) as failed:
        reload(master, 60, error_log=str(server.folder / "logs" / "error.log"))
    assert str(failed.value) == (
        f"nginx (pid {master.pid}) did not take the new configuration; it says: "
        f'unknown directive "oops" in {server.conf}:1'
    )


def test_reload_one_worker_respawned(start_nginx: StartNginx) -> None:
    """A worker that crashed and was replaced proves nothing."""
    server = start_nginx(configured())
    master = found(server)
    wait_for(lambda: len(workers(master.pid)) == 2)
    server.conf.write_text("oops;")
    crashed, _ = sorted(workers(master.pid))
    os.kill(crashed, signal.SIGKILL)
    with pytest.raises(ReloadFailed):
        reload(master, 0.5, error_log="log")
    wait_for(lambda: len(workers(master.pid) - {crashed}) == 2)


def test_reload_single(start_nginx: StartNginx) -> None:
    """Without workers the signal is sent, and that is all that can be said.

    nginx itself answers such a reload with broken connections: it is meant for its developers.
    """
    server = start_nginx("master_process off; error_log logs/error.log notice;" + configured())
    master = found(server)
    assert master.single
    assert master.uses(str(server.conf))
    assert reload(master, 5, error_log="log") is False
    wait_for(lambda: "signal 1 (SIGHUP) received" in server.error_log())


def test_reload_ended(start_nginx: StartNginx) -> None:
    """A master that has ended can't be reloaded, and that is said at once."""
    server = start_nginx(configured())
    master = found(server)
    server.stop()
    with pytest.raises(ReloadFailed, match=rf"nginx \(pid {master.pid}\) ended during the reload"):
        reload(master, 60, error_log="log")


def test_reload_ends() -> None:
    """A master that ends instead of reloading is not waited for."""
    title = "nginx: master process"
    worker = "['nginx: worker process'], executable='/bin/cat', stdin=subprocess.PIPE"
    code = f"import subprocess; child = subprocess.Popen({worker}); print(flush=True); input()"
    with subprocess.Popen(
        [title, "-c", code],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(ReloadFailed, match="ended during the reload"):
            reload(Master(child.pid, title, single=False), 60, error_log="log")


def test_reload_not_allowed(start_nginx: StartNginx) -> None:
    """Who may not signal the master is told so."""
    if os.geteuid() != 0:
        pytest.skip("needs another user's nginx")
    server = start_nginx(configured())
    master = found(server)
    wait_for(lambda: workers(master.pid))
    code = f"""
import os
from nginx_acme.errors import ReloadFailed
from nginx_acme.master import Master
from nginx_acme.reload import _Patience, _Words, reload, was_reloaded
os.setuid(65534)
try:
    reload(Master({master.pid}, '', single=False), 5, error_log='log')
except ReloadFailed as failed:
    print(failed)"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    expected = f"nginx (pid {master.pid}) can't be told to reload (1: Operation not permitted)\n"
    assert told.stdout == expected


# --- a reload of somebody else's ------------------------------------------------------------


def test_was_reloaded(start_nginx: StartNginx, each_nginx: str) -> None:
    """Other workers say that it was; not that one crashed, and not that nothing happened."""
    server = start_nginx(configured(), binary=each_nginx)
    pid, main = found(server).pid, str(server.conf)
    wait_for(lambda: len(worker_marks(pid)) == 2)
    noted = worker_marks(pid)
    assert not was_reloaded(pid, noted, main)
    os.kill(min(server.workers()), signal.SIGKILL)
    wait_for(lambda: worker_marks(pid) not in {noted, frozenset()})
    wait_for(lambda: len(worker_marks(pid)) == 2)
    assert not was_reloaded(pid, noted, main)
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: was_reloaded(pid, noted, main))
    assert was_reloaded(pid, noted, main)
    assert not was_reloaded(pid, worker_marks(pid), main)


BEGINS = """
import os, subprocess
python = os.readlink('/proc/self/exe')
worker = subprocess.Popen(['nginx: worker process'], executable='/bin/cat', stdin=subprocess.PIPE)
begins = '''
import sys
from nginx_acme.agent.linux import show_title
input()
show_title('nginx: worker process')
sys.stdin.read()
'''
title = 'nginx: master process'
child = subprocess.Popen([title, '-c', begins], executable=python, stdin=subprocess.PIPE)
print(flush=True)
input()
child.stdin.write(b'\\n')
child.stdin.flush()
worker.kill()
worker.wait()
input()
"""
"""A master with a worker and a child that will be one; when told so it is, and the other ends.

It takes its title as nginx does it, in place. By exec it would have none for a moment.
"""


@contextlib.contextmanager
def master_that_runs(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a master and has written a line; its children end with it."""
    with subprocess.Popen(
        ["nginx: master process", "-c", code],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as master:
        assert master.stdout is not None
        master.stdout.readline()
        yield master


def test_was_reloaded_while_a_worker_begins() -> None:
    """A worker that has no title yet is waited for, though the master sleeps again already."""
    with master_that_runs(BEGINS) as master, ThreadPoolExecutor() as pool:
        pid = master.pid
        eventually(lambda: len(worker_marks(pid)) == 1 and is_forking(pid))
        noted = worker_marks(pid)
        asked = pool.submit(was_reloaded, pid, noted, "/nowhere")
        settled = pool.submit(settled_workers, pid)
        assert master.stdin is not None
        master.stdin.write(b"\n")
        master.stdin.flush()
        assert asked.result()
        assert settled.result() - noted
        assert not is_forking(pid)


UPGRADED = """
import os, subprocess
code = "import subprocess; subprocess.run(['cat'])"
python, title = os.readlink('/proc/self/exe'), 'nginx: master process'
child = subprocess.Popen([title, '-c', code], executable=python, stdin=subprocess.PIPE)
print(flush=True)
input()
"""


def test_upgraded_master_is_no_worker() -> None:
    """The new master of a binary upgrade is a child with a master's title that has children."""
    with master_that_runs(UPGRADED) as master:
        (child,) = _listed_children(master.pid)
        wait_for(lambda: _listed_children(child))
        assert not is_forking(master.pid)
