"""Real servers for the tests, the demo and the benchmarks: pebble with its DNS, and nginx.

Nothing here knows pytest or nginx_acme: a fixture, a demo and a benchmark start the same
servers in the same way. Every server runs in the foreground as our own child, on loopback
ports that nobody else has, with its output in a file of its folder; it is stopped by its pid,
and the kernel stops it if we are killed. Pebble's bad manners are arguments, and on by default.

Asking the kernel for a free port (port 0) was not enough: several test processes at once got the
same one between asking and using, and outgoing connections take ports of that range, too.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import http.client
import ipaddress
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / ".cache" / "releases"
"""Where `tests/releases.sh` unpacks the servers of other releases, a folder for each."""
RELEASES = ("bullseye", "bookworm", "trixie", "testing")
"""Those of Debian whose nginx the tests can run with, the oldest first."""

LOCALHOST = "127.0.0.1"

PATIENCE = 40.0
"""Seconds for anything that is done in one, on a machine that has other things to do."""


class ServerMissing(Exception):
    """A program that the tests need is not installed."""


class NotPackaged(ServerMissing):
    """The distribution has no such program, so its absence is no mistake of this machine."""


class ServerFailed(Exception):
    """A server did not come up, or ended by itself; the end of its output is in the message."""


def find_program(name: str) -> str:
    """The absolute path of an installed program; sbin folders count even where PATH lacks them."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise ServerMissing(f"{name} is not installed (`make system` would)")
    return path


def find_newer(name: str) -> str:
    """The absolute path of the same program from the next release."""
    return find_unpacked(name, RELEASES[-1])


def find_unpacked(name: str, release: str) -> str:
    """The absolute path of the same program from one of `RELEASES`."""
    path = UNPACKED / release / "bin" / name
    if path.exists():
        return str(path)
    reason = UNPACKED / release / "unavailable"
    if reason.exists():
        raise NotPackaged(f"there is no {name} of {release}: {reason.read_text().strip()}")
    raise ServerMissing(f"there is no {name} of {release}; tests/releases.sh fetches it")


def other_releases() -> tuple[str, ...]:
    """`RELEASES` without the one that is installed here."""
    try:
        installed = platform.freedesktop_os_release().get("VERSION_CODENAME")
    except OSError:
        installed = None
    return tuple(release for release in RELEASES if release != installed)


def wait_for(predicate: Callable[[], T], seconds: float = PATIENCE, what: str = "it") -> T:
    """Ask until the answer is true and return it; TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while not (answer := predicate()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.01)
    return answer


def environment(**more: str) -> dict[str, str]:
    """Our environment without what would change how a child reaches loopback or whom it trusts."""
    kept = {name: value for name, value in os.environ.items() if not misleads(name)}
    return kept | more


def misleads(name: str) -> bool:
    """Whether an environment variable would make servers or clients here behave differently."""
    return (
        name.lower().endswith("_proxy")
        or name in {"PYTHONDONTWRITEBYTECODE", "SSL_CERT_DIR", "SSL_CERT_FILE", "SSLKEYLOGFILE"}
        or name.startswith(("NGINX_ACME_", "PEBBLE_"))
        or name in {"COLUMNS", "NGINX", "NO_COLOR"}
    )


# --- ports ----------------------------------------------------------------------------------


_claims: list[socket.socket] = []


def free_port() -> int:
    """A port that is free for TCP and UDP, and stays ours among all test processes until we end.

    The claim is a name in Linux's abstract socket space, which the kernel frees with the process.
    """
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first_outgoing = int(file.read().split()[0])
    candidates = range(10_000, first_outgoing) if first_outgoing > 11_000 else range(10_000, 65_536)
    for _ in range(1000):
        port = random.choice(candidates)  # noqa: S311 - nobody guesses it
        if _claim(port) and _is_free(port):
            return port
    raise OSError("no free port found")


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0nginx-acme-tests-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def _is_free(port: int) -> bool:
    addresses = [(socket.AF_INET, "0.0.0.0")]
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        addresses.append((socket.AF_INET6, "::"))
    return all(
        _can_bind(family, kind, host, port)
        for family, host in addresses
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    )


def _can_bind(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> bool:
    with socket.socket(family, kind) as probe:
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@functools.cache
def has_ipv6() -> bool:
    """Whether ::1 is an address of this machine."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def listens(port: int, host: str = LOCALHOST) -> bool:
    """Whether something accepts connections there now."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


# --- asking a server ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `certificate` is the server's leaf, None without TLS."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    certificate: x509.Certificate | None

    @property
    def leaf(self) -> x509.Certificate:
        """The server's certificate, where there must be one."""
        if self.certificate is None:
            raise ValueError("the answer came without TLS")
        return self.certificate


def fetch(
    port: int,
    server_name: str,
    root: bytes | None,
    *,
    path: str = "/",
    host: str = LOCALHOST,
    seconds: float = 10,
) -> Answer:
    """GET https://server_name/path from host:port, verified with the root (PEM).

    Root None: whatever certificate is presented is taken, for temporary ones. A name or chain
    that doesn't verify raises ssl.SSLCertVerificationError; an IP address is verified as one.
    """
    context = ssl.create_default_context(cadata=root.decode()) if root else _trusting()
    with (
        socket.create_connection((host, port), timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(der) if der else None
        return _get(tls, server_name, path, certificate)


def fetch_plain(
    port: int, server_name: str, *, path: str = "/", host: str = LOCALHOST, seconds: float = 10
) -> Answer:
    """GET http://server_name/path from host:port; redirects are answers, not followed."""
    with socket.create_connection((host, port), timeout=seconds) as plain:
        return _get(plain, server_name, path, None)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _get(
    connection: socket.socket, server_name: str, path: str, certificate: x509.Certificate | None
) -> Answer:
    host = f"[{server_name}]" if ":" in server_name else server_name
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "User-Agent: tests", "Connection: close")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    with contextlib.closing(http.client.HTTPResponse(connection, method="GET")) as response:
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read(), certificate)


# --- a program that runs --------------------------------------------------------------------


class Program:
    """A program in the foreground as our child, with its output in a file."""

    history: list[Program] = []  # noqa: RUF012 - every one that ever ran: a failed test shows them
    """Each Program that was started in this process, in order."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self.log = log
        self._environ = dict(environment() if environ is None else environ)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def pid(self) -> int:
        """The pid; it stays the same when the program becomes another by exec."""
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs."""
        return self._running.poll()

    def start(self, ready: Callable[[], object], seconds: float = 15) -> None:
        """Start it and wait until it is ready; ServerFailed with its output if it isn't."""
        self.launch()
        try:
            wait_for(lambda: self.returncode is not None or ready(), seconds, "readiness")
        except TimeoutError as late:
            self.stop()
            raise ServerFailed(f"{self.argv[0]}: {late}\n{self.output()}") from late
        if self.returncode is not None:
            self.stop()
            raise ServerFailed(f"{self.argv[0]}: exit code {self.returncode}\n{self.output()}")

    def launch(self) -> None:
        """Start it without waiting for anything; also once more, after it was stopped."""
        self._stopped = False
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*dies_with_us(), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._cwd,
            )
        self.history.append(self)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> None:
        """End it by its pid and collect it; killed when it takes longer than it may."""
        if self._process is None or self._stopped:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stopped = True

    def wait(self, seconds: float | None = 30) -> int:
        """Its exit code, when it has ended by itself; None waits for ever."""
        return self._running.wait(seconds)

    def wrote_since(self, moment: float) -> bool:
        """Whether its output grew since then (time.time)."""
        return self.log.exists() and self.log.stat().st_mtime >= moment

    def output(self, characters: int = 6000) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed(f"{self.argv[0]} was never started")
        return self._process


@functools.cache
def dies_with_us() -> tuple[str, ...]:
    """A prefix that makes the kernel end the child when we are killed ourselves."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


# --- pebble ---------------------------------------------------------------------------------


class Pebble:
    """An ACME CA with its own DNS on free loopback ports; every name leads to 127.0.0.1.

    Its manners, all of them of pebble's own making:

    - `nonce_reject`, `authz_reuse`: percent of good nonces refused, of authorizations reused;
    - `validation_sleep`: up to so many whole seconds before a validation (below 2: none);
    - `retry_after`: seconds in the Retry-After header of orders and authorizations (the newer
      pebble only; None: pebble's own);
    - `chain_length`, `alternate_roots`: intermediates in a chain, chains beside the first;
    - `profiles`: name -> seconds of validity (the newer pebble only);
    - `external_accounts`: key id -> base64url MAC key; then accounts need one;
    - `blocked`: names that are refused;
    - `valid`: every challenge is valid without being looked at.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: str | None = None,
        http_port: int | None = None,
        tls_port: int | None = None,
        nonce_reject: int = 5,
        authz_reuse: int = 50,
        validation_sleep: int = 0,
        retry_after: int | None = None,
        chain_length: int | None = None,
        alternate_roots: int = 0,
        profiles: Mapping[str, int] | None = None,
        external_accounts: Mapping[str, str] | None = None,
        blocked: Sequence[str] = (),
        ipv6: bool = False,
        valid: bool = False,
    ) -> None:
        self.binary = binary or find_program("pebble")
        self.version = pebble_version(self.binary)
        self.folder = folder
        self.http_port = http_port or free_port()
        self.tls_port = tls_port or free_port()
        self.api_root = folder / "api-root.pem"
        self._api, self._management, self._dns, self._dns_management = (
            free_port() for _ in range(4)
        )
        folder.mkdir(parents=True, exist_ok=True)
        _write_api_certificate(folder)
        config: dict[str, object] = {
            "listenAddress": f"{LOCALHOST}:{self._api}",
            "managementListenAddress": f"{LOCALHOST}:{self._management}",
            "certificate": str(folder / "api.pem"),
            "privateKey": str(folder / "api-key.pem"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external_accounts is not None,
            "externalAccountMACKeys": dict(external_accounts or {}),
            "domainBlocklist": list(blocked),
        }
        if retry_after is not None:
            config["retryAfter"] = {"authz": retry_after, "order": retry_after}
        if profiles is not None:
            config["profiles"] = {
                name: {"description": f"The profile {name}", "validityPeriod": validity}
                for name, validity in profiles.items()
            }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}, indent=2))
        manners = {
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
            "PEBBLE_AUTHZREUSE": str(authz_reuse),
            "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
            "PEBBLE_VA_NOSLEEP": "0" if validation_sleep else "1",
            "PEBBLE_VA_SLEEPTIME": str(validation_sleep),
            "PEBBLE_VA_ALWAYS_VALID": "1" if valid else "0",
        }
        if chain_length is not None:
            manners["PEBBLE_CHAIN_LENGTH"] = str(chain_length)
        self.server = Program(
            [
                *(self.binary, "-config", str(folder / "pebble.json")),
                *("-dnsserver", f"{LOCALHOST}:{self._dns}"),
            ],
            folder / "pebble.log",
            environ=environment(**manners),
        )
        beside = Path(self.binary).with_name("pebble-challtestsrv")
        helper = str(beside) if beside.exists() else find_program("pebble-challtestsrv")
        newer = "-doh" in _options(helper)
        self.dns = Program(
            [
                *(helper, "-defaultIPv4", LOCALHOST, "-defaultIPv6", "::1" if ipv6 else ""),
                *("-dnsserver" if newer else "-dns01", f"{LOCALHOST}:{self._dns}"),
                *("-management", f"{LOCALHOST}:{self._dns_management}"),
                *("-http01", "", "-https01", "", "-tlsalpn01", ""),
                *(("-doh", "") if newer else ()),
            ],
            folder / "dns.log",
        )

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def directory_url(self) -> str:
        """The URL of the directory resource (RFC 8555 §7.1.1)."""
        return f"https://{LOCALHOST}:{self._api}/dir"

    @property
    def resolver(self) -> str:
        """The address of its DNS."""
        return f"{LOCALHOST}:{self._dns}"

    def start(self) -> None:
        """Start both programs and wait until they answer."""
        self.dns.start(lambda: listens(self._dns_management))
        try:
            self.server.start(lambda: listens(self._api) and listens(self._management))
        except ServerFailed:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both programs."""
        self.server.stop()
        self.dns.stop()

    def issuer_root(self, chain: int = 0) -> bytes:
        """The root (PEM) of the certificates issued: 0, or 1… for the alternate chains."""
        return self._managed(f"/roots/{chain}")

    def intermediate(self, chain: int = 0) -> bytes:
        """The certificate (PEM) that signs the leaves, or its like in an alternate chain."""
        return self._managed(f"/intermediates/{chain}")

    def status_of(self, leaf: x509.Certificate) -> dict[str, object]:
        """What it says of a certificate: `Status` is Valid or Revoked, with `Reason`, a number."""
        found = json.loads(self._managed(f"/cert-status-by-serial/{leaf.serial_number:x}"))
        assert isinstance(found, dict)
        return found

    def advise(self, leaf: x509.Certificate, answer: object) -> None:
        """Let it answer this (JSON) to who asks when to renew (the newer pebble only)."""
        pem = leaf.public_bytes(serialization.Encoding.PEM).decode()
        asked = json.dumps({"Certificate": pem, "ARIResponse": json.dumps(answer)})
        context = ssl.create_default_context(cafile=self.api_root)
        connection = http.client.HTTPSConnection(
            LOCALHOST, self._management, timeout=10, context=context
        )
        with contextlib.closing(connection):
            connection.request("POST", "/set-renewal-info/", asked, {"User-Agent": "tests"})
            status = connection.getresponse().status
        if status != http.client.OK:
            raise ServerFailed(f"pebble answers {status} to advice")

    def hangs(self, seconds: float = 5) -> bool:
        """Whether it runs and does not answer any more.

        Some versions can deadlock where new orders meet looks at authorizations. What needs no
        database (the directory, nonces) is answered all the same, so it is asked for a serial.
        """
        if self.server.returncode is not None:
            return False
        try:
            self._managed("/cert-status-by-serial/0", seconds=seconds)
        except TimeoutError:
            return True
        except ServerFailed:  # it answers that it has no such certificate
            return False
        return False

    def set_addresses(self, name: str, *addresses: str) -> None:
        """Let the DNS lead a name to these IPv4 addresses instead of 127.0.0.1."""
        self._post_dns("/clear-a", {"host": f"{name}."})
        self._post_dns("/add-a", {"host": f"{name}.", "addresses": list(addresses)})

    def add_ipv6(self, name: str, *addresses: str) -> None:
        """Let the DNS lead a name to these IPv6 addresses, too."""
        self._post_dns("/add-aaaa", {"host": f"{name}.", "addresses": list(addresses)})

    def set_caa(self, name: str, **issuers: str) -> None:
        """Give a name CAA records, one for each tag."""
        policies = [{"tag": tag, "value": value} for tag, value in issuers.items()]
        self._post_dns("/add-caa", {"host": f"{name}.", "policies": policies})

    def fail_name(self, name: str) -> None:
        """Let the DNS answer SERVFAIL for a name."""
        self._post_dns("/set-servfail", {"host": f"{name}."})

    def restore_name(self, name: str) -> None:
        """Let the DNS answer for it again."""
        self._post_dns("/clear-servfail", {"host": f"{name}."})

    def _managed(self, path: str, *, seconds: float = 10) -> bytes:
        root = self.api_root.read_bytes()
        answer = fetch(self._management, LOCALHOST, root, path=path, seconds=seconds)
        if answer.status != http.client.OK:
            raise ServerFailed(f"pebble answers {answer.status} to {path}")
        return answer.body

    def _post_dns(self, path: str, what: Mapping[str, object]) -> None:
        connection = http.client.HTTPConnection(LOCALHOST, self._dns_management, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(what))
            status = connection.getresponse().status
        if status != http.client.OK:
            raise ServerFailed(f"pebble-challtestsrv answers {status} to {path}")


@functools.cache
def _options(program: str) -> frozenset[str]:
    """The options that its -h lists; pebble's DNS has renamed one of them."""
    asked = subprocess.run([program, "-h"], capture_output=True, text=True, check=False)
    return frozenset(re.findall(r"^ +(-[\w-]+)", asked.stderr, re.MULTILINE))


@functools.cache
def pebble_version(binary: str) -> tuple[int, ...]:
    """The version of the package it came in, since pebble as packaged can't tell; () if none."""
    note = Path(binary).with_name("pebble.version")
    if note.exists():
        return _numbers(note.read_text())
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return ()
    asked = subprocess.run(
        [dpkg, "-W", "-f", "${Version}", "pebble"], capture_output=True, text=True, check=False
    )
    return _numbers(asked.stdout)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, found[1].split("."))) if found else ()


def _write_api_certificate(folder: Path) -> None:
    """Pebble's own https needs a certificate: api.pem and api-key.pem below api-root.pem."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pebble's own root")])
    root_usage, usage = (
        x509.KeyUsage(
            digital_signature=not authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        for authority in (True, False)
    )
    root = (
        _dated(x509.CertificateBuilder(), root_name)
        .subject_name(root_name)
        .public_key(root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(root_usage, critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOCALHOST))]
    )
    leaf = (
        _dated(x509.CertificateBuilder(), root_name)
        .subject_name(x509.Name([]))
        .public_key(key.public_key())
        .add_extension(names, critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    (folder / "api-root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "api.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "api-key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _dated(builder: x509.CertificateBuilder, issuer: x509.Name) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .issuer_name(issuer)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
    )


# --- nginx ----------------------------------------------------------------------------------


def nginx_conf(http_block: str, *, main: str = "") -> str:
    """A whole config around the inside of an http block; it writes below the prefix only."""
    return f"""{main}
events {{
}}
http {{
    access_log logs/access.log;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
{http_block}
}}
"""


class NginxServer:
    """A real nginx, or the launcher that becomes one, with a folder as its prefix.

    The config is written to `folder/nginx.conf`; it must leave `daemon` and `pid` to us. As root,
    the workers are another user: what they serve lies where they may search (`open_path`).
    `launcher` is what is started in place of nginx, such as `[sys.executable, "-m", "nginx_acme"]`.
    Without `log_option`, which is new in nginx 1.19.5, its error log is said in `-g`.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        binary: str | None = None,
        launcher: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        log_option: bool = True,
    ) -> None:
        self.binary = binary or find_program("nginx")
        self._log_option = log_option
        self.folder = folder
        self.conf = folder / "nginx.conf"
        for name in ("logs", "temp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.conf.write_text(config)
        self._program = tuple(launcher) or (self.binary,)
        self._environ = environment(NGINX_ACME_NGINX=self.binary) | dict(environ or {})
        self.server = Program(self.argv(), folder / "logs" / "output.log", environ=self._environ)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it."""
        self.stop()

    def argv(self, *more: str) -> tuple[str, ...]:
        """The command line that means this server, such as with `-s`, `reload`."""
        settings = "daemon off; pid logs/nginx.pid;"
        options = ["-p", f"{self.folder}/", "-c", str(self.conf)]
        if self._log_option:
            options += ["-e", "logs/error.log"]
        else:
            settings += " error_log logs/error.log;"
        return (*self._program, *options, "-g", settings, *more)

    def run(self, *more: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """What the command line with these arguments answers, such as `run("-t")`."""
        return subprocess.run(
            self.argv(*more),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self, seconds: float = 30) -> None:
        """Start it and wait until it listens: the pid file is written after that."""
        self.server.start(lambda: self.pid is not None, seconds)

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()

    @property
    def pid(self) -> int | None:
        """The master's pid by its pid file; None while there is none."""
        try:
            return int((self.folder / "logs" / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None

    def workers(self) -> frozenset[int]:
        """The pids of the master's children, once it has any: it writes its pid file before that."""
        return wait_for(lambda: frozenset(_children(self.server.pid)), what="a worker")

    def reload(self, seconds: float = 10) -> None:
        """HUP, and wait until the first workers are gone and others are there."""
        before = self.workers()
        os.kill(self.server.pid, signal.SIGHUP)
        wait_for(lambda: not self.workers() & before, seconds, "new workers")

    def error_log(self) -> str:
        """What it wrote to its error log."""
        path = self.folder / "logs" / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""


def _children(pid: int) -> Iterator[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        yield from map(int, file.read().split())


@functools.cache
def nginx_version(binary: str) -> tuple[int, ...]:
    """What `nginx -v` says, as numbers: (1, 22, 1)."""
    asked = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True)
    return _numbers(asked.stderr.rpartition("/")[2])
