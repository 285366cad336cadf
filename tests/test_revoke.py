"""`nginx-acme revoke`: the next certificate first, then the end of the old one; on real servers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nginx_acme.store import Store
from tests.launcher import eventually, issuer, requests
from tests.servers import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509

    from nginx_acme.store import CertificateFolder
    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]

NOBODY = "127.0.0.9"
UNSPECIFIED, KEY_COMPROMISE, SUPERSEDED, CESSATION = 0, 1, 4, 5


def reason(ca: Pebble, leaf: x509.Certificate) -> object:
    """Why the CA has revoked a certificate; None: it hasn't."""
    status = ca.status_of(leaf)
    return status.get("Reason", UNSPECIFIED) if status["Status"] == "Revoked" else None


def folder_of(site: Site, label: str) -> CertificateFolder:
    """A certificate's folder, as it is now."""
    (found,) = (one for one in Store(str(site.state)).folders() if one.label == label)
    return found


def other_than(site: Site, name: str, old: x509.Certificate) -> x509.Certificate:
    """What nginx serves when that is another certificate, with another key."""
    eventually(lambda: site.verified(name).leaf != old)
    new = site.verified(name).leaf
    assert new.public_key() != old.public_key()
    return new


def test_revoke(make_site: MakeSite, each_pebble: Pebble) -> None:
    """Another certificate with another key is served, then the old one is revoked."""
    site = make_site(each_pebble)
    site.configure(site.block("a.example www.a.example"), site.block("b.example"))
    site.start()
    old, other = (site.shown(name).leaf for name in ("a.example", "b.example"))
    answer = site.run("revoke", "WWW.a.example", "--reason", "superseded")
    assert answer.returncode == 0, answer.stderr
    said = answer.stderr.index("nginx reloaded for a.example")
    words = f"a.example: the ecdsa:256 certificate {old.serial_number:x} is revoked (superseded)"
    assert answer.stderr.index(words) > said
    new = other_than(site, "a.example", old)
    assert (reason(each_pebble, old), reason(each_pebble, new)) == (SUPERSEDED, None)
    assert site.shown("b.example").leaf == other
    folder = folder_of(site, "a.example")
    assert folder.previous("ecdsa:256") is None
    assert folder.revocations.under_way() == ()
    assert site.run("revoke", "a.example").returncode == 0
    assert reason(each_pebble, new) == UNSPECIFIED


def test_all_key_types(make_site: MakeSite, pebble: Pebble) -> None:
    """Each key type has a certificate of its own, and all of them are replaced and revoked."""
    site = make_site(pebble)
    site.configure(site.block("two.example", "acme pebble key=ecdsa:256 key=rsa:2048;"))
    site.start()
    eventually(lambda: {row["state"] for row in site.status().values()} == {"valid"})
    before = {key: folder_of(site, "two.example").own(key) for key in ("ecdsa:256", "rsa:2048")}
    answer = site.run("revoke", "two.example")
    assert answer.returncode == 0, answer.stderr
    folder = folder_of(site, "two.example")
    for key_type, bundle in before.items():
        assert bundle is not None
        assert f"the {key_type} certificate {bundle.facts.serial:x} is revoked" in answer.stderr
        assert bundle in folder.revocations
        assert folder.own(key_type) not in {None, bundle}


# --- the key is known to others -------------------------------------------------------------


def test_compromised_key(make_site: MakeSite, pebble: Pebble) -> None:
    """It is revoked at once, then replaced, and nothing brings it back."""
    site = make_site(pebble)
    site.configure(site.block("stolen.example"))
    site.start()
    old = site.shown("stolen.example").leaf
    answer = site.run("revoke", "stolen.example", "--reason", "keyCompromise")
    assert answer.returncode == 0, answer.stderr
    said = answer.stderr.index("is revoked (keyCompromise)")
    assert answer.stderr.index("nginx reloaded for stolen.example") > said
    other_than(site, "stolen.example", old)
    assert reason(pebble, old) == KEY_COMPROMISE
    kept = b"".join(path.read_bytes() for path in site.state.rglob("*.pem"))
    assert site.shown("stolen.example").leaf != old
    assert folder_of(site, "stolen.example").previous("ecdsa:256") is None
    assert old.public_bytes(Encoding.PEM) not in kept


def test_compromised_key_and_no_other_certificate(
    make_site: MakeSite, start_pebble: StartPebble
) -> None:
    """It is revoked all the same, `status` says so, and the next run replaces it."""
    ca = start_pebble(authz_reuse=0)
    site = make_site(ca)
    site.configure(site.block("a.example"), site.block("b.example"))
    site.start()
    old = {name: site.shown(name).leaf for name in ("a.example", "b.example")}
    for name, leaf in old.items():
        ca.set_addresses(name, NOBODY)
        answer = site.run("revoke", name, "--reason", "keyCompromise")
        assert answer.returncode == 1
        assert "is revoked (keyCompromise)" in answer.stderr
        assert reason(ca, leaf) == KEY_COMPROMISE
        assert site.shown(name).leaf == leaf
        row = site.status()[f"{name} ecdsa:256"]
        assert (row["state"], row["failures"]) == ("revoked", 1)
    ca.set_addresses("a.example", LOCALHOST)
    answer = site.run("revoke", "a.example", "--reason", "keyCompromise")
    assert answer.returncode == 0, answer.stderr
    other_than(site, "a.example", old["a.example"])
    site.stop()
    site.start()
    assert site.status()["b.example ecdsa:256"]["state"] == "temporary", "not the revoked one"


# --- what goes wrong ------------------------------------------------------------------------


def test_no_other_certificate(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Where there is no new one nothing is revoked; the next run goes on."""
    ca = start_pebble(authz_reuse=0)
    site = make_site(ca)
    site.configure(site.block("a.example"))
    site.start()
    old = site.shown("a.example").leaf
    ca.set_addresses("a.example", NOBODY)
    answer = site.run("revoke", "a.example", "--reason", "cessationOfOperation")
    assert answer.returncode == 1
    assert "a.example: nothing is revoked, run it again" in answer.stderr
    assert reason(ca, old) is None
    assert site.verified("a.example").leaf == old
    ca.set_addresses("a.example", LOCALHOST)
    answer = site.run("revoke", "a.example")
    assert answer.returncode == 0, answer.stderr
    assert "a.example: goes on with what was begun before" in answer.stderr
    other_than(site, "a.example", old)
    assert reason(ca, old) == CESSATION, "which was said at first"


def left_under_way(site: Site, name: str, reason: str) -> tuple[x509.Certificate, x509.Certificate]:
    """What was to be revoked by who was killed then, and what has come since."""
    old = site.shown(name).leaf
    bundle = folder_of(site, name).own("ecdsa:256")
    assert bundle is not None
    assert site.run("renew", "--force", name).returncode == 0
    new = other_than(site, name, old)
    store = Store(str(site.state))
    store.open_for_writing()
    (folder,) = (one for one in store.folders() if one.label == name)
    folder.begin_revocation([bundle], reason)
    return old, new


def test_another_key_is_known_to_others(make_site: MakeSite, pebble: Pebble) -> None:
    """That an earlier revocation is still under way keeps the key in service from no end."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    old, new = left_under_way(site, "a.example", "keyCompromise")
    answer = site.run("revoke", "a.example", "--reason", "keyCompromise")
    assert answer.returncode == 0, answer.stderr
    assert other_than(site, "a.example", new) != old
    assert (reason(pebble, old), reason(pebble, new)) == (KEY_COMPROMISE, KEY_COMPROMISE)


@pytest.mark.parametrize("said", [(), ("--reason", "superseded")])
def test_the_same_again(make_site: MakeSite, pebble: Pebble, said: tuple[str, ...]) -> None:
    """Whoever says the same again ends what was begun, and nothing that has come since."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    old, new = left_under_way(site, "a.example", "superseded")
    answer = site.run("revoke", "a.example", *said)
    assert answer.returncode == 0, answer.stderr
    assert "goes on with what was begun before; what has come since stays" in answer.stderr
    assert (reason(pebble, old), reason(pebble, new)) == (SUPERSEDED, None)
    assert site.shown("a.example").leaf == new


def test_lost_account(make_site: MakeSite, pebble: Pebble) -> None:
    """Where the CA knows another account only, the certificate's own key revokes it."""
    site = make_site(pebble)
    site.configure(site.block("lost.example"))
    site.start()
    old = site.shown("lost.example").leaf
    shutil.rmtree(site.state / "accounts")
    assert site.run("-s", "reload").returncode == 0
    answer = site.run("revoke", "lost.example")
    assert answer.returncode == 0, answer.stderr
    other_than(site, "lost.example", old)
    assert reason(pebble, old) is not None


def test_already_revoked(make_site: MakeSite, pebble: Pebble) -> None:
    """One that the CA has revoked by itself is replaced, and that is all."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    old = site.shown("a.example").leaf
    before = shutil.copytree(site.state / "certificates", site.folder / "backup")
    assert site.run("revoke", "a.example").returncode == 0
    shutil.rmtree(site.state / "certificates")
    shutil.copytree(before, site.state / "certificates")
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: site.shown("a.example").leaf == old)
    answer = site.run("revoke", "a.example")
    assert answer.returncode == 0, answer.stderr
    other_than(site, "a.example", old)


def test_stand_ins(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Servers in whose place the revoked certificate was shown get another one at once."""
    ca = start_pebble(blocked=["waiting.example"])
    site = make_site(ca)
    site.configure(site.block("a.example"))
    site.start()
    old = site.shown("a.example").leaf
    whole = issuer("whole", ca.directory_url, ca.api_root, "all_names on;")
    waiting = site.block("waiting.example a.example", "acme whole;")
    site.configure(site.block("a.example"), waiting, settings=whole)
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: site.shown("waiting.example").leaf == old)
    answer = site.run("revoke", "a.example")
    assert answer.returncode == 0, answer.stderr
    new = other_than(site, "a.example", old)
    eventually(lambda: site.shown("waiting.example").leaf == new)


# --- which one ------------------------------------------------------------------------------


def test_nothing_uses_it(make_site: MakeSite, pebble: Pebble) -> None:
    """A certificate whose server is gone is revoked by its label, and not replaced."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), site.block("gone.example"))
    site.start()
    old = site.shown("gone.example").leaf
    site.configure(site.block("a.example"))
    assert site.run("-s", "reload").returncode == 0
    asked = requests(pebble)
    answer = site.run("revoke", "gone.example", "--reason", "cessationOfOperation")
    assert answer.returncode == 0, answer.stderr
    assert "gone.example: nothing uses it, it is not replaced" in answer.stderr
    assert reason(pebble, old) == CESSATION
    assert (requests(pebble) - asked)["POST /order-plz"] == 0


def test_earlier_names(make_site: MakeSite, pebble: Pebble) -> None:
    """A name means the certificate that is used; that there is an earlier one is told."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    old = site.shown("a.example").leaf
    site.configure(site.block("a.example b.example"))
    assert site.run("-s", "reload").returncode == 0
    eventually(lambda: site.shown("b.example").leaf != old)
    used = site.shown("b.example").leaf
    answer = site.run("revoke", "a.example")
    assert answer.returncode == 0, answer.stderr
    assert (reason(pebble, used), reason(pebble, old)) == (UNSPECIFIED, None)
    path = site.state / "certificates" / "a.example"
    assert f'has the name a.example, too: revoke it by "{path}"' in answer.stderr
    answer = site.run("revoke", str(path))
    assert answer.returncode == 0, answer.stderr
    assert reason(pebble, old) == UNSPECIFIED


def test_several(make_site: MakeSite, pebble: Pebble, start_pebble: StartPebble) -> None:
    """A name of several certificates says too little; a label, or a folder, says which."""
    ca = start_pebble(http_port=pebble.http_port)
    site = make_site(pebble)
    declared = issuer("corp", ca.directory_url, ca.api_root)
    site.configure(
        site.block("one.example both.example"),
        site.block("two.example both.example", "acme corp;"),
        settings=declared,
    )
    site.start()
    eventually(lambda: {row["state"] for row in site.status().values()} == {"valid"})
    answer = site.run("revoke", "both.example")
    assert answer.returncode == 1
    assert "several certificates have the name both.example, say which: one" in answer.stderr
    old = site.shown("two.example").leaf
    answer = site.run("revoke", str(site.state / "certificates" / "two.example"))
    assert answer.returncode == 0, answer.stderr
    assert reason(ca, old) == UNSPECIFIED


def test_local(make_site: MakeSite) -> None:
    """The issuer in the state directory has no revocation; the certificate is replaced."""
    site = make_site()
    site.configure(site.block("site.internal", "acme local;"))
    site.start()
    old = site.shown("site.internal").leaf
    answer = site.run("revoke", "site.internal")
    assert answer.returncode == 0, answer.stderr
    assert 'the issuer "local" has no revocation' in answer.stderr
    eventually(lambda: site.shown("site.internal").leaf != old)


MISTAKES = {
    ("a.exmaple",): 'has the name or label a.exmaple, did you mean "a.example"?',
    ("a.example", "--reason", "superceded"): 'did you mean "superseded"?',
    ("a.example", "--reason", "1"): 'unknown reason "1", there are unspecified, keyCompromise, aff',
    ("/etc",): "no certificate has the name or label /etc",
    ("",): "no certificate has the name or label",
    ("a.example",): "a.example has no certificate yet",
}


def test_mistakes(make_site: MakeSite, silent: Silent) -> None:
    """What can't be meant is said in one line, and nobody is asked."""
    site = make_site()
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0; acme_agent off;"
    site.configure(site.block("a.example", "acme elsewhere;"), settings=declared)
    site.start()
    asked = len(silent.connections)
    for arguments, words in MISTAKES.items():
        answer = site.run("revoke", *arguments)
        assert answer.returncode == 1
        (line,) = answer.stderr.splitlines()
        assert words in line
    assert len(silent.connections) == asked


def test_not_here(make_site: MakeSite, pebble: Pebble) -> None:
    """A node that asks no CA revokes nothing, and says where that is done."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    site.configure(site.block("a.example"), settings="acme_issue off;")
    assert site.run("-s", "reload").returncode == 0
    answer = site.run("revoke", "a.example")
    assert answer.returncode == 1
    assert '"acme_issue" is off' in answer.stderr
