"""The JSON that programs read, and what the README says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nginx_acme.report import Overview, Row
from nginx_acme.report.document import SCHEMA, to_json
from tests.report.rows import ALL, DEGRADED, NEW, of

README = Path(__file__).parents[2] / "README.md"


def test_document() -> None:
    """Every fact is in the document, times in UTC, absent ones null."""
    document = json.loads(json.dumps(to_json(of(NEW))))
    assert document["schema"] == SCHEMA
    assert document.keys() - {"schema", "state_path", "certificates"} == set(Overview.__slots__) - {
        "state",
        "rows",
    }
    assert (document["nginx_pid"], document["agent_pid"]) == (7, None)
    assert document["now"] == "2027-03-01T12:00:00Z"
    assert document["last_look"] == "2027-03-01T11:00:00Z"
    (found,) = document["certificates"]
    assert found.keys() - {"servers"} == set(Row.__slots__) - {"places"}
    assert found["servers"] == ["/etc/nginx/nginx.conf:7"]
    assert found["next_attempt"] == "2027-03-01T12:10:00Z"
    assert (found["not_after"], found["served"], found["left_out"]) == (None, None, [])
    (degraded,) = to_json(of(DEGRADED))["certificates"]
    assert degraded["left_out"] == ["www.half.example"]


def test_readme() -> None:
    """The README names every field, every state and the schema, and nothing else."""
    text = README.read_text()
    section = text.partition("### The document")[2].partition("\n##")[0]
    document = to_json(of(*ALL))
    fields = {*document, *document["certificates"][0]}
    states = {row["state"] for row in document["certificates"]}
    assert set(re.findall(r"`([a-z_]+)`", section)) == fields | states
    assert f"`schema` is {SCHEMA}" in section
