"""Whom certificates are asked from: the built-in issuers and the `acme_issuer` blocks."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nginx_acme import directives
from nginx_acme.acme import presets
from nginx_acme.acme.presets import BUILT_IN, LOCAL
from nginx_acme.directives import IssuerBlock, Mistake
from nginx_acme.key_types import KEY_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nginx_acme.directives import Acme
    from nginx_acme.nginx.syntax import Directive
    from nginx_acme.plan.said import Said

DEFAULT_ISSUER = "letsencrypt"
DEFAULT_KEY = "ecdsa:256"


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whom to ask, and as whom: `name` is the configuration's, `directory_url` the identity."""

    name: str
    directory_url: str
    public: bool
    contacts: tuple[str, ...] = ()
    account_key: str = DEFAULT_KEY
    trusted_certificate: str | None = None
    verify: bool = True
    accept_terms: bool = False
    profile: str | None = None
    profile_required: bool = False
    all_names: bool = False
    """Whether no certificate is better than one without a dead name."""
    renew_before: float | None = None
    """Seconds before the end, in place of the CA's advice and the rule of thirds."""
    staging: str | None = None
    """The directory URL where orders can be rehearsed."""

    @property
    def local(self) -> bool:
        """Whether this is the certificate authority in the state directory."""
        return self.directory_url == LOCAL

    def twin(self) -> Issuer | None:
        """The issuer where orders to this one can be rehearsed, by nobody else's account.

        None where none is known.
        """
        url = self.staging or presets.staging(self.directory_url)
        if url is None:
            return None
        if url == self.directory_url:
            return self
        built_in = (name for name, preset in BUILT_IN.items() if preset.directory_url == url)
        return replace(
            self,
            name=next(built_in, f"{self.name}-staging"),
            directory_url=url,
            # RFC 8555 §11.1: a key for each account.
            account_key=self.account_key if self.account_key in KEY_TYPES else DEFAULT_KEY,
        )


def read_issuers(said: Said) -> dict[str, Issuer]:
    """Built-in issuers, then the `acme_issuer` blocks, which may add to a built-in one."""
    contacts: tuple[str, ...] = ()
    if contact := said.once("acme_contact"):
        with said.at(contact):
            contacts = directives.contacts(contact.args)
    issuers = {
        name: Issuer(name, preset.directory_url, preset.public, contacts, accept_terms=True)
        for name, preset in BUILT_IN.items()
    }
    declared: set[str] = set()
    for directive in said.named.get("acme_issuer", ()):
        name = directive.args[0]
        if name in declared:
            raise said.error(directive, f'duplicate issuer "{name}"')
        declared.add(name)
        issuers[name] = _declared(said, directive, issuers.get(name), contacts)
    return issuers


def asked_by(acme: Acme, issuers: Mapping[str, Issuer]) -> Issuer:
    """The issuer that an `acme` names, or the default one.

    Raises:
        Mistake: nobody has declared it.
    """
    if not acme.issuers:
        return issuers.get("default", issuers[DEFAULT_ISSUER])
    name = acme.issuers[0]
    if name not in issuers:
        raise Mistake(f'issuer "{name}" is missing{directives.nearest(name, issuers)}')
    return issuers[name]


def _declared(
    said: Said, directive: Directive, known: Issuer | None, contacts: tuple[str, ...]
) -> Issuer:
    """The issuer of one block; `known` is the built-in one of its name."""
    block = IssuerBlock()
    for inner in said.source.expand(directive.block or ()):
        with said.at(inner):
            block = directives.issuer_directive(block, inner)
    name, folder = directive.args[0], said.source.folder
    if block.uri is None and known is None:
        raise said.error(directive, f'"uri" is missing in issuer "{name}"')
    if known is not None and known.local and block.said - {"contact"}:
        raise said.error(directive, f'issuer "{name}" asks nobody, there is nothing to declare')
    same = known is not None and block.uri in {None, known.directory_url}
    key, trusted = block.account_key or DEFAULT_KEY, block.trusted_certificate
    return Issuer(
        name=name,
        directory_url=block.uri or (known.directory_url if known else ""),
        public=same and known is not None and known.public,
        contacts=block.contacts or contacts,
        account_key=key if key in KEY_TYPES else posixpath.join(folder, key),
        trusted_certificate=trusted and posixpath.join(folder, trusted),
        verify=block.verify,
        accept_terms=block.accept_terms or same,
        profile=block.profile,
        profile_required=block.profile_required,
        all_names=block.all_names,
        renew_before=block.renew_before,
        staging=block.staging,
    )
