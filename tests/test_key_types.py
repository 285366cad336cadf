"""The names of keys."""

from __future__ import annotations

from nginx_acme.key_types import KEY_TYPES, file_name


def test_file_names() -> None:
    """The paths that a generated config names never change."""
    assert [file_name(key_type) for key_type in KEY_TYPES] == [
        *("ecdsa-256.pem", "ecdsa-384.pem", "ecdsa-521.pem"),
        *("rsa-2048.pem", "rsa-3072.pem", "rsa-4096.pem"),
    ]
