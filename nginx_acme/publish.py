"""What nginx serves of how its certificates stand (`acme_status`): files that its workers only read.

Written by whoever has just looked at all certificates: a start with something to do, a reload,
a renewal, the agent. So every file carries the time of the last look, and is written anew also
where nothing else has changed: whoever watches it sees that nobody looks any more. A page made on
demand would need something that runs as long as nginx does and that nginx asks; with files nginx
answers, and shows how old they are, when nothing of ours is running any more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nginx_acme import __version__
from nginx_acme.errors import NginxAcmeError
from nginx_acme.generate import STATUS_FILES
from nginx_acme.overview import gather_lasting
from nginx_acme.report.document import to_json
from nginx_acme.report.metrics import to_metrics
from nginx_acme.report.page import to_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from nginx_acme.launch import Home
    from nginx_acme.log import Log
    from nginx_acme.report import Overview


def publish(home: Home, log: Log, now: datetime) -> None:
    """Write them, as it is `now`, which is the last look from now on; see `gather_lasting`.

    That they can't be written is said, and is no reason for anything to fail.
    """
    try:
        home.instance.publish(_files(gather_lasting(home, now)))
        home.store.keep_proved(now)
    except NginxAcmeError as error:
        log.warn(f"how the certificates stand can't be published: {error}")
    except Exception as error:  # noqa: BLE001 - no fault of ours in a page stops nginx or a renewal
        log.error(f"internal error while publishing: {type(error).__name__}: {error}")


def _files(found: Overview) -> Iterator[tuple[str, bytes]]:
    """Name and content of each, one after the other: of ten thousand rows it is a lot at once."""
    yield STATUS_FILES["html"][0], to_html(found).encode("ascii", "xmlcharrefreplace")
    yield STATUS_FILES["json"][0], f"{json.dumps(to_json(found))}\n".encode("ascii")
    yield STATUS_FILES["prometheus"][0], to_metrics(found, __version__).encode("utf-8", "replace")
