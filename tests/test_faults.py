"""The launcher dies at any moment, finds its disk full or its files torn; the next start goes on.

nginx and pebble are real, and pebble's log says what it was asked for. `stumble` runs the launcher
and says what a step is. The steps in the tables below are those after which the disk or the CA is
in another state than before; `EVERY_STEP=1` takes each one, until the launcher isn't killed any
more (some ten minutes).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from nginx_acme.certificate import key_type_of, read_bundle
from nginx_acme.disk import is_leftover
from nginx_acme.key_types import KEY_TYPES, file_name
from nginx_acme.store import Identity, Store
from tests.launcher import Site, issuer
from tests.mounts import CAN_MOUNT, in_memory
from tests.servers import LOCALHOST, ROOT, Pebble, fetch, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nginx_acme.bundle import Bundle
    from tests.servers import Program

EVERY_STEP = bool(os.environ.get("EVERY_STEP"))
SHARES = 4
"""The sweep of every step is so many tests, for several processes to share."""
KEY_TYPE = "ecdsa:256"
STUMBLE = (sys.executable, "-I", str(ROOT / "tests" / "stumble.py"))


@dataclass(frozen=True, slots=True)
class Kept:
    """What a state directory has that must not be lost."""

    account_key: bytes | None
    account_url: str | None
    pending_key: bytes | None
    order_url: str | None
    bundle: Bundle | None


class Stumbling(Site):
    """Servers that want a certificate each, by a launcher to which something may happen."""

    def __init__(
        self,
        folder: Path,
        ca: Pebble,
        name: str,
        *more: str,
        acme: str = "acme pebble;",
        state: Path | None = None,
        http: int | None = None,
    ) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        super().__init__(folder, environ={"RUNTIME_DIRECTORY": str(folder / "run")})
        self.authority = ca
        self.root = ca.issuer_root()
        self.name = name
        self.names = (name, *more)
        self.trace = folder / "trace"
        self._state = state or folder / "acme"
        self.settings = (
            f"acme_state_path {self._state};"
            f" acme_http_listen {LOCALHOST}:{http or ca.http_port};"
            f" {issuer('pebble', ca.directory_url, ca.api_root)}"
        )
        self.configure(*(self.block(name, acme) for name in self.names))

    @property
    def state(self) -> Path:
        """The state directory."""
        return self._state

    def stumbling(self, deed: str, step: str, number: int = 1) -> tuple[str, ...]:
        """What starts a launcher to which something happens at a step."""
        self.trace.unlink(missing_ok=True)
        return (*STUMBLE, str(self.state), str(self.trace), deed, step, str(number))

    def is_killed(self, step: str, number: int = 1) -> bool:
        """Start it: whether it is killed before nginx runs. If not, nginx is stopped again."""
        program = self.launch(*self.stumbling("kill", step, number))
        wait_for(lambda: program.returncode is not None or self.pid, 60, "its end")
        code = program.returncode
        program.stop()
        assert code in (None, -signal.SIGKILL), program.output()
        return code is not None

    @contextlib.contextmanager
    def started(self, *stumbling: str) -> Iterator[Program]:
        """Start it until it is nginx, and stop it in the end."""
        program = self.launch(*stumbling)
        try:
            wait_for(lambda: program.returncode is not None or self.pid == program.pid, 60, "nginx")
            assert program.returncode is None, program.output()
            yield program
        finally:
            program.stop()

    def renew(self, *stumbling: str, force: bool = True) -> subprocess.CompletedProcess[str]:
        """Ask for the certificate anew."""
        return self.command("renew", *(("--force", self.name) if force else ()), by=stumbling)

    def command(self, *words: str, by: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command, by a launcher to which something may happen."""
        return subprocess.run(
            (*by, *self.argv(*words)),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextlib.contextmanager
    def described(self) -> Iterator[None]:
        """Say with a failure how far the launcher came that stumbled."""
        try:
            yield
        except Exception as error:
            steps = self.trace.read_text().splitlines()
            error.add_note(f"it stumbled at step {len(steps)}: {steps[-1]}")
            raise

    # What is on disk

    def kept(self, name: str | None = None) -> Kept:
        """As the package reads it, opened for reading only."""
        store = Store(str(self.state))
        account = store.find_account(self.authority.directory_url)
        names = frozenset({name or self.name})
        folder = store.find(Identity(self.authority.directory_url, names, None))
        order = folder.pending.order() if folder else None
        return Kept(
            account_key=account.key_pem if account else None,
            account_url=account.url if account else None,
            pending_key=folder.pending.key_pem() if folder else None,
            order_url=order.order_url if order else None,
            bundle=folder.own(KEY_TYPE) if folder else None,
        )

    def assert_whole(self) -> None:
        """Every file that somebody will read is complete."""
        for path in self.state.rglob("*"):
            if not path.is_file() or any(map(is_leftover, path.parts)):
                continue
            if path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.name in {"key.pem", "key.next.pem"}:
                assert key_type_of(path.read_bytes()) in KEY_TYPES
            elif path.name == "root.pem":
                x509.load_pem_x509_certificate(path.read_bytes())
            elif path.suffix == ".pem":
                read_bundle(path.read_bytes())

    def leftovers(self) -> list[str]:
        """What is on disk and nobody needs."""
        unfinished = (path for path in self.state.rglob("*") if is_leftover(path.name))
        armed = self.state.glob("public/challenges/*/*")
        drafts = list(self.state.glob("instances/*/generations/[0-9]*[0-9]"))
        return [str(path) for path in (*unfinished, *armed, *drafts[2:])]

    def age(self) -> None:
        """Let everything be two hours old, but for what tells that the agent has begun."""
        moment = time.time() - 7200
        for path in self.state.rglob("*"):
            if path.name != "workers.json":
                os.utime(path, (moment, moment), follow_symlinks=False)

    # What the world sees

    def leaf(self, name: str) -> x509.Certificate | None:
        """What nginx serves; None as long as the CA's root doesn't verify it."""
        try:
            answer = fetch(self.tls, name, self.root)
        except (ssl.SSLError, OSError):
            return None
        assert name.encode() in answer.body.split()
        return answer.leaf

    def settled(self, name: str | None = None) -> x509.Certificate:
        """What nginx serves when nobody works behind its back any more."""
        self.quiet()
        leaf = wait_for(lambda: self.leaf(name or self.name), what="a verified answer")
        assert leaf is not None
        return leaf


class Ledger:
    """What a CA was asked for since this was made."""

    def __init__(self, ca: Pebble) -> None:
        self._log = ca.server.log
        self._before = self._log.read_text()

    @property
    def orders(self) -> int:
        """The orders that were made."""
        return self._count("Added order ")

    @property
    def accounts(self) -> int:
        """The accounts that were made."""
        return self._count(" accounts in memory")

    @property
    def in_vain(self) -> int:
        """The orders that failed: it looked when who should answer had been killed."""
        return self._count(" set INVALID by completed challenge ")

    def _count(self, words: str) -> int:
        return self._log.read_text().removeprefix(self._before).count(words)


@pytest.fixture(scope="module")
def start_ca(
    nginx: str, pebble: Pebble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Pebble]]:
    """Start a CA that is asked the same in every run: every nonce is good, nothing is reused."""
    assert nginx
    with contextlib.ExitStack() as stack:

        def start() -> Pebble:
            folder = tmp_path_factory.mktemp("ca")
            made = Pebble(folder, binary=pebble.binary, nonce_reject=0, authz_reuse=0)
            return stack.enter_context(made)

        yield start


@pytest.fixture(scope="module")
def ca(start_ca: Callable[[], Pebble]) -> Pebble:
    """The CA of those who don't run all the time: it looks at one address."""
    return start_ca()


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A temporary folder that nginx's workers may enter, for several tests."""
    with tempfile.TemporaryDirectory(prefix="nginx-acme-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


# Killed while it starts


STARTING = [
    pytest.param("after mkdir /locks", 1, id="half of the layout"),
    pytest.param("half write /certificates/.*/", 1, id="half of an identity"),
    pytest.param("half write /certificates/[^.]", 1, id="half of the temporary certificate"),
    pytest.param("after rename /accounts/.*/key.pem", 1, id="a key, but not in its place"),
    pytest.param("after rename /accounts/[^/]+$", 1, id="an account's key"),
    pytest.param("after rename /instances/.*/waiting.json", 1, id="about to wait"),
    pytest.param("after symlink /instances/", 1, id="half of a generation"),
    pytest.param("after POST /sign-me-up", 1, id="the account, of which only the CA knows"),
    pytest.param("half write /accounts/[^.]", 1, id="half of the account"),
    pytest.param("after rename /accounts/[^.].*/account.json", 1, id="the account"),
    pytest.param("after rename /certificates/.*/key.pem", 1, id="a key for the certificate"),
    pytest.param("before POST /order-plz", 1, id="about to order"),
    pytest.param("after POST /order-plz", 1, id="the order, of which only the CA knows"),
    pytest.param("half write /certificates/.*/pending/", 3, id="half of the order"),
    pytest.param("after rename /certificates/.*/order.json", 2, id="the order"),
    pytest.param("before POST /chalZ/", 1, id="about to be looked at"),
    pytest.param("after POST /chalZ/", 1, id="being looked at"),
    pytest.param("after POST /my-order/", 1, id="authorized"),
    pytest.param("after POST /finalize-order/", 1, id="finalized"),
    pytest.param("after POST /my-order/", 2, id="issued"),
    pytest.param("half write /certificates/[^/]+/[^/]+$", 2, id="half of the certificate"),
    pytest.param("after rename /certificates/.*/ecdsa-256.pem", 2, id="the certificate"),
    pytest.param("after rename /certificates/[^.].*/state.json", 1, id="who issued it"),
    pytest.param("after unlink /certificates/.*/order.json", 1, id="no order any more"),
    pytest.param("after unlink /certificates/.*/key.pem", 1, id="an empty folder of an order"),
    pytest.param("after unlink /instances/", 1, id="the end of the wait"),
    pytest.param("after symlink /instances/.*/.nginx-acme", 1, id="half of the switch"),
    pytest.param("after rename /instances/.*/generated", 1, id="the switch"),
]


@pytest.mark.parametrize(("step", "number"), STARTING)
def test_killed_while_starting(step: str, number: int, ca: Pebble, open_path: Path) -> None:
    """The next start runs nginx and finishes the same order, if it can be, with the same keys."""
    site, ledger = Stumbling(open_path, ca, _name(step, number)), Ledger(ca)
    with site.described():
        assert site.is_killed(step, number)
        assert_start_goes_on(site, ledger)


@pytest.mark.skipif(not EVERY_STEP, reason="EVERY_STEP=1 has time for it")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(SHARES))
def test_killed_at_every_step_while_starting(share: int, ca: Pebble, open_path: Path) -> None:
    """The same for each and every step."""
    for number in itertools.count(1 + share, SHARES):
        site, ledger = Stumbling(open_path / str(number), ca, _name("every", number)), Ledger(ca)
        with site.described():
            if not site.is_killed("", number):
                break
            assert_start_goes_on(site, ledger)


def _name(step: str, number: int) -> str:
    """A name of its own for each: orders for one name are told from those for another."""
    return f"{re.sub('[^a-z0-9]+', '-', step.lower()).strip('-')}-{number}.example.com"


def assert_start_goes_on(site: Stumbling, ledger: Ledger) -> None:
    """What is true of a start after one that was killed."""
    site.assert_whole()
    kept, paid = site.kept(), ledger.orders
    site.age()
    with site.started():
        leaf = site.settled()
    after = site.kept()
    assert after.bundle is not None
    assert after.bundle.facts.serial == leaf.serial_number
    assert after.account_url is not None
    assert kept.account_key in (None, after.account_key)
    failed = ledger.in_vain
    assert failed or kept.pending_key is None or kept.pending_key in after.bundle.pem
    assert kept.bundle in (None, after.bundle)
    assert ledger.accounts == 1
    lost = paid == 1 and kept.order_url is None and kept.bundle is None
    assert ledger.orders == 1 + (lost or failed)
    left = site.leftovers()
    if kept.bundle is not None:  # its folder is swept when it is renewed
        left = [path for path in left if f"/certificates/{site.name}/" not in path]
    assert left == []


OTHERS = tuple(f"{number}.example.com" for number in range(1, 6))


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param("after POST /order-plz", 3, id="some are ordered"),
        pytest.param("after POST /chalZ/", 4, id="some are being looked at"),
        pytest.param("after POST /certZ/", 3, id="some are downloaded"),
        pytest.param("after rmdir /certificates/", 2, id="some are there"),
    ],
)
def test_killed_while_starting_with_many(
    step: str, number: int, ca: Pebble, open_path: Path
) -> None:
    """Of orders that are open at once none is made anew that could be finished."""
    site, ledger = Stumbling(open_path, ca, "0.example.com", *OTHERS), Ledger(ca)
    with site.described():
        assert site.is_killed(step, number)
        site.assert_whole()
        kept, paid = [site.kept(name) for name in site.names], ledger.orders
        known = sum(one.bundle is not None or one.order_url is not None for one in kept)
        site.age()
        with site.started():
            leaves = {site.settled(name).serial_number for name in site.names}
        assert len(leaves) == len(site.names)
        assert ledger.accounts == 1
        assert ledger.orders == len(site.names) + paid - known + ledger.in_vain
        assert site.leftovers() == []


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param("after rename /certificates/.*/ecdsa-256.pem", 2, id="one is there"),
        pytest.param("after unlink /certificates/.*/order.json", 1, id="with its key beside"),
        pytest.param("after POST /order-plz", 2, id="the second is ordered"),
        pytest.param("after POST /authZ/", 2, id="and its order is known"),
    ],
)
def test_killed_between_key_types(step: str, number: int, ca: Pebble, open_path: Path) -> None:
    """Each key type gets its own certificate, for an order each."""
    acme = "acme pebble key=ecdsa:256 key=rsa:2048;"
    site, ledger = Stumbling(open_path, ca, _name(step, number), acme=acme), Ledger(ca)
    with site.described():
        assert site.is_killed(step, number)
        site.assert_whole()
        first, paid = site.kept().bundle, ledger.orders
        open_orders = int(site.kept().order_url is not None and paid > 1)
        assert first is not None
        with site.started():
            site.settled()
        bundles = [
            read_bundle(
                (site.state / "certificates" / site.name / file_name(key_type)).read_bytes()
            )
            for key_type in ("ecdsa:256", "rsa:2048")
        ]
        assert bundles[0] == first
        assert [bundle.facts.temporary for bundle in bundles] == [False, False]
        assert [bundle.facts.key_type for bundle in bundles] == ["ecdsa:256", "rsa:2048"]
        assert (ledger.accounts, ledger.orders) == (1, 1 + paid - open_orders)


WITHOUT_A_NAME = [
    pytest.param("after rename /certificates/[^.].*/state.json", 1, 3, id="the failure"),
    pytest.param("after POST /order-plz", 2, 4, id="the rest, of which only the CA knows"),
    pytest.param("after rename /certificates/.*/order.json", 4, 2, id="the order for the rest"),
    pytest.param("after rename /certificates/.*/ecdsa-256.pem", 2, 2, id="the certificate"),
    pytest.param("after rename /certificates/[^.].*/state.json", 2, 3, id="who issued it"),
]
"""Each with the orders that it takes in all; one is made in any case for all names."""


@pytest.mark.parametrize(("step", "number", "orders"), WITHOUT_A_NAME)
def test_killed_while_a_name_is_left_out(
    step: str, number: int, orders: int, ca: Pebble, open_path: Path
) -> None:
    """An order for the rest is finished if it can be, and nobody asks more often for being killed."""
    name = _name(f"rest {step}", number)
    site, ledger = Stumbling(open_path, ca, name), Ledger(ca)
    dead = f"dead.{name}"
    ca.fail_name(dead)
    site.configure(site.block(f"{name} {dead}", "acme pebble;"), settings="acme_agent off;")
    with site.described():
        assert site.is_killed(step, number)
        site.assert_whole()
        paid, failed = ledger.orders, (site.one_status()["failures"] or 0)
        site.age()
        with site.started():
            assert site.one_status()["failures"] >= failed
            assert failed == 0 or ledger.orders == paid
            site.renew()
            leaf = wait_for(lambda: site.leaf(name), what="a verified answer")
            assert leaf is not None
            row = site.one_status()
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.DNSName) == [name]
        assert (row["state"], row["left_out"]) == ("valid", [dead])
        assert dead in row["problem"]
        assert (ledger.accounts, ledger.orders) == (1, orders)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("half write /local/", id="half of a root"),
        pytest.param("after rename /local/root-key.pem", id="a root"),
        pytest.param("after rename /local/intermediate-key.pem", id="an intermediate"),
        pytest.param("after rename /local/root.pem", id="a root to be installed"),
        pytest.param("half write /certificates/[^.]", id="half of a certificate"),
    ],
)
def test_killed_while_starting_with_an_authority_of_its_own(
    step: str, ca: Pebble, open_path: Path
) -> None:
    """The next start has the same root, which somebody may trust already."""
    site, ledger = Stumbling(open_path, ca, "local.test", acme="acme local;"), Ledger(ca)
    key = site.state / "local" / "root-key.pem"
    with site.described():
        assert site.is_killed(step)
        site.assert_whole()
        kept = key.read_bytes() if key.exists() else None
        site.age()
        with site.started():
            site.root = (site.state / "local" / "root.pem").read_bytes()
            site.settled()
        assert kept in (None, key.read_bytes())
        assert ledger.orders == 0
        assert site.leftovers() == []


# Killed while nginx runs


RENEWING = [
    pytest.param("after rename /certificates/.*/key.pem", 1, id="a key for the certificate"),
    pytest.param("after POST /order-plz", 1, id="the order, of which only the CA knows"),
    pytest.param("after rename /certificates/.*/order.json", 2, id="the order"),
    pytest.param("after open /public/challenges/", 1, id="half of an armed challenge"),
    pytest.param("after rename /public/challenges/", 1, id="an armed challenge"),
    pytest.param("after POST /my-order/", 1, id="authorized, and armed"),
    pytest.param("after unlink /public/challenges/", 1, id="disarmed"),
    pytest.param("after POST /finalize-order/", 1, id="finalized"),
    pytest.param("after POST /certZ/", 1, id="downloaded"),
    pytest.param("after rename /certificates/.*/ecdsa-256.previous.pem", 1, id="the one before"),
    pytest.param("after rename /certificates/.*/ecdsa-256.pem", 1, id="the certificate"),
    pytest.param("after rename /certificates/[^/]+/state.json", 1, id="who issued it"),
    pytest.param("after unlink /certificates/.*/order.json", 1, id="no order any more"),
]


@pytest.fixture(scope="module")
def running(start_ca: Callable[[], Pebble], open_folder: Path) -> Iterator[Stumbling]:
    """A site with a certificate, whose nginx runs."""
    site = Stumbling(open_folder / "running", start_ca(), "running.example.com")
    with site.started():
        site.settled()
        yield site


@pytest.mark.parametrize(("step", "number"), RENEWING)
def test_killed_while_renewing(step: str, number: int, running: Stumbling) -> None:
    """The old certificate is served on, and the next `renew` finishes the same order."""
    with running.described():
        assert is_renew_killed(running, step, number)


@pytest.mark.skipif(not EVERY_STEP, reason="EVERY_STEP=1 has time for it")
@pytest.mark.timeout(3600)
def test_killed_at_every_step_while_renewing(running: Stumbling) -> None:
    """The same for each and every step."""
    for number in itertools.count(1):
        with running.described():
            if not is_renew_killed(running, "", number):
                break


def is_renew_killed(site: Stumbling, step: str, number: int) -> bool:
    """Kill `renew` at a step: whether it came to it. Then what is true of the next one."""
    before, ledger = site.settled(), Ledger(site.authority)
    ended = site.renew(*site.stumbling("kill", step, number))
    if ended.returncode == 0:
        return False
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    site.assert_whole()
    kept, paid = site.kept(), ledger.orders
    assert kept.bundle is not None
    finished = kept.bundle.facts.serial != before.serial_number
    assert finished or site.settled() == before
    site.age()
    again = site.renew()
    assert again.returncode == 0, again.stderr
    leaf, after = site.settled(), site.kept()
    assert after.bundle is not None
    assert after.bundle.facts.serial == leaf.serial_number
    assert leaf.serial_number not in (before.serial_number, kept.bundle.facts.serial)
    assert finished or kept.pending_key is None or kept.pending_key in after.bundle.pem
    assert (after.account_key, after.pending_key) == (kept.account_key, None)
    assert ledger.accounts == 0
    lost = paid == 1 and kept.order_url is None
    assert ledger.orders == 1 + (finished or lost)
    assert site.leftovers() == []
    return True


def test_killed_before_nginx_is_told(running: Stumbling) -> None:
    """A certificate that nginx hasn't read is read at the next `renew`, which asks no CA for it."""
    before, ledger = running.settled(), Ledger(running.authority)
    stumbling = running.stumbling("kill", "after rmdir /certificates/.*/pending")
    assert running.renew(*stumbling).returncode == -signal.SIGKILL
    assert running.settled() == before
    for told in (True, False):
        again = running.renew(force=False)
        assert again.returncode == 0, again.stderr
        assert ("nginx reloaded for" in again.stderr) == told
    after = running.kept()
    assert after.bundle is not None
    assert running.settled().serial_number == after.bundle.facts.serial != before.serial_number
    assert ledger.orders == 1


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("half write /accounts/[^.]", id="half of it"),
        pytest.param("after rename /accounts/[^.].*/limits.json", id="all of it"),
    ],
)
def test_killed_while_a_refusal_is_noted(step: str, ca: Pebble, open_path: Path) -> None:
    """What stops an account is noted wholly or not at all, and the next start goes on with it."""
    site = Stumbling(open_path, ca, _name(step, 1))
    gone = f"https://{LOCALHOST}:{free_port()}/dir"
    site.settings = site.settings.replace(ca.directory_url, gone)
    site.configure(site.block(site.name, "acme pebble;"))
    with site.described():
        assert site.is_killed(step)
        site.assert_whole()
        site.age()
        with site.started():
            (note,) = wait_for(lambda: list(site.state.glob("accounts/*/limits.json")))
            site.quiet()
    (stop,) = json.loads(note.read_bytes())["stops"]
    assert (stop["kind"], stop["failures"]) == ("ca", 1)
    assert "Connection refused" in stop["because"]
    assert site.leftovers() == []


REVOKING = [
    pytest.param("after rename /certificates/[^/]+/revoking$", id="what is to be revoked"),
    pytest.param("after POST /certZ/", id="the next one, but not in its place"),
    pytest.param("after rmdir /certificates/.*/pending", id="the next one, and nginx isn't told"),
    pytest.param("before POST /revoke-cert", id="about to revoke"),
    pytest.param("after POST /revoke-cert", id="revoked, of which only the CA knows"),
    pytest.param("after rename /certificates/.*/revoked.json", id="revoked"),
]


@pytest.mark.parametrize("step", REVOKING)
def test_killed_while_revoking(step: str, running: Stumbling) -> None:
    """The next run finishes it: one new certificate is served, and the old one is revoked."""
    before, ledger = running.settled(), Ledger(running.authority)
    with running.described():
        ended = running.command("revoke", running.name, by=running.stumbling("kill", step))
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert_revoked_by_the_next_run(running, before)
        assert ledger.orders == 1


COMPROMISED = [
    pytest.param("before POST /revoke-cert", id="about to revoke"),
    pytest.param("after POST /revoke-cert", id="revoked, of which only the CA knows"),
    pytest.param("after rmdir /certificates/.*/revoking", id="revoked"),
    pytest.param("after rename /certificates/.*/order.json", id="revoked, and the next is ordered"),
]


@pytest.mark.parametrize("step", COMPROMISED)
def test_killed_while_revoking_at_once(step: str, running: Stumbling) -> None:
    """The next run finishes it, also where the certificate in place is revoked already."""
    before = running.settled()
    stumbling = running.stumbling("kill", step)
    with running.described():
        words = ("revoke", running.name, "--reason", "keyCompromise")
        ended = running.command(*words, by=stumbling)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert_revoked_by_the_next_run(running, before)


def assert_revoked_by_the_next_run(site: Stumbling, before: x509.Certificate) -> None:
    """What is true of a `revoke` after one that was killed."""
    site.assert_whole()
    site.age()
    again = site.command("revoke", site.name)
    assert again.returncode == 0, again.stderr
    after = site.settled()
    assert site.authority.status_of(before)["Status"] == "Revoked"
    assert site.authority.status_of(after)["Status"] == "Valid"
    assert site.kept().account_key is not None
    assert site.leftovers() == []


ROLLING = [
    pytest.param("after rename /accounts/.*/key.next.pem", id="the next key"),
    pytest.param("after rename /instances/.*/generated", id="answered for, and nginx isn't told"),
    pytest.param("before POST /rollover-account-key", id="about to tell the CA"),
    pytest.param("after POST /rollover-account-key", id="which only the CA knows of"),
    pytest.param("after rename /accounts/.*/account.json", id="noted"),
    pytest.param("after rename /accounts/[^/]+$", id="the account's, but not in its place"),
    pytest.param("after rename /accounts/.*/key.pem", id="in both places"),
]


@pytest.mark.parametrize("step", ROLLING)
def test_killed_while_the_key_changes(step: str, running: Stumbling) -> None:
    """The next order is made with the key that the CA knows, and answered with it, too."""
    ledger, before = Ledger(running.authority), running.kept()
    with running.described():
        words = ("account", "rollover")
        ended = running.command(*words, by=running.stumbling("kill", step))
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        running.assert_whole()
        answers = [running.renew(), running.command(*words), running.renew()]
        assert [answer.returncode for answer in answers] == [0, 0, 0]
        bundle = running.kept().bundle
        assert bundle is not None
        assert bundle.facts.serial == running.settled().serial_number
        assert running.kept().account_url == before.account_url
        assert running.kept().account_key != before.account_key
        assert (ledger.accounts, ledger.in_vain) == (0, 0)
        assert len(list(running.state.glob("accounts/*"))) == 1
        assert running.leftovers() == []


def test_challenges_of_a_killed_renew(ca: Pebble, open_path: Path) -> None:
    """What was armed for an order that nobody works on is disarmed by the next start."""
    site = Stumbling(open_path, ca, "armed.example.com")
    with site.started():
        site.settled()
        stumbling = site.stumbling("kill", "after rename /public/challenges/")
        assert site.renew(*stumbling).returncode == -signal.SIGKILL
        assert len(list(site.state.glob("public/challenges/*/*"))) == 1
    with site.started():
        assert list(site.state.glob("public/challenges/*/*")) == []


# Two at once


def test_two_instances_with_one_state(start_pebble: Callable[..., Pebble], open_path: Path) -> None:
    """Two that start at once, each its own nginx, make one account and one order."""
    ca = start_pebble(valid=True)
    ledger = Ledger(ca)
    one, other = (
        Stumbling(
            open_path / name, ca, "shared.example.com", state=open_path / "state", http=free_port()
        )
        for name in ("one", "other")
    )
    with contextlib.ExitStack() as stack:
        for site in (one, other):
            stack.callback(site.launch().stop)
        wait_for(lambda: one.pid == one.server.pid and other.pid == other.server.pid, 60, "both")
        assert one.settled() == other.settled()
    assert (ledger.accounts, ledger.orders) == (1, 1)
    one.age()
    Store(str(one.state)).open_for_writing()
    assert one.leftovers() == []


def test_the_same_start_twice(ca: Pebble, open_path: Path) -> None:
    """Of two starts at once one becomes nginx, with one account and one order."""
    site, ledger = Stumbling(open_path, ca, "twice.example.com"), Ledger(ca)
    starts = [site.launch(), site.launch()]
    with contextlib.ExitStack() as stack:
        for start in starts:
            stack.callback(start.stop)
        wait_for(lambda: [start.returncode for start in starts].count(None) == 1, what="one's end")
        site.settled()
    assert (ledger.accounts, ledger.orders) == (1, 1)


# A full disk


@pytest.fixture
def small_disk(open_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = open_path / "small"
    folder.mkdir()
    with in_memory(folder, "1m"):
        yield folder


FULL = [
    pytest.param("before mkdir /instances/", id="before a draft"),
    pytest.param("after POST /sign-me-up", id="before the account is noted"),
    pytest.param("before mkdir /certificates/.*/pending", id="before the key"),
    pytest.param("after POST /order-plz", id="before the order is noted"),
    pytest.param("after POST /certZ/", id="before the certificate"),
    pytest.param("after rename /certificates/.*/ecdsa-256.pem", id="before who issued it"),
    pytest.param("before unlink /instances/", id="before the switch"),
]


@CAN_MOUNT
@pytest.mark.parametrize("step", FULL)
def test_disk_gets_full(step: str, ca: Pebble, small_disk: Path) -> None:
    """Nothing is half written, nginx starts, and with room again the work goes on."""
    name = _name(step, 0)
    site, ledger = Stumbling(small_disk.parent, ca, name, state=small_disk / "state"), Ledger(ca)
    with site.described():
        with site.started(*site.stumbling("fill", step)):
            assert fetch(site.tls, name, None).body == name.encode()
        site.assert_whole()
        (site.state / "filler").unlink()
        kept, paid = site.kept(), ledger.orders
        with site.started():
            site.settled()
        assert kept.account_key in (None, site.kept().account_key)
        assert ledger.accounts == 1
        lost = paid == 1 and kept.order_url is None and kept.bundle is None
        assert ledger.orders <= 1 + lost


@CAN_MOUNT
def test_disk_gets_full_while_renewing(ca: Pebble, small_disk: Path) -> None:
    """The old certificate is served on; with room again the same order is finished."""
    site = Stumbling(small_disk.parent, ca, "renewed.example.com", state=small_disk / "state")
    with site.started():
        before, ledger = site.settled(), Ledger(ca)
        full = site.renew(*site.stumbling("fill", "after POST /finalize-order/"))
        assert full.returncode == 1
        assert "No space left on device" in full.stderr
        assert site.settled() == before
        (site.state / "filler").unlink()
        site.assert_whole()
        assert site.renew().returncode == 0
        assert site.settled() != before
    assert ledger.orders == 1


@CAN_MOUNT
def test_disk_is_full(ca: Pebble, small_disk: Path) -> None:
    """No CA is asked, one line says why, and nginx starts with files from elsewhere."""
    site = Stumbling(small_disk.parent, ca, "full.example.com", state=small_disk / "state")
    ledger, asked = Ledger(ca), ca.server.output()
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize))
    with site.started() as program:
        assert fetch(site.tls, site.name, None).body == site.name.encode()
        said = program.output().splitlines()
    (error,) = (line for line in said if "[error]" in line)
    assert str(small_disk) in error
    assert "No space left on device" in error
    assert ca.server.output() == asked
    (small_disk / "filler").unlink()
    with site.started():
        site.settled()
    assert (ledger.accounts, ledger.orders) == (1, 1)


# Torn files


@pytest.fixture(scope="module")
def finished(ca: Pebble, open_folder: Path) -> Stumbling:
    """A site that has its certificate, and doesn't run."""
    site = Stumbling(open_folder / "finished", ca, "finished.example.com")
    with site.started():
        site.settled()
    shutil.copytree(site.state, site.folder / "kept", symlinks=True)
    return site


@pytest.fixture
def stopped(finished: Stumbling) -> Stumbling:
    """The same as it was when it was stopped."""
    shutil.rmtree(finished.state)
    shutil.copytree(finished.folder / "kept", finished.state, symlinks=True)
    return finished


def tear(site: Stumbling, *what: str) -> None:
    """What a power cut or a bad disk makes of files: HOW PATTERN, for each."""
    for how, _, pattern in (each.partition(" ") for each in what):
        (path,) = site.state.glob(pattern)
        if how == "lost":
            path.unlink()
            continue
        content = path.read_bytes()
        torn = {"cut": content[: len(content) // 2], "zero": bytes(len(content)), "empty": b""}
        path.write_bytes(torn[how])


BUNDLE = "certificates/*/ecdsa-256.pem"
STATE = "certificates/*/state.json"
ACCOUNT = "accounts/*/account.json"
ACCOUNT_KEY = "accounts/*/key.pem"
GENERATED = "instances/*/generations/[0-9]*/nginx.conf"
WORK = "instances/*/generations/*.json"
LOADED = "instances/*/loaded.json"

TORN = [
    pytest.param(
        [f"cut {STATE}", f"cut {ACCOUNT}", "empty layout", f"cut {GENERATED}", f"zero {WORK}"],
        *(0, 0),
        id="all that is written again",
    ),
    pytest.param(
        [f"empty {STATE}", f"lost {ACCOUNT}", "lost layout", f"lost {GENERATED}", f"cut {LOADED}"],
        *(0, 0),
        id="all that is made again",
    ),
    pytest.param(["lost instances/*/generated"], 0, 0, id="no generation"),
    pytest.param([f"zero {ACCOUNT_KEY}"], 0, 0, id="no account's key, and no need of it"),
    pytest.param([f"cut {ACCOUNT}", f"lost {BUNDLE}"], 1, 0, id="found again by its key"),
    pytest.param([f"zero {ACCOUNT_KEY}", f"lost {BUNDLE}"], 1, 1, id="no account's key"),
    pytest.param([f"empty {BUNDLE}"], 1, 0, id="an empty certificate"),
    pytest.param([f"zero {BUNDLE}"], 1, 0, id="zeros for a certificate"),
    pytest.param([f"cut {BUNDLE}", f"cut {STATE}"], 1, 0, id="neither certificate nor notes"),
]


@pytest.mark.parametrize(("torn", "orders", "accounts"), TORN)
def test_torn(torn: list[str], orders: int, accounts: int, stopped: Stumbling) -> None:
    """What can be read elsewhere is, what can't is asked for again; all of it is served."""
    before, ledger = stopped.kept(), Ledger(stopped.authority)
    tear(stopped, *torn)
    with stopped.started():
        leaf = stopped.settled()
    assert (ledger.orders, ledger.accounts) == (orders, accounts)
    assert before.bundle is not None
    assert (leaf.serial_number == before.bundle.facts.serial) == (not orders)
    after = stopped.kept()
    assert (after.account_key == before.account_key) == (not any(ACCOUNT_KEY in t for t in torn))
    assert after.pending_key is None


def test_a_damaged_certificate_is_set_aside(stopped: Stumbling) -> None:
    """What nginx couldn't read is kept beside what takes its place."""
    tear(stopped, f"cut {BUNDLE}")
    (torn,) = (path.read_bytes() for path in stopped.state.glob(BUNDLE))
    with stopped.started():
        stopped.settled()
    assert [path.read_bytes() for path in stopped.state.glob(f"{BUNDLE}.damaged")] == [torn]


ORDER = "certificates/*/pending/order.json"
ORDER_KEY = "certificates/*/pending/key.pem"

TORN_ORDERS = [
    pytest.param(f"cut {ORDER}", id="half of the order"),
    pytest.param(f"lost {ORDER_KEY}", id="no key"),
    pytest.param(f"zero {ORDER_KEY}", id="zeros for a key"),
]


@pytest.mark.parametrize("torn", TORN_ORDERS)
def test_a_torn_order(torn: str, ca: Pebble, open_path: Path) -> None:
    """An open order that can't be finished any more costs one more."""
    site, ledger = Stumbling(open_path, ca, _name(torn, 0)), Ledger(ca)
    assert site.is_killed("before POST /chalZ/")
    kept = site.kept()
    tear(site, torn)
    with site.started():
        site.settled()
    assert (ledger.orders, ledger.accounts) == (2, 1)
    after = site.kept()
    assert after.bundle is not None
    assert kept.pending_key is not None
    assert (kept.pending_key in after.bundle.pem) == (ORDER in torn)
