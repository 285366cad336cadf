"""`nginx-acme account`: what is known of accounts, another key, other contacts, the end; for real."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from typing import TYPE_CHECKING

from nginx_acme.account import key_of
from nginx_acme.store import Store
from tests.launcher import eventually, issuer, requests
from tests.servers import fetch_plain, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from nginx_acme.store import AccountFolder
    from tests.launcher import Silent, Site
    from tests.servers import Pebble

    MakeSite = Callable[..., Site]
    StartPebble = Callable[..., Pebble]


def account(site: Site, ca: Pebble) -> AccountFolder:
    """The account at a CA, as it is now."""
    found = Store(str(site.state)).find_account(ca.directory_url)
    assert found is not None
    return found


def renewed(site: Site, name: str) -> None:
    """A certificate can be renewed, and is served."""
    leaf = site.shown(name).leaf
    answer = site.run("renew", "--force", name)
    assert answer.returncode == 0, answer.stderr
    eventually(lambda: site.verified(name).leaf != leaf)


# --- show -----------------------------------------------------------------------------------


def test_show(make_site: MakeSite, pebble: Pebble) -> None:
    """What is known of an account is shown without a question to the CA; with --ask it is asked."""
    site = make_site(pebble)
    settings = "acme_contact admin@corp.example; acme_agent off;"
    site.configure(site.block("a.example"), settings=settings)
    answer = site.run("account")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "    account     none yet, it is made with the first order" in answer.stdout
    site.start()
    asked, known = requests(pebble), account(site, pebble)
    answer = site.run("account", "show", "pebble")
    assert (answer.returncode, answer.stderr) == (0, "")
    for line in (
        f"pebble  {pebble.directory_url}",
        f"    account     {known.url}",
        "    key         ecdsa:256",
        f"    thumbprint  {key_of(known).thumbprint}",
        "    contacts    mailto:admin@corp.example",
        f"    folder      {known.path}",
    ):
        assert line in answer.stdout.splitlines()
    assert (
        "    terms       data:text/plain,Do%20what%20thou%20wilt, agreed to on 2" in answer.stdout
    )
    assert "PRIVATE" not in answer.stdout
    assert requests(pebble) == asked
    answer = site.run("account", "--ask")
    assert "    at the CA   valid, contacts mailto:admin@corp.example\n" in answer.stdout


def test_show_a_silent_ca(make_site: MakeSite, pebble: Pebble) -> None:
    """What the CA doesn't say is no reason not to show the rest."""
    site = make_site(pebble)
    dead = issuer("dead", f"https://127.0.0.1:{free_port()}/dir", None)
    site.configure(site.block("a.example"), site.block("b.example", "acme dead;"), settings=dead)
    site.start()
    eventually(lambda: site.status()["a.example ecdsa:256"]["state"] == "valid")
    answer = site.run("account", "show", "--ask")
    assert answer.returncode == 0
    assert "    account     not made yet, that is done with the first order" in answer.stdout
    assert "    at the CA   valid" in answer.stdout


def test_no_accounts(make_site: MakeSite) -> None:
    """Where only the issuer `local` is asked there are no accounts."""
    site = make_site()
    site.configure(site.block("site.internal", "acme local;"))
    answer = site.run("account")
    assert (answer.returncode, answer.stdout.count("there are no accounts")) == (0, 1)
    answer = site.run("account", "rollover")
    assert (answer.returncode, answer.stderr.count("there are no accounts")) == (1, 1)


# --- rollover -------------------------------------------------------------------------------


def test_rollover(make_site: MakeSite, each_pebble: Pebble) -> None:
    """The account has another key, which nginx answers for, and stays what it was otherwise."""
    site = make_site(each_pebble)
    site.configure(site.block("a.example"))
    site.start()
    before, accounts = account(site, each_pebble), len(list((site.state / "accounts").iterdir()))
    answer = site.run("account", "rollover")
    assert answer.returncode == 0, answer.stderr
    after = account(site, each_pebble)
    assert (after.url, after.contacts, after.made) == (before.url, before.contacts, before.made)
    assert key_of(after).thumbprint != key_of(before).thumbprint
    assert key_of(after).thumbprint in answer.stderr
    assert before.key_pem not in b"".join(p.read_bytes() for p in site.state.rglob("*.pem"))
    assert len(list((site.state / "accounts").iterdir())) == accounts
    assert "at the CA   valid" in site.run("account", "show", "--ask").stdout
    renewed(site, "a.example")
    assert site.run("-s", "reload").returncode == 0
    text = b"".join(p.read_bytes() for p in (site.instance / "generated").iterdir() if p.is_file())
    assert before.name.encode() not in text, "which was answered for until then"
    renewed(site, "a.example")
    site.stop()
    shutil.rmtree(site.state / "certificates")
    site.start()
    assert site.verified("a.example").body == b"a.example"


def test_rollover_to_the_configured_type(make_site: MakeSite, pebble: Pebble) -> None:
    """The new key is of the type that the configuration wants, also while nginx is down."""
    site = make_site()
    site.http = pebble.http_port
    site.settings = f"acme_http_listen 127.0.0.1:{site.http};"
    kinds = ("ecdsa:256", "rsa:2048")
    old, new = (
        issuer("pebble", pebble.directory_url, pebble.api_root, f"account_key {kind};")
        for kind in kinds
    )
    site.configure(site.block("a.example"), settings=old)
    site.start()
    site.configure(site.block("a.example"), settings=new)
    assert site.run("-s", "reload").returncode == 0
    site.stop()
    answer = site.run("account", "rollover", "pebble")
    assert answer.returncode == 0, answer.stderr
    assert key_of(account(site, pebble)).algorithm == "RS256"
    answer = site.run("renew", "--force", "a.example")
    assert answer.returncode == 0, answer.stderr


def test_rollover_of_a_shared_account(make_site: MakeSite, start_pebble: StartPebble) -> None:
    """Another nginx with the same state answers for the new key before it orders the next time."""
    ca = start_pebble(valid=True)
    one, other = make_site(ca), make_site(ca)
    other.http = free_port()
    for site, name in ((one, "one.example"), (other, "other.example")):
        site.settings = f"acme_http_listen 127.0.0.1:{site.http}; acme_state_path {one.state};"
        site.settings += issuer("pebble", ca.directory_url, ca.api_root)
        site.configure(site.block(name))
        site.start()
    assert one.run("account", "rollover").returncode == 0
    answer = other.run("renew", "--force", "other.example")
    assert answer.returncode == 0, answer.stderr
    generated = list(one.state.glob("instances/*/generated/nginx.conf"))
    assert len(generated) == 2
    name = account(one, ca).name
    assert all(f"$nginx_acme_file_{name}" in path.read_text() for path in generated)


def test_rollover_where_any_token_is_answered(make_site: MakeSite, pebble: Pebble) -> None:
    """It is asked whether that is meant, and then any token is answered with the new key."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), settings="acme_challenge_answer any;")
    site.start()
    answer = site.run("account", "rollover")
    assert (answer.returncode, "other nodes may answer" in answer.stderr) == (1, True)
    answer = site.run("account", "rollover", "--yes")
    assert answer.returncode == 0, answer.stderr
    token = "a-Token_of-22-letters0"  # noqa: S105 - no secret
    body = f"{token}.{key_of(account(site, pebble)).thumbprint}".encode()
    path = f"/.well-known/acme-challenge/{token}"
    assert fetch_plain(site.http, "a.example", path=path).body == body
    renewed(site, "a.example")


def test_rollover_while_certificates_are_got(
    make_site: MakeSite, pebble: Pebble, silent: Silent
) -> None:
    """It waits for nobody's order, and says whose it would have to wait for."""
    site = make_site(pebble)
    declared = issuer("elsewhere", silent.url, None) + "acme_start_wait 0; acme_agent off;"
    site.configure(
        site.block("a.example"), site.block("b.example", "acme elsewhere;"), settings=declared
    )
    site.start()
    renewing = subprocess.Popen(site.argv("renew"), env=site.environ, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: silent.connections)
        eventually(lambda: account(site, pebble).url)
        answer = site.run("account", "rollover", "pebble")
        assert answer.returncode == 1
        assert f"certificates are asked for by process {renewing.pid} on" in answer.stderr
        assert account(site, pebble).following() is None
    finally:
        renewing.kill()
        renewing.wait()


# --- contacts -------------------------------------------------------------------------------


def test_contacts(make_site: MakeSite, pebble: Pebble) -> None:
    """Contacts that have changed are told with the next order, or at once by the command."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), settings="acme_contact a@corp.example;")
    site.start()
    site.configure(site.block("a.example"), settings="acme_contact b@corp.example;")
    assert site.run("-s", "reload").returncode == 0
    shown = site.run("account").stdout
    assert "    contacts    mailto:a@corp.example\n" in shown
    assert "to be: mailto:b@corp.example; told with the next order" in shown
    answer = site.run("account", "update-contact")
    assert answer.returncode == 0, answer.stderr
    assert "pebble: contacts are now mailto:b@corp.example" in answer.stderr
    ask = ("account", "show", "--ask")
    assert "at the CA   valid, contacts mailto:b@corp.example" in site.run(*ask).stdout
    answer = site.run("account", "update-contact", "pebble", "c@corp.example", "d@corp.example")
    assert answer.returncode == 0, answer.stderr
    renewed(site, "a.example")
    shown = site.run(*ask).stdout
    assert "contacts mailto:c@corp.example, mailto:d@corp.example" in shown
    assert "to be" not in shown
    answer = site.run("account", "update-contact", "e@corp.example")
    assert answer.returncode == 0, answer.stderr
    site.configure(site.block("a.example"))
    assert site.run("-s", "reload").returncode == 0
    renewed(site, "a.example")
    assert "at the CA   valid, it shows no contacts" in site.run(*ask).stdout


def test_contact_that_is_not_taken(make_site: MakeSite, pebble: Pebble) -> None:
    """What the CA refuses is told in its words, and the contacts stay."""
    site = make_site(pebble)
    site.configure(site.block("a.example"), settings="acme_contact a@corp.example;")
    site.start()
    answer = site.run("account", "update-contact", "tel:+4912345")
    assert answer.returncode == 1
    assert "(unsupportedContact)" in answer.stderr
    assert account(site, pebble).contacts == ("mailto:a@corp.example",)


# --- the end --------------------------------------------------------------------------------


def test_deactivate(make_site: MakeSite, pebble: Pebble) -> None:
    """A closed account is set aside; what is served stays, and a reload makes another account."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    before = account(site, pebble)
    answer = site.run("account", "deactivate", "--yes")
    assert answer.returncode == 0, answer.stderr
    assert f"account {before.url} is closed" in answer.stderr
    assert site.verified("a.example").body == b"a.example"
    assert not os.path.exists(before.path)
    answer = site.run("renew", "--force", "a.example")
    assert answer.returncode == 1
    assert "reload nginx to get another one" in answer.stderr
    answer = site.run("account", "deactivate", "--yes")
    assert (answer.returncode, "there is no account at pebble yet" in answer.stderr) == (1, True)
    assert site.run("-s", "reload").returncode == 0
    renewed(site, "a.example")
    assert account(site, pebble).url != before.url


def test_deactivated_before(make_site: MakeSite, pebble: Pebble) -> None:
    """An account that the CA has closed already is set aside all the same."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    before = account(site, pebble)
    backup = shutil.copytree(before.path, site.folder / "backup")
    assert site.run("account", "deactivate", "--yes").returncode == 0
    for aside in site.state.glob("accounts/*.deactivated-*"):  # it bears the second
        shutil.rmtree(aside)
    shutil.copytree(backup, before.path)
    answer = site.run("account", "deactivate", "--yes")
    assert answer.returncode == 0, answer.stderr
    assert "is of no use any more" in answer.stderr
    assert not os.path.exists(before.path)


def test_deactivate_only_if_meant(make_site: MakeSite, pebble: Pebble) -> None:
    """In a terminal it is asked, and anything but yes changes nothing; elsewhere --yes is needed."""
    site = make_site(pebble)
    site.configure(site.block("a.example"))
    site.start()
    known = account(site, pebble)
    answer = site.run("account", "deactivate")
    assert (answer.returncode, "add --yes" in answer.stderr) == (1, True)
    for said, code in (("no", 1), ("yes", 0)):
        assert os.path.exists(known.path)
        mine, theirs = pty.openpty()
        asked = subprocess.Popen(
            site.argv("account", "deactivate"),
            env=site.environ,
            stdin=theirs,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)
        os.write(mine, f"{said}\n".encode())
        _, words = asked.communicate(timeout=60)
        os.close(mine)
        assert asked.returncode == code, words
        assert f"Close the account {known.url} at pebble for good?" in words
    assert not os.path.exists(known.path)


# --- mistakes -------------------------------------------------------------------------------

MISTAKES = {
    ("account", "shwo"): 'unknown word "shwo", did you mean "show"?',
    ("account", "show", "peble"): 'is wanted from issuer "peble", did you mean "pebble"?',
    ("account", "rollover"): "there are several issuers, say which: pebble, mine",
    ("account", "rollover", "mine"): 'the key of "mine" is your file "/',
    ("account", "rollover", "pebble"): "there is no account at pebble yet",
    (
        "account",
        "update-contact",
        "pebble",
        "nobody",
    ): 'invalid contact "nobody", "mailto:NAME@HOST"',
    ("account", "update-contact", "a@b@c"): "there are several issuers, say which: pebble, mine",
    ("account", "deactivate", "corp", "--yes"): 'is wanted from issuer "corp", there is pebble, m',
}


def test_mistakes(make_site: MakeSite, silent: Silent) -> None:
    """What can't be meant is said in one line, and nobody is asked."""
    site = make_site()
    key = site.folder / "account.pem"
    subprocess.run(
        ("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(key)),
        check=True,
    )
    declared = "acme_start_wait 0; acme_agent off;" + issuer("pebble", silent.url, None)
    declared += issuer("mine", f"{silent.url}/mine", None, "account_key account.pem;")
    site.configure(
        site.block("a.example"),
        site.block("b.example", "acme mine;"),
        settings=declared,
    )
    site.start()
    for arguments, words in MISTAKES.items():
        answer = site.run(*arguments)
        assert answer.returncode == 1, arguments
        (line,) = answer.stderr.splitlines()
        assert words in line
    assert not silent.connections
    site.configure(site.block("a.example"), settings=f"{declared} acme_issue off;")
    assert site.run("-s", "reload").returncode == 0
    answer = site.run("account", "deactivate", "pebble", "--yes")
    assert (answer.returncode, '"acme_issue" is off' in answer.stderr) == (1, True)
    assert not silent.connections
