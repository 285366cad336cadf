"""Answering http-01 over real sockets, before nginx runs and while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nginx_acme.challenges import server
from nginx_acme.challenges.http01 import Armed, Responder
from nginx_acme.errors import NginxAcmeError, StateError, UnexpectedAnswer
from nginx_acme.nginx.listen import Address, Listen
from tests.servers import free_port, listens, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"  # noqa: S105 - RFC 8555 §8.3
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
KEY_AUTHORIZATION = f"{TOKEN}.{THUMBPRINT}"
CHALLENGE = f"/.well-known/acme-challenge/{TOKEN}"

HOSTILE_TOKENS = [
    pytest.param("", id="empty"),
    pytest.param("short", id="short"),
    pytest.param("x" * 129, id="long"),
    pytest.param("../../../etc/cron.d/x", id="climbs"),
    pytest.param("/etc/cron.d/aaaaaaaaaaaa", id="absolute"),
    pytest.param("aaaaaaaaaaaaaaaa\nclean_up", id="second line"),
    pytest.param("aaaaaaaaaaaaaaaa\n", id="ends with a newline"),
    pytest.param("aaaaaaaaaaaaaaaa b", id="space"),
    pytest.param("aaaaaaaaaaaaaaaa\0", id="NUL"),
    pytest.param("ääääääääääääääää", id="not ASCII"),
]


def listen(host: str, port: int, *, ipv6only: bool = True) -> Listen:
    """A plain listener."""
    return Listen(
        Address(host, port),
        ssl=False,
        quic=False,
        default_server=False,
        proxy_protocol=False,
        ipv6only=ipv6only,
    )


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture
def responder(port: int) -> Iterator[Responder]:
    """A started server on 127.0.0.1."""
    made, refused = Responder.bind([listen("127.0.0.1", port)])
    assert not refused
    with made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def serving() -> Iterator[int]:
    """The port of a server that answers TOKEN; a launcher that does nothing more stands behind."""
    port = free_port()
    made, _ = Responder.bind([listen("127.0.0.1", port)])
    with made:
        made.start()
        asyncio.run(made.present(TOKEN, KEY_AUTHORIZATION))
        yield port


def ask(
    request: bytes | str, port: int, host: str = "127.0.0.1", *, seconds: float = 20
) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of the answer; a string is the path of a GET."""
    if isinstance(request, str):
        request = f"GET {request} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()
    with socket.create_connection((host, port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status, dict(line.lower().split(": ", 1) for line in lines), body


class TestAnswers:
    """What anybody gets who asks while a token is presented."""

    @pytest.mark.parametrize(
        "target",
        [
            pytest.param(CHALLENGE, id="path"),
            pytest.param(f"{CHALLENGE}?a=b", id="query"),
            pytest.param(f"http://example.com{CHALLENGE}", id="absolute form"),
        ],
    )
    def test_presented(self, serving: int, target: str) -> None:
        """A presented token is answered with its key authorization and nothing else."""
        status, headers, body = ask(target, serving)
        assert status == "HTTP/1.1 200 OK"
        assert body == KEY_AUTHORIZATION.encode()
        assert headers["content-type"].startswith("text/plain")
        assert headers["server"] == "nginx-acme"

    def test_head(self, serving: int) -> None:
        """HEAD gets the header of the answer and no body."""
        request = f"HEAD {CHALLENGE} HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()
        status, headers, body = ask(request, serving)
        assert status == "HTTP/1.1 200 OK"
        assert headers["content-length"] == str(len(KEY_AUTHORIZATION))
        assert body == b""

    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param("/", id="/"),
            pytest.param("/.well-known/acme-challenge/", id="no token"),
            pytest.param("/.well-known/acme-challenge/" + "x" * 43, id="another token"),
            pytest.param(f"/{TOKEN}", id="token elsewhere"),
            pytest.param(f"{CHALLENGE}/", id="token and more"),
            pytest.param(
                f"POST {CHALLENGE} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".encode(),
                id="POST",
            ),
            pytest.param(
                f"POST {CHALLENGE} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n".encode(),
                id="POST without its body",
            ),
            pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", id="OPTIONS"),
        ],
    )
    def test_everything_else(self, serving: int, request_: bytes | str) -> None:
        """Everything but the tokens presented is told to come again later."""
        status, headers, _ = ask(request_, serving)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert int(headers["retry-after"]) > 0


class TestResponder:
    """The launcher's side of the temporary server."""

    def test_clean_up(self, responder: Responder, port: int) -> None:
        """A token that was cleaned up is no longer answered."""

        async def story() -> str:
            await responder.present(TOKEN, KEY_AUTHORIZATION)
            await responder.clean_up(TOKEN)
            return (await asyncio.to_thread(ask, CHALLENGE, port))[0]

        assert " 503 " in asyncio.run(story())

    def test_clean_up_of_what_never_was(self, responder: Responder) -> None:
        """clean_up bears a present that never came, or was refused."""

        async def story() -> None:
            await responder.clean_up(TOKEN)
            await responder.clean_up("../../x")

        asyncio.run(story())

    def test_fetched(self, responder: Responder, port: int) -> None:
        """`fetched` returns when a GET was answered, and not for a HEAD or another token."""

        async def story() -> None:
            await responder.present(TOKEN, KEY_AUTHORIZATION)
            fetched = asyncio.create_task(responder.fetched(TOKEN))
            await asyncio.to_thread(ask, "/.well-known/acme-challenge/" + "x" * 43, port)
            head = f"HEAD {CHALLENGE} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            await asyncio.to_thread(ask, head, port)
            await responder.present("b" * 43, "x")  # what was said before has been heard now
            assert not fetched.done()
            await asyncio.to_thread(ask, CHALLENGE, port)
            await asyncio.wait_for(fetched, 10)

        asyncio.run(story())

    def test_fetched_again(self, responder: Responder, port: int) -> None:
        """What was fetched before a token was presented again doesn't count."""

        async def story() -> None:
            await responder.present(TOKEN, KEY_AUTHORIZATION)
            await asyncio.to_thread(ask, CHALLENGE, port)
            await asyncio.wait_for(responder.fetched(TOKEN), 10)
            await responder.clean_up(TOKEN)
            await responder.present(TOKEN, KEY_AUTHORIZATION)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(responder.fetched(TOKEN), 0.05)
            await asyncio.to_thread(ask, CHALLENGE, port)
            await asyncio.wait_for(responder.fetched(TOKEN), 10)

        asyncio.run(story())

    def test_many_at_once(self, responder: Responder, port: int) -> None:
        """Two thousand tokens, presented at once, are answered each with its own."""
        tokens = [f"{number:043}" for number in range(2000)]

        async def story() -> None:
            await asyncio.gather(*(responder.present(token, f"{token}.T") for token in tokens))
            for token in (tokens[0], tokens[999], tokens[-1]):
                path = f"/.well-known/acme-challenge/{token}"
                assert (await asyncio.to_thread(ask, path, port))[2].decode() == f"{token}.T"
            await asyncio.gather(*map(responder.clean_up, tokens))

        asyncio.run(story())

    def test_cancelled_present(self, responder: Responder, port: int) -> None:
        """A present that was cancelled half way doesn't confuse the next one."""

        async def story() -> None:
            first = asyncio.create_task(responder.present(TOKEN, KEY_AUTHORIZATION))
            await asyncio.sleep(0)
            first.cancel()
            await responder.clean_up(TOKEN)
            await responder.present("b" * 43, "second")
            path = "/.well-known/acme-challenge/" + "b" * 43
            assert (await asyncio.to_thread(ask, path, port))[2] == b"second"
            assert " 503 " in (await asyncio.to_thread(ask, CHALLENGE, port))[0]

        asyncio.run(story())

    @pytest.mark.parametrize("token", HOSTILE_TOKENS)
    def test_hostile_token(self, responder: Responder, token: str) -> None:
        """What is no token by RFC 8555 §8.3 is the CA's mistake."""
        with pytest.raises(UnexpectedAnswer):
            asyncio.run(responder.present(token, "x"))


class TestAddresses:
    """Where the temporary server listens."""

    @pytest.mark.ipv6
    def test_ipv4_and_ipv6(self, port: int) -> None:
        """IPv4 and IPv6 wildcards live on one port side by side, and both are answered."""
        made, refused = Responder.bind([listen("0.0.0.0", port), listen("::", port)])
        assert not refused
        assert made.addresses == (Address("0.0.0.0", port), Address("::", port))
        with made:
            made.start()
            for host in ("127.0.0.1", "::1"):
                assert " 503 " in ask("/", port, host)[0]

    @pytest.mark.ipv6
    @pytest.mark.parametrize(("ipv6only", "reached"), [(True, False), (False, True)])
    def test_ipv6only(self, port: int, ipv6only: bool, reached: bool) -> None:  # noqa: FBT001
        """`ipv6only` decides whether an IPv6 wildcard takes IPv4, as in nginx."""
        made, _ = Responder.bind([listen("::", port, ipv6only=ipv6only)])
        with made:
            assert listens(port, "::1")
            assert listens(port, "127.0.0.1") == reached

    @pytest.mark.parametrize(
        ("wanted", "bound"),
        [
            pytest.param([("0.0.0.0", True), ("127.0.0.1", True)], ["0.0.0.0"], id="IPv4"),
            pytest.param([("::1", True), ("::", True)], ["::"], id="IPv6"),
            pytest.param([("::", False), ("0.0.0.0", True)], ["::"], id="both by one"),
            pytest.param(
                [("::", True), ("127.0.0.1", True)], ["::", "127.0.0.1"], id="not by the other"
            ),
            pytest.param([("127.0.0.1", True)] * 2, ["127.0.0.1"], id="twice the same"),
        ],
    )
    def test_covered(self, port: int, wanted: list[tuple[str, bool]], bound: list[str]) -> None:
        """An address that a wildcard covers is not bound beside it, where it would be refused."""
        made, refused = Responder.bind(
            [listen(host, port, ipv6only=ipv6only) for host, ipv6only in wanted]
        )
        with made:
            assert not refused
            assert [address.host for address in made.addresses] == bound

    @pytest.mark.ipv6
    def test_host_name(self, port: int) -> None:
        """A host name stands for its addresses."""
        made, refused = Responder.bind([listen("localhost", port)])
        with made:
            assert not refused
            assert listens(port)

    @pytest.mark.parametrize(
        "host",
        [
            pytest.param("192.0.2.1", id="not of this host"),
            pytest.param("no-such-host.invalid", id="no such name"),
            pytest.param("unix:/tmp/x", id="unix domain socket"),
        ],
    )
    def test_refused(self, port: int, host: str) -> None:
        """What can't be bound is said, and the rest is served."""
        made, refused = Responder.bind([listen(host, port), listen("127.0.0.1", port)])
        with made:
            assert [address.host for address, _ in refused] == [host]
            assert str(refused[0][1])
            assert listens(port)

    def test_taken(self, port: int) -> None:
        """An address that another program has is refused."""
        with socket.create_server(("127.0.0.1", port)):
            made, refused = Responder.bind([listen("127.0.0.1", port)])
            with made:
                assert refused[0][0] == Address("127.0.0.1", port)
                assert made.addresses == ()


class TestLife:
    """From bind to close."""

    def test_waits_in_the_backlog(self, port: int) -> None:
        """Who connects before the server's process is up is answered when it is."""
        made, _ = Responder.bind([listen("127.0.0.1", port)])
        with made, socket.create_connection(("127.0.0.1", port), timeout=20) as early:
            early.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            made.start()
            assert early.recv(100).startswith(b"HTTP/1.1 503 ")

    def test_gone_after_close(self, responder: Responder, port: int) -> None:
        """After `close` the address is free, and closing again does nothing."""
        asyncio.run(responder.present(TOKEN, KEY_AUTHORIZATION))
        responder.close()
        socket.create_server(("127.0.0.1", port)).close()
        responder.close()

    def test_close_without_start(self, port: int) -> None:
        """`close` frees the addresses of a server that was never started."""
        made, _ = Responder.bind([listen("127.0.0.1", port)])
        made.close()
        assert not listens(port)

    def test_present_without_start(self, port: int) -> None:
        """A server that was not started can't present anything, and says so."""
        made, _ = Responder.bind([listen("127.0.0.1", port)])
        with made, pytest.raises(NginxAcmeError, match="not started"):
            asyncio.run(made.present(TOKEN, KEY_AUTHORIZATION))

    def test_close_while_it_starts(self, port: int) -> None:
        """`close` doesn't wait for a server that is still importing."""
        made, _ = Responder.bind([listen("127.0.0.1", port)])
        made.start()
        made.close()
        assert not listens(port)

    def test_server_killed(self, responder: Responder) -> None:
        """When the server's process is killed, present says so, and clean_up bears it."""

        async def story() -> None:
            await responder.present(TOKEN, KEY_AUTHORIZATION)
            child = responder._child
            assert child is not None
            os.kill(child._process.pid, signal.SIGKILL)
            with pytest.raises(NginxAcmeError, match="has ended: killed by signal 9"):
                await present_until_refused()
            await responder.clean_up(TOKEN)
            await asyncio.gather(responder.clean_up("b" * 43), responder.clean_up("c" * 43))

        async def present_until_refused() -> None:
            while True:
                await responder.present("b" * 43, "x")

        asyncio.run(asyncio.wait_for(story(), 20))

    def test_server_that_cannot_start(
        self, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The reason why the server's process didn't come up is in the error of present."""
        (tmp_path / "aiohttp.py").write_text("raise ImportError('aiohttp is broken')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        made, _ = Responder.bind([listen("127.0.0.1", port)])
        with made:
            made.start()
            with pytest.raises(NginxAcmeError, match="has ended: ImportError: aiohttp is broken"):
                asyncio.run(made.present(TOKEN, KEY_AUTHORIZATION))

    def test_ctrl_c_is_not_for_the_server(self, responder: Responder, port: int) -> None:
        """An interrupt leaves the server alone: it is the launcher that ends."""
        asyncio.run(responder.present(TOKEN, KEY_AUTHORIZATION))
        child = responder._child
        assert child is not None
        assert os.getpgid(child._process.pid) != os.getpgid(0)
        os.kill(child._process.pid, signal.SIGINT)
        assert ask(CHALLENGE, port)[2] == KEY_AUTHORIZATION.encode()

    def test_killed_launcher(self, port: int) -> None:
        """A launcher that is killed leaves no server behind."""
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(port)], stdout=subprocess.PIPE
        )
        with launcher:
            assert launcher.stdout is not None
            child = int(launcher.stdout.readline())
            assert " 503 " in ask("/", port)[0]
            launcher.kill()
        wait_for(lambda: not listens(port), what="the free address")
        wait_for(lambda: is_gone(child), what="the end of the server's process")

    def test_killed_launcher_of_a_server_that_imports(self, port: int, tmp_path: Path) -> None:
        """The next launcher finds the addresses free, also when the server was not up yet."""
        (tmp_path / "aiohttp.py").write_text("import time\ntime.sleep(60)\n")
        launcher = subprocess.Popen(
            [sys.executable, "-c", HASTY_LAUNCHER, str(port), str(tmp_path)], stdout=subprocess.PIPE
        )
        with launcher:
            assert launcher.stdout is not None
            child = int(launcher.stdout.readline())
            launcher.kill()
        wait_for(lambda: is_gone(child), what="the end of the server's process")
        socket.create_server(("127.0.0.1", port)).close()


LAUNCHER = """
import asyncio, sys, time
from nginx_acme.challenges.http01 import Responder
from nginx_acme.nginx.listen import parse_listen
responder, refused = Responder.bind(parse_listen([f"127.0.0.1:{sys.argv[1]}"]))
responder.start()
asyncio.run(responder.present("a" * 43, "x"))
print(responder._child._process.pid, flush=True)
time.sleep(60)
"""


HASTY_LAUNCHER = """
import sys, time
from nginx_acme.challenges.http01 import Responder
from nginx_acme.nginx.listen import parse_listen
responder, refused = Responder.bind(parse_listen([f"127.0.0.1:{sys.argv[1]}"]))
sys.path.insert(0, sys.argv[2])
responder.start()
print(responder._child._process.pid, flush=True)
time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended; in a container without an init it stays as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


class TestHostileRequests:
    """Anybody may connect; challenges are answered all the same."""

    @pytest.mark.parametrize(
        "bytes_",
        [
            pytest.param(b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n", id="long line"),
            pytest.param(
                b"GET / HTTP/1.1\r\n"
                + b"".join(b"A%d: b\r\n" % n for n in range(100_000))
                + b"\r\n",
                id="many headers",
            ),
            pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
            pytest.param(b"\0" * 1000, id="NUL"),
            pytest.param(b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", id="no URL"),
            pytest.param(b"GET /%ff%00 HTTP/1.1\r\nHost: \xff\r\n\r\n", id="odd bytes"),
            pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000, id="pipelined"),
            pytest.param(
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
                id="huge chunk",
            ),
        ],
    )
    def test_nonsense(self, serving: int, bytes_: bytes) -> None:
        """Nonsense is not answered with a challenge, nor does it disturb who asks for one."""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", serving), timeout=20) as connection,
        ):
            connection.sendall(bytes_)
            assert not connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert ask(CHALLENGE, serving)[2] == KEY_AUTHORIZATION.encode()

    def test_connections_that_say_nothing(self, serving: int) -> None:
        """However many connections are held open, there is room for the CA's."""
        with contextlib.ExitStack() as held:
            for _ in range(server.CONNECTIONS + 100):
                connection = socket.create_connection(("127.0.0.1", serving), timeout=20)
                held.enter_context(connection).sendall(b"GET / HTTP/1.1\r\n")
            assert ask(CHALLENGE, serving)[2] == KEY_AUTHORIZATION.encode()

    def test_slow_request(self, serving: int) -> None:
        """A request that is never finished ends, and its connection with it."""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", serving), timeout=4 * server.SECONDS) as slow,
        ):
            slow.sendall(b"GET / HTTP/1.1\r\n")
            assert slow.recv(100) == b""


def test_light() -> None:
    """The launcher doesn't wait for aiohttp: only the server's process imports it."""
    script = "import sys, nginx_acme.challenges.http01; print('aiohttp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


class TestArmed:
    """The solver for a running nginx."""

    def test_arms_and_disarms(self, tmp_path: Path) -> None:
        """A token is armed by an empty file that everybody may see, and disarmed by its removal."""
        solver = Armed(str(tmp_path))
        previous = os.umask(0o077)
        try:
            asyncio.run(solver.present(TOKEN, KEY_AUTHORIZATION))
        finally:
            os.umask(previous)
        (file,) = tmp_path.iterdir()
        assert (file.name, file.read_bytes(), file.stat().st_mode & 0o7777) == (TOKEN, b"", 0o644)
        asyncio.run(solver.clean_up(TOKEN))
        assert not list(tmp_path.iterdir())
        asyncio.run(solver.clean_up(TOKEN))

    @pytest.mark.parametrize("token", HOSTILE_TOKENS)
    def test_hostile_token(self, tmp_path: Path, token: str) -> None:
        """What is no token neither makes nor removes a file."""
        folder = tmp_path / "a" / "b" / "c"
        folder.mkdir(parents=True)
        (tmp_path / "x").touch()
        solver = Armed(str(folder))
        with pytest.raises(UnexpectedAnswer):
            asyncio.run(solver.present(token, "x"))
        asyncio.run(solver.clean_up(token))
        asyncio.run(solver.clean_up("../../../x"))
        assert (tmp_path / "x").exists()
        assert not list(folder.iterdir())

    def test_no_folder(self, tmp_path: Path) -> None:
        """Where the file can't be made, the error names the path; clean_up bears it."""
        solver = Armed(str(tmp_path / "none"))
        with pytest.raises(StateError, match=TOKEN):
            asyncio.run(solver.present(TOKEN, KEY_AUTHORIZATION))
        asyncio.run(solver.clean_up(TOKEN))

    def test_never_fetched(self, tmp_path: Path) -> None:
        """A running nginx answers and tells nobody."""

        async def wait() -> None:
            await asyncio.wait_for(Armed(str(tmp_path)).fetched(TOKEN), 0.02)

        with pytest.raises(TimeoutError):
            asyncio.run(wait())
