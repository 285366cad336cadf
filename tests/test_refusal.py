"""A configuration that can't be read: what the user is told is what nginx says of it."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from nginx_acme.binary import Nginx
from nginx_acme.directives import hint
from nginx_acme.judgement import judge
from nginx_acme.nginx.files import glob_files, read_bytes
from nginx_acme.nginx.source import Unreadable, read_source
from nginx_acme.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nginx_acme.errors import NginxAcmeError
    from nginx_acme.generation import Generation
    from nginx_acme.judgement import Judgement
    from tests.launcher import Site

OURS = re.compile(
    r"\bacme(?:_issuer|_contact)?(?: [^;{}]*)?(?:;|\{[^}]*\})|ssl_certificate\S* \$acme\S*;"
)


def files_in(folder: Path, files: Mapping[str, str]) -> str:
    """Write files; the path of the main one."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return f"{folder}/nginx.conf"


def told(nginx: str, main: str, scratch: Path) -> NginxAcmeError:
    """What the user is told of a configuration that can't be read."""

    def test(written: Generation) -> Judgement:
        argv = ("-t", "-e", "/dev/null", "-c", written.main)
        return judge(Nginx(nginx, "nginx", (1, 22, 1), ""), argv, written.translate)

    scratch.mkdir()
    with pytest.raises(Unreadable) as caught:
        read_source(main, read_bytes, glob_files)
    return refusal(caught.value, str(scratch), f"{os.path.dirname(main)}/acme", test)


MISTAKES = [
    pytest.param(
        {"nginx.conf": "events {}\nhttp {\nserver { acme off;\n\nserver { }\n}"},
        '"server" directive is not allowed here in nginx.conf:5',
        id="a brace is missing",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp {\nserver { } } acme off; }\n\nserver { }\n}"},
        'unexpected "}" in nginx.conf:3',
        id="a brace too much",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp {\n acme off; }\nserver { }\n}"},
        '"server" directive is not allowed here in nginx.conf:4',
        id="a brace too early",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp { acme_contact x;\nnonsense;\n"},
        'unknown directive "nonsense" in nginx.conf:3',
        id="another mistake before",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp {\ninclude none; acme off;\n"},
        'open() "none" failed (2: No such file or directory) in nginx.conf:3',
        id="a missing file before the end of the file",
    ),
    pytest.param(
        {
            "nginx.conf": "events {} http { include a/*;\n} }",
            "a/1": "acme off; server {\nacme off; }",
            "a/2": "acme off; acme_issuer x { uri https://a/; }",
        },
        'unexpected "}" in nginx.conf:2',
        id="a mistake behind files with our words",
    ),
    pytest.param(
        {"nginx.conf": "events {} http { include a; }", "a": "acme off; server {\n{ }"},
        'unexpected "{" in a:2',
        id="in a file",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp { acme; include a; include b; ", "a": "x", "b": "\ny;"},
        'unexpected end of file, expecting ";" or "}" in a:1',
        id="the first of three",
    ),
    pytest.param(
        {"nginx.conf": "events {} include a; include a b; acme_contact x;", "a": ""},
        'invalid number of arguments in "include" directive in nginx.conf:1',
        id="no include",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nacme_issuer x { uri https://a/; }\nacme_contacts y;\n}"},
        'unknown directive "acme_contacts", did you mean "acme_contact"? in nginx.conf:3',
        id="a word that is nearly ours",
    ),
    pytest.param(
        {
            "nginx.conf": "events {} include ../outside/a;\nuser x",
            "../outside/a": "acme_contact x;",
        },
        'unexpected end of file, expecting ";" or "}" in nginx.conf:2',
        id="a file elsewhere",
    ),
    pytest.param(
        {"nginx.conf": "events {}\nhttp {\nssl_certificate $acme_certificate;\nacme off; xyz;"},
        'unknown directive "xyz" in nginx.conf:4',
        id="the long form of nginx's own module",
    ),
    pytest.param(
        {"nginx.conf": "events {} http { include ../conf/a; }\n}", "a": "acme off;\n"},
        'unexpected "}" in nginx.conf:2',
        id="a path that climbs",
    ),
]


@pytest.mark.parametrize(("files", "message"), MISTAKES)
def test_words_of_nginx(
    each_nginx: str, tmp_path: Path, files: Mapping[str, str], message: str
) -> None:
    """The words, file and line are nginx's for the same files without what is ours."""
    folder = tmp_path / "conf"
    main = files_in(folder, files)
    said = str(told(each_nginx, main, tmp_path / "scratch")).replace(f"{folder}/", "")
    assert said == f"nginx: [emerg] {message}"
    without = {name: OURS.sub("", text) for name, text in files.items()}
    argv = (each_nginx, "-t", "-e", "/dev/null", "-c", files_in(folder, without))
    plain = subprocess.run(argv, capture_output=True, check=False, text=True)
    complaint, failed = plain.stderr.replace(f"{folder}/", "").splitlines()
    assert hint(complaint) == said
    assert failed == "nginx: configuration file nginx.conf test failed"


def test_what_is_no_file(nginx: str, tmp_path: Path) -> None:
    """Why a file can't be read is said as it is for the user, wherever that file is."""
    for name in ("sub/folder", "../folder"):
        files = {"nginx.conf": f"events {{}} acme_contact x;\ninclude {name};", f"{name}/a": ""}
        main = files_in(tmp_path / "conf", files)
        said = str(told(nginx, main, tmp_path / f"scratch{len(name)}"))
        path = f"{tmp_path}/conf/{name}"
        message = f'pread() "{path}" failed (21: Is a directory) in {main}:2'
        assert said.splitlines()[0].endswith(f"] {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "events {} http { acme; server { listen 127.0.0.1:9 ssl; }\n}\n}",
            'unexpected "}" in nginx.conf:3',
            id="nginx misses the certificate that is ours to give",
        ),
        pytest.param(
            "events {}\nacme_issuer x { uri https://a/;\nhttp {\n}",
            'unexpected end of file, expecting "}" in nginx.conf:4',
            id="a block of ours has no end",
        ),
        pytest.param(
            "acme_issuer x { acme_issuer y { uri 'https://a/'u } }",
            'unexpected "u" in nginx.conf:1',
            id="inside a block of ours",
        ),
    ],
)
def test_our_words(nginx: str, tmp_path: Path, text: str, message: str) -> None:
    """Where nginx would speak of what is ours, the mistake is told that was found in reading."""
    main = files_in(tmp_path / "conf", {"nginx.conf": text})
    said = told(nginx, main, tmp_path / "scratch")
    assert isinstance(said, Unreadable)
    assert str(said).replace(f"{tmp_path}/conf/", "") == message


def test_as_the_user_sees_it(make_site: Callable[..., Site]) -> None:
    """`-t` and a start say it alike, for files that were never read as well, and leave nothing."""
    site = make_site().configure("include sites/*;\n}")
    (site.folder / "sites").mkdir()
    (site.folder / "sites" / "a").write_text(site.block("a.example", "acme local;"))
    line = len(site.conf.read_text().splitlines())
    for options in (["-t"], []):
        answer = site.run(*options)
        assert answer.returncode == 1
        assert answer.stderr.splitlines()[0].endswith(f'unexpected "}}" in {site.conf}:{line}')
    assert not site.state.exists()
