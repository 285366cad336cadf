"""How findings are shown to people and to programs."""

from __future__ import annotations

from datetime import UTC, datetime

from nginx_acme.doctor.finding import fine, odd, wrong
from nginx_acme.doctor.shown import is_well, to_json, to_text

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def test_text() -> None:
    """A line each below its group: ✓, or what is wrong and what to do."""
    lines = to_text(
        [
            fine("state.folder", "/state", "can be written"),
            odd("names.address", "a.example", "leads elsewhere", "change DNS"),
            wrong("names.caa", "a.example", "forbidden"),
        ],
        colours=False,
    )
    assert (
        "\n".join(lines)
        == """\
state
  ✓ /state  can be written

names
  ! a.example  leads elsewhere; change DNS
  ✗ a.example  forbidden"""
    )


def test_many() -> None:
    """The same of many subjects is one line; another verdict has its own."""
    names = [fine("names.caa", f"{i}.example", "CAA excludes nobody") for i in range(300)]
    lines = list(to_text([*names, wrong("names.caa", "x.example", "no")], colours=False))
    assert lines == [
        "names",
        "  ✓ 0.example, 1.example, 2.example and 297 more  CAA excludes nobody",
        f"  ✗ {'x.example':40}  no",
    ]


def test_colours() -> None:
    """Marks are coloured for a terminal, and nothing else that comes from outside can be."""
    (group, line) = to_text([wrong("names.caa", "a", "no \x1b[2J")], colours=True)
    assert group == "\x1b[1mnames\x1b[0m"
    assert line == "  \x1b[31m✗\x1b[0m a  no \\x1b[2J"


def test_json() -> None:
    """Every finding by itself, in a form that is promised."""
    found = [odd("names.address", "a.example", "leads elsewhere", "change DNS")]
    assert to_json(found, NOW) == {
        "schema": 1,
        "now": "2027-03-01T12:00:00Z",
        "ok": True,
        "checks": [
            {
                "check": "names.address",
                "subject": "a.example",
                "verdict": "warning",
                "words": "leads elsewhere",
                "advice": "change DNS",
            }
        ],
    }


def test_is_well() -> None:
    """Only what is wrong is a reason to fail."""
    assert is_well([fine("a.b", "", ""), odd("a.b", "", "")])
    assert not is_well([fine("a.b", "", ""), wrong("a.b", "", "")])
