"""The text that nginx runs: one folder of `confs` for each case.

A case is a main folder (`nginx.conf` and what it includes; `@root` is `/`) with either
`expected/`, the files of the generation that differ, or `expected.error`. To write `expected/`
anew after a change that was meant: NGINX_ACME_EXPECT=write, then read the diff.
"""

from __future__ import annotations

import glob
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nginx_acme.errors import ConfigError
from nginx_acme.generate import (
    Answer,
    Layout,
    answers_for,
    generate,
    mirrored,
    with_answer,
    with_hosts_of,
)
from nginx_acme.nginx.source import Source, read_source
from nginx_acme.plan import Facts, Identity, make_plan

CONFS = Path(__file__).parent / "confs"
FOLDER = "/etc/nginx"
STATE = f"{FOLDER}/acme"
CASES = sorted(path for path in CONFS.iterdir() if path.is_dir())
WRITE = os.environ.get("NGINX_ACME_EXPECT") == "write"
PUBLIC = f"{STATE}/public/instances/nginx.conf-3f2a"
ANSWER = Answer("letsencrypt_9b1c", "THUMBPRINT", f"{STATE}/public/challenges/letsencrypt_9b1c")


def real(case: Path, path: str) -> Path:
    """Where the file that the configuration calls `path` lies in the repository."""
    path = os.path.normpath(path)
    below = path.removeprefix(f"{FOLDER}/")
    return case / below if below != path else case / f"@root{path}"


def called(case: Path, path: str) -> str:
    """The other way round."""
    root = f"{case}/@root"
    return (
        path.removeprefix(root) if path.startswith(root) else FOLDER + path.removeprefix(f"{case}")
    )


def source_of(case: Path) -> Source:
    """The configuration of a case as if it lay in /etc/nginx."""

    def read(path: str) -> bytes:
        file = real(case, path)
        if not file.is_file():
            raise FileNotFoundError(2, os.strerror(2), path)
        return file.read_bytes()

    def match(pattern: str) -> list[str]:
        return sorted(called(case, found) for found in glob.glob(str(real(case, pattern))))

    return read_source(f"{FOLDER}/nginx.conf", read, match)


def bundle(identity: Identity | None, key_type: str) -> str:
    """A path that shows which certificate is meant."""
    label = "-".join(sorted(identity[1])) if identity else "nameless"
    return f"{STATE}/certificates/{label}/{key_type.replace(':', '-')}.pem"


def generated(case: Path, answers: tuple[Answer, ...] = (ANSWER,)) -> dict[str, str]:
    """The changed files of a case by their path in the generation; the last account has hosts."""
    version = (1, 22, 1) if "old-nginx" in case.name else (1, 30, 0)
    source = source_of(case)
    plan = make_plan(source, Facts(version, "host.example.com"))
    asks_a_ca = any(not issuer.local for issuer in plan.issuers)
    answers = (*answers[:-1], replace(answers[-1], hosts=tuple(plan.whose_hosts)))
    layout = Layout(bundle, answers if asks_a_ca else (), plan.added, PUBLIC)
    return {mirrored(FOLDER, path): text for path, text in generate(source, plan, layout).items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_confs(case: Path) -> None:
    """A configuration becomes exactly the expected text, or exactly the expected message."""
    error = case / "expected.error"
    if error.exists():
        with pytest.raises(ConfigError) as raised:
            generated(case)
        assert str(raised.value) == error.read_text().rstrip("\n")
        return
    files = generated(case)
    expected = case / "expected"
    if WRITE:
        for name, text in files.items():
            (expected / name).parent.mkdir(parents=True, exist_ok=True)
            (expected / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    found = {
        str(path.relative_to(expected)): path.read_bytes().decode("utf-8", "surrogateescape")
        for path in expected.rglob("*")
        if path.is_file()
    }
    assert files == found
    assert files, "a case without a change tests nothing"


@pytest.mark.parametrize(
    "case", [c for c in CASES if (c / "expected").exists()], ids=lambda c: c.name
)
def test_no_line_more_or_less(case: Path) -> None:
    """Every changed file has the user's number of lines, so nginx's line numbers are right."""
    for name, text in generated(case).items():
        user = case / (f"@root{name.removeprefix('.outside')}" if name[0] == "." else name)
        assert text.count("\n") == user.read_bytes().count(b"\n")


def test_two_accounts() -> None:
    """Each account is asked for its own file, so a name may have two issuers at once."""
    source = source_of(CONFS / "one-server-for-both-ports")
    plan = make_plan(source, Facts((1, 30, 0), "host.example.com"))
    other = Answer("corp_77aa", "OTHER", f"{STATE}/public/challenges/corp_77aa")
    (text,) = generate(source, plan, Layout(bundle, (ANSWER, other), plan.added, PUBLIC)).values()
    for answer in (ANSWER, other):
        assert f"map $nginx_acme_token $nginx_acme_file_{answer.name} " in text
        assert text.count(f"return 200 $nginx_acme_token.{answer.thumbprint};") == 1
    assert text.count("map $request_uri") == 1


@pytest.mark.parametrize(
    "case", [c for c in CASES if (c / "expected").exists()], ids=lambda c: c.name
)
def test_one_account_more(case: Path) -> None:
    """What is put into a generated text later is what would have been put there at first."""
    other = Answer("corp_77aa", "OTHER-_0", f"{STATE}/public/challenges/corp 77aa")
    before, after = generated(case), generated(case, (other, ANSWER))
    assert {path: with_answer(text, other) for path, text in before.items()} == after
    answered = any(answers_for(text, ANSWER) for text in before.values())
    assert any(answers_for(text, other) for text in after.values()) == answered
    assert not any(answers_for(text, other) for text in before.values())


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name.startswith("answer-any")], ids=lambda c: c.name
)
def test_another_thumbprint(case: Path) -> None:
    """Where any token is answered, an account can take the place of another one later."""
    plan = make_plan(source_of(case), Facts((1, 30, 0), "host.example.com"))
    other = replace(ANSWER, thumbprint="OTHER-_0", hosts=tuple(plan.whose_hosts))
    before, after = generated(case), generated(case, (other,))
    for path, text in before.items():
        changed = with_hosts_of(text, ANSWER, other)
        assert changed != text
        assert changed.replace(ANSWER.answering, other.answering) == after[path]


def test_long_issuer() -> None:
    """However an issuer is called, nginx finds room for its variable (46 characters)."""
    one, two = (
        Answer(f"my_very_long_internal_corporate_issuer_name_{digit * 8}", "T", STATE)
        for digit in "12"
    )
    assert len(one.variable) == 46
    assert one.variable != two.variable
