"""Whom to take for the CA: the system's roots, a file of roots, or anybody.

Never the bundle that comes with a library (httpx brings certifi's): it would trust what the
administrator has taken out, and not what a company has put in, and nobody would notice.
"""

from __future__ import annotations

import os
import ssl

from nginx_acme.errors import Unreachable


def tls_context(trusted_certificate: str | None, *, verify: bool) -> ssl.SSLContext:
    """How the CA's own certificate is verified; Unreachable where there is nothing to do it with.

    Args:
        trusted_certificate: a PEM file of roots; None: the system's
        verify: False: it isn't
    """
    if not verify:
        return _trusting()
    if trusted_certificate is None:
        return _system()
    try:
        return ssl.create_default_context(cafile=trusted_certificate)
    except OSError as error:
        raise Unreachable(f"no certificates to trust in {trusted_certificate}: {error}") from error


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _system() -> ssl.SSLContext:
    """OpenSSL reads a folder of roots only when it needs one, so an empty one is looked for."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if context.cert_store_stats()["x509"] or _is_filled(paths.capath):
        return context
    raise Unreachable(
        f"this system trusts no certificate authority: {paths.openssl_cafile} and"
        f" {paths.openssl_capath} are missing or empty (package ca-certificates)"
    )


def _is_filled(folder: str | None) -> bool:
    try:
        return bool(folder and os.listdir(folder))
    except OSError:
        return False
