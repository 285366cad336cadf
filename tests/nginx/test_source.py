"""The files of a configuration: `include` joins them as nginx does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nginx_acme.encoding import to_bytes
from nginx_acme.errors import ConfigError
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import OPAQUE, Include, Unreadable, read_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nginx_acme.nginx.source import Source
    from tests.nginx.oracle import Oracle


def test_places() -> None:
    """A directive is where nginx reports it: on the line that ends its words."""
    text = "a\n b\n ;\n c # d {\n {\n e;\n}"
    source = single(text)
    a, c = source.files["/x"].directives
    (e,) = c.block or ()
    assert [str(source.place(d)) for d in (a, c, e)] == ["/x:3", "/x:5", "/x:6"]
    lines = [source.files["/x"].line_at(offset) for offset in range(len(text) + 1)]
    assert lines == [text.count("\n", 0, offset) + 1 for offset in range(len(text) + 1)]


def single(text: str) -> Source:
    """A configuration of one file."""
    return read_source("/x", lambda _: to_bytes(text), lambda _: [])


def read(files: Mapping[str, str], main: str = "/etc/nginx/nginx.conf") -> Source:
    """Read a configuration from texts by path; ``*`` at the end of a pattern is known."""

    def read_text(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return to_bytes(files[path])

    def match(pattern: str) -> list[str]:
        return sorted(path for path in files if path.startswith(pattern.removesuffix("*")))

    return read_source(main, read_text, match)


def tree(source: Source, word: str = "") -> list[str]:
    """All directives after includes: the names of the ancestors and the words."""
    return [
        "/".join((*(a.name for a in ancestors), " ".join((d.name, *d.args))))
        for d, ancestors in source.walk(word)
    ]


def test_only_what_may_have_a_word_is_walked_through() -> None:
    """Blocks and files without it are left out, but for those that lead to it."""
    source = read(
        {
            "/etc/nginx/nginx.conf": "http { server { listen 80; } server { include snippet; }"
            " server { location / { b; acme; } c; } include sites/*; }",
            "/etc/nginx/snippet": "include further;",
            "/etc/nginx/further": "d; acme e;",
            "/etc/nginx/sites/1": "server { f; }",
            "/etc/nginx/sites/2": "server { g; include snippet; } server { h; }",
        }
    )
    assert tree(source, "acme") == [
        "http",
        "http/server",
        "http/server",
        "http/server/d",
        "http/server/acme e",
        "http/server",
        "http/server/location /",
        "http/server/location/b",
        "http/server/location/acme",
        "http/server/c",
        "http/server",
        "http/server/g",
        "http/server/d",
        "http/server/acme e",
        "http/server",
    ]


def test_a_word_is_found_in_a_block_without_end() -> None:
    """What a mistake has kept from ending goes on to the end of its file."""
    with pytest.raises(Unreadable) as refused:
        read({"/etc/nginx/nginx.conf": "http { server { acme; "})
    assert [d.name for d, _ in refused.value.source.walk("acme")] == ["http", "server", "acme"]


def test_includes_are_relative_to_the_main_file() -> None:
    """A relative path begins at the folder of the main file, wherever the `include` stands."""
    source = read(
        {
            "/etc/nginx/nginx.conf": "include 'sub/a.conf'; include /opt/c.conf;",
            "/etc/nginx/sub/a.conf": "include b.conf;",
            "/etc/nginx/b.conf": "b;",
            "/opt/c.conf": "c;",
        }
    )
    assert tree(source) == ["b", "c"]
    assert list(source.files) == [
        "/etc/nginx/nginx.conf",
        "/etc/nginx/sub/a.conf",
        "/etc/nginx/b.conf",
        "/opt/c.conf",
    ]
    assert source.includes["/etc/nginx/sub/a.conf", 0] == Include(
        "/etc/nginx/b.conf", ("/etc/nginx/b.conf",)
    )
    assert source.folder == "/etc/nginx"


def test_main_file_in_the_root() -> None:
    """A main file may be in the root, and what it includes has one slash."""
    source = read({"/nginx.conf": "include a;", "/a": "b;"}, "/nginx.conf")
    assert (source.folder, tree(source)) == ("/", ["b"])


def test_include_of_a_pattern() -> None:
    """Files of a pattern come in its order; one that matches nothing is no mistake."""
    files = {f"/etc/nginx/{name}": f"{name[-1]};" for name in ("d/b", "d/a", "e[f")}
    source = read({"/etc/nginx/nginx.conf": "include d/*; include no/*; include e[f;", **files})
    assert tree(source) == ["a", "b", "f"]
    assert [include.paths for include in source.includes.values()] == [
        ("/etc/nginx/d/a", "/etc/nginx/d/b"),
        (),
        ("/etc/nginx/e[f",),
    ]


def test_folder_with_a_wildcard() -> None:
    """The completed path is the pattern, so its folder's name counts, too."""
    source = read({"/a[b]/x": "include y;", "/a[b]/y": "z;"}, "/a[b]/x")
    assert source.includes["/a[b]/x", 0] == Include("/a[b]/y", ("/a[b]/y",))


def test_one_file_in_several_places() -> None:
    """A file that is included again is read once, and its directives are in each place."""
    reads: list[str] = []
    files = {
        "/x": "http { server { include s; } server { include s; } } http { include v; }",
        "/s": "listen 1; location / { include l; }",
        "/l": "root /;",
        "/v": "server { include s; }",
    }

    def read_text(path: str) -> bytes:
        reads.append(path)
        return files[path].encode()

    source = read_source("/x", read_text, lambda _: [])
    assert reads == ["/x", "/s", "/l", "/v"]
    server = [
        "http/server",
        "http/server/listen 1",
        "http/server/location /",
        "http/server/location/root /",
    ]
    assert tree(source) == ["http", *server, *server, "http", *server]


@pytest.mark.parametrize("name", sorted(OPAQUE))
def test_opaque_blocks(name: str) -> None:
    """Entries of a block of data are no directives, and what it includes is not looked for."""
    source = read({"/x": f"{name} $a {{ include none.conf; acme acme; }} b;"}, "/x")
    assert tree(source) == [f"{name} $a", "b"]
    assert source.includes == {}
    block, _ = source.files["/x"].directives
    assert [entry.name for entry in source.expand(block.block or ())] == ["include", "acme"]


def test_path_ends_at_nul() -> None:
    """A path is a C string for nginx, so it ends at a NUL."""
    assert tree(read({"/x": "include y\0z;", "/y": "a;"}, "/x")) == ["a"]


def test_long_chain_of_includes() -> None:
    """Files may include one another as deep as they like."""
    files = {f"/{n}": f"include {n + 1};" for n in range(5000)}
    assert tree(read({**files, "/5000": "end;"}, "/0")) == ["end"]


def test_a_word_at_the_end_of_a_long_chain() -> None:
    """The way to it is found in linear time; else this would never end."""
    files = {f"/{n}": f"include {n + 1};" for n in range(50_000)}
    assert tree(read({**files, "/50000": "acme;"}, "/0"), "acme") == ["acme"]


def test_missing_main_file() -> None:
    """Without a main file there is no place to name, as with nginx."""
    with pytest.raises(ConfigError) as caught:
        read({})
    message = 'open() "/etc/nginx/nginx.conf" failed (2: No such file or directory)'
    assert str(caught.value) == message


MISTAKES = [
    pytest.param({"nginx.conf": "\ninclude\nnone\n;"}, id="missing file"),
    pytest.param(
        {"nginx.conf": "include a;", "a": "\n\ninclude sub/none;"}, id="missing in a file"
    ),
    pytest.param({"nginx.conf": "events {} include a.conf\nb;"}, id="two arguments"),
    pytest.param({"nginx.conf": "events {}\ninclude;"}, id="no argument"),
    pytest.param({"nginx.conf": "include a\n {}"}, id="a block"),
    pytest.param({"nginx.conf": "include a b {}"}, id="a block with two arguments"),
    pytest.param({"nginx.conf": "include a;", "a": "\nevents {"}, id="syntax in a file"),
    pytest.param({"nginx.conf": "events {\ninclude a;\n}", "a": "}"}, id="a brace in a file"),
    pytest.param({"nginx.conf": "include *.c;", "1.c": "", "2.c": "\n{"}, id="a file of a pattern"),
    pytest.param({"nginx.conf": "include none\0none;"}, id="NUL in a path"),
    pytest.param({"nginx.conf": "include a/b;", "a": ""}, id="a file as a folder"),
]


@pytest.mark.parametrize("files", MISTAKES)
def test_mistakes(oracle: Oracle, tmp_path: Path, files: dict[str, str]) -> None:
    """A mistake in any file is told in nginx's words, with the file and the line that nginx names."""
    main = str(tmp_path / "nginx.conf")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_source(main, read_bytes, glob_files)
    assert str(caught.value) == oracle.complaint_of(main)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(
            PermissionError(13, "Permission denied"),
            'open() "/a" failed (13: Permission denied) in /x:2',
            id="permission",
        ),
        pytest.param(
            IsADirectoryError(21, "Is a directory"),
            'pread() "/a" failed (21: Is a directory) in /x:2',
            id="folder",
        ),
    ],
)
def test_unreadable_file(error: OSError, message: str) -> None:
    """A file that can't be read is told with the call that failed, and where it is included."""

    def read_text(path: str) -> bytes:
        if path == "/a":
            raise error
        return b"\ninclude a;"

    with pytest.raises(ConfigError) as caught:
        read_source("/x", read_text, lambda _: [])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"/x": "\ninclude x;"}, '"/x" includes itself in /x:2', id="itself"),
        pytest.param(
            {"/x": "include a;", "/a": "include b;", "/b": "b;\ninclude a;"},
            '"/a" includes itself in /b:2',
            id="through another",
        ),
        pytest.param(
            {"/x": "a { include y*; }", "/y1": "", "/y2": "\n\ninclude y*;"},
            '"/y2" includes itself in /y2:3',
            id="its own pattern",
        ),
    ],
)
def test_include_loop(files: dict[str, str], message: str) -> None:
    """A loop of includes, of which nginx dies, is one clear line."""
    with pytest.raises(ConfigError) as caught:
        read(files, "/x")
    assert str(caught.value) == f"include loop: {message}"
