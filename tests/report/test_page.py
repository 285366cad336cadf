"""The page of `acme_status`: what is in it, and what a real browser makes of it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from nginx_acme.report.page import to_html
from tests.browser import browse
from tests.report.rows import ALL, DAY, DEGRADED, EXPIRED, FAILING, NEW, NOW, TEMPORARY, VALID, of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nginx_acme.report import Overview, Row

HOSTILE = """</td><script>alert(1)</script><img src="http://127.0.0.1:9/x" onerror='a()'>&amp;"""
VOID = {"meta", "link", "rect", "path", "circle"}


class Page(HTMLParser):
    """What a parser finds: elements with their attributes and texts; it must be well-formed."""

    def __init__(self, overview: Overview) -> None:
        super().__init__()
        self.source = to_html(overview)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Only what was opened last is closed."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note it, but for the style."""
        if data.strip() and "style" not in self._open:
            self.texts.append(data.strip())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """The attributes of every such element."""
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key.rstrip("_")) == to for key, to in wanted.items())
        ]


def widths(row: Row) -> dict[str, tuple[int, int]]:
    """Where each part of a certificate's life begins in the drawing, and how long it is."""
    return {
        found["class"]: (int(found["x"]), int(found["width"]))
        for found in Page(of(row)).all("rect")
    }


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(
            VALID, {"gone": (0, 333), "left": (333, 334), "margin": (667, 333)}, id="valid"
        ),
        pytest.param(FAILING, {"gone": (0, 833), "late": (833, 167)}, id="due"),
        pytest.param(EXPIRED, {"gone": (0, 1000)}, id="expired"),
        pytest.param(
            replace(VALID, not_before=NOW + DAY, renewal=NOW + 40 * DAY),
            {"left": (0, 661), "margin": (661, 339)},
            id="not yet valid",
        ),
        pytest.param(NEW, {}, id="missing"),
        pytest.param(TEMPORARY, {}, id="the life of a stand-in is not its own"),
        pytest.param(replace(VALID, not_after=VALID.not_before), {}, id="no life at all"),
    ],
)
def test_life(row: Row, expected: dict[str, tuple[int, int]]) -> None:
    """A life is drawn by its days: gone, until the renewal, from there to the end; nothing more."""
    assert widths(row) == expected


def test_for_everybody() -> None:
    """What is drawn is said in words, and the table is one however it is laid out."""
    page = Page(of(*ALL))
    bars = page.all("svg", class_="bar")
    drawn = [row for row in ALL if row.state in {"valid", "due", "expired"}]
    assert len(bars) == len(drawn)
    assert {bar["role"] for bar in bars} == {"img"}
    assert "issued 2027-01-30, renewal 2027-03-31, ends 2027-04-30, 33 % of its life are gone" in [
        bar["aria-label"] for bar in bars
    ]
    roles = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "td": "cell"}
    for tag, role in roles.items():
        assert {found.get("role") for found in page.all(tag)} == {role}
    assert [found["scope"] for found in page.all("th", role="columnheader")] == ["col"] * 4
    assert len(page.all("th", role="rowheader", scope="row")) == len(ALL)
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("title")


def test_words() -> None:
    """What needs somebody comes first, with the CA's words; every fact can be read."""
    page = Page(of(VALID, DEGRADED, FAILING, EXPIRED))
    text = " ".join(page.texts)
    assert page.texts[:2] == ["1 of 4 certificates needs you"] * 2
    order = [text.index(f" {row.names[0]} letsenc") for row in (EXPIRED, FAILING, DEGRADED)]
    assert order == sorted(order)
    assert "failed 3 times: failing.example: no such host (dns)" in text
    assert "without www.half.example" in text
    assert "2027-03-01 11:00 UTC" in text
    for words in (VALID.directory_url, VALID.path, VALID.places[0], "R11", "www.example.com"):
        assert words in text


def test_many_names() -> None:
    """Of a hundred names a few are shown, and the others when they are asked for."""
    names = tuple(f"n{number}.example" for number in range(100))
    page = Page(of(replace(VALID, names=names)))
    assert "n1.example, n2.example, n3.example and 96 more" in page.texts
    assert ", ".join(names) in page.texts


def test_nothing() -> None:
    """A page without certificates says so."""
    page = Page(of())
    assert "There are no certificates" in page.texts
    assert not page.all("table")


def hostile() -> Overview:
    """An overview in which everybody tried to say something else."""
    row = replace(
        TEMPORARY,
        issuer=HOSTILE,
        issued_by=HOSTILE,
        problem=HOSTILE,
        profile=HOSTILE,
        names=(HOSTILE, HOSTILE),
        places=(HOSTILE,),
        path=HOSTILE,
        directory_url=HOSTILE,
        explanation_url=HOSTILE,
        unproved=HOSTILE,
        left_out=(HOSTILE,),
        key_type=HOSTILE,
    )
    return replace(of(row), instance=HOSTILE, state=HOSTILE)


def test_nothing_gets_out() -> None:
    """Words of others stay words, and nothing is there that asks anybody for anything."""
    page = Page(hostile())
    assert sum(HOSTILE in text for text in page.texts) >= 12
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Page(of(*ALL)).elements}
    for tag, found in page.elements:
        assert not {name for name in found if name.startswith("on")} | (found.keys() & {"style"})
        links = [value for name, value in found.items() if name in {"src", "href"}]
        assert all(tag == "link" and value.startswith("data:") for value in links)


def test_policy() -> None:
    """Its policy allows its own style and nothing else."""
    source = to_html(of(VALID))
    (style,) = re.findall(r"<style>(.*)</style>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = Page(of(VALID)).all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "url(" not in style
    assert "@import" not in style


# --- in a browser ---------------------------------------------------------------------------

MEASURE = """
const level = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = c => 0.2126 * level(c[0]) + 0.7152 * level(c[1]) + 0.0722 * level(c[2]);
const color = text => text.match(/[0-9.]+/g).map(Number);
const ground = e => {
  const c = color(e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor);
  return c.length < 4 || c[3] ? c : e.parentElement ? ground(e.parentElement) : [255, 255, 255];
};
const contrast = e => {
  const a = light(color(e.ownerDocument.defaultView.getComputedStyle(e).color));
  const b = light(ground(e));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const box = e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; };
const measure = frame => {
  const page = frame.contentDocument;
  const boxes = name => [...page.querySelectorAll(name)].map(box);
  const texts = [...page.body.querySelectorAll("*")].filter(e => !e.closest("svg") &&
    [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()));
  return {
    width: page.documentElement.scrollWidth, ground: ground(page.body),
    bars: boxes(".bar"), gone: boxes(".bar .gone"), names: boxes(".name"), lives: boxes(".life"),
    contrast: Math.min(...texts.map(contrast)), texts: texts.length,
  };
};
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(measure);
  document.body.replaceChildren(JSON.stringify(found));
});
"""


def measured(
    chromium: str, folder: Path, overview: Overview, sizes: Iterable[int], *, dark: bool
) -> list[dict[str, Any]]:
    """What a browser makes of the page at these widths: places in pixels, colours, contrast."""
    page = html.escape(to_html(overview))
    frames = "".join(
        f'<iframe width="{size}" height="900" style="border:0" srcdoc="{page}"></iframe>'
        for size in sizes
    )
    scheme = '<meta name="color-scheme" content="light dark">'
    file = folder / "frames.html"
    file.write_text(f"<!doctype html>{scheme}<body>{frames}<script>{MEASURE}</script></body>")
    seen = browse(chromium, file.as_uri(), dark=dark)
    (found,) = re.findall(r"<body>(.*)</body>", seen.document, re.DOTALL)
    result: list[dict[str, Any]] = json.loads(html.unescape(found))
    return result


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_layout(chromium: str, tmp_path: Path, *, dark: bool) -> None:
    """On a phone and on a desk nothing is cut off, lives have their length, and all can be read."""
    long = replace(VALID, names=(f"{'long' * 15}.{'name' * 15}.example", "b.example"))
    phone, desk = measured(chromium, tmp_path, of(*ALL, long), (320, 1280), dark=dark)
    for size, found in ((320, phone), (1280, desk)):
        assert found["width"] <= size
        for (left, _, width, _), (from_left, _, gone, _) in zip(
            found["bars"], found["gone"], strict=True
        ):
            assert from_left == pytest.approx(left, abs=1)
            assert 200 < width < size
            assert gone <= width + 1
        shares = [gone[2] / bar[2] for bar, gone in zip(found["bars"], found["gone"], strict=True)]
        assert shares.count(pytest.approx(1 / 3, abs=0.01)) == 4
        assert found["texts"] > 100
        assert found["contrast"] >= 4.5  # WCAG 2.2, 1.4.3
        assert (sum(found["ground"][:3]) < 3 * 64) is dark
    assert all(life[1] >= name[1] + name[3] for name, life in zip(*_first(phone), strict=True))
    assert all(life[0] >= name[0] + name[2] for name, life in zip(*_first(desk), strict=True))


def _first(found: dict[str, Any]) -> tuple[list[list[float]], list[list[float]]]:
    return found["names"], found["lives"]


def test_policy_is_kept(chromium: str, tmp_path: Path) -> None:
    """A browser finds nothing in the page that its policy forbids; it would tell."""
    file = tmp_path / "page.html"
    source = to_html(hostile())
    file.write_bytes(source.encode("ascii"))
    assert not browse(chromium, file.as_uri()).complaints
    file.write_text(source.replace("<header", "<script>let a</script><header"))
    assert "violates the following Content Security Policy" in (
        browse(chromium, file.as_uri()).complaints
    )
