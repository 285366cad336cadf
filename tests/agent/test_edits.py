"""Edits with a HUP at once: what is served is what the last valid one says, however it was made.

How an editor, a deployment or a container engine changes a configuration: by another file in the
place of the old one or by other bytes in the same one, by a link that is turned, in one file of
thousands, through a mount. Mistakes are among them, for which nginx goes on as it was.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from nginx_acme.reload import Opens
from tests.launcher import eventually
from tests.mounts import CAN_MOUNT, bound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.launcher import Site

    MakeSite = Callable[..., Site]

LOCAL = "acme local;"
FILES = 3000


def saying(site: Site, answer: object, acme: str = LOCAL) -> str:
    """A server that answers so."""
    return site.block("a.internal", acme).replace('"a.internal"', f'"{answer}"')


def started(site: Site) -> Site:
    """The same, running, with an agent that sleeps."""
    site.start()
    site.quiet()
    return site


def body(site: Site) -> str:
    """What is answered."""
    return site.shown("a.internal").body.decode()


def settles(site: Site, answer: object) -> None:
    """Wait until it answers so, and see that it goes on when all is quiet."""
    eventually(lambda: body(site) == str(answer), f"the answer {answer}")
    site.quiet()
    assert body(site) == str(answer)


def answers_anew(site: Site, before: str) -> str:
    """What it answers, if that isn't what it has answered before."""
    now = body(site)
    return "" if now == before else now


def refuses(site: Site, word: str) -> None:
    """Wait until a mistake is told that has this word in it."""
    eventually(lambda: re.search(rf"\[emerg\].*{word}\b", site.error_log()), word)


def rename_over(path: Path, text: str) -> None:
    """What most editors do: another file in its place."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def write_in_place(path: Path, text: str) -> None:
    """What a shell does, and an editor with a file that is mounted."""
    with path.open("r+") as file:
        file.write(text)
        file.truncate()


# --- in a row ---------------------------------------------------------------------------------


def mistake(kind: str, number: int, site: Site) -> str:
    """A server with a mistake of ours, of nginx's, or of the reading; the log names it so."""
    if kind == "nobody":
        return saying(site, number, f"acme nobody{number};")
    wrong = f"retrun{number} 200;" if kind == "retrun" else f"include missing{number}.conf;"
    return saying(site, number, f"{LOCAL} {wrong}")


@pytest.mark.timeout(600)
def test_a_hundred(make_site: MakeSite) -> None:
    """Of a hundred edits with a HUP each, half of them mistakes, the last valid one is served.

    They come in bursts, faster than nginx reads. Each burst ends with a valid edit, which is waited
    for, and then a mistake, which has been looked at when it is in the log.
    """
    site = make_site()
    site.configure(saying(site, "first"))
    started(site)
    valid = site.conf.read_text()
    dice = random.Random(4)  # noqa: S311 - the same each time
    for number in range(1, 101):
        kind = dice.choice(("", "", "", "nobody", "retrun", "missing"))
        if number % 10 in {9, 0}:
            kind = kind or "retrun" if number % 10 == 0 else ""
        server = mistake(kind, number, site) if kind else saying(site, number)
        save = dice.choice((rename_over, write_in_place))
        save(site.conf, valid.replace(saying(site, "first"), server))
        site.hang_up()
        if number % 10 == 9:
            settles(site, number)
        elif number % 10 == 0:
            refuses(site, f"{kind}{number}")
            settles(site, number - 1)


def test_many_hups(make_site: MakeSite) -> None:
    """Twenty HUPs at once without an edit are nginx's alone; with one there are few of ours."""
    site = make_site()
    site.configure(saying(site, "first"), main="error_log logs/error.log notice;")
    started(site)
    generations = os.listdir(site.instance / "generations")
    workers = site.workers()
    for _ in range(20):
        site.hang_up()
    eventually(lambda: site.workers().isdisjoint(workers), "other workers")
    site.quiet()
    assert site.own_reloads() == 0
    assert os.listdir(site.instance / "generations") == generations
    site.configure(saying(site, "second"), main="error_log logs/error.log notice;")
    for _ in range(20):
        site.hang_up()
    settles(site, "second")
    assert site.own_reloads() <= 2
    assert "[error]" not in site.error_log()
    assert "[emerg]" not in site.error_log()


def test_edited_while_nginx_is_waited_for(make_site: MakeSite) -> None:
    """What is edited after it was read, with a HUP that nobody tells from the first one, is served."""
    site = make_site()
    site.configure(saying(site, "first"))
    started(site)
    with closing(Opens(str(site.conf))) as opens, site.lock_generation():
        os.utime(site.conf)  # as an edit with nothing new in it
        site.reload()
        eventually(opens.count, "the agent reading")
        site.configure(saying(site, "second"))
        site.reload()
    assert "[error]" not in site.error_log()
    settles(site, "second")


# --- three thousand files -----------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_thousands_of_files(make_site: MakeSite) -> None:
    """One of three thousand files is changed, comes, goes and is broken as one alone would."""
    site = make_site()
    folder = site.folder / "locations"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.conf").write_text(f'location /{number} {{ return 200 "{number}"; }}\n')
    first = folder / "0.conf"
    text = 'location / {{ return 200 "{}"; }}\n'
    first.write_text(text.format("first"))
    server = site.block("a.internal", f"{LOCAL} include locations/*.conf;")
    site.configure(re.sub(r"return 200 \S+;", "", server))
    started(site)
    for number, save in enumerate((rename_over, write_in_place)):
        save(first, text.format(number))
        site.hang_up()
        settles(site, number)
    first.write_text("retrun1;")
    site.hang_up()
    refuses(site, "retrun1")
    settles(site, 1)
    first.unlink()
    (folder / "new.conf").write_text(text.format("new"))
    site.hang_up()
    settles(site, "new")


# --- mounts and links ---------------------------------------------------------------------------


@CAN_MOUNT
def test_mounted_file(make_site: MakeSite, open_path: Path) -> None:
    """What is written into a mounted file is taken; one that is put in its place is not there."""
    site = make_site()
    site.configure(saying(site, "first"))
    file = open_path / "outside.conf"
    file.write_text(site.conf.read_text())
    with bound(file, site.conf):
        started(site)
        write_in_place(file, file.read_text().replace("first", "second"))
        site.hang_up()
        settles(site, "second")
        workers = site.workers()
        rename_over(file, file.read_text().replace("second", "elsewhere"))
        site.hang_up()
        eventually(lambda: site.workers().isdisjoint(workers), "other workers")
        settles(site, "second")
        write_in_place(site.conf, site.conf.read_text().replace("second", "third"))
        site.hang_up()
        settles(site, "third")


class ConfigMap:
    """A folder as Kubernetes mounts it: the files are links through `..data`, which is turned."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self._folder = folder
        self._turns = 0
        folder.mkdir()
        self.turn(files, keep=True)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def turn(self, files: dict[str, str], *, keep: bool) -> None:
        """Other contents, all at once; the old ones are gone, or stay for a while."""
        data = self._folder / "..data"
        old = self._folder / os.readlink(data) if data.is_symlink() else None
        new = self._folder / f"..{self._turns}"
        self._turns += 1
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text)
        turned = self._folder / "..data_tmp"
        turned.symlink_to(new.name)
        turned.rename(data)
        if old is not None and not keep:
            shutil.rmtree(old)


def test_config_map(make_site: MakeSite) -> None:
    """When all files change by one link that is turned, all of them are taken together."""
    site = make_site()
    site.configure("include config/server.inc;")
    main = site.conf.read_text()

    def files(answer: object) -> dict[str, str]:
        location = f'location / {{ return 200 "$said {answer}"; }}'
        server = re.sub(
            r"return 200 \S+;", f"set $said {answer}; include config/*.location;", saying(site, "")
        )
        return {"nginx.conf": main, "server.inc": server, "a.location": location}

    config = ConfigMap(site.folder / "config", files("first"))
    site.conf.unlink()
    site.conf.symlink_to("config/nginx.conf")
    started(site)
    before = "first first"
    for number in range(3):
        config.turn(files(number), keep=number == 1)
        site.hang_up()
        answer = f"{number} {number}"
        assert eventually(partial(answers_anew, site, before), "another answer") == answer
        settles(site, before := answer)
    config.turn(files("wrong") | {"a.location": "retrun1;"}, keep=True)
    site.hang_up()
    refuses(site, "retrun1")
    settles(site, "2 2")
    config.turn(files("right"), keep=False)
    site.hang_up()
    settles(site, "right right")
