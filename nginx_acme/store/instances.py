"""One nginx with its main file: where its generations are, and whether a start may wait.

Instances may share a state directory, on one host or on a network file system, so the folder's
name has a hash of all that tells two of them apart. The main file's name alone was not enough:
both of two instances are called nginx.conf, and each start switched the other's generation.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nginx_acme import disk, locks
from nginx_acme.store import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nginx_acme.store.records import Access

SEARCHABLE_FOLDER = 0o711
"""nginx's workers open files by paths that lead through a generation."""
WAKE, LOOK = "wake", "look"
"""The names of the files whose replacement wakes the agent."""
WAIT_BUDGET = timedelta(hours=1)
"""A start that waited and never finished was killed by something that will kill the next, too."""

_PUBLIC_FOLDER = 0o755
_PUBLIC_FILE = 0o644
_DOCUMENT = "status.json"
_PAIR = 2


@dataclass(frozen=True, slots=True)
class Proof:
    """What handshakes with nginx showed where the certificate with this serial number should be.

    `served` is None where they can't show it; `words` say why, or what was shown in its place.
    """

    serial: str
    served: bool | None
    words: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Instance:
    """The paths of one instance; its locks are in the store's own place."""

    path: str
    public: str
    """The folder of what nginx's workers may read of it."""
    generation_lock: str
    agent_lock: str
    start_lock: str
    hooks_lock: str
    access: Access = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The main file's name and a hash."""
        return os.path.basename(self.path)

    @property
    def generated(self) -> str:
        """The symbolic link to the current generation."""
        return os.path.join(self.path, "generated")

    @property
    def generations(self) -> str:
        """The folder of all generations."""
        return os.path.join(self.path, "generations")

    def make(self) -> None:
        """Make the instance's folder, if it isn't there."""
        self.access.demand()
        disk.make_folder(self.path, SEARCHABLE_FOLDER)

    def note_loaded(self, loaded: Mapping[str, Mapping[str, str]]) -> None:
        """Note what nginx has read: serial numbers by label and key type (`nginx_acme.loaded`)."""
        self.access.demand()
        records.save(self._loaded, dict(loaded), durable=False)

    def loaded(self) -> Mapping[str, Mapping[str, str]]:
        """What nginx has read, as far as it is known."""
        return records.load(self._loaded) or {}

    def note_proofs(self, proofs: Mapping[tuple[str, str], Proof]) -> None:
        """Note what nginx was seen to serve, by label and key type; what was noted before is gone."""
        self.access.demand()
        fields: dict[str, dict[str, object]] = {}
        for (label, key_type), proof in proofs.items():
            fields.setdefault(label, {})[key_type] = {
                "serial": proof.serial,
                "served": proof.served,
                "words": proof.words,
                "at": records.time_text(proof.at),
            }
        records.save(self._proofs, fields, durable=False)

    def proofs(self) -> dict[tuple[str, str], Proof]:
        """What nginx was seen to serve, by label and key type, as far as it is known."""
        found = {}
        for label, by_key_type in (records.load(self._proofs) or {}).items():
            for key_type, noted in records.table(by_key_type).items():
                if (proof := _proof(records.table(noted))) is not None:
                    found[label, key_type] = proof
        return found

    def note_told(self, told: records.Fields) -> None:
        """Note what hooks have been told (`nginx_acme.hooks.told`)."""
        self.access.demand()
        records.save(self._told, told, durable=False)

    def told(self) -> records.Fields:
        """What hooks have been told."""
        return records.load(self._told) or {}

    def note_accounts(self, accounts: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Note the accounts whose challenges are answered (`nginx_acme.places.known_accounts`)."""
        self.access.demand()
        records.save(self._accounts, dict(accounts), durable=False)

    def accounts(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """The accounts that were noted."""
        return {
            issuer: tuple(map(records.texts, noted))
            for issuer, noted in (records.load(self._accounts) or {}).items()
            if isinstance(noted, list) and all(len(records.texts(one)) == _PAIR for one in noted)
        }

    def note_workers(self, marks: Iterable[str]) -> None:
        """Note the workers (`master.worker_marks`) of the last reload that is known of."""
        self.access.demand()
        records.save(self._workers, {"workers": sorted(marks)}, durable=False)

    def workers(self) -> frozenset[str]:
        """The workers that were noted; none where none were."""
        return frozenset(records.texts((records.load(self._workers) or {}).get("workers")))

    def wake_agent(self, *, look: bool) -> None:
        """Let the agent see what is due, and `look` at the user's files (`nginx_acme.agent.alarms`)."""
        self.access.demand()
        name = LOOK if look else WAKE
        disk.replace(os.path.join(self.path, name), b"", mode=0o600, durable=False)

    def begin_wait(self, now: datetime, family: str) -> None:
        """Note that a start waits for certificates, before it does; `family_name` is of whom."""
        self.access.demand()
        self.make()
        noted = {"since": records.time_text(now), "family": family}
        records.save(self._wait, noted, durable=False)

    def end_wait(self) -> None:
        """Note that the start is over, with or without certificates; nobody killed it."""
        self.access.demand()
        disk.remove(self._wait)

    def waited_recently(self, now: datetime, family: str) -> bool:
        """Whether a start of this family waited within the last hour and never finished."""
        noted = records.load(self._wait) or {}
        since = records.time(noted.get("since"))
        if since is None or noted.get("family") != family:
            return False
        return timedelta(0) <= now - since < WAIT_BUDGET

    def is_starting(self) -> bool:
        """Whether a start of it is under way, in this process or another."""
        held = locks.try_lock(self.start_lock)
        if held is None:
            return True
        held.release()
        return False

    def publish(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Let everybody read these files of it: the name and the content of each."""
        self.access.demand()
        disk.make_folder(self.public, _PUBLIC_FOLDER)
        disk.sweep(self.public)
        for name, data in files:
            path = os.path.join(self.public, name)
            disk.replace(path, data, mode=_PUBLIC_FILE, durable=False)

    def last_written(self) -> datetime:
        """When a look at its certificates, or anything else, left something in its folders.

        That is cheaper than `last_look`, and known of a start that never became nginx, too.
        """
        latest = 0.0
        for path in (self.path, os.path.join(self.public, _DOCUMENT)):
            with suppress(FileNotFoundError):
                latest = max(latest, os.stat(path).st_mtime)
        return datetime.fromtimestamp(latest, UTC)

    def remove(self, still: Callable[[], bool]) -> bool:
        """Remove all of it, unless somebody has one of its locks; whether it was.

        Args:
            still: whether it is to be removed, asked again when nobody else can do anything.

        Raises:
            StateError, OSError: not all of it could be removed.
        """
        self.access.demand()
        own = (self.start_lock, self.agent_lock, self.generation_lock, self.hooks_lock)
        with ExitStack() as held:
            for path in own:
                lock = locks.try_lock(path)
                if lock is None:
                    return False
                held.enter_context(lock)
            if not still():
                return False
            for folder in (self.public, self.path):
                if os.path.isdir(folder):
                    shutil.rmtree(folder)
            for path in own:
                disk.remove(path)
        return True

    def last_look(self) -> datetime | None:
        """When its certificates were last looked at, by what was published for programs then."""
        path = os.path.join(self.public, _DOCUMENT)
        return records.time((records.load(path) or {}).get("last_look"))

    @property
    def _loaded(self) -> str:
        return os.path.join(self.path, "loaded.json")

    @property
    def _proofs(self) -> str:
        return os.path.join(self.path, "proofs.json")

    @property
    def _told(self) -> str:
        return os.path.join(self.path, "told.json")

    @property
    def _accounts(self) -> str:
        return os.path.join(self.path, "accounts.json")

    @property
    def _workers(self) -> str:
        return os.path.join(self.path, "workers.json")

    @property
    def _wait(self) -> str:
        return os.path.join(self.path, "waiting.json")


def _proof(noted: records.Fields) -> Proof | None:
    serial, at = records.text(noted.get("serial")), records.time(noted.get("at"))
    if serial is None or at is None:
        return None
    served = noted.get("served")
    known = served if isinstance(served, bool) else None
    return Proof(serial, known, records.text(noted.get("words")), at)
