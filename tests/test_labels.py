"""Names of folders from names that may be anything."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_acme.labels import label_of, variable_of
from nginx_acme.store import Identity, Store

HOSTILE = [
    *("", ".", "..", "/", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb"),
    *("a" * 300, "~", "-rf", "$HOME", "a b", "*?[", "CON", "\udcff", "münchen.example", "İ", "..."),
    *(".nginx-acme-1-2", "state.json", "x" * 99 + "/..", "*" * 50),
]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        pytest.param("example.com", "example.com", id="plain"),
        pytest.param("Example.COM", "example.com", id="upper case"),
        pytest.param("*.example.com", "_wildcard.example.com", id="wildcard"),
        pytest.param("2001:db8::1", "2001_db8__1", id="IPv6"),
        pytest.param("..", "_.", id="the parent"),
        pytest.param(".example.com", "_example.com", id="hidden"),
        pytest.param("-rf", "_rf", id="an option"),
        pytest.param("a/../b\n", "a_.._b_", id="path and newline"),
        pytest.param("", "_", id="nothing"),
    ],
)
def test_label_of(name: str, label: str) -> None:
    """A name can still be recognised in its label."""
    assert label_of(name) == label


@given(st.text() | st.sampled_from(HOSTILE))
def test_any_label_is_one_harmless_component(name: str) -> None:
    """It stays in its folder, is visible, and means nothing to a shell, a glob or nginx."""
    label = label_of(name)
    assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]{0,99}", label)
    assert os.path.dirname(os.path.normpath(os.path.join("/store", label))) == "/store"
    assert label_of(label) == label


@given(st.text())
def test_any_variable_is_one(name: str) -> None:
    """What comes out is a part of a variable's name for nginx."""
    assert re.fullmatch(r"[a-z0-9_]{0,40}", variable_of(name))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=400) | st.sampled_from(HOSTILE), max_size=8, unique=True))
def test_no_name_escapes_the_store(names: list[str]) -> None:
    """Every certificate gets a folder of its own inside the store, and is found in it again."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/state")
        store.open_for_writing()
        wanted = [Identity("local:", frozenset([name]), None) for name in names]
        made = [store.create(one, sorted(one.names)) for one in wanted]
        parent = Path(store.root, "certificates")
        assert {Path(one.path) for one in made} == set(parent.iterdir())
        assert len(made) == len(names)
        assert os.listdir(folder) == ["state"]
        again = Store(store.root)
        for one, there in zip(wanted, made, strict=True):
            found = again.find(one)
            assert found is not None
            assert found.path == there.path
