"""The state directory: everything that outlives a start, but for nginx's own files.

    STATE/                    0711
      layout                  its version, a number
      accounts/NAME/          0700, see `accounts`
      certificates/LABEL/     0700, see `certificates` and `pending`
      instances/NAME/         0711, see `instances`
      local/                  0700, see `nginx_acme.local`
      public/                 0755, what nginx's workers may read
        challenges/NAME/      0711, an empty file for each open challenge of an account
        instances/NAME/       0755, how the certificates of an instance stand
      locks/                  0700
      proved                  0600, see `proved`

Rules
- A store is opened for reading. Queries write nothing: an unprivileged `nginx-acme -t` asks them,
  too. Whoever writes opens the store for writing first, which proves that it can be written, so
  that no order is spent on what can't be kept.
- Certificates are looked up by identity, never by the name of their folder. Folders named after
  the first server name were another folder, and another order, for every reordered `server_name`.
- A store of a newer layout is read as it is and never written: paths of bundles and what bundles
  say never change, so a rollback serves what there is.
- Everything broken is treated as missing and set aside by the next who writes; nothing of that
  kind keeps nginx from starting, and no certificate is ever deleted.
"""

from __future__ import annotations

import os
from glob import glob
from typing import TYPE_CHECKING

from nginx_acme import disk, locks
from nginx_acme.errors import StateError
from nginx_acme.key_types import KEY_TYPES, file_name
from nginx_acme.labels import (
    instance_name,
    instance_path,
    is_instance_name,
    start_lock_path,
)
from nginx_acme.store import accounts, certificates
from nginx_acme.store.accounts import AccountFolder
from nginx_acme.store.certificates import (
    UNKNOWN,
    CertificateFolder,
    Identity,
    no_label_left,
    possible_labels,
)
from nginx_acme.store.instances import Instance, Proof
from nginx_acme.store.notes import NO_ATTEMPT, Attempt, Issued
from nginx_acme.store.pending import Pending, PendingOrder
from nginx_acme.store.proved import Proved
from nginx_acme.store.records import Access

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from datetime import datetime

    from nginx_acme.bundle import Bundle

__all__ = [
    "NO_ATTEMPT",
    "UNKNOWN",
    "AccountFolder",
    "Attempt",
    "CertificateFolder",
    "Identity",
    "Instance",
    "Issued",
    "Pending",
    "PendingOrder",
    "Proof",
    "Store",
]

LAYOUT = 1

_MODES = (
    ("", 0o711),
    ("accounts", 0o700),
    ("certificates", 0o700),
    ("instances", 0o711),
    ("local", 0o700),
    ("locks", 0o700),
    ("public", 0o755),
    ("public/challenges", 0o711),
    ("public/instances", 0o755),
)
_CHALLENGES_MODE = 0o711
_SWEPT = (
    *("", "accounts", "accounts/*", "certificates", "instances/*", "instances/*/generations"),
    *("local", "public", "public/challenges/*"),
)
"""Where a killed process may leave something unfinished; the rest is swept when it is written."""
_LOCK_WAIT = 10.0  # seconds
_RIGHT, _PARTIAL, _EXPIRED = 3, 2, 1


class Store:
    """A state directory; `root` need not exist until it is opened for writing.

    What is in it is read in one pass, when it is first asked for after it was opened.
    `is_rehearsal`: see `rehearsing`.
    """

    def __init__(self, root: str, certificates: str | None = None) -> None:
        self.root = root
        self.is_rehearsal = certificates is not None
        self._certificates = certificates or self._path("certificates")
        self._access = Access(root, Proved(self._path("proved")))
        self._folders: dict[str, CertificateFolder] | None = None
        self._by_identity: dict[Identity, CertificateFolder] = {}
        self._by_name: dict[str, list[CertificateFolder]] = {}

    # The whole

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._access.writable

    @property
    def newer(self) -> bool:
        """Whether a newer nginx-acme changed the layout: such a store is served, never written."""
        digits = (disk.read(self._path("layout")) or b"").strip()
        return digits.isdigit() and int(digits) > LAYOUT

    def open_for_writing(self) -> None:
        """Make what is missing of the layout, and prove that certificates can be kept.

        What was read is read again: whoever stays and opens it once more sees what others made.

        Raises:
            StateError: it can't be written, is full, or is of a newer layout. The store is open
                for reading as before.
        """
        if self.newer:
            raise StateError(
                f'"{self.root}" was changed by a newer nginx-acme: its certificates are served, '
                "nothing is renewed or written",
                self.root,
            )
        for name, mode in _MODES:
            disk.make_folder(self._path(name), mode)
        if disk.read(self._path("layout")) is None:
            disk.replace(self._path("layout"), b"%d\n" % LAYOUT, mode=0o644, durable=True)
        self._sweep()
        disk.probe_writable(self._certificates)
        self._access.writable = True
        self._folders = None
        self._by_identity.clear()
        self._by_name.clear()

    def rehearsing(self, folder: str) -> Store:
        """This one with other certificates: those in `folder`, which exists, and goes away."""
        return Store(self.root, folder)

    def _sweep(self) -> None:
        """Remove what killed processes left: what is unfinished, and challenges of nobody."""
        for pattern in _SWEPT:
            for folder in glob(pattern, root_dir=self.root) if pattern else [""]:
                disk.sweep(self._path(folder))
        armed = self._armed()
        held = locks.try_lock(self._challenges_lock) if armed else None
        if held is None:
            return
        with held:
            for path in armed:
                disk.remove(path)

    def _armed(self) -> list[str]:
        folders = (self.challenges(name) for name in disk.names_in(self._path("public/challenges")))
        paths = [os.path.join(folder, name) for folder in folders for name in disk.names_in(folder)]
        return [path for path in paths if os.path.isfile(path)]

    # Certificates

    def folders(self) -> tuple[CertificateFolder, ...]:
        """All certificates, sorted by label; those that forgot their identity have `UNKNOWN`."""
        return tuple(folder for _, folder in sorted(self._index().items()))

    def find(self, identity: Identity) -> CertificateFolder | None:
        """The folder of a certificate.

        One that forgot who issues it (`state.json` is lost) is anybody's who wants exactly its
        names: better a renewal at the wrong CA some day than a certificate lost today.
        """
        self._index()
        found = self._by_identity.get(identity)
        if found is not None:
            return found
        orphan = self._by_identity.pop(Identity(UNKNOWN, identity.names, None), None)
        if orphan is None:
            return None
        return self._register(orphan.adopted(identity))

    def create(self, identity: Identity, names: Sequence[str]) -> CertificateFolder:
        """The folder of a certificate, made if need be; its label comes from the first name.

        Raises:
            StateError: it can't be written.
        """
        self._access.demand()
        found = self.find(identity)
        if found is not None:
            return found
        parent = self._certificates
        return self._register(certificates.make_folder(parent, self._access, identity, names))

    def labels(self) -> list[str]:
        """The names that are taken, sorted, whatever has them."""
        return disk.names_in(self._certificates)

    def free_label(self, identity: Identity, names: Sequence[str], taken: Container[str]) -> str:
        """The label that `create` would give to a certificate where these are taken.

        Raises:
            StateError: there is none, as in `create`.
        """
        for label in possible_labels(identity, names):
            if label not in taken:
                return label
        raise no_label_left(self._certificates, names)

    def bundle_path(self, label: str, key_type: str) -> str:
        """Where nginx finds a certificate that has, or is to have, this label."""
        return os.path.join(self._certificates, label, file_name(key_type))

    def nearest(self, identity: Identity, key_type: str, now: datetime) -> Bundle | None:
        """What to serve as long as `identity` has no certificate of this key type.

        In this order: right names with any key type; the one that covers most names; an expired
        one with the right names, or one of its own that did without some. "Not yet valid" counts
        as valid, since clocks are wrong more often than certificates. Of equals the one of the
        same identity, of the same issuer, with the same key type, and the latest to expire. Never
        a temporary or a revoked one; None: only a temporary one is left.
        """
        folders = tuple(self._about(identity))
        ranked = [
            (rank, bundle)
            for folder in folders
            for bundle in _real_bundles(folder)
            # Another's may have been put in place of one; its own folder knows what became of it.
            if not any(bundle in one.revocations for one in folders)
            and (rank := _rank(folder, bundle, identity, key_type, now)) is not None
        ]
        return max(ranked, key=lambda found: found[0])[1] if ranked else None

    def keep_proved(self, now: datetime) -> None:
        """Spare whoever reads these certificates next the work of finding out what they are."""
        self._access.demand()
        self._access.proved.keep(now)

    def _index(self) -> dict[str, CertificateFolder]:
        if self._folders is None:
            self._folders = {}
            for label in self.labels():
                path = os.path.join(self._certificates, label)
                self._register(certificates.open_folder(path, self._access))
        return self._folders

    def _register(self, folder: CertificateFolder) -> CertificateFolder:
        index = self._index()
        if folder.identity.names:
            index[folder.label] = folder
            self._by_identity.setdefault(folder.identity, folder)
        for name in folder.identity.names:
            self._by_name.setdefault(name, []).append(folder)
        return folder

    def _about(self, identity: Identity) -> Iterator[CertificateFolder]:
        """The folders that have one of the names, or a wildcard for it; each once."""
        self._index()
        found: dict[str, CertificateFolder] = {}
        for name in identity.names:
            for wanted in (name, "*." + name.partition(".")[2]):
                found.update((folder.path, folder) for folder in self._by_name.get(wanted, ()))
        yield from found.values()

    # Accounts

    def find_account(
        self, directory_url: str, key_fingerprint: str | None = None
    ) -> AccountFolder | None:
        """The account at a directory URL; with that key (`certificate.fingerprint`), if given."""
        return accounts.find(self._path("accounts"), self._access, directory_url, key_fingerprint)

    def create_account(
        self, issuer: str, directory_url: str, key_pem: bytes, now: datetime
    ) -> AccountFolder:
        """Keep an account's key before the CA hears of it, and make the folder of its challenges.

        `issuer` is the name of the configuration; it is a part of the account's name.
        """
        account = accounts.make(
            self._path("accounts"),
            self._access,
            issuer=issuer,
            directory_url=directory_url,
            key_pem=key_pem,
            now=now,
        )
        self.make_challenges(account.name)
        return account

    def challenges(self, account_name: str) -> str:
        """The folder where a challenge of the account is armed by an empty file named TOKEN."""
        return self._path("public/challenges", account_name)

    def make_challenges(self, account_name: str) -> str:
        """The same, made if it is missing."""
        self._access.demand()
        path = self.challenges(account_name)
        disk.make_folder(path, _CHALLENGES_MODE)
        return path

    # The rest

    @property
    def local(self) -> str:
        """The folder of the issuer `local`."""
        return self._path("local")

    @property
    def public(self) -> str:
        """The folder that nginx's workers may read."""
        return self._path("public")

    def instance(self, conf: str, prefix: str, host: str) -> Instance:
        """The instance of a main file (absolute), a prefix and a host name; nothing is made."""
        return self.instance_named(instance_name(conf, prefix, host))

    def instances(self) -> tuple[Instance, ...]:
        """All that there are, sorted by name."""
        names = disk.names_in(self._path("instances"))
        return tuple(map(self.instance_named, filter(is_instance_name, names)))

    def instance_named(self, name: str) -> Instance:
        """The instance of this name; nothing is made."""
        return Instance(
            path=instance_path(self.root, name),
            public=self._path("public/instances", name),
            generation_lock=self._path("locks", f"generation-{name}.lock"),
            agent_lock=self._path("locks", f"agent-{name}.lock"),
            start_lock=start_lock_path(self.root, name),
            hooks_lock=self._path("locks", f"hooks-{name}.lock"),
            access=self._access,
        )

    # Locks; who needs two takes them in this order

    def lock_challenges(self, *, wait: float = _LOCK_WAIT) -> locks.Lock:
        """Have a share in the lock of all challenges, as long as some of ours may be open.

        Whoever opens the store meanwhile takes none of them for what a killed process left, and no
        account gets another key.
        """
        self._access.demand()
        return locks.lock(self._challenges_lock, wait=wait, shared=True)

    def lock_probes(self) -> locks.Lock:
        """The same for a query that arms no more than a probe: it opens nothing for writing."""
        return locks.lock(self._challenges_lock, wait=_LOCK_WAIT, shared=True)

    def lock_accounts_alone(self) -> locks.Lock:
        """Keep everybody off who asks a CA for certificates, as long as an account is changed.

        Raises:
            StateError: somebody does; the message says who.
        """
        self._access.demand()
        path = self._challenges_lock
        try:
            return locks.lock(path, wait=_LOCK_WAIT)
        except StateError as busy:
            words = f"certificates are asked for by {locks.holder(path)}, no account is changed now"
            raise StateError(words, path) from busy

    def lock_certificate(
        self, folder: CertificateFolder, *, wait: float = _LOCK_WAIT
    ) -> locks.Lock:
        """Take the lock of a certificate, as long as its order is worked on.

        What is noted is read again, so that the work is not done twice.

        Raises:
            StateError: somebody else has it for longer than `wait` seconds; the message says who.
        """
        self._access.demand()
        return _refreshed(folder, locks.lock(self._certificate_lock(folder), wait=wait))

    def try_lock_certificate(self, folder: CertificateFolder) -> locks.Lock | None:
        """The same without waiting, for an event loop; None where somebody else has it."""
        self._access.demand()
        held = locks.try_lock(self._certificate_lock(folder))
        return None if held is None else _refreshed(folder, held)

    def lock_accounts(self, directory_url: str, *, wait: float = _LOCK_WAIT) -> locks.Lock:
        """Take the lock of account creation at a directory URL; look for the account again."""
        return accounts.lock(self._access, directory_url, wait=wait)

    def lock_generation(self, instance: Instance, *, wait: float = _LOCK_WAIT) -> locks.Lock:
        """Take the lock of an instance's generation, for milliseconds."""
        self._access.demand()
        return locks.lock(instance.generation_lock, wait=wait)

    @property
    def _challenges_lock(self) -> str:
        return self._path("locks/challenges.lock")

    def _certificate_lock(self, folder: CertificateFolder) -> str:
        return self._path("locks", f"certificate-{folder.label}.lock")

    def _path(self, *names: str) -> str:
        return os.path.join(self.root, *names).rstrip("/")


def _refreshed(folder: CertificateFolder, held: locks.Lock) -> locks.Lock:
    try:
        folder.refresh()
    except BaseException:
        held.release()
        raise
    return held


def _real_bundles(folder: CertificateFolder) -> Iterator[Bundle]:
    """What can be served from a folder.

    The one before, too: the current one may be damaged, or have given way to a nearer one.
    """
    for key_type in KEY_TYPES:
        for bundle in (folder.read(key_type), folder.previous(key_type)):
            if bundle is not None and not bundle.facts.temporary:
                yield bundle


def _rank(
    folder: CertificateFolder, bundle: Bundle, identity: Identity, key_type: str, now: datetime
) -> tuple[int, int, bool, bool, bool, float] | None:
    """How near a bundle is, greater is nearer; None: not at all."""
    facts = bundle.facts
    right = identity.names <= facts.names
    covered = sum(map(facts.covers, identity.names))
    expired = facts.not_after <= now
    if not covered or (expired and not right and folder.identity != identity):
        return None
    return (
        _EXPIRED if expired else _RIGHT if right else _PARTIAL,
        covered,
        folder.identity == identity,
        folder.identity.directory_url == identity.directory_url,
        facts.key_type == key_type,
        facts.not_after.timestamp(),
    )
