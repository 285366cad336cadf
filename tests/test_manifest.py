"""What is kept of a start: when it is believed, and whether its certificates are still those."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import __version__
from nginx_acme.manifest import (
    Manifest,
    Served,
    Sources,
    keep_manifest,
    keep_served,
    kept_manifest,
    kept_served,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def made(**more: object) -> Manifest:
    """A manifest of a start that depended on nothing."""
    fields: dict[str, object] = {
        "generation": "generations/1",
        "sources": Sources({}, {}, settled=True),
        "context": (),
        "added": (),
        "left_out": False,
        "pid_file": "/run/nginx.pid",
        "error_log": "stderr",
        "agent": "{}",
        "warnings": (),
    }
    return Manifest(**(fields | more))  # type: ignore[arg-type]


def as_tuple(it: Manifest) -> tuple[object, ...]:
    """Everything in a manifest, to compare."""
    known, more = (list(states.items()) for states in (it.sources.states, it.sources.more))
    sources = known, more, it.sources.settled
    rest = (getattr(it, name) for name in Manifest.__slots__ if name != "sources")
    return (*sources, *rest)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder."""
    path = tmp_path / "ecdsa-256.pem"
    path.write_text("one")
    return path


# --- certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "usable"), [pytest.param(1001, True, id="good"), pytest.param(1000, False, id="over")]
)
def test_times(file: Path, until: int, usable: bool) -> None:  # noqa: FBT001
    """Certificates are usable until the first of them expires."""
    assert Served({str(file): state_of(str(file))}, until).usable(1000) == usable


@pytest.mark.parametrize(
    "change",
    [lambda file: file.unlink(), lambda file: file.write_text("garbage")],
    ids=["gone", "changed"],
)
def test_certificate_file(file: Path, change: Callable[[Path], object]) -> None:
    """A certificate that is gone or another one is looked at again."""
    served = Served(
        {str(file.parent): state_of(str(file.parent)), str(file): state_of(str(file))}, 9
    )
    assert served.usable(1)
    change(file)
    assert not served.usable(1)


# --- on disk --------------------------------------------------------------------------------


WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from([chr(0xDC00 + byte) for byte in (0x80, 0xFF)])
)
STATES = st.dictionaries(WORDS, WORDS)
MANIFESTS = st.builds(
    Manifest,
    generation=WORDS,
    sources=st.builds(Sources, STATES, STATES, settled=st.booleans()),
    context=st.lists(WORDS),
    added=st.lists(st.tuples(WORDS, st.integers(0, 65535), st.booleans())),
    left_out=st.booleans(),
    pid_file=WORDS,
    error_log=WORDS,
    agent=WORDS,
    warnings=st.lists(WORDS),
)


@given(MANIFESTS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> None:
    """What was written is read, whatever is in paths and arguments."""
    folder = str(tmp_path_factory.getbasetemp())
    keep_manifest(folder, manifest)
    back = kept_manifest(folder)
    assert back is not None
    assert as_tuple(back) == as_tuple(manifest)


@given(STATES, st.integers())
def test_round_trip_served(
    tmp_path_factory: pytest.TempPathFactory, states: dict[str, str], until: int
) -> None:
    """The same for certificates."""
    folder = str(tmp_path_factory.getbasetemp())
    keep_served(folder, Served(states, until))
    back = kept_served(folder)
    assert back is not None
    assert (back.states, back.until) == (states, until)


def test_nothing_is_kept(tmp_path: Path) -> None:
    """Where there is no file, or no folder, there is nothing."""
    assert kept_manifest(str(tmp_path)) is None
    assert kept_served(str(tmp_path / "none")) is None


def test_private(tmp_path: Path) -> None:
    """What an agent is started with, and where everything is, is nobody else's."""
    keep_manifest(str(tmp_path), made())
    assert (tmp_path / "manifest").stat().st_mode & 0o777 == 0o600


def test_cut_off(tmp_path: Path) -> None:
    """A text that is cut off anywhere is no manifest."""
    known = {"/a": "1 2", "/b\n": "3"}
    manifest = made(sources=Sources(known, {}, settled=True), added=[("::", 80, True)])
    keep_manifest(str(tmp_path), manifest)
    path = tmp_path / "manifest"
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert kept_manifest(str(tmp_path)) is None
    path.write_bytes(text)
    assert kept_manifest(str(tmp_path)) is not None


def sealed(text: bytes) -> bytes:
    """A text with its checksum, as if it had been written here."""
    return f"nginx-acme {__version__} {zlib.crc32(text):08x}\n".encode() + text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(f"nginx-acme 0.0 {zlib.crc32(b'0'):08x}\n0".encode(), id="another release's"),
        pytest.param(f"nginx-acme {__version__} 00000000\n0".encode(), id="another checksum"),
        pytest.param(sealed(b""), id="nothing in it"),
        pytest.param(sealed(b"x\x000\x000"), id="no number"),
        pytest.param(sealed(b"1\x009\x009\x000"), id="too few"),
        pytest.param(sealed(b"1\x009\x001\0/a\x000"), id="a path without a state"),
        pytest.param(sealed(b"1\0soon\x000\x000"), id="no time"),
        pytest.param(b'{"json": true}', id="JSON"),
        pytest.param(b"\xff\xfe\0\xff", id="binary"),
    ],
)
def test_broken(tmp_path: Path, text: bytes) -> None:
    """Anything else is nothing."""
    for name in ("manifest", "served"):
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o600)
    assert kept_manifest(str(tmp_path)) is None
    assert kept_served(str(tmp_path)) is None


def test_damaged(tmp_path: Path) -> None:
    """A single bit makes it nothing: an agent that it starts would not run."""
    keep_manifest(str(tmp_path), made(agent='{"lock": "/x"}', added=[("::", 80, True)]))
    path = tmp_path / "manifest"
    text = path.read_bytes()
    for place in range(len(text)):
        path.write_bytes(text[:place] + bytes([text[place] ^ 4]) + text[place + 1 :])
        assert kept_manifest(str(tmp_path)) is None


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_of_others(tmp_path: Path, mode: int) -> None:
    """What another user can have written or may read is nothing: it says what is run."""
    keep_manifest(str(tmp_path), made())
    (tmp_path / "manifest").chmod(mode)
    assert kept_manifest(str(tmp_path)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users(tmp_path: Path) -> None:
    """So is what is another user's."""
    keep_manifest(str(tmp_path), made())
    os.chown(tmp_path / "manifest", 65534, -1)
    assert kept_manifest(str(tmp_path)) is None


@given(st.binary())
def test_garbage(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    """Nothing in the file makes a start fail."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "manifest").write_bytes(garbage)
    (folder / "manifest").chmod(0o600)
    assert kept_manifest(str(folder)) is None
