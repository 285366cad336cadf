"""The folder of one certificate: its bundles, what was noted about them, the order under way.

    certificates/LABEL/
      ecdsa-256.pem             what nginx serves: ours, the nearest there was, or a temporary one
      ecdsa-256.previous.pem    the one before it, where that was ours
      state.json                identity; per key type who issued what, when the CA wants it to
                                be renewed, and the last attempts
      pending/                  see `pending`
      revoked.json, revoking/   see `revocations`

Files are trusted, not notes. Who issued a bundle is noted by its serial number, so a note about
another file says nothing; names, times and key type are read from the bundle itself. Flags ("this
is issued", "this is expired") were wrong after every restored backup.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from nginx_acme import disk
from nginx_acme.errors import BadBundle, StateError
from nginx_acme.key_types import KEY_TYPES, file_name
from nginx_acme.labels import label_of
from nginx_acme.store import records
from nginx_acme.store.notes import (
    NO_ATTEMPT,
    Attempt,
    Issued,
    advice_fields,
    attempt_fields,
    issued_fields,
    read_advice,
    read_attempt,
    read_issued,
)
from nginx_acme.store.pending import Pending
from nginx_acme.store.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from nginx_acme.bundle import Bundle
    from nginx_acme.policy.ari import Advice
    from nginx_acme.store.records import Access, Fields

UNKNOWN = ""
"""The directory URL of a folder whose `state.json` is lost."""

_VERSION = 1
_SHORT_HASH = 8


class Identity(NamedTuple):
    """What makes a certificate the same one after any edit of the configuration.

    `directory_url` is that of the (first) issuer, "local:" for the built-in one; `names` are
    canonical identifiers.
    """

    directory_url: str
    names: frozenset[str]
    profile: str | None


class _Look(NamedTuple):
    """What a bundle's file had in it when it had this size, time and inode."""

    signature: tuple[int, int, int] | None
    bundle: Bundle | None
    damage: str | None


_NOTHING = _Look(None, None, None)


class CertificateFolder:
    """One certificate of the store, for all key types.

    What is noted is read once and again by `refresh`, which taking the certificate's lock does.
    """

    def __init__(
        self, path: str, access: Access, fields: Fields, identity: Identity | None = None
    ) -> None:
        self.path = path
        self.pending = Pending(os.path.join(path, "pending"), access)
        self.revocations = Revocations(path, access)
        self._access = access
        self._fields = fields
        self._looks: dict[str, _Look] = {}
        self.identity = identity or _identity_of(fields) or self._identity_by_bundles()

    @property
    def label(self) -> str:
        """The folder's name, which is no more than a name."""
        return os.path.basename(self.path)

    def bundle_path(self, key_type: str) -> str:
        """The path that nginx is given; it never changes."""
        return os.path.join(self.path, file_name(key_type))

    # Queries

    def read(self, key_type: str) -> Bundle | None:
        """What lies at `bundle_path`; None where nothing does, or nothing that nginx could serve."""
        return self._look(key_type).bundle

    def damage(self, key_type: str) -> str | None:
        """What is wrong with the file at `bundle_path`; None for a bundle, and for no file."""
        return self._look(key_type).damage

    def own(self, key_type: str) -> Bundle | None:
        """What lies at `bundle_path`, if it is this certificate: issued for this identity.

        Not a temporary one, nor the nearest one of another certificate, nor one that is revoked. It
        may be expired. Where `state.json` is lost, right names and the right key type are proof
        enough.
        """
        bundle = self.read(key_type)
        if bundle is None or bundle.facts.temporary or bundle.facts.key_type != key_type:
            return None
        if self._entry(key_type).get("placed") == _serial(bundle) or bundle in self.revocations:
            return None
        right = self.identity.names <= bundle.facts.names
        return bundle if right or self.issued(key_type) else None

    def previous(self, key_type: str) -> Bundle | None:
        """The one before the current one; None where there is none that could be served."""
        data = disk.read(self._previous_path(key_type))
        try:
            bundle = None if data is None else self._access.proved.read_bundle(data)
        except BadBundle:
            return None
        return None if bundle is None or bundle in self.revocations else bundle

    def was_refused(self, key_type: str, bundle: Bundle) -> bool:
        """Whether this is the one that nginx refused when it was put back last."""
        return disk.read(self._refused_path(key_type)) == bundle.pem

    def issued(self, key_type: str) -> Issued | None:
        """Who issued what lies at `bundle_path`; None where that isn't known."""
        bundle = self.read(key_type)
        if bundle is None:
            return None
        issued = records.table(self._entry(key_type).get("issued"))
        return read_issued(records.table(issued.get(_serial(bundle))))

    def attempt(self, key_type: str) -> Attempt:
        """How trying went since the last success. Its times are bounded by `policy`, not here."""
        return read_attempt(self._entry(key_type))

    def advice(self, key_type: str) -> Advice | None:
        """What the CA said of the renewal of what lies at `bundle_path`; None: it wasn't asked."""
        bundle = self.read(key_type)
        note = records.table(self._entry(key_type).get("advice"))
        if bundle is None or note.get("serial") != _serial(bundle):
            return None
        return read_advice(note)

    def refresh(self) -> None:
        """Read again what is noted: another process may have done the work meanwhile."""
        self._fields = records.load(self._state_path) or {}
        self.revocations.refresh()

    def adopted(self, identity: Identity) -> CertificateFolder:
        """This folder, which forgot its identity, as that of `identity`; noted when it is written."""
        return CertificateFolder(self.path, self._access, self._fields, identity)

    # Writing

    def install(
        self,
        key_type: str,
        bundle: Bundle,
        issued_by: str,
        account: str | None = None,
        *,
        attempt: Attempt = NO_ATTEMPT,
    ) -> None:
        """Make `bundle` what nginx is given, durably.

        What lay there before is kept: as the previous one where it was this certificate, set
        aside where it was damaged. Doing it twice is the same as once.

        Args:
            key_type: of the path; the bundle's own.
            bundle: checked against key and names (`make_bundle`).
            issued_by: directory URL of the issuer, which after a failover is not the identity's.
            account: the name of the account's folder.
            attempt: how trying goes on; it starts from zero where the bundle has all that it should.
        """
        self._access.demand()
        disk.sweep(self.path)
        self._make_room(key_type, bundle)
        self._write(key_type, bundle, durable=True)
        disk.sync_folder(os.path.dirname(self.path))
        note = issued_fields(Issued(issued_by, account, bundle.facts.not_after))
        issued = {_serial(bundle): note, **self._note_of_previous(key_type)}
        self._note(key_type, issued=issued, placed=None, **attempt_fields(attempt))

    def place_nearest(self, key_type: str, bundle: Bundle) -> None:
        """Let nginx have `bundle` for now: another certificate's, an expired or a temporary one.

        It is noted as such first, so that it is never taken for this certificate. Not fsynced:
        after a power cut it is placed again. Under the certificate's lock, unless whoever holds
        it is working on an order: then something has been placed already.
        """
        self._access.demand()
        own = self.own(key_type)
        if own is not None and own.facts.serial == bundle.facts.serial:
            return
        self._make_room(key_type, bundle)
        if not bundle.facts.temporary:
            self._note(key_type, placed=_serial(bundle))
        self._write(key_type, bundle, durable=False)

    def put_back(self, key_type: str) -> bool:
        """Put the previous bundle in place again; False where there is none.

        What nginx refused is kept beside it as ``.refused``.
        """
        self._access.demand()
        previous, path = self.previous(key_type), self.bundle_path(key_type)
        if previous is None:
            return False
        refused = disk.read(path)
        if refused is not None:
            aside = self._refused_path(key_type)
            disk.replace(aside, refused, mode=records.PRIVATE_FILE, durable=False)
        self._write(key_type, previous, durable=True)
        return True

    def record(self, key_type: str, attempt: Attempt) -> None:
        """Note how an attempt went."""
        self._access.demand()
        self._note(key_type, **attempt_fields(attempt))

    def note_advice(self, key_type: str, bundle: Bundle, advice: Advice) -> None:
        """Note what the CA said of the renewal of `bundle`; it says nothing of another one."""
        self._access.demand()
        self._note(key_type, advice={"serial": _serial(bundle), **advice_fields(advice)})

    def begin_revocation(self, bundles: Collection[Bundle], reason: str) -> None:
        """Keep what is to be revoked; no order goes on with a key of these."""
        self.revocations.begin(bundles, reason)
        key_pem = self.pending.key_pem()
        if key_pem is not None and any(_is_key_of(bundle, key_pem) for bundle in bundles):
            self.pending.clear()

    def _write(self, key_type: str, bundle: Bundle, *, durable: bool) -> None:
        path = self.bundle_path(key_type)
        disk.replace(path, bundle.pem, mode=records.PRIVATE_FILE, durable=durable)
        self._looks[key_type] = _Look(_signature(path), bundle, None)

    def _make_room(self, key_type: str, bundle: Bundle) -> None:
        """Keep what lies at `bundle_path`, if `bundle` is another one and it is worth keeping."""
        if self.damage(key_type) is not None:
            disk.set_aside(self.bundle_path(key_type), records.DAMAGED)
            return
        own = self.own(key_type)
        if own is not None and own.facts.serial != bundle.facts.serial:
            path = self._previous_path(key_type)
            disk.replace(path, own.pem, mode=records.PRIVATE_FILE, durable=True)

    def _note_of_previous(self, key_type: str) -> Fields:
        previous = self.previous(key_type)
        if previous is None:
            return {}
        serial = _serial(previous)
        note = records.table(self._entry(key_type).get("issued")).get(serial)
        return {} if note is None else {serial: note}

    def _note(self, key_type: str, **noted: object) -> None:
        """Change some fields of a key type in `state.json` as it is now on disk."""
        fields = records.load(self._state_path)
        if fields is None:
            disk.set_aside(self._state_path, records.DAMAGED)
        self._fields = {"version": _VERSION, **(fields or {}), **_identity_fields(self.identity)}
        entries = records.table(self._fields.get("key_types"))
        entry = {**records.table(entries.get(key_type)), **noted}
        self._fields["key_types"] = {**entries, key_type: entry}
        records.save(self._state_path, self._fields, durable=False)

    # Reading

    def _look(self, key_type: str) -> _Look:
        path = self.bundle_path(key_type)
        signature = _signature(path)
        look = self._looks.get(key_type, _NOTHING)
        if look.signature != signature:
            look = self._looks[key_type] = self._look_at(path, signature)
        return look

    def _look_at(self, path: str, signature: tuple[int, int, int] | None) -> _Look:
        data = disk.read(path)
        if data is None:
            return _NOTHING
        try:
            return _Look(signature, self._access.proved.read_bundle(data), None)
        except BadBundle as error:
            return _Look(signature, None, str(error))

    def _entry(self, key_type: str) -> Fields:
        return records.table(records.table(self._fields.get("key_types")).get(key_type))

    def _identity_by_bundles(self) -> Identity:
        """The identity as far as the bundles tell it, the most credible of them first.

        A temporary one has not all names; one in a file for another key type was placed there.
        """
        facts = [(k, b.facts) for k in KEY_TYPES if (b := self.read(k)) is not None]
        facts.sort(key=lambda found: (found[1].temporary, found[1].key_type != found[0]))
        return Identity(UNKNOWN, facts[0][1].names if facts else frozenset(), None)

    def _previous_path(self, key_type: str) -> str:
        return self.bundle_path(key_type).removesuffix(".pem") + ".previous.pem"

    def _refused_path(self, key_type: str) -> str:
        return f"{self.bundle_path(key_type)}.refused"

    @property
    def _state_path(self) -> str:
        return os.path.join(self.path, "state.json")


def open_folder(path: str, access: Access) -> CertificateFolder:
    """A certificate's folder as it is on disk; nothing is written."""
    return CertificateFolder(path, access, records.load(os.path.join(path, "state.json")) or {})


def make_folder(
    certificates: str, access: Access, identity: Identity, names: Sequence[str]
) -> CertificateFolder:
    """Make the folder of a certificate, complete with its identity in one rename.

    Another process may have made it meanwhile; then that one is it.

    Raises:
        StateError: it can't be written.
    """
    folder = disk.new_folder(certificates, records.PRIVATE_FOLDER)
    try:
        fields = {"version": _VERSION, **_identity_fields(identity)}
        records.save(os.path.join(folder, "state.json"), fields, durable=False)
        for label in possible_labels(identity, names):
            path = os.path.join(certificates, label)
            if disk.rename_folder(folder, path):
                return CertificateFolder(path, access, fields)
            there = open_folder(path, access)
            if there.identity == identity:
                return there
    finally:
        disk.remove_folder(folder)
    raise no_label_left(certificates, names)


def no_label_left(certificates: str, names: Sequence[str]) -> StateError:
    """What is said where others have all labels of a certificate."""
    return StateError(
        f'"{certificates}" has no name left for a certificate of "{names[0]}"', certificates
    )


def possible_labels(identity: Identity, names: Sequence[str]) -> Iterator[str]:
    """The label of a certificate, then what there is where another one has that already."""
    label = label_of(names[0] if names else "")
    text = repr((identity.directory_url, sorted(identity.names), identity.profile))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    yield label
    yield f"{label}-{digest[:_SHORT_HASH]}"
    yield f"{label}-{digest}"


def _identity_of(fields: Fields) -> Identity | None:
    directory_url = records.text(fields.get("directory_url"))
    names = records.texts(fields.get("names"))
    if not directory_url or not names:
        return None
    return Identity(directory_url, frozenset(names), records.text(fields.get("profile")))


def _identity_fields(identity: Identity) -> Fields:
    return {
        "directory_url": identity.directory_url,
        "names": sorted(identity.names),
        "profile": identity.profile,
    }


def _serial(bundle: Bundle) -> str:
    return f"{bundle.facts.serial:x}"


def _signature(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f'cannot read "{path}": {error.strerror}', path) from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_key_of(bundle: Bundle, key_pem: bytes) -> bool:
    from nginx_acme.certificate import fingerprint  # noqa: PLC0415 - 60 ms, for this alone

    try:
        return fingerprint(key_pem) == fingerprint(bundle.pem)
    except BadBundle:  # a damaged one is nobody's
        return False
