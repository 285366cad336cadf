"""A real browser without a screen, for the page of `acme_status`: Debian's Chromium.

It gets a new profile each time, and can reach nothing but loopback.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass

from tests.servers import LOCALHOST, environment

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOCALHOST}",
)
_DARK = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True, slots=True)
class Seen:
    """The document as it is once the browser has done with it, and what the browser complained of."""

    document: str
    complaints: str


def browse(chromium: str, url: str, *, dark: bool = False, seconds: float = 60) -> Seen:
    """Let the browser open a page."""
    with tempfile.TemporaryDirectory(prefix="nginx-acme-browser-") as profile:
        ran = subprocess.run(
            [
                chromium,
                *_FLAGS,
                *([_DARK] if dark else ()),
                f"--user-data-dir={profile}",
                "--dump-dom",
                url,
            ],
            env=environment(HOME=profile),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    complaints = [line for line in ran.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(ran.stdout, "\n".join(complaints))
