"""Fixtures that start real servers; what they start is in `servers.py`.

A test asks for `nginx` or `pebble` to get the installed one, for `each_nginx` or `each_pebble` to
run once with it and once with the next release's, for `every_nginx` to run with that of every
release, and for `start_nginx` or `start_pebble` to start its own. Without the program the test is
an error where CI=true, elsewhere a skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hypothesis
import pytest

from tests import containers
from tests.launcher import Silent, Site, eventually
from tests.servers import (
    NginxServer,
    NotPackaged,
    Pebble,
    Program,
    ServerMissing,
    find_newer,
    find_program,
    find_unpacked,
    has_ipv6,
    misleads,
    other_releases,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# How long an example takes says how busy the machine is, and in CI a run repeats the one before.
hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "all")

FINDERS = {"installed": find_program, "newer": find_newer}


def pytest_configure(config: pytest.Config) -> None:
    """What a test may be marked with."""
    config.addinivalue_line("markers", "ipv6: skipped where the loopback has no IPv6")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Containers often have no IPv6."""
    if item.get_closest_marker("ipv6") and not has_ipv6():
        pytest.skip("there is no IPv6 here")


def _need(which: str, program: str) -> str:
    """The program's path, or the end of the test; `which` is one of `FINDERS`, or a release."""
    try:
        return FINDERS[which](program) if which in FINDERS else find_unpacked(program, which)
    except NotPackaged as missing:
        pytest.skip(str(missing))
    except ServerMissing as missing:
        _do_without(str(missing))


def _do_without(reason: str) -> NoReturn:
    """End the test, for something is missing here."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No proxy, trust store or setting of this machine changes what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(misleads, tuple(os.environ)):
            patch.delenv(name)
        patch.setenv("TERM", "xterm")
        yield


@pytest.fixture(scope="session")
def nginx() -> str:
    """The path of the installed nginx."""
    return _need("installed", "nginx")


@pytest.fixture(scope="session", params=FINDERS)
def each_nginx(request: pytest.FixtureRequest) -> str:
    """The path of the installed nginx, then that of the next release's."""
    return _need(request.param, "nginx")


@pytest.fixture(scope="session", params=("installed", *other_releases()))
def every_nginx(request: pytest.FixtureRequest) -> str:
    """The path of the installed nginx, then of those of other releases, from the oldest on."""
    return _need(request.param, "nginx")


@pytest.fixture(scope="session", params=[("de_DE", "ISO-8859-1"), ("ja_JP", "EUC-JP")])
def other_locale(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What an environment has in it for a locale whose letters are other bytes than those of UTF-8.

    In the first every byte is a letter, in the second some are none.
    """
    language, charmap = request.param
    folder, name = tmp_path_factory.mktemp("locales"), f"{language}.{charmap}"
    localedef = [_need("installed", "localedef"), "--no-archive", "-i", language, "-f", charmap]
    made = subprocess.run([*localedef, str(folder / name)], capture_output=True, check=False)
    if made.returncode:
        _do_without("there are no sources of locales (`make system` would install them)")
    return {"LOCPATH": str(folder), "LC_ALL": name}


@pytest.fixture(scope="session")
def rsync() -> str:
    """The path of what copies a state directory to another node."""
    return _need("installed", "rsync")


@pytest.fixture(scope="session")
def faketime() -> str:
    """The path of what starts a program with another clock."""
    return _need("installed", "faketime")


@pytest.fixture(scope="session")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """One pebble for all, with its bad manners on."""
    binary = _need("installed", "pebble")
    with Pebble(tmp_path_factory.mktemp("pebble"), binary=binary) as server:
        yield server


@pytest.fixture(scope="session", params=FINDERS)
def each_pebble(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pebble]:
    """The installed pebble, then the next release's, with their bad manners on."""
    binary = _need(request.param, "pebble")
    with Pebble(tmp_path_factory.mktemp("pebble"), binary=binary) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser (`browser`)."""
    return _need("installed", "chromium")


@pytest.fixture(scope="session")
def newer_pebble() -> str:
    """The path of the next release's pebble."""
    return _need("newer", "pebble")


@pytest.fixture
def start_pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pebble]]:
    """Start a pebble with manners of the test's choice: `Pebble`'s arguments, without the folder.

    `newer=True` takes the next release's. It is stopped when the test ends.
    """
    with ExitStack() as stack:

        def start(*, newer: bool = False, **manners: Any) -> Pebble:
            binary = _need("newer" if newer else "installed", "pebble")
            folder = tmp_path_factory.mktemp("pebble")
            return stack.enter_context(Pebble(folder, binary=binary, **manners))

        yield start


@pytest.fixture(scope="session")
def image() -> str:
    """The container image, built from the Dockerfile."""
    if not containers.can_run():
        pytest.skip("needs root, docker (running) and debootstrap")
    return containers.build()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder that nginx's workers may enter; `tmp_path` is for its owner alone."""
    folder = Path(tempfile.mkdtemp(prefix="nginx-acme-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """The same, of another file system, which is in memory."""
    if not os.path.ismount("/dev/shm"):  # noqa: S108 - it is asked for
        pytest.skip("there is no /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="nginx-acme-", dir="/dev/shm"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start_nginx(open_path: Path) -> Iterator[Callable[..., NginxServer]]:
    """Start an nginx on a config: `NginxServer`'s arguments, without the folder (`open_path`)."""
    with ExitStack() as stack:

        def start(config: str, **more: Any) -> NginxServer:
            _need("installed", "nginx")
            return stack.enter_context(NginxServer(open_path, config, **more))

        yield start


@pytest.fixture
def make_site(open_path: Path) -> Iterator[Callable[..., Site]]:
    """Make a folder for the launcher: `Site`'s arguments, without the folder.

    Nothing of it is running any more when the test ends.
    """
    sites: list[Site] = []

    def make(ca: Pebble | None = None, **more: Any) -> Site:
        _need("installed", "nginx")
        folder = open_path / f"site{len(sites)}"
        folder.mkdir(mode=0o755)
        sites.append(Site(folder, ca, **more))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()
    eventually(lambda: not any(site.processes() for site in sites), "the end of all of them")


@pytest.fixture
def silent() -> Iterator[Silent]:
    """A CA that accepts connections and says nothing."""
    with Silent() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the servers wrote during it."""
    report = yield
    if report.failed:
        for program in Program.history:
            if program.wrote_since(call.start):
                report.sections.append((f"{program.log}", program.output(3000)))
    return report
