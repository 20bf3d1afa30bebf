"""Each check catches the toy that breaks it, and stays quiet on sound ones."""

import json
import shutil
from pathlib import Path

import pytest

from effbench.api.errors import RegistryError
from effbench.run import conformance

BROKEN = Path(__file__).parent / "broken"


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """(method, check) -> finding, and exit code, of the folder of toys, checked once."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("toys") / "broken_toys"
    shutil.copytree(BROKEN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    patch.setenv("EFFBENCH_DATA", str(tmp_path_factory.mktemp("cache") / "data"))
    lines = []
    try:
        code = conformance.check(str(folder), as_json=True, echo=lines.append)
    finally:
        patch.undo()
    found = json.loads("".join(lines))
    return {(item["method"], item["check"]): item for item in found["findings"]}, code, found


CAUGHT = {
    "eager": ("constructor", "ready"),
    "literal": ("literals", "version"),
    "wordless": ("skip", "None"),
    "inexact": ("gates", "off by"),
    "second-seed": ("gates", "seed 1"),
    "bad-knob": ("knobs", "blocks"),
    "by-identity": ("no cache", "old content"),
    "by-content": ("no cache", "from memory"),
    "loose": ("seeds", "another seed"),
    "unseeded": ("seeds", "quality.error"),
    "pickled": ("save, load", "pickle"),
    "forgetful": ("save, load", "differently"),
    "half-a-pair": ("save, load", "without the other"),
    "leaking": ("memory", "MiB more"),
    "threaded": ("leftovers", "threads"),
    "littering": ("leftovers", "litter.tmp"),
    "obliging": ("bad input", "too few columns"),
    "overcharged": ("FLOPs", "apart"),
    "cheap-build": ("build FLOPs", "apart"),
    "printing": ("import", "hello"),
    "writing": ("import", "litter-import.tmp"),
}


@pytest.mark.parametrize("method", CAUGHT)
def test_catches(findings, method):
    check, words = CAUGHT[method]
    found = findings[0][method, check]
    assert found["outcome"] == "FAIL", found
    assert words in found["detail"]


@pytest.mark.parametrize("method", ["sound", "sound-torch", "skipping", "excused"])
def test_stays_quiet(findings, method):
    mine = [item for (name, _), item in findings[0].items() if name == method]
    assert mine and not [item for item in mine if item["outcome"] == "FAIL"]


def test_says_what_does_not_apply(findings):
    found = findings[0]
    assert found["skipping", "skip"]["detail"] == "needs a machine that nobody has"
    assert found["skipping", "gates"]["outcome"] == "n.a."
    assert found["sound", "build FLOPs"]["outcome"] == "n.a." and "numpy" in found["sound", "build FLOPs"]["detail"]
    assert found["sound", "knobs"]["detail"] == '{"block": 8}; {"block": 1}; {"block": 64}'
    assert "counter also sees" in found["excused", "FLOPs"]["detail"]
    assert "12 records" not in found["sound", "gates"]["detail"] and "6 records" in found["sound", "gates"]["detail"]


def test_failures_fail(findings):
    assert findings[1] == 1
    assert findings[2]["counts"]["FAIL"] >= len(CAUGHT)


def test_lines_for_people(tmp_path):
    shutil.copytree(BROKEN, tmp_path / "other_toys", ignore=shutil.ignore_patterns("__pycache__"))
    lines = []
    assert conformance.check(str(tmp_path / "other_toys" / "lines" / "prints.py"), echo=lines.append) == 1
    assert lines[0] == "products/printing"
    assert any(line.startswith("  FAIL  import") and "hello" in line for line in lines)
    assert lines[-2].startswith("1 methods: ") and lines[-1] == "failed: products/printing"


def test_a_file_outside_a_package_is_explained(tmp_path):
    (tmp_path / "mine.py").write_text('"""A technique."""\n')
    with pytest.raises(RegistryError, match=r"no __init__\.py.*add an empty"):
        conformance.check(str(tmp_path / "mine.py"), echo=lambda text: None)


def test_unknown_names_are_errors(tmp_path):
    with pytest.raises(RegistryError, match=r"no method 'exakt'.*Did you mean 'exact'"):
        conformance.check("exakt", echo=lambda text: None)
    with pytest.raises(RegistryError, match="no method"):
        conformance.check(str(tmp_path / "nowhere.py"), echo=lambda text: None)


def test_a_file_without_a_method_is_an_error(tmp_path):
    (tmp_path / "empty_toys").mkdir()
    (tmp_path / "empty_toys" / "__init__.py").write_text("")
    with pytest.raises(RegistryError, match="no method to check"):
        conformance.check(str(tmp_path / "empty_toys"), echo=lambda text: None)


def test_a_broken_file_fails(tmp_path):
    (tmp_path / "torn_toys").mkdir()
    (tmp_path / "torn_toys" / "__init__.py").write_text("")
    (tmp_path / "torn_toys" / "mine.py").write_text("class (:\n")
    lines = []
    assert conformance.check(str(tmp_path / "torn_toys"), echo=lines.append) == 1
    assert "not valid Python" in lines[0]
