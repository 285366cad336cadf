"""What speaks against an order, before it is made: proof, and what is none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from nginx_acme.challenges.http01 import Armed, Responder
from nginx_acme.errors import StateError
from nginx_acme.identifiers import Name
from nginx_acme.lookup import LookupFailed
from nginx_acme.nginx.listen import Listen, parse_listen
from nginx_acme.preflight import HINT_SECONDS, Findings, look
from tests.servers import NginxServer, free_port, nginx_conf, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

EXAMPLE = Name("example.com")
NOTHING = Findings({}, {})
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


def listens(*args: str) -> tuple[Listen, ...]:
    """What `listen` directives with these arguments listen on."""
    return tuple(it for one in args for it in parse_listen(one.split()))


def knows(names: Mapping[str, tuple[str, ...] | str]) -> Callable[[str], tuple[str, ...]]:
    """A resolver: addresses by name; a string is the reason why there is no answer."""

    def resolve(name: str) -> tuple[str, ...]:
        found = names[name]
        if isinstance(found, str):
            raise LookupFailed(found)
        return found

    return resolve


HERE = knows({"example.com": ("192.0.2.1",), "www.example.com": ("192.0.2.1",)})


class Noted:
    """A solver that notes what is armed and arms nothing."""

    challenge_type = "http-01"

    def __init__(self) -> None:
        self.armed: list[str] = []
        self.presented: list[str] = []

    async def present(self, token: str, key_authorization: str) -> None:
        """Note it."""
        assert key_authorization.startswith(f"{token}.")
        self.presented.append(token)
        self.armed.append(token)

    async def clean_up(self, token: str) -> None:
        """Forget it."""
        self.armed.remove(token)

    async def fetched(self, token: str) -> None:
        """Never asked for."""
        raise NotImplementedError(token)


def run(
    names: list[Name],
    where: tuple[Listen, ...],
    solver: Armed | Responder | Noted | None = None,
    *,
    public: bool = True,
    seconds: float = 10,
    witness: str | None = None,
    optional: frozenset[str] = frozenset(),
    resolve: Callable[[str], tuple[str, ...]] = HERE,
) -> Findings:
    """What `look` finds."""
    return asyncio.run(
        look(
            names,
            solver or Noted(),
            where,
            public=public,
            witness=witness,
            optional=optional,
            seconds=seconds,
            resolve=resolve,
        )
    )


class TestDns:
    """Names without an address."""

    @pytest.mark.parametrize(
        ("found", "public", "blocked", "warned"),
        [
            pytest.param(("192.0.2.1",), True, False, False, id="address"),
            pytest.param((), True, True, False, id="none"),
            pytest.param((), False, False, True, id="none, and the CA may know another DNS"),
            pytest.param("servers are down", True, False, True, id="no answer"),
            pytest.param("servers are down", False, False, True, id="no answer, private"),
        ],
    )
    def test_verdict(
        self,
        found: tuple[str, ...] | str,
        public: bool,  # noqa: FBT001
        blocked: bool,  # noqa: FBT001
        warned: bool,  # noqa: FBT001
    ) -> None:
        """A public name without an address is proof; everything else is at most a warning."""
        findings = run([EXAMPLE], (), public=public, resolve=knows({"example.com": found}))
        assert (bool(findings.blocked), bool(findings.warnings)) == (blocked, warned)
        words = "servers are down" if isinstance(found, str) else "DNS has no address for example"
        assert all(words in said for said in findings.warnings.values())
        assert all(words in said for said in findings.blocked.values())

    def test_one_of_many(self) -> None:
        """Only the name without an address is blocked."""
        names = [EXAMPLE, Name("gone.example.com")]
        resolve = knows({"example.com": ("192.0.2.1",), "gone.example.com": ()})
        assert run(names, (), resolve=resolve) == Findings(
            {"gone.example.com": "DNS has no address for gone.example.com"}, {}
        )

    @pytest.mark.parametrize(
        ("witness", "proof"),
        [
            pytest.param(("192.0.2.2",), True, id="known"),
            pytest.param((), False, id="unknown"),
            pytest.param("no answer", False, id="no answer"),
        ],
    )
    def test_witness(self, witness: tuple[str, ...] | str, proof: bool) -> None:  # noqa: FBT001
        """A resolver that doesn't even know the CA knows nothing of the public DNS."""
        findings = run(
            [EXAMPLE],
            (),
            witness="ca.example",
            resolve=knows({"example.com": (), "ca.example": witness}),
        )
        assert bool(findings.blocked) == proof
        assert bool(findings.warnings) != proof

    @pytest.mark.parametrize(
        ("apex", "public", "proof"),
        [
            pytest.param(("192.0.2.1",), False, True, id="known here"),
            pytest.param(("192.0.2.1",), True, True, id="known here, unlike the CA"),
            pytest.param((), False, False, id="unknown here"),
            pytest.param("no answer", False, False, id="no answer"),
        ],
    )
    def test_optional(
        self,
        apex: tuple[str, ...] | str,
        public: bool,  # noqa: FBT001
        proof: bool,  # noqa: FBT001
    ) -> None:
        """A name that nobody asked for is left out where the resolver knows the one above it."""
        findings = run(
            [EXAMPLE, Name("www.example.com")],
            (),
            public=public,
            witness="ca.example" if public else None,
            optional=frozenset({"www.example.com"}),
            resolve=knows({"example.com": apex, "www.example.com": (), "ca.example": ()}),
        )
        assert ("www.example.com" in findings.blocked) == proof
        assert ("www.example.com" in findings.warnings) != proof
        assert "example.com" not in findings.blocked

    def test_addresses_and_wildcards(self) -> None:
        """An IP address isn't looked up, nor is a wildcard, which http-01 can't show."""
        names = [Name("192.0.2.1", is_ip=True), Name("*.example.com")]
        assert run(names, (), resolve=knows({})) == NOTHING

    @pytest.mark.parametrize(
        ("public", "seconds", "words"),
        [
            pytest.param(True, 0.05, "no answer in 0.05 s", id="public"),
            pytest.param(False, 10, f"no answer in {HINT_SECONDS} s", id="no proof in any case"),
        ],
    )
    def test_no_time(self, public: bool, seconds: float, words: str) -> None:  # noqa: FBT001
        """A resolver that doesn't answer costs no more than the time there is for what it says."""
        end = threading.Event()

        def resolve(_: str) -> tuple[str, ...]:
            end.wait(60)
            return ()

        try:
            findings = run([EXAMPLE], (), public=public, seconds=seconds, resolve=resolve)
        finally:
            end.set()
        assert words in findings.warnings["example.com"]


@contextlib.contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives any bytes for a request and closes; None: it says nothing and waits.

    Gives its port and the requests that came.
    """
    requests: list[bytes] = []
    over = threading.Event()

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                requests.append(request)
                said = answer(request)
                if said is None:
                    over.wait(60)
                else:
                    connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield listening.getsockname()[1], requests
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def token_of(request: bytes) -> bytes:
    """The token that a request is for."""
    found = re.match(rb"GET /\.well-known/acme-challenge/([-_A-Za-z0-9]{16,128}) HTTP", request)
    assert found
    return found[1]


def right(request: bytes) -> bytes:
    """The body of the right answer."""
    return token_of(request) + b"." + THUMBPRINT.encode()


class TestListeners:
    """What our own listeners answer."""

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r), id="until the end"),
            pytest.param(lambda r: b"HTTP/1.0 200 OK\r\n\r\n" + right(r) + b"\r\n", id="newline"),
            pytest.param(
                lambda r: (
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(right(r)) + right(r)
                ),
                id="with its length",
            ),
            pytest.param(
                lambda r: (
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n5;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"
                    % (right(r)[:5], len(right(r)) - 5, right(r)[5:])
                ),
                id="in chunks",
            ),
        ],
    )
    def test_right(self, answer: Callable[[bytes], bytes]) -> None:
        """The right answer is right however HTTP carries it."""
        with answering(answer) as (port, _):
            assert run([EXAMPLE], listens(f"127.0.0.1:{port}")) == NOTHING

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            pytest.param(lambda _: b"HTTP/1.1 404 Not Found\r\n\r\nx", "404", id="404"),
            pytest.param(
                lambda r: b"HTTP/1.1 301 x\r\nLocation: https://a/\r\n\r\n" + right(r),
                "301",
                id="301",
            ),
            pytest.param(lambda r: b"HTTP/1.1 403 x\r\n\r\n" + right(r), "403", id="403"),
            pytest.param(lambda _: b"HTTP/1.1 200 OK\r\n\r\n", "another text", id="empty"),
            pytest.param(
                lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r)[1:],
                "another text",
                id="other token",
            ),
            pytest.param(
                lambda r: b"HTTP/1.1 200 OK\r\n\r\n<!-- x -->" + right(r),
                "another text",
                id="filter",
            ),
            pytest.param(
                lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r) + b"x" * 10**6,
                "another text",
                id="big",
            ),
            pytest.param(
                lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "another text",
                id="broken chunks",
            ),
            pytest.param(lambda _: b"", "nothing", id="closed"),
            pytest.param(lambda _: b"SSH-2.0-x\r\n", "no HTTP", id="not HTTP"),
            pytest.param(lambda _: b"SSH-2.0-x\r\n\r\n", "no HTTP", id="not HTTP, with an end"),
            pytest.param(lambda _: b"x" * 10**6, "no end", id="no end"),
        ],
    )
    def test_wrong(self, answer: Callable[[bytes], bytes], words: str) -> None:
        """A wrong answer of our own listener is proof; the reason says what and where."""
        with answering(answer) as (port, _):
            findings = run([EXAMPLE], listens(f"127.0.0.1:{port}"))
        assert not findings.warnings
        assert f"{words} on 127.0.0.1:{port}" in findings.blocked["example.com"]

    def test_no_answer(self) -> None:
        """A listener that gives no answer in time proves nothing."""
        with answering(lambda _: None) as (port, _):
            findings = run([EXAMPLE], listens(f"127.0.0.1:{port}"), seconds=0.2)
        assert findings == Findings({}, {"example.com": f"127.0.0.1:{port} gives no answer"})

    @pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid", "[::1]"])
    def test_not_reached(self, host: str) -> None:
        """A listener that isn't reached from here proves nothing."""
        findings = run([EXAMPLE], listens(f"{host}:{free_port()}"), seconds=1)
        assert not findings.blocked
        assert "example.com" in findings.warnings

    def test_one_right_is_enough(self) -> None:
        """Where another listener answers right, a wrong one is only worth a warning."""
        with (
            answering(lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r)) as (good, _),
            answering(lambda _: b"HTTP/1.1 404 x\r\n\r\n") as (bad, _),
        ):
            findings = run([EXAMPLE], listens(f"127.0.0.1:{bad}", f"127.0.0.1:{good}"))
            assert f"404 on 127.0.0.1:{bad}" in findings.warnings["example.com"]
            assert not findings.blocked
            gone = f"127.0.0.1:{free_port()}"
            assert run([EXAMPLE], listens(gone, f"127.0.0.1:{good}")) == NOTHING
            assert run([EXAMPLE], listens(gone, f"127.0.0.1:{bad}")).blocked

    @pytest.mark.parametrize(
        ("name", "host"),
        [
            pytest.param(EXAMPLE, b"example.com", id="name"),
            pytest.param(Name("192.0.2.1", is_ip=True), b"192.0.2.1", id="IPv4"),
            pytest.param(Name("2001:db8::1", is_ip=True), b"[2001:db8::1]", id="IPv6"),
        ],
    )
    def test_request(self, name: Name, host: bytes) -> None:
        """Each name is asked for as the CA does."""
        with answering(lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r)) as (port, requests):
            assert run([name], listens(f"127.0.0.1:{port}")) == NOTHING
        assert b"\r\nHost: %s\r\n" % host in requests[0]

    def test_probe_token(self) -> None:
        """Every look has a token of its own, armed once for all names, and disarmed after it."""
        solver = Noted()
        with answering(lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r)) as (port, requests):
            for _ in range(2):
                run([EXAMPLE, Name("www.example.com")], listens(f"127.0.0.1:{port}"), solver)
        assert not solver.armed
        assert len(set(solver.presented)) == len(solver.presented) == 2
        assert [token_of(request).decode() for request in requests] == [
            token for token in solver.presented for _ in range(2)
        ]

    def test_disarmed_when_cancelled(self) -> None:
        """The probe is disarmed also when nobody waits any more."""
        solver = Noted()

        async def story(where: tuple[Listen, ...]) -> None:
            looking = asyncio.create_task(
                look([EXAMPLE], solver, where, public=True, seconds=60, resolve=HERE)
            )
            await asyncio.to_thread(wait_for, lambda: requests)
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

        with answering(lambda _: None) as (port, requests):
            asyncio.run(story(listens(f"127.0.0.1:{port}")))
        assert solver.presented
        assert not solver.armed

    def test_cannot_be_armed(self, tmp_path: Path) -> None:
        """Where the probe can't be armed, a challenge couldn't be, either."""
        solver = Armed(str(tmp_path / "none"))
        with pytest.raises(StateError):
            run([EXAMPLE], listens("127.0.0.1:1"), solver)

    def test_no_listener(self) -> None:
        """Without a listener nothing is armed."""
        solver = Noted()
        assert run([EXAMPLE], (), solver) == NOTHING
        assert not solver.presented

    def test_hundred_names(self) -> None:
        """As many names as a certificate may have are looked at in one go."""
        names = [Name(f"{number}.example.com") for number in range(100)]
        found = {name.value: ("192.0.2.1",) for name in names}
        with answering(lambda r: b"HTTP/1.1 200 OK\r\n\r\n" + right(r)) as (port, _):
            assert run(names, listens(f"127.0.0.1:{port}"), resolve=knows(found)) == NOTHING


class TestServers:
    """The real ones."""

    def test_responder(self) -> None:
        """The temporary server answers a probe."""
        where = listens(f"127.0.0.1:{free_port()}")
        made, _ = Responder.bind(where)
        with made:
            made.start()
            assert run([EXAMPLE], where, made) == NOTHING

    @pytest.fixture
    def challenges(self, open_path: Path) -> Path:
        """A folder for tokens, as the store has it."""
        folder = open_path / "state" / "public" / "challenges" / "x"
        folder.mkdir(parents=True)
        for path in (folder, *list(folder.parents)[:3]):
            path.chmod(0o711)
        return folder

    def config(self, challenges: Path, *listening: str) -> str:
        """What is generated for one account, before a redirect."""
        return nginx_conf(
            r"""map $request_uri $t { default "";
                "~^/\.well-known/acme-challenge/(?<nginx_acme_t>[-_A-Za-z0-9]{16,128})(\?|$)"
                $nginx_acme_t; }"""
            f'map $t $f {{ "" ""; default {challenges}/$t; }}'
            f"server {{ {' '.join(f'listen {it};' for it in listening)} server_name example.com;"
            f" if (-f $f) {{ return 200 $t.{THUMBPRINT}; }} return 301 https://$host$request_uri; }}"
        )

    @pytest.mark.ipv6
    def test_nginx(self, challenges: Path, start_nginx: Callable[..., NginxServer]) -> None:
        """Nginx answers a probe on wildcards, IPv6 and behind the PROXY protocol."""
        one, two, three = free_port(), free_port(), free_port()
        where = (
            f"{one}",
            f"[::]:{one}",
            f"127.0.0.1:{two} proxy_protocol",
            f"[::1]:{two} proxy_protocol",
            f"127.0.0.1:{three}",
            f"unix:{challenges}/socket",
        )
        start_nginx(self.config(challenges, *where))
        for listening in where:
            assert run([EXAMPLE], listens(listening), Armed(str(challenges))) == NOTHING, listening

    def test_workers_without_permission(
        self, challenges: Path, start_nginx: Callable[..., NginxServer]
    ) -> None:
        """Where nginx's workers can't see the file, the name is blocked and the reason helps."""
        port = free_port()
        server = start_nginx(self.config(challenges, f"127.0.0.1:{port}"))
        wait_for(server.workers)
        challenges.chmod(0o700)
        findings = run([EXAMPLE], listens(f"127.0.0.1:{port}"), Armed(str(challenges)))
        assert f"301 on 127.0.0.1:{port}" in findings.blocked["example.com"]
        assert "search permission" in findings.blocked["example.com"]
