"""What is kept of the user's files: it saves the opening of files, and is never what they were once."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.agent.linux import IN_OPEN, Inotify
from nginx_acme.kept import KEPT, Files
from nginx_acme.nginx.files import read_with_status, status_of
from nginx_acme.seen import Seen
from nginx_acme.state_path import state_path_hints
from tests.settled import SECOND, here, in_a_minute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.launcher import Site

    MakeSite = Callable[..., Site]


def nowhere(_text: bytes) -> tuple[str, ...]:
    """No text says where more is kept."""
    return ()


class Opening:
    """Reads the files of a folder as a launcher does that is started a minute after an edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.looked_at: list[str] = []
        self.opened: list[str] = []
        self.files = Files(nowhere, Seen(self._read, self._look, here, in_a_minute))
        self.files.load(str(folder))

    def _look(self, path: str) -> os.stat_result:
        self.looked_at.append(path)
        return status_of(path)

    def _read(self, path: str) -> tuple[bytes, os.stat_result]:
        self.opened.append(path)
        return read_with_status(path)

    def read(self, *paths: Path) -> dict[Path, bytes]:
        """The contents of files, which are kept then."""
        found = {path: self.files.read(str(path)) for path in paths}
        keep(self.files, self.folder, found)
        return found


def keep(
    files: Files, folder: Path | str, contents: Mapping[Path, bytes] | Mapping[str, bytes]
) -> None:
    """Keep what was read."""
    texts = {str(p): content.decode("utf-8", "surrogateescape") for p, content in contents.items()}
    files.keep(str(folder), texts)


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The folder of an instance."""
    folder = tmp_path / "instance"
    folder.mkdir()
    return folder


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    """Files of the user's, of any bytes."""
    paths = [tmp_path / f"{n}.conf" for n in range(20)]
    for path in paths:
        path.write_bytes(f"server {{ # {path}\xff\0\n }}".encode("latin-1"))
    return paths


# --- what is opened ---------------------------------------------------------------------------


def test_one_edit_opens_one_file(instance: Path, sites: list[Path]) -> None:
    """What has not changed is looked at once and not opened, whatever became of it otherwise."""
    first = Opening(instance)
    first.read(*sites)
    assert (first.looked_at, first.opened) == ([], list(map(str, sites)))
    sites[7].write_text("edited")
    again = Opening(instance)
    assert again.read(*sites) == {path: path.read_bytes() for path in sites}
    assert again.opened == [str(sites[7])]
    assert again.looked_at == list(map(str, sites))
    nothing = Opening(instance)
    assert nothing.read(*sites)[sites[7]] == b"edited"
    assert nothing.opened == []


def test_what_is_gone_is_forgotten(instance: Path, sites: list[Path]) -> None:
    """A file that is no part of the configuration any more is not kept."""
    Opening(instance).read(*sites)
    size = (instance / KEPT).stat().st_size
    Opening(instance).read(*sites[:10])
    assert (instance / KEPT).stat().st_size < 0.6 * size


def test_nothing_new_is_not_written(instance: Path, sites: list[Path]) -> None:
    """A start without edits leaves the file as it is."""
    Opening(instance).read(*sites)
    before = (instance / KEPT).stat().st_ino
    Opening(instance).read(*sites)
    assert (instance / KEPT).stat().st_ino == before


def test_gone_and_unreadable(instance: Path, sites: list[Path]) -> None:
    """A file that is gone, or a folder by now, is refused as if nothing were kept."""
    Opening(instance).read(*sites)
    sites[0].unlink()
    sites[1].unlink()
    sites[1].mkdir()
    files = Opening(instance).files
    with pytest.raises(FileNotFoundError):
        files.read(str(sites[0]))
    with pytest.raises(IsADirectoryError):
        files.read(str(sites[1]))


def test_just_changed(instance: Path, sites: list[Path]) -> None:
    """A file that may change again and look the same is read again."""
    files = Files(nowhere, Seen(is_local=here, now=lambda: sites[0].stat().st_ctime_ns))
    keep(files, instance, {sites[0]: files.read(str(sites[0]))})
    assert refused(instance, sites[:1])


def test_changed_while_it_was_read(instance: Path, sites: list[Path]) -> None:
    """What was written between the look and the reading is not taken for what was there before."""

    def read(path: str) -> tuple[bytes, os.stat_result]:
        content, status = read_with_status(path)
        sites[0].write_text("edited")
        return content, status

    files = Files(nowhere, Seen(read, is_local=here, now=in_a_minute))
    keep(files, instance, {sites[0]: files.read(str(sites[0]))})
    assert Opening(instance).read(sites[0]) == {sites[0]: b"edited"}


def test_not_on_every_file_system(instance: Path) -> None:
    """Of a file system whose times may not tell of a change, nothing is kept."""
    path = "/proc/version"
    files = Files(nowhere, Seen(now=in_a_minute))
    keep(files, instance, {path: files.read(path)})
    assert not (instance / KEPT).exists()


@pytest.mark.parametrize(
    "said", ["acme_state_path  {};", "# it is elsewhere: acme_state_path {} ;"]
)
def test_said_elsewhere(tmp_path: Path, instance: Path, sites: list[Path], said: str) -> None:
    """What is kept is found from the first file on that says where the state directory is."""
    Opening(instance).read(*sites)
    sites[0].write_text(said.format(instance))
    opened: list[str] = []

    def read(path: str) -> tuple[bytes, os.stat_result]:
        opened.append(path)
        return read_with_status(path)

    files = Files(partial(state_path_hints, folder="/"), Seen(read, is_local=here))
    files.load(str(tmp_path / "the usual place"))
    for path in sites:
        assert files.read(str(path)) == path.read_bytes()
    assert opened == [str(sites[0])]


# --- any edits --------------------------------------------------------------------------------

TICK = 10_000_000
NAMES = ("/a.conf", "/b.conf")
NAME, CONTENT = st.sampled_from(NAMES), st.sampled_from([b"x", b"y"])
EDITS = st.one_of(
    st.just(("read",)),
    st.just(("read",)),
    st.tuples(st.just("wait"), st.sampled_from([1, TICK // 3, TICK, 3 * TICK])),
    st.tuples(st.just("write"), NAME, CONTENT),
    st.tuples(st.just("replace"), NAME, CONTENT),
    st.just(("swap", *NAMES)),
    st.tuples(st.just("set mtime"), NAME),
    st.tuples(st.just("remove"), NAME),
)


class Disk:
    """A file system as Linux has them: times are those of the last tick, inodes are used again."""

    def __init__(self) -> None:
        self.clock = SECOND + 1
        self.files: dict[str, int] = {}
        self.inodes: dict[int, tuple[bytes, int, int]] = {}

    def wait(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.clock += nanoseconds

    def write(self, path: str, content: bytes) -> None:
        """In place."""
        inode = self.files.setdefault(path, self._free())
        self.inodes[inode] = (content, self._now(), self._now())

    def replace(self, path: str, content: bytes) -> None:
        """By a new file that is renamed."""
        new = self._free()
        self.inodes[new] = (content, self._now(), self._now())
        self.remove(path)
        self.files[path] = new

    def swap(self, path: str, other: str) -> None:
        """Two files get each other's names."""
        for name in self.files.keys() & {path, other}:
            content, mtime, _ = self.inodes[self.files[name]]
            self.inodes[self.files[name]] = (content, mtime, self._now())
        self.files = {_other(name, path, other): inode for name, inode in self.files.items()}

    def set_mtime(self, path: str) -> None:
        """To what rsync and tar leave."""
        if path in self.files:
            content, _, _ = self.inodes[self.files[path]]
            self.inodes[self.files[path]] = (content, SECOND, self._now())

    def remove(self, path: str) -> None:
        """Its inode is free again."""
        self.inodes.pop(self.files.pop(path, -1), None)

    def status(self, path: str) -> os.stat_result:
        """What stat() says."""
        try:
            content, mtime, ctime = self.inodes[self.files[path]]
        except KeyError:
            raise FileNotFoundError(path) from None
        base = (stat.S_IFREG, self.files[path], 1, 1, 0, 0, len(content), 0, 0, 0)
        return os.stat_result(base, {"st_mtime_ns": mtime, "st_ctime_ns": ctime})

    def read(self, path: str) -> tuple[bytes, os.stat_result]:
        """What opening, looking and reading come to."""
        status = self.status(path)
        return self.inodes[self.files[path]][0], status

    def _now(self) -> int:
        return self.clock - self.clock % TICK + 1

    def _free(self) -> int:
        return next(n for n in range(1, 99) if n not in self.inodes)


def _other(name: str, one: str, two: str) -> str:
    return {one: two, two: one}.get(name, name)


@settings(max_examples=300)
@given(edits=st.lists(EDITS, max_size=20))
def test_any_edits(edits: Sequence[tuple[str, ...]]) -> None:
    """After any edits at any moments it reads what is there."""
    disk = Disk()
    with TemporaryDirectory() as folder:
        for what, *arguments in (*edits, ("read",)):
            if what != "read":
                getattr(disk, what.replace(" ", "_"))(*arguments)
                continue
            seen = Seen(disk.read, disk.status, lambda _: True, lambda: disk.clock)
            files = Files(nowhere, seen)
            files.load(folder)
            found = {path: files.read(path) for path in disk.files}
            assert found == {path: disk.read(path)[0] for path in disk.files}
            keep(files, folder, found)


# --- damage -----------------------------------------------------------------------------------


def refused(instance: Path, sites: list[Path]) -> bool:
    """Whether nothing of what is kept is believed, and all is read as it is."""
    opening = Opening(instance)
    found = {path: opening.files.read(str(path)) for path in sites}
    assert found == {path: path.read_bytes() for path in sites}
    return len(opening.opened) == len(sites)


def test_any_bit(instance: Path, sites: list[Path]) -> None:
    """One bit that is wrong anywhere, and nothing is believed."""
    Opening(instance).read(*sites[:2])
    kept = (instance / KEPT).read_bytes()
    for at in range(len(kept)):
        flipped = bytearray(kept)
        flipped[at] ^= 1 << at % 8
        (instance / KEPT).write_bytes(flipped)
        assert refused(instance, sites[:2]), at
    (instance / KEPT).write_bytes(kept)
    assert not refused(instance, sites[:2])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda kept: kept.write_bytes(b""), id="empty"),
        pytest.param(lambda kept: kept.write_bytes(kept.read_bytes()[:-1]), id="cut off"),
        pytest.param(lambda kept: kept.write_bytes(kept.read_bytes()[:9]), id="cut off early"),
        pytest.param(lambda kept: kept.write_bytes(kept.read_bytes() + b"x"), id="longer"),
        pytest.param(lambda kept: kept.write_bytes(bytes(5000)), id="zeros"),
        pytest.param(
            lambda kept: kept.write_bytes(kept.read_bytes().replace(b"kept 1", b"kept 0")),
            id="of another release",
        ),
        pytest.param(lambda kept: kept.unlink(), id="gone"),
        pytest.param(lambda kept: (kept.unlink(), kept.mkdir()), id="a folder"),
        pytest.param(
            lambda kept: kept.symlink_to(kept.rename(kept.with_suffix(".elsewhere"))), id="a link"
        ),
        pytest.param(lambda kept: kept.chmod(0o620), id="others may write it"),
        pytest.param(lambda kept: kept.chmod(0o644), id="others may read it"),
    ],
)
def test_damaged(instance: Path, sites: list[Path], damage: Callable[[Path], object]) -> None:
    """What can't be believed is as good as nothing, and the next one writes it anew."""
    Opening(instance).read(*sites)
    damage(instance / KEPT)
    assert refused(instance, sites)
    if not (instance / KEPT).is_dir():
        Opening(instance).read(*sites)
        assert not refused(instance, sites)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_of_another_user(instance: Path, sites: list[Path]) -> None:
    """What another user may have written is not believed, by root neither."""
    Opening(instance).read(*sites)
    os.chown(instance / KEPT, 65534, 65534)
    assert refused(instance, sites)


def test_private(instance: Path, sites: list[Path]) -> None:
    """Texts may have secrets in them: nobody else may read what is kept of them."""
    before = os.umask(0)
    try:
        Opening(instance).read(*sites)
    finally:
        os.umask(before)
    assert stat.S_IMODE((instance / KEPT).stat().st_mode) == 0o600


def test_it_cannot_be_written(tmp_path: Path, sites: list[Path]) -> None:
    """Where nothing can be kept, all is read."""
    assert Opening(tmp_path / "gone").read(*sites) == {path: path.read_bytes() for path in sites}


def test_several_at_once(instance: Path, sites: list[Path]) -> None:
    """Who keeps at the same time as others leaves what one of them has read, whole."""

    def run(number: int) -> None:
        some = sites[number % 7 : number % 7 + 9]
        assert Opening(instance).read(*some) == {path: path.read_bytes() for path in some}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(100)))
    opening = Opening(instance)
    opening.read(*sites)
    assert len(opening.opened) == len(sites) - 9


# --- as it is used ----------------------------------------------------------------------------


def test_reload_opens_one_file(make_site: MakeSite) -> None:
    """A reload after one edit opens the edited file, and none of the others."""
    site = make_site()
    (site.folder / "sites").mkdir()
    for number in range(9):
        (site.folder / f"sites/{number}.conf").write_text(
            site.block(f"n{number}.example", "acme local;")
        )
    site.configure("include sites/*.conf;")
    site.start()
    site.quiet()
    (site.folder / "sites/4.conf").write_text(site.block("edited.example", "acme local;"))
    inotify = Inotify()
    inotify.watch(str(site.folder / "sites"), IN_OPEN)
    answer = site.run("-s", "reload")
    assert answer.returncode == 0, answer.stderr
    opened = {name for _, _, name in inotify.read()} - {b""}
    os.close(inotify.descriptor)
    assert opened == {b"4.conf"}
    assert site.shown("edited.example").body == b"edited.example"
