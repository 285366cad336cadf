"""Where nginx finds each certificate, and whose challenges it answers.

    keep      in the store, which gets what it lacks: for every path the nearest certificate that
              there is, last of all a temporary one, and for every account a key
    borrow    from the store as it is; what it lacks is put into another folder
    foresee   where `keep` would have them, for who only wants to read that

nginx doesn't start without a file at each path, so this comes before anything is asked for.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nginx_acme import disk
from nginx_acme.account import find_account, key_of, make_account
from nginx_acme.certificate import new_key, temporary
from nginx_acme.errors import StateError
from nginx_acme.generate import Answer, Layout
from nginx_acme.key_types import file_name
from nginx_acme.labels import variable_of
from nginx_acme.plan.addresses import whose_hosts
from nginx_acme.store import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from nginx_acme.bundle import Bundle
    from nginx_acme.nginx.listen import Listen
    from nginx_acme.plan import Certificate, Issuer, Plan
    from nginx_acme.store import AccountFolder, CertificateFolder, Store

    Place = tuple[tuple[str, frozenset[str], str | None] | None, str]
    """Identity and key type; no identity: for servers that no certificate can name."""
    Known = Mapping[str, Sequence[Sequence[str]]]
    """What `known_accounts` gives."""

T = TypeVar("T")

NAMELESS = "_nameless"


@dataclass(frozen=True, slots=True)
class Places:
    """The path of each certificate, and the accounts whose challenges are answered."""

    paths: Mapping[Place, str]
    answers: tuple[Answer, ...]

    def layout(self, added: tuple[Listen, ...], public: str) -> Layout:
        """What the generated text needs to know of all this."""
        return Layout(lambda identity, key: self.paths[identity, key], self.answers, added, public)


def keep(
    plan: Plan,
    store: Store,
    now: datetime,
    *,
    source: Store | None = None,
    known: Known | None = None,
) -> Places:
    """Places in the store, which is open for writing; it has something at each of them then.

    Args:
        plan: says what for.
        store: has them.
        now: the wall clock.
        source: the state directory, where `store` is a private folder. The nearest certificate may
            be there, too.
        known: the accounts that are there then.

    Raises:
        ConfigError: an account key of the operator's is none.
        StateError: the store can't be written after all.
    """
    stand_ins = _StandIns(now)
    paths: dict[Place, str] = {}
    for certificate in plan.certificates:
        folder = store.create(_identity(certificate), [name.value for name in certificate.names])
        for key_type in certificate.key_types:
            _place(store, folder, key_type, stand_ins, source)
            paths[folder.identity, key_type] = folder.bundle_path(key_type)
    for key_type in _nameless(plan):
        path = store.bundle_path(NAMELESS, key_type)
        paths[None, key_type] = _write(path, stand_ins.make((), key_type))
    if source is None:
        return Places(paths, answers(plan, store, now))
    asked = _asked(plan.issuers)
    return Places(paths, borrow_answers(asked, plan.whose_hosts, source, known or {}))


def answers(plan: Plan, store: Store, now: datetime) -> tuple[Answer, ...]:
    """What nginx says for each account; an account that isn't there gets its key now."""
    made = [(issuer, make_account(store, issuer, now)) for issuer in _asked(plan.issuers)]
    return _each_once(
        answer
        for issuer, account in made
        for answer in answers_of(store, account, _hosts(plan.whose_hosts, issuer))
    )


def answers_of(
    store: Store, account: AccountFolder, hosts: tuple[str, ...] = ()
) -> Iterator[Answer]:
    """The same for one account; for two keys as long as the CA is told of the next one.

    Any token of `hosts` is answered with the first.
    """
    yield replace(answer_of(store, account), hosts=hosts)
    following = account.following()
    if following is not None:
        yield answer_of(store, following)


def answer_of(store: Store, account: AccountFolder) -> Answer:
    """What nginx says for one account.

    Raises:
        ConfigError: its key, a file of the operator's, is of a kind that no CA knows.
    """
    return Answer(account.name, key_of(account).thumbprint, store.challenges(account.name))


def stand_in(store: Store, folder: CertificateFolder, key_type: str, now: datetime) -> None:
    """Let nginx have the nearest certificate there is, if this one is missing or over."""
    _place(store, folder, key_type, _StandIns(now))


def borrow(plan: Plan, store: Store, folder: str, now: datetime) -> Places:
    """Places for the plan with nothing written but into `folder`, which is made if need be.

    What the store has is used where it is, whatever it is; to a user who may not read it, it has
    nothing. An account that isn't there is answered for in the right form by nobody's thumbprint:
    the text is what matters.

    Raises:
        ConfigError: as `keep`.
        StateError: `folder` can't be written.
    """
    stand_ins = _StandIns(now)
    paths: dict[Place, str] = {}
    for certificate in plan.certificates:
        identity = _identity(certificate)
        for key_type in certificate.key_types:
            path = _readable(partial(_path_in, store, identity, key_type))
            if path is None:
                nearest = _readable(partial(store.nearest, identity, key_type, now))
                bundle = nearest or stand_ins.make(identity.names, key_type)
                path = _write(f"{folder}/{len(paths)}-{file_name(key_type)}", bundle)
            paths[identity, key_type] = path
    for key_type in _nameless(plan):
        path = f"{folder}/{NAMELESS}-{file_name(key_type)}"
        paths[None, key_type] = _write(path, stand_ins.make((), key_type))
    return Places(paths, _borrowed_answers(plan, store))


def foresee(plan: Plan, store: Store) -> Places:
    """The places that `keep` would give if nobody else came before it, with nothing written.

    An account that isn't there is as in `borrow`.

    Raises:
        StateError: others have all labels of a certificate.
    """
    paths: dict[Place, str] = {}
    taken = set(_readable(store.labels) or ())
    for certificate in plan.certificates:
        identity, names = _identity(certificate), [name.value for name in certificate.names]
        found = _readable(partial(store.find, identity))
        label = found.label if found else store.free_label(identity, names, taken)
        taken.add(label)
        for key_type in certificate.key_types:
            paths[identity, key_type] = store.bundle_path(label, key_type)
    for key_type in _nameless(plan):
        paths[None, key_type] = store.bundle_path(NAMELESS, key_type)
    return Places(paths, _borrowed_answers(plan, store))


def _readable(ask: Callable[[], T | None]) -> T | None:
    """What the store says; None for a user who may not read it."""
    try:
        return ask()
    except StateError:
        return None


def _path_in(store: Store, identity: Identity, key_type: str) -> str | None:
    folder = store.find(identity)
    if folder is None or folder.read(key_type) is None:
        return None
    return folder.bundle_path(key_type)


def _borrowed_answers(plan: Plan, store: Store) -> tuple[Answer, ...]:
    known = known_accounts(plan.issuers, store)
    return borrow_answers(_asked(plan.issuers), plan.whose_hosts, store, known)


def borrow_answers(
    issuers: Iterable[Issuer], hosts: Mapping[str, Issuer], store: Store, known: Known
) -> tuple[Answer, ...]:
    """What nginx says for each account, and nobody's thumbprint where none is known.

    Args:
        issuers: those that are asked by challenges.
        hosts: whose each host is, where any token is answered.
        store: has the folders of their challenges; need not be open for writing.
        known: their accounts.
    """
    return _each_once(
        Answer(name, thumbprint, store.challenges(name), () if n else _hosts(hosts, issuer))
        for issuer in issuers
        for n, (name, thumbprint) in enumerate(known.get(_key(issuer)) or [_nobody(issuer)])
    )


def answers_known(
    certificates: Iterable[Certificate], store: Store, known: Known
) -> tuple[Answer, ...]:
    """The same for certificates, of the accounts that are known."""
    wanted = tuple(certificates)
    issuers = [one for one in dict.fromkeys(x.issuer for x in wanted) if _key(one) in known]
    return borrow_answers(issuers, whose_hosts(wanted), store, known)


def known_accounts(
    issuers: Iterable[Issuer], store: Store
) -> dict[str, tuple[tuple[str, str], ...]]:
    """The accounts that a store has: name and thumbprint of each that is answered for, by issuer.

    To a user who may not read it, it has none.
    """
    found = {}
    for issuer in _asked(issuers):
        account = _readable(partial(find_account, store, issuer))
        if account is not None:
            answered = answers_of(store, account)
            found[_key(issuer)] = tuple((one.name, one.thumbprint) for one in answered)
    return found


def _key(issuer: Issuer) -> str:
    """What makes it the same account."""
    return f"{issuer.directory_url} {issuer.account_key}"


def _nobody(issuer: Issuer) -> tuple[str, str]:
    return f"{variable_of(issuer.name)}_{0:08x}", "A" * 43


def _asked(issuers: Iterable[Issuer]) -> list[Issuer]:
    """Those who look at challenges."""
    return [issuer for issuer in issuers if not issuer.local]


def _hosts(hosts: Mapping[str, Issuer], issuer: Issuer) -> tuple[str, ...]:
    return tuple(host for host, whose in hosts.items() if whose == issuer)


def _each_once(found: Iterable[Answer]) -> tuple[Answer, ...]:
    """Two names of one issuer have one account."""
    each: dict[str, Answer] = {}
    for answer in found:
        before = each.get(answer.name)
        hosts = (*before.hosts, *answer.hosts) if before else answer.hosts
        each[answer.name] = replace(answer, hosts=hosts)
    return tuple(each.values())


def _identity(certificate: Certificate) -> Identity:
    return Identity(*certificate.identity)


def _nameless(plan: Plan) -> Iterator[str]:
    """The key types of servers that no certificate can name."""
    found = {key: None for one in plan.managed if one.identity is None for key in one.key_types}
    return iter(found)


def _place(
    store: Store,
    folder: CertificateFolder,
    key_type: str,
    stand_ins: _StandIns,
    source: Store | None = None,
) -> None:
    """Let nginx have the nearest certificate there is where its own is missing or over.

    Who holds the lock is about to put a better one there, and has placed something before.
    """
    if not _is_wanting(folder, key_type, stand_ins.now):
        return
    held = store.try_lock_certificate(folder)
    if held is None and folder.read(key_type) is not None:
        return
    with held or nullcontext():
        # Whoever had the lock may just have installed one.
        if not _is_wanting(folder, key_type, stand_ins.now):
            return
        nearest = store.nearest(folder.identity, key_type, stand_ins.now)
        if nearest is None and source is not None:
            nearest = _readable(partial(source.nearest, folder.identity, key_type, stand_ins.now))
        if nearest is not None or not _is_standing_in(folder.read(key_type), stand_ins.now):
            bundle = nearest or stand_ins.make(folder.identity.names, key_type)
            folder.place_nearest(key_type, bundle)


def _is_wanting(folder: CertificateFolder, key_type: str, now: datetime) -> bool:
    own = folder.own(key_type)
    return own is None or own.facts.not_after <= now


def _is_standing_in(there: Bundle | None, now: datetime) -> bool:
    """Whether a temporary certificate is there already and still looks like one to serve."""
    return there is not None and there.facts.temporary and there.facts.not_after > now


class _StandIns:
    """Temporary certificates, with one key for all of a type: it protects nothing."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self._keys: dict[str, bytes] = {}

    def make(self, names: Iterable[str], key_type: str) -> Bundle:
        if key_type not in self._keys:
            self._keys[key_type] = new_key(key_type)
        return temporary(names, key_type, self.now, key_pem=self._keys[key_type])


def _write(path: str, bundle: Bundle) -> str:
    disk.make_folder(path.rpartition("/")[0], 0o700)
    disk.replace(path, bundle.pem, mode=0o600, durable=False)
    return path
