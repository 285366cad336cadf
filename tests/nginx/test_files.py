"""Reading files as nginx does: its glob(3), its order, its errors."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import Unreadable, read_source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.nginx.oracle import Oracle

NAMES = (
    *("a.conf", "b.conf", "B.conf", "a", "ab", "a-", "a]", "[a", "[a]", "]", "-", "^a", "!a", "*"),
    *("a\\", "a b", ".a.conf", "..b", "1", "_", "\udce9", "d/a.conf", "d/.b", "d/e/a", "D/a.conf"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files with difficult names, a link to nowhere and one to a folder."""
    folder = tmp_path_factory.mktemp("glob")
    for name in NAMES:
        path = os.fsencode(f"{folder}/{name}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb"):
            pass
    (folder / "nowhere").symlink_to("none")
    (folder / "link").symlink_to("d")
    (folder / "empty").mkdir()
    return folder


class _Found(ctypes.Structure):
    """The fields of glob_t that POSIX names, and room for the C library's own."""

    _fields_ = (
        ("count", ctypes.c_size_t),
        ("paths", ctypes.POINTER(ctypes.c_char_p)),
        ("offset", ctypes.c_size_t),
        ("rest", ctypes.c_char * 256),
    )


def glob_of_the_c_library(pattern: str) -> list[str]:
    """What glob(3), which nginx calls, finds."""
    library = ctypes.CDLL(None)
    found = _Found()
    try:
        if library.glob(os.fsencode(pattern), 0, None, ctypes.byref(found)):
            return []
        return [os.fsdecode(found.paths[index] or b"") for index in range(found.count)]
    finally:
        library.globfree(ctypes.byref(found))


PATTERNS = [
    *("*", "*.conf", "?", "a?", "[ab]*", "[!a]*", "[^a]*", "[a-z]*", "[B-a]*", "[z-a]", "[a-]"),
    *(
        "[]]",
        "[]a]",
        "[!]]*",
        "[[]a",
        "[[]*",
        "a[]]",
        "a[-]",
        "[a",
        "a*[",
        "[!",
        "[]",
        "[!]",
        "[[:digit:]]",
    ),
    *("[![:alnum:]]*", "[[:upper:][:digit:]]*", "[[:none:]]", r"[\]]", r"a[\\]", r"\a*", r"\[a*"),
    *(
        r"a\**",
        r"\*[*]",
        "*\\",
        "**",
        "**/*",
        "*/*",
        "d/*",
        "[d]/*",
        "d/*/a",
        "*/e/a",
        "*/a.conf",
        "*/",
    ),
    *(
        "d//*",
        "./*",
        "d/../*",
        "none/*",
        "a/*",
        "link/*",
        "lin*/*",
        "nowh*",
        "nowhere*/*",
        "empty/*",
    ),
    *(".*", ".*/a", "[.]*", r"\.*", ".?.conf", "d/.*", "{a,b}*", "~*", "* *"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(folder: Path, pattern: str) -> None:
    """A pattern matches what glob(3) matches, in the order of the bytes."""
    pattern = f"{folder}/{pattern}"
    assert glob_files(pattern) == glob_of_the_c_library(pattern)


pieces = st.sampled_from(
    (
        *"ab]?*-!^.dD1",
        "*",
        "?",
        "[a",
        "[!",
        "[^",
        "[]",
        "[a-",
        "[[:alpha:]",
        r"\a",
        r"\*",
        r"\]",
        "/d",
        "/*",
    )
)


@given(text=st.lists(pieces, min_size=1, max_size=8).map("".join))
def test_any_pattern(folder: Path, text: str) -> None:
    """Any pattern matches what glob(3) matches; nginx takes it for one if it has a wildcard."""
    pattern = f"{folder}/*{text}"
    assert glob_files(pattern) == glob_of_the_c_library(pattern)


def test_nginx_opens_the_same_files(oracle: Oracle, tmp_path: Path) -> None:
    """Everything that nginx opens is read, in its order, and nothing else."""
    files = {
        "nginx.conf": "include conf.d/*.conf; include conf.d/?.conf; events {} include [!c-x]*.conf;",
        "a.conf": "",
        "\xe9.conf": "",
        "conf.d/10.conf": "include snippets/x;",
        "conf.d/2.conf": "",
        "conf.d/B.conf": "",
        "conf.d/a.conf": "include snippets/*;",
        "conf.d/\xe9.conf": "",
        "conf.d/.hidden.conf": "nonsense",
        "snippets/x": "",
        "snippets/y": "include a.conf;",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    main = str(tmp_path / "nginx.conf")
    assert list(read_source(main, read_bytes, glob_files).files) == oracle.opened(main)


def test_thousands_of_files(oracle: Oracle, tmp_path: Path) -> None:
    """Three thousand files, some included by ten, are opened in nginx's order, each once."""
    (tmp_path / "d").mkdir()
    for number in range(3000):
        shared = f"include d/{number // 10 * 10 + 9}.y;" if number % 10 < 9 else ""
        (tmp_path / "d" / f"{number}.{'x' if shared else 'y'}").write_text(shared)
    main = tmp_path / "nginx.conf"
    main.write_text("events {} include d/*.x; http { include d/1*.y; include d/[!1]*.y; }")
    files = list(read_source(str(main), read_bytes, glob_files).files)
    assert files == oracle.opened(str(main))
    assert len(files) == 3001


def test_vanishing_file(oracle: Oracle, tmp_path: Path) -> None:
    """A file that is listed and then gone is missing, as it is for an nginx that comes between."""
    (tmp_path / "a.conf").symlink_to("b.conf")
    (tmp_path / "b.conf").touch()
    main = tmp_path / "nginx.conf"

    def list_and_remove(pattern: str) -> list[str]:
        found = glob_files(pattern)
        (tmp_path / "b.conf").unlink()
        return found

    main.write_text("events {}\ninclude [ab].conf;")
    with pytest.raises(Unreadable) as caught:
        read_source(str(main), read_bytes, list_and_remove)
    assert str(caught.value) == oracle.complaint_of(str(main))
    assert list(caught.value.unopened) == [f"{tmp_path}/a.conf", f"{tmp_path}/b.conf"]


def test_a_wildcard_is_one_byte(oracle: Oracle, tmp_path: Path) -> None:
    """In the C locale, which is nginx's, a letter of two bytes is two."""
    main = tmp_path / "nginx.conf"
    (tmp_path / "\xe9").touch()
    for pattern, count in (("?", 0), ("??", 1), ("[\xe9]", 0), ("[\xe9][\xe9]", 1)):
        main.write_text(f"events {{}} include {pattern};")
        files = list(read_source(str(main), read_bytes, glob_files).files)
        assert files == oracle.opened(str(main))
        assert len(files) == 1 + count


def test_read_bytes(tmp_path: Path) -> None:
    """A file's bytes are read as they are; a device has none."""
    (tmp_path / "file").write_bytes(b"a\r\n\0\xff")
    assert read_bytes(f"{tmp_path}/file") == b"a\r\n\0\xff"
    (tmp_path / "empty").touch()
    assert read_bytes(f"{tmp_path}/empty") == b""
    assert read_bytes("/dev/zero") == b""


def test_errors_of_reading(oracle: Oracle, tmp_path: Path) -> None:
    """The operating system's errors come through as nginx gets them."""
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{tmp_path}/none")
    with pytest.raises(IsADirectoryError):
        read_bytes(f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text("include ..;")
    complaint = oracle.complaint_of(f"{tmp_path}/nginx.conf")
    assert complaint == f'pread() "{tmp_path}/.." failed (21: Is a directory)'
