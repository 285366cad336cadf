"""The words that nginx does not have: one module for each."""

from __future__ import annotations

import argparse
import locale
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from nginx_acme.launch import Launch


class Command(Protocol):
    """What a module of this package has."""

    def run(self, launch: Launch) -> int:
        """Do it, with the arguments in ``launch.command.rest``; the exit code."""


def run(launch: Launch) -> int:
    """Do what the word on the command line asks for."""
    module = import_module(f"{__name__}.{launch.command.word}")
    # A terminal may lack a letter that a CA or a configuration uses. In UTF-8 mode (`__main__`) its
    # letters are still those of the locale.
    if isinstance(sys.stdout, TextIOWrapper):
        encoding = locale.getencoding() if "utf8" in sys._xoptions else None  # noqa: SLF001
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    exit_code = cast("Command", module).run(launch)
    # Here, where it is no disgrace that nobody reads any more.
    sys.stdout.flush()
    return exit_code


def parser_for(word: str, what: str) -> argparse.ArgumentParser:
    """What reads the arguments of a word; `what` it does is for --help."""
    return argparse.ArgumentParser(
        f"nginx-acme {word}",
        description=what,
        epilog="nginx's own -p, -c, -e and -g say which nginx is meant.",
    )
