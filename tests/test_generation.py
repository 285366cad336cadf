"""Generations on disk: what nginx finds in one is what it would find in the user's folder."""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from nginx_acme import generation
from nginx_acme.errors import ConfigError, StateError
from nginx_acme.generation import Generation
from tests.servers import Program, free_port, listens, nginx_conf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Tree:
    """A user's folder and an instance beside it."""

    def __init__(self, root: Path) -> None:
        self.conf = root / "etc" / "nginx"
        self.outside = root / "srv"
        self.state = root / "state"
        self.instance = self.state / "instances" / "nginx.conf-1"
        self.instance.mkdir(parents=True)
        self.conf.mkdir(parents=True)
        self.main = str(self.conf / "nginx.conf")
        self.put("nginx.conf", "user's main")

    def put(self, name: str, text: str = "user's") -> Path:
        """A file of the user, below the folder of the main file."""
        path = self.conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write(self, files: Mapping[str, str] | None = None) -> Generation:
        """Write a generation; names are relative to the user's folder."""
        texts = {"nginx.conf": "user's main", **(files or {})}
        paths = {os.path.join(self.conf, name): text for name, text in texts.items()}
        return generation.write(str(self.instance), self.main, paths, exclude=str(self.state))

    def switch(self, files: Mapping[str, str] | None = None) -> Generation:
        """Write a generation, and what `start` writes beside it, and switch to it."""
        written = self.write(files)
        Path(written.work).write_text("{}")
        generation.switch(str(self.instance), written)
        return written

    @property
    def numbers(self) -> set[str]:
        """The names of the generations' folders."""
        return {p.name for p in (self.instance / "generations").iterdir() if p.is_dir()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A folder with a main file."""
    return Tree(tmp_path)


def names(folder: str | Path) -> set[str]:
    """What is in a folder of a generation, but for what is only ours."""
    return set(os.listdir(folder)) - {".user-main", ".tested-main"}


def at(written: Generation, name: str) -> Path:
    """A path in a generation."""
    return Path(written.path, name)


class TestWrite:
    """What a generation has in it."""

    def test_links_and_files(self, tree: Tree) -> None:
        """Every entry of the user's folder is a link to it, but for the configuration."""
        tree.put("mime.types")
        tree.put("conf.d/a.conf")
        tree.put(".hidden")
        written = tree.write({"nginx.conf": "ours"})
        assert names(written.path) == {"nginx.conf", "mime.types", "conf.d", ".hidden"}
        assert os.readlink(at(written, "mime.types")) == str(tree.conf / "mime.types")
        assert os.readlink(at(written, "conf.d")) == str(tree.conf / "conf.d")
        assert not at(written, "nginx.conf").is_symlink()
        assert Path(written.main).read_text() == "ours"

    def test_folders_on_the_way(self, tree: Tree) -> None:
        """What leads to a file is a real folder, with links for what else is in it."""
        tree.put("sites/one/a.conf")
        tree.put("sites/one/b.conf")
        tree.put("sites/two/c.conf")
        written = tree.write({"sites/one/a.conf": "ours"})
        assert not at(written, "sites/one").is_symlink()
        assert at(written, "sites/one/a.conf").read_text() == "ours"
        assert os.readlink(at(written, "sites/one/b.conf")) == str(tree.conf / "sites/one/b.conf")
        assert os.readlink(at(written, "sites/two")) == str(tree.conf / "sites/two")

    def test_folder_that_is_a_link(self, tree: Tree) -> None:
        """A linked folder with a file in it becomes real, by the user's path through it."""
        available = tree.outside / "available"
        available.mkdir(parents=True)
        (available / "a.conf").write_text("user's")
        (available / "b.conf").symlink_to("a.conf")
        (tree.conf / "enabled").symlink_to(available)
        written = tree.write({"enabled/a.conf": "ours"})
        assert at(written, "enabled/a.conf").read_text() == "ours"
        assert os.readlink(at(written, "enabled/b.conf")) == str(tree.conf / "enabled/b.conf")
        assert at(written, "enabled/b.conf").read_text() == "user's"

    def test_file_that_is_a_link(self, tree: Tree) -> None:
        """A file that is a link for the user is a file of ours; what it leads to stays."""
        target = tree.put("sites-available/a.conf")
        (tree.conf / "sites-enabled").mkdir()
        (tree.conf / "sites-enabled/a.conf").symlink_to("../sites-available/a.conf")
        written = tree.write({"sites-enabled/a.conf": "ours"})
        assert at(written, "sites-enabled/a.conf").read_text() == "ours"
        assert target.read_text() == "user's"

    def test_outside(self, tree: Tree) -> None:
        """A file of another folder lies under its absolute path, and nothing else there."""
        tree.outside.mkdir()
        file = tree.outside / "x.conf"
        file.write_text("user's")
        (tree.outside / "y.conf").write_text("user's")
        written = tree.write({str(file): "ours"})
        folder = Path(f"{written.path}/.outside{tree.outside}")
        assert names(folder) == {"x.conf"}
        assert (folder / "x.conf").read_text() == "ours"

    def test_outside_with_dots(self, tree: Tree) -> None:
        """``..`` in the path of a file leads where it leads nginx."""
        tree.outside.mkdir()
        path = f"{tree.outside}/gone/../x.conf"
        written = tree.write({path: "ours"})
        assert Path(f"{written.path}/.outside{path}").read_text() == "ours"

    def test_above_the_root(self, tree: Tree) -> None:
        """A path that climbs above the root folder can't be mirrored, and leaves no generation."""
        with pytest.raises(ConfigError, match="above the root"):
            tree.write({"/../../../../x.conf": "ours"})
        assert not (tree.instance / "generations").exists()

    def test_listed(self, tree: Tree) -> None:
        """A folder that is searched for includes gets no new file, also while it has none."""
        tree.put("conf.d/README")
        listed = [f"{tree.conf}/conf.d", f"{tree.conf}/gone", str(tree.outside)]
        written = generation.write(
            str(tree.instance), tree.main, {tree.main: ""}, listed=listed, exclude=str(tree.state)
        )
        tree.put("conf.d/new.conf")
        assert names(written.path) == {"nginx.conf", "conf.d"}
        assert names(at(written, "conf.d")) == {"README"}

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_modes(self, tree: Tree, umask: int) -> None:
        """Workers may pass through folders, and only the master may read files."""
        previous = os.umask(umask)
        try:
            written = tree.write({"nginx.conf": "secret", "a/b/c.conf": "secret"})
        finally:
            os.umask(previous)
        modes = {
            os.path.join(folder, name): os.lstat(os.path.join(folder, name)).st_mode & 0o7777
            for folder, folders, files in os.walk(tree.instance / "generations")
            for name in (*folders, *files)
            if not os.path.islink(os.path.join(folder, name))
        }
        assert set(modes.values()) == {0o711, 0o600}
        assert {path for path, mode in modes.items() if mode == 0o600} == {
            written.main,
            f"{written.path}/nginx.conf",
            f"{written.path}/a/b/c.conf",
        }

    def test_any_bytes(self, tree: Tree) -> None:
        """Text keeps its bytes, and names may have any."""
        folder = os.fsencode(tree.conf)
        odd = [b"with space", b"new\nline", b"\xff\xfe", "ünï".encode(), b"'\"$;{}"]
        for name in odd:
            Path(os.fsdecode(os.path.join(folder, name))).write_text("user's")
        changed = b"sites \xe9/\n.conf".decode("utf-8", "surrogateescape")
        text = b"caf\xe9 \r\n \xc3\xa9".decode("utf-8", "surrogateescape")
        written = tree.write({changed: text})
        path = os.fsencode(written.path)
        assert set(odd) < set(os.listdir(path))
        assert all(Path(os.fsdecode(os.path.join(path, n))).read_text() == "user's" for n in odd)
        with open(os.path.join(path, b"sites \xe9/\n.conf"), "rb") as file:
            assert file.read() == b"caf\xe9 \r\n \xc3\xa9"

    def test_main_in_the_root_folder(self, tree: Tree, tmp_path: Path) -> None:
        """A main file in the root folder works as well."""
        written = generation.write(
            str(tree.instance), "/nginx.conf", {"/nginx.conf": "x"}, exclude=str(tmp_path)
        )
        assert os.readlink(at(written, "proc")) == "/proc"
        assert written.translate(f"in {written.main}:1") == "in /nginx.conf:1"

    def test_folder_gone(self, tree: Tree) -> None:
        """A file whose folder vanished meanwhile is written all the same."""
        written = tree.write({"gone/a.conf": "ours"})
        assert names(at(written, "gone")) == {"a.conf"}

    def test_dangling_and_looping(self, tree: Tree) -> None:
        """Entries that lead nowhere are mirrored as they are."""
        (tree.conf / "dangling").symlink_to("nowhere")
        (tree.conf / "loop").symlink_to("loop")
        os.mkfifo(tree.conf / "fifo")
        assert {"dangling", "loop", "fifo"} < names(tree.write().path)

    def test_folder_that_cannot_be_listed(self, tree: Tree) -> None:
        """Where the user's folder can't be listed, the error names it, and nothing is left."""
        (tree.conf / "loop").symlink_to("loop")
        with pytest.raises(ConfigError, match=r"cannot list the folder: .* in .*/loop"):
            tree.write({"loop/a.conf": "ours"})
        assert not (tree.instance / "generations").exists()

    def test_several_at_once(self, tree: Tree) -> None:
        """Launchers that write at the same time get a generation each."""
        with ThreadPoolExecutor(8) as pool:
            written = list(pool.map(lambda n: tree.write({"nginx.conf": str(n)}), range(40)))
        assert len({one.path for one in written}) == 40
        assert [Path(one.main).read_text() for one in written] == [str(n) for n in range(40)]

    def test_not_writable(self, tree: Tree) -> None:
        """Where it can't be written, the error names the path, and nothing is left."""
        (tree.instance / "generations").write_text("a file")
        with pytest.raises(StateError, match="generations"):
            tree.write()

    def test_half_written(self, tree: Tree) -> None:
        """A generation that can't be written to its end goes away again."""
        with pytest.raises(StateError, match="File name too long"):
            tree.write({"a.conf": "ours", "x" * 300: "ours"})
        assert tree.numbers == set()


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


class TestShared:
    """What is the same as in the generation before is there by a second name."""

    FILES: ClassVar = {"nginx.conf": "1", "conf.d/a.conf": "2", "conf.d/b.conf": "3"}

    def test_shared(self, tree: Tree) -> None:
        """One new text is one new file; the main file is new in any case, since it is watched."""
        tree.put("mime.types")
        tree.put("conf.d/README")
        first = tree.switch(self.FILES)
        second = tree.switch({**self.FILES, "conf.d/b.conf": "edited"})
        places = ("mime.types", "conf.d/README", "conf.d/a.conf", "conf.d/b.conf", "nginx.conf")
        same = [
            at(first, name).lstat().st_ino == at(second, name).lstat().st_ino for name in places
        ]
        assert same == [True, True, True, False, False]
        assert Path(first.main).stat().st_ino != Path(second.main).stat().st_ino
        assert at(first, "conf.d/b.conf").read_text() == "3"
        assert at(second, "conf.d/b.conf").read_text() == "edited"

    def test_never_written_in_place(self, tree: Tree) -> None:
        """No text of a generation changes, whatever comes after it, or when others are removed."""
        told: dict[Generation, dict[str, str]] = {}
        for number in range(6):
            text = {f"conf.d/{n}.conf": f"{n} {number // (n + 1)}" for n in range(4)}
            written = tree.switch({"nginx.conf": f"{number // 2}", **text})
            if number == 3:
                written = written.rewritten({path: f"{t}!" for path, t in written.texts()})
                generation.switch(str(tree.instance), written)
            told[written] = dict(written.texts())
            assert all(dict(each.texts()) == texts for each, texts in told.items())
        generation.prune(str(tree.instance))
        last = generation.current(str(tree.instance))
        assert last is not None
        assert dict(last.texts()) == told[last]

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda path: path.write_text("X"), id="another text of the same length"),
            pytest.param(lambda path: path.chmod(0o644), id="others may read it"),
            pytest.param(lambda path: (path.unlink(), path.symlink_to("b.conf")), id="a link"),
            pytest.param(_piped, id="a pipe"),
            pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
            pytest.param(lambda path: path.unlink(), id="gone"),
        ],
    )
    def test_not_as_it_was_made(self, tree: Tree, change: Callable[[Path], object]) -> None:
        """What somebody has changed in the generation before is not taken over."""
        change(at(tree.switch(self.FILES), "conf.d/a.conf"))
        second = tree.switch(self.FILES)
        assert second.number == 2
        assert dict(second.texts()) == {f"{tree.conf}/{n}": text for n, text in self.FILES.items()}
        status = at(second, "conf.d/a.conf").lstat()
        assert (status.st_mode & 0o7777, status.st_nlink) == (0o600, 1)

    def test_like(self, tree: Tree, tmp_path: Path) -> None:
        """One that is made elsewhere, for a test, shares with the one that is in use."""
        first = tree.switch(self.FILES)
        files = {f"{tree.conf}/{name}": text for name, text in self.FILES.items()}
        written = generation.write(
            str(tmp_path), tree.main, files, exclude=str(tree.state), like=first
        )
        assert dict(written.texts()) == dict(first.texts())
        links = [at(written, name).stat().st_nlink for name in ("conf.d/a.conf", "nginx.conf")]
        assert links == [2, 1]
        written.discard()
        assert at(first, "conf.d/a.conf").read_text() == "2"

    def test_no_second_names(self, tree: Tree, elsewhere: Path) -> None:
        """Where a file can have no second name, it is written."""
        first = tree.switch(self.FILES)
        shutil.move(first.path, elsewhere / "1")
        Path(first.path).symlink_to(elsewhere / "1")
        second = tree.switch({**self.FILES, "nginx.conf": "edited"})
        assert second.number == 2
        assert at(second, "conf.d/a.conf").read_text() == "2"


class TestRewritten:
    """The same generation with other texts."""

    def test_rewritten(self, tree: Tree) -> None:
        """Every file is where it was, and nothing that has come to the user's folder is there."""
        outside = f"{tree.outside}/gone/../x.conf"
        tree.put("mime.types")
        tree.put("conf.d/README")
        first = tree.switch({"nginx.conf": "1", "conf.d/a.conf": "2", outside: "3"})
        tree.put("conf.d/new.conf")
        tree.put("new")
        second = first.rewritten({path: f"{text} again" for path, text in first.texts()})
        assert second.number == 2
        assert second.user_main == tree.main
        assert second.rewritten(dict(second.texts())) == second
        assert names(second.path) == {"nginx.conf", "conf.d", "mime.types", ".outside"}
        assert names(at(second, "conf.d")) == {"a.conf", "README"}
        assert os.readlink(at(second, "mime.types")) == str(tree.conf / "mime.types")
        assert at(second, "nginx.conf").read_text() == Path(second.main).read_text() == "1 again"
        assert at(second, "conf.d/a.conf").read_text() == "2 again"
        assert Path(f"{second.path}/.outside{outside}").read_text() == "3 again"


class TestExclude:
    """The state directory is no part of the mirror, wherever it is."""

    def test_beside_the_main_file(self, tmp_path: Path) -> None:
        """A state directory in the user's folder is left out, by whatever names it has there."""
        tree = Tree(tmp_path)
        state = tree.conf / "acme"
        (state / "instances/x").mkdir(parents=True)
        (tree.conf / "also").symlink_to("acme")
        tree.put("acme2/x")
        written = generation.write(
            str(state / "instances/x"), tree.main, {tree.main: ""}, exclude=str(state)
        )
        assert names(written.path) == {"nginx.conf", "acme2"}

    def test_deeper(self, tmp_path: Path) -> None:
        """One that lies deeper is left out, too, and all around it is there."""
        tree = Tree(tmp_path)
        state = tree.conf / "var/lib/acme"
        (state / "instances/x").mkdir(parents=True)
        tree.put("var/lib/other/x")
        written = generation.write(
            str(state / "instances/x"), tree.main, {tree.main: ""}, exclude=str(state)
        )
        assert names(at(written, "var/lib")) == {"other"}
        assert at(written, "var/lib/other/x").read_text() == "user's"

    def test_through_a_link(self, tmp_path: Path) -> None:
        """It is found by where it really is."""
        tree = Tree(tmp_path)
        state = tree.conf / "acme"
        (state / "instances/x").mkdir(parents=True)
        (tmp_path / "link").symlink_to(state)
        written = generation.write(
            str(state / "instances/x"),
            tree.main,
            {tree.main: ""},
            exclude=str(tmp_path / "link"),
        )
        assert names(written.path) == {"nginx.conf"}


class TestSwitch:
    """Which generation is in use."""

    def test_switch(self, tree: Tree) -> None:
        """`generated` is a relative link to the generation, and `current` finds it."""
        assert generation.current(str(tree.instance)) is None
        first = tree.switch({"nginx.conf": "1"})
        assert os.readlink(tree.instance / "generated") == "generations/1"
        assert generation.current(str(tree.instance)) == first
        second = tree.switch({"nginx.conf": "2"})
        assert generation.current(str(tree.instance)) == second
        assert (tree.instance / "generated/nginx.conf").read_text() == "2"

    def test_the_same_again(self, tree: Tree) -> None:
        """What wouldn't differ is not written again."""
        tree.put("conf.d/a.conf")
        tree.put("mime.types")
        changed = {"nginx.conf": "1", "conf.d/a.conf": "2"}
        first = tree.switch(changed)
        assert tree.write(changed) == first
        assert tree.numbers == {"1"}

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda tree: tree.put("new"), id="new entry"),
            pytest.param(lambda tree: tree.put("conf.d/new"), id="new entry in a folder"),
            pytest.param(lambda tree: os.unlink(tree.conf / "mime.types"), id="entry gone"),
            pytest.param(
                lambda tree: (tree.instance / "generations/1/nginx.conf").write_text("1x"),
                id="a generated file was edited",
            ),
            pytest.param(
                lambda tree: os.unlink(tree.instance / "generations/1/mime.types"),
                id="a generated link is gone",
            ),
        ],
    )
    def test_not_the_same(self, tree: Tree, change: Callable[[Tree], object]) -> None:
        """What differs in anything is a new generation."""
        tree.put("conf.d/a.conf")
        tree.put("mime.types")
        changed = {"nginx.conf": "1", "conf.d/a.conf": "2"}
        tree.switch(changed)
        change(tree)
        assert tree.write(changed).number == 2

    def test_another_main_file(self, tree: Tree) -> None:
        """The same text under another name of the user's folder is another generation."""
        first = tree.switch({"nginx.conf": "1"})
        (tree.conf.parent / "link").symlink_to(tree.conf)
        main = str(tree.conf.parent / "link/nginx.conf")
        second = generation.write(str(tree.instance), main, {main: "1"}, exclude=str(tree.state))
        assert second != first

    def test_gone(self, tree: Tree) -> None:
        """A generation that was removed meanwhile is not switched to."""
        written = tree.write()
        written.discard()
        with pytest.raises(StateError, match="gone"):
            generation.switch(str(tree.instance), written)
        assert not (tree.instance / "generated").exists()

    @pytest.mark.parametrize(
        "target", ["generations/9", "elsewhere", "generations", "generations/1", "/"]
    )
    def test_broken_link(self, tree: Tree, target: str) -> None:
        """A link that leads to no generation is none."""
        (tree.instance / "generations/1").mkdir(parents=True)
        (tree.instance / "generated").symlink_to(target)
        assert generation.current(str(tree.instance)) is None
        assert tree.write().number == 2

    def test_discard(self, tree: Tree) -> None:
        """A generation that nginx refused goes away; the one in use never does."""
        first = tree.switch({"nginx.conf": "1"})
        tree.write({"nginx.conf": "2"}).discard()
        first.discard()
        assert tree.numbers == {"1"}


class TestPrune:
    """What stays."""

    def test_keeps_two(self, tree: Tree) -> None:
        """The current one and the one before it stay; older ones go, with what lies beside."""
        for text in "12345":
            tree.switch({"nginx.conf": text})
        generation.prune(str(tree.instance))
        assert set(os.listdir(tree.instance / "generations")) == {"4", "4.json", "5", "5.json"}

    def test_rolled_back(self, tree: Tree) -> None:
        """After a rollback the good one before stays, not the bad one in between."""
        tree.switch({"nginx.conf": "1"})
        good = tree.switch({"nginx.conf": "2"})
        tree.switch({"nginx.conf": "bad"})
        generation.switch(str(tree.instance), good)
        tree.switch({"nginx.conf": "4"})
        generation.prune(str(tree.instance))
        assert tree.numbers == {"2", "4"}

    def test_switch_twice(self, tree: Tree) -> None:
        """Switching to the current one again doesn't forget the one before."""
        tree.switch({"nginx.conf": "1"})
        tree.switch({"nginx.conf": "2"})
        tree.switch({"nginx.conf": "2"})
        generation.prune(str(tree.instance))
        assert tree.numbers == {"1", "2"}

    def test_drafts(self, tree: Tree) -> None:
        """What another launcher may still switch to stays; what a killed one left goes."""
        tree.switch({"nginx.conf": "1"})
        killed = tree.write({"nginx.conf": "killed"})
        long_ago = time.time() - generation.DRAFT_AGE - 60
        os.utime(killed.path, (long_ago, long_ago))
        waiting = tree.write({"nginx.conf": "waiting"})
        tree.switch({"nginx.conf": "4"})
        generation.prune(str(tree.instance))
        assert tree.numbers == {"1", "4", str(waiting.number)}

    def test_nothing_there(self, tree: Tree) -> None:
        """An instance without generations has none to remove."""
        generation.prune(str(tree.instance))

    def test_links_are_not_followed(self, tree: Tree) -> None:
        """What a removed generation led to is still there."""
        kept = tree.put("conf.d/a.conf")
        for text in "123":
            tree.switch({"nginx.conf": text})
        generation.prune(str(tree.instance))
        assert kept.read_text() == "user's"


class TestTranslate:
    """What nginx says, with the user's paths."""

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            pytest.param("in {G}/nginx.conf:12", "in /etc/nginx/nginx.conf:12", id="main file"),
            pytest.param("in {I}/generated/a/b.conf:1", "in /etc/nginx/a/b.conf:1", id="the link"),
            pytest.param("in {G}/.outside/srv/x.conf:3", "in /srv/x.conf:3", id="outside"),
            pytest.param("in {I}/generated/.outside/x:3", "in /x:3", id="outside by the link"),
            pytest.param('open() "{G}/x" failed', 'open() "/etc/nginx/x" failed', id="quoted"),
            pytest.param('open() "{G}" failed', 'open() "/etc/nginx" failed', id="the folder"),
            pytest.param("{G}", "/etc/nginx", id="alone"),
            pytest.param("{G}2/x {I}/generated2", "{G}2/x {I}/generated2", id="another one"),
            pytest.param("{G}/.outsider/x", "/etc/nginx/.outsider/x", id="another folder"),
            pytest.param("{G}/a and {G}/b", "/etc/nginx/a and /etc/nginx/b", id="twice"),
            pytest.param("nothing of ours", "nothing of ours", id="nothing"),
        ],
    )
    def test_translate(self, said: str, meant: str) -> None:
        """Every path of a generation is the user's again."""
        instance = "/var/lib/nginx-acme/instances/a.b+c"
        made = Generation(f"{instance}/generations/12", "/etc/nginx/nginx.conf")
        said, meant = (text.format(G=made.path, I=instance) for text in (said, meant))
        assert made.translate(said) == meant
        assert made.translate_dump(said.encode() + b" \xff") == meant.encode() + b" \xff"


class TestNginx:
    """What nginx makes of it."""

    def test_messages(self, tree: Tree, each_nginx: str) -> None:
        """A mistake in a changed file of another folder is shown with the user's file and line."""
        tree.outside.mkdir()
        outside = str(tree.outside / "x.conf")
        written = tree.write(
            {
                "nginx.conf": f"events {{}}\nhttp {{ include .outside{outside}; }}",
                outside: "\nnonsense;\n",
            }
        )
        said = subprocess.run(
            [each_nginx, "-t", "-c", written.main], capture_output=True, text=True, check=False
        )
        assert f'unknown directive "nonsense" in {outside}:2' in written.translate(said.stderr)

    def test_made_by_nginx(self, tree: Tree, nginx: str) -> None:
        """The file that nginx makes beside one of 100,000 ranges makes no other generation."""
        ranges = (ipaddress.IPv4Address(4 * number) for number in range(100_001))
        tree.put("geo.conf", "\n".join(f"{start}-{start} x;" for start in ranges))
        text = f"pid {tree.state}/pid; events {{}} http {{ access_log off; geo $x {{ ranges;"
        text += " include geo.conf; } }"
        written = tree.switch({"nginx.conf": text})
        tested = [nginx, "-t", "-q", "-e", "stderr", "-c", written.main]
        subprocess.run(tested, capture_output=True, check=True)
        assert Path(f"{written.path}/geo.conf.bin").exists()
        assert not tree.conf.joinpath("geo.conf.bin").exists()
        assert tree.write({"nginx.conf": text}) == written
        assert dict(written.texts()) == {tree.main: text}
        tree.put("other.conf")
        assert tree.write({"nginx.conf": text}) != written

    def test_relative_paths(self, open_path: Path, each_nginx: str) -> None:
        """Includes, globs and files that workers read for each request are found as before."""
        tree, port = Tree(open_path), free_port()
        for folder in (tree.state, tree.state / "instances", tree.instance):
            folder.chmod(0o711)
        tree.put("htpasswd", "user:{PLAIN}secret\n").chmod(0o644)
        tree.put("page", "served").chmod(0o644)
        tree.put("sites/a.conf", f"server {{ listen 127.0.0.1:{port}; include snippets/a; }}")
        tree.put(
            "snippets/a",
            "location / { auth_basic x; auth_basic_user_file htpasswd;"
            f" root {tree.conf}; try_files /page =404; }}",
        )
        tree.switch({"nginx.conf": nginx_conf("include sites/*.conf;")})
        prefix = open_path / "prefix"
        (prefix / "logs").mkdir(parents=True)
        (prefix / "temp").mkdir()
        argv = [each_nginx, "-p", f"{prefix}/", "-c", str(tree.instance / "generated/nginx.conf")]
        server = Program([*argv, "-g", "daemon off;"], prefix / "logs" / "output.log")
        server.start(lambda: listens(port))
        try:
            assert ask_for_page(port) == (200, b"served")
        finally:
            server.stop()


def ask_for_page(port: int) -> tuple[int, bytes]:
    """Status and body of a request with the right password."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        password = base64.b64encode(b"user:secret").decode()
        connection.request("GET", "/", headers={"Authorization": f"Basic {password}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
