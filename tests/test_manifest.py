"""Whether anything changed since the last start, without reading anything again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme import manifest
from nginx_acme.manifest import Manifest, Served, Sources, decode, encode, state_of
from tests.servers import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

LATER = time.time_ns() + 60 * 10**9
"""A time at which every file of a test has been left alone for long."""

CONTEXT = {"argv": "-g\ndaemon off;", "uid": "0"}


def made(**more: object) -> Manifest:
    """A manifest of a start that depended on nothing."""
    fields: dict[str, object] = {
        "context": CONTEXT,
        "states": {},
        "settled": True,
        "added": (),
        "certificates": (),
        "result": {},
    }
    return Manifest(**(fields | more))  # type: ignore[arg-type]


def of(*paths: Path) -> Manifest:
    """A manifest of a start that read these."""
    sources = Sources(LATER)
    for path in paths:
        sources.note(str(path))
    return made(states=sources.states, settled=sources.settled)


def as_tuple(it: Manifest) -> tuple[object, ...]:
    """Everything in a manifest, to compare."""
    served = [(c.path, c.state, c.not_after, c.renewal) for c in it.certificates]
    return it.context, it.states, it.settled, it.added, served, it.result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder, beside a link to it."""
    path = tmp_path / "nginx.conf"
    path.write_text("one")
    (tmp_path / "link").symlink_to("nginx.conf")
    return path


def edit_without_a_trace(file: Path) -> None:
    """Another content of the same size, with the old mtime."""
    before = file.stat()

    def edited() -> bool:
        file.write_text("two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return file.stat().st_ctime_ns != before.st_ctime_ns

    wait_for(edited, what="the next tick of the file system's clock")
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replace(file: Path) -> None:
    """Another file at its path, as editors do it."""
    (file.parent.parent / "new").write_text("one")
    (file.parent.parent / "new").rename(file)


class TestUnchanged:
    """Whether the world is as it was."""

    def test_nothing_changed(self, file: Path) -> None:
        """Files, folders, links and what is absent stay unchanged while nobody touches them."""
        kept = of(file, file.parent, file.parent / "link", file / "x", file.parent / "none")
        assert kept.unchanged(CONTEXT)
        file.read_text()
        assert kept.unchanged(CONTEXT)

    @pytest.mark.parametrize(
        ("change", "looked_at"),
        [
            pytest.param(lambda file: file.write_text("longer"), "nginx.conf", id="edited"),
            pytest.param(edit_without_a_trace, "nginx.conf", id="same size and mtime"),
            pytest.param(replace, "nginx.conf", id="replaced"),
            pytest.param(lambda file: file.unlink(), "nginx.conf", id="gone"),
            pytest.param(lambda file: file.write_text("longer"), "link", id="edited, by a link"),
            pytest.param(lambda file: file.with_name("none").touch(), "none", id="come"),
            pytest.param(lambda file: file.with_name("x").touch(), ".", id="new in the folder"),
            pytest.param(lambda file: file.unlink(), ".", id="gone from the folder"),
        ],
    )
    def test_changed(self, file: Path, change: Callable[[Path], object], looked_at: str) -> None:
        """Whatever is done to a file or folder is a change."""
        path = file.parent / looked_at
        folder_before = file.parent.stat().st_mtime_ns
        kept = of(path)
        change(file)
        if looked_at == ".":
            wait_for(lambda: touch_again(file.parent, folder_before), what="the clock's next tick")
        assert not kept.unchanged(CONTEXT)

    @pytest.mark.parametrize(
        "context", [{}, CONTEXT | {"uid": "1"}, CONTEXT | {"more": ""}, {"uid": "0"}]
    )
    def test_context(self, context: dict[str, str]) -> None:
        """Another argv, user or host is a change."""
        assert made().unchanged(dict(CONTEXT))
        assert not made().unchanged(context)

    @pytest.mark.parametrize(
        ("seconds", "settled"),
        [
            pytest.param(0, False, id="now"),
            pytest.param(1.9, False, id="just before"),
            pytest.param(-5, False, id="in the future"),
            pytest.param(2.1, True, id="before"),
        ],
    )
    def test_just_changed(self, file: Path, seconds: float, settled: bool) -> None:  # noqa: FBT001
        """A file that changed within the last two seconds may change again unseen."""
        os.utime(file, (1, 1))  # as a package manager sets it; ctime is what counts
        sources = Sources(file.stat().st_ctime_ns + int(seconds * 1e9))
        sources.note(str(file))
        kept = made(states=sources.states, settled=sources.settled)
        assert kept.unchanged(CONTEXT) == settled

    def test_first_look_counts(self, file: Path) -> None:
        """A file that changes between two looks of one start looks changed to the next."""
        sources = Sources(LATER)
        sources.note(str(file))
        file.write_text("longer")
        sources.note(str(file))
        assert not made(states=sources.states).unchanged(CONTEXT)


def touch_again(folder: Path, before: int) -> bool:
    """Make and remove entries until the folder's time is another one."""
    (folder / "again").touch()
    (folder / "again").unlink()
    return folder.stat().st_mtime_ns != before


class TestUsable:
    """Whether the certificates are good."""

    @pytest.mark.parametrize(
        ("not_after", "renewal", "usable"),
        [
            pytest.param(2000, 1500, True, id="good"),
            pytest.param(2000, 500, True, id="good, and due"),
            pytest.param(1000, 500, False, id="expired now"),
            pytest.param(2000, 0, False, id="only for the time being"),
        ],
    )
    def test_times(self, file: Path, not_after: int, renewal: int, usable: bool) -> None:  # noqa: FBT001
        """A certificate is usable until it expires, if it is one to stay."""
        served = Served(str(file), state_of(str(file)), not_after, renewal)
        assert made(certificates=[served]).usable(1000) == usable

    @pytest.mark.parametrize(
        "change",
        [lambda file: file.unlink(), lambda file: file.write_text("garbage")],
        ids=["gone", "changed"],
    )
    def test_file(self, file: Path, change: Callable[[Path], object]) -> None:
        """A certificate that is gone or another one is looked at again."""
        kept = made(certificates=[Served(str(file), state_of(str(file)), 2000, 1500)])
        change(file)
        assert not kept.usable(1000)

    def test_one_of_many(self, file: Path) -> None:
        """One that is not usable is enough; none at all is fine."""
        good = Served(str(file), state_of(str(file)), 2000, 1500)
        expired = Served(str(file), state_of(str(file)), 900, 800)
        assert not made(certificates=[good, expired, good]).usable(1000)
        assert made().usable(1000)

    def test_after_a_renewal(self, file: Path) -> None:
        """A renewal changes the certificates of a manifest and nothing else."""
        kept = made(states={"/x": "y"}, added=[("::", 80, True)], result={"a": "b"})
        served = Served(str(file), state_of(str(file)), 2000, 1500)
        renewed = kept.with_certificates([served])
        assert renewed.certificates == (served,)
        assert as_tuple(renewed.with_certificates([])) == as_tuple(kept)


WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from([chr(0xDC00 + byte) for byte in (0x80, 0xFF)])
)
MANIFESTS = st.builds(
    Manifest,
    context=st.dictionaries(WORDS, WORDS),
    states=st.dictionaries(WORDS, WORDS),
    settled=st.booleans(),
    added=st.lists(st.tuples(WORDS, st.integers(0, 65535), st.booleans())),
    certificates=st.lists(st.builds(Served, WORDS, WORDS, st.integers(), st.integers())),
    result=st.dictionaries(WORDS, WORDS),
)


class TestText:
    """The manifest on disk."""

    @given(MANIFESTS)
    def test_round_trip(self, kept: Manifest) -> None:
        """What was written is read, whatever is in paths and arguments."""
        back = decode(encode(kept))
        assert back is not None
        assert as_tuple(back) == as_tuple(kept)

    def test_values(self) -> None:
        """Nothing changes its type or place on the way."""
        kept = made(
            states={"/etc/nginx\n/\tx y": "1 2 3", "/gone": "absent"},
            added=[("0.0.0.0", 80, True), ("::", 80, False)],
            certificates=[Served("/a", "1 2", 10, 5)],
            result={"generation": "12"},
        )
        back = decode(encode(kept))
        assert back is not None
        assert as_tuple(back) == as_tuple(kept)

    @given(MANIFESTS, st.data())
    def test_cut_off(self, kept: Manifest, data: st.DataObject) -> None:
        """A text that is cut off anywhere is no manifest."""
        text = encode(kept)
        assert decode(text[: data.draw(st.integers(0, len(text) - 1))]) is None

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(None, id="no file"),
            pytest.param(b"", id="empty"),
            pytest.param(b"\0" * 100, id="zeros"),
            pytest.param(b"nginx-acme manifest 2\x001\x000\x000\x000\x000\x000\0end", id="newer"),
            pytest.param(b"nginx-acme manifest 1\0end", id="nothing between"),
            pytest.param(b"nginx-acme manifest 1\x001\0x\x000\x000\x000\x000\0end", id="no number"),
            pytest.param(b"nginx-acme manifest 1\x001\x00-1\x000\x000\x000\x000\0end", id="minus"),
            pytest.param(b"nginx-acme manifest 1\x001\x009\x000\x000\x000\x000\0end", id="too few"),
            pytest.param(
                b"nginx-acme manifest 1\x001\x000\x000\x001\0::\0p\x001\x000\x000\0end",
                id="no port",
            ),
            pytest.param(b'{"json": true}', id="JSON"),
            pytest.param(b"\xff\xfe\0\xff", id="binary"),
        ],
    )
    def test_broken(self, text: bytes | None) -> None:
        """Anything else is no manifest."""
        assert decode(text) is None

    @given(st.binary())
    def test_garbage(self, garbage: bytes) -> None:
        """Nothing in the file makes a start fail."""
        assert decode(garbage) is None
        decode(b"nginx-acme manifest 1\0" + garbage + b"\0end")


def test_light() -> None:
    """A start with nothing to do imports nothing for it but what the interpreter has anyway."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; before = set(sys.modules);"
        "import nginx_acme.manifest; print(*sorted(set(sys.modules) - before))"
    )
    root = str(Path(manifest.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, root], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) - {"__future__"} == {"nginx_acme", "nginx_acme.manifest"}
