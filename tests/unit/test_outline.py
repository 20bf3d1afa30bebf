"""An outline reads as its file does, is found by content alone, and a cache that is damaged or cannot be written costs only time."""

import pytest

from effbench.plan import source
from effbench.plan.origins import Origin, own_origin
from effbench.plan.outline import Outlines
from effbench.plan.registry import Registry

TRICKY = '''"""A file whose statements
stand oddly."""

from effbench import (
    Claim,
    Method,
    param,
)

@decorated
class Tree(
    Method,
):
    """Said in
    two lines."""

    name, version = "tree", 3
    other = [x for x in range(10)]
    leaves: int = param(
        4,
        sweep=(1, 2),
    )
    claims = (
        Claim("c", "s"),
    )

    def build(self, given, run):
        text = """
class Fake(Method):
    name = "fake"
"""
        if given:
            import numpy as np; import json
        return text

class Bare(Method):
    def build(self): from torch import nn
'''


@pytest.fixture
def origin(tmp_path):
    (tmp_path / "area").mkdir()
    (tmp_path / "area" / "tree.py").write_text(TRICKY)
    return Origin("area", tmp_path / "area", "test")


def read(origin, outlines):
    return source.read(origin, origin.folder / "tree.py", outlines)


def test_an_outline_reads_as_its_file(origin, tmp_path):
    cold = read(origin, None)
    outlines = Outlines(tmp_path / "cache")
    assert read(origin, outlines) == cold
    outlines.keep()
    warm = Outlines(tmp_path / "cache")
    (text,) = warm.texts.values()
    assert "range(10)" not in text and "Fake" not in text
    again = read(origin, warm)
    assert again == cold and not warm.fresh
    assert again.classes["Tree"].attributes["version"] == 3 and again.classes["Tree"].line == cold.classes["Tree"].line
    assert {"numpy", "json", "torch"} <= again.modules


def test_a_changed_file_has_no_outline(origin, tmp_path):
    outlines = Outlines(tmp_path / "cache")
    read(origin, outlines)
    (origin.folder / "tree.py").write_text(TRICKY.replace('"tree", 3', '"tree", 4'))
    assert read(origin, outlines).classes["Tree"].attributes["version"] == 4


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe"])
def test_a_damaged_cache_is_no_cache(origin, tmp_path, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "outlines-1.json").write_bytes(content)
    outlines = Outlines(tmp_path / "cache")
    assert read(origin, outlines) == read(origin, None)
    outlines.keep()
    assert len(Outlines(tmp_path / "cache").texts) == 1


def test_a_folder_that_cannot_be_written_is_no_error(origin, tmp_path):
    (tmp_path / "cache").write_text("a file")
    outlines = Outlines(tmp_path / "cache")
    read(origin, outlines)
    outlines.keep()


def test_broken_files_are_reported_every_time(origin, tmp_path):
    (origin.folder / "tree.py").write_text(TRICKY.replace('"tree", 3', '"tree", len("abc")'))
    outlines = Outlines(tmp_path / "cache")
    assert read(origin, outlines).problems == read(origin, outlines).problems != []


def test_all_our_own_files_have_outlines(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cold, warm = Registry.read([own_origin()]), Registry.read([own_origin()])
    assert len(Outlines().texts) == sum(found.parsed for found in cold.files.values())
    assert {k: repr(v) for k, v in cold.methods.items()} == {k: repr(v) for k, v in warm.methods.items()}
