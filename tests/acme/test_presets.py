"""The table of built-in issuers."""

from __future__ import annotations

import pytest

from nginx_acme.acme.presets import (
    BUILT_IN,
    LETSENCRYPT,
    LETSENCRYPT_STAGING,
    LOCAL,
    UNLIMITED,
    Bucket,
    Limits,
    Rates,
    caa_identities,
    limits,
    rates,
)


def test_public() -> None:
    """What is public leaves names out that no public CA can certify; `local` leaves out nothing."""
    assert {name: preset.public for name, preset in BUILT_IN.items()} == {
        "letsencrypt": True,
        "letsencrypt-staging": True,
        "local": False,
    }


@pytest.mark.parametrize(
    ("url", "profile", "expected"),
    [
        pytest.param(LETSENCRYPT, None, Limits(100, ip=False), id="no profile is classic"),
        pytest.param(LETSENCRYPT, "classic", Limits(100, ip=False), id="classic"),
        pytest.param(LETSENCRYPT, "tlsserver", Limits(25, ip=False), id="tlsserver"),
        pytest.param(LETSENCRYPT, "shortlived", Limits(25, ip=True), id="shortlived"),
        pytest.param(LETSENCRYPT, "mtc", Limits(100, ip=False), id="a profile of tomorrow"),
        pytest.param(LETSENCRYPT_STAGING, "shortlived", Limits(25, ip=True), id="staging"),
        pytest.param(LOCAL, None, UNLIMITED, id="local"),
        pytest.param("https://ca.corp.example/acme", "tlsserver", UNLIMITED, id="private CA"),
    ],
)
def test_limits(url: str, profile: str | None, expected: Limits) -> None:
    """Limits are those of the CA behind the URL, by profile."""
    assert limits(url, profile) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(LETSENCRYPT, Rates(Bucket(300, 36.0), Bucket(50, 12096.0)), id="letsencrypt"),
        pytest.param(LETSENCRYPT_STAGING, Rates(Bucket(1500, 7.2), None), id="staging"),
        pytest.param(LOCAL, None, id="local"),
        pytest.param("https://ca.corp.example/acme", None, id="private CA"),
    ],
)
def test_rates(url: str, expected: Rates | None) -> None:
    """Only of a CA that publishes its limits is known how fast it takes orders."""
    assert rates(url) == expected


def test_rates_as_published() -> None:
    """300 orders of an account in three hours, 50 certificates of a registered name in a week."""
    published = rates(LETSENCRYPT)
    assert published is not None
    assert published.registered_name is not None
    assert published.account.orders * published.account.seconds == 3 * 3600
    assert published.registered_name.orders * published.registered_name.seconds == 7 * 86400


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(LETSENCRYPT, ("letsencrypt.org",), id="Let's Encrypt"),
        pytest.param(LETSENCRYPT_STAGING, ("letsencrypt.org",), id="its staging"),
        pytest.param("https://ca.example/dir", (), id="another"),
    ],
)
def test_caa(url: str, expected: tuple[str, ...]) -> None:
    """The names of a built-in CA in CAA records are known; those of others only by themselves."""
    assert caa_identities(url) == expected
