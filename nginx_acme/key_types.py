"""Which keys a certificate may have, by name.

Apart from `certificate`, whose library takes 60 ms to import: a configuration is read, and an
empty store found empty, without it.
"""

from __future__ import annotations

KEY_TYPES = ("ecdsa:256", "ecdsa:384", "ecdsa:521", "rsa:2048", "rsa:3072", "rsa:4096")
"""As `key=` and `account_key` call them."""


def file_name(key_type: str) -> str:
    """The name of the file for the bundle with a key of this type ("ecdsa-256.pem")."""
    return key_type.replace(":", "-") + ".pem"
