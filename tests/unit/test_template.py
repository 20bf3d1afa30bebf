"""`effbench new method`: what it writes is read by the registry, says what is missing when run, and never overwrites."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effbench.api.errors import EffbenchError
from effbench.plan.registry import Registry
from effbench.plan.template import class_name, make

ROOT = Path(__file__).resolve().parents[2]
TASKS = sorted(Registry.read().tasks)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the techniques with an empty folder of tests beside it."""
    shutil.copytree(ROOT / "implementations", tmp_path / "implementations", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(tmp_path / "implementations"))
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_the_new_file_registers_for_every_task_and_both_files_are_python(checkout, task):
    before = Registry.read()
    text = make("method", "my-new-idea", task)
    after = Registry.read()
    info = after.method(task, "my-new-idea")
    assert info.cls == "MyNewIdea" and info.file.path.name == "my_new_idea.py"
    assert after.problems == before.problems
    assert set(after.methods) - set(before.methods) >= {(task, "my-new-idea")}
    kinds = {setting.kind for setting in info.settings.values()}
    assert "param" in kinds and ("knob" in kinds) == ("serve" in after.task(task).phases)
    test = checkout / "tests" / "techniques" / "test_my_new_idea.py"
    ast.parse(test.read_text())
    assert all(len(line) <= 132 for path in (test, info.file.path) for line in path.read_text().splitlines())
    assert f"effbench run smoke --task {task}" in text and "effbench check my-new-idea" in text


def test_stubs_are_what_the_interface_leaves_open(checkout):
    make("method", "mine", "vector-search")
    tree = ast.parse((checkout / "implementations" / "search" / "mine.py").read_text())
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert set(functions) == {"index", "nearest"}
    assert [argument.arg for argument in functions["nearest"].args.args] == ["self", "queries", "k"]
    assert "row ids" in ast.get_docstring(functions["nearest"]).lower()


def test_the_generated_test_is_expected_to_fail_until_it_is_written(checkout):
    make("method", "mine", "vector-search")
    shutil.copy(ROOT / "tests" / "conftest.py", checkout / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/techniques/test_mine.py"], cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "2 xfailed" in done.stdout, done.stdout + done.stderr


def test_a_folder_elsewhere_imports_the_interface_by_its_full_name(checkout, tmp_path):
    text = make("method", "mine", "vector-search", tmp_path / "package" / "area")
    written = (tmp_path / "package" / "area" / "mine.py").read_text()
    assert "from effbench_implementations.search.task import VectorIndex" in written
    assert "effbench.plugins" in text and not (checkout / "tests" / "techniques").exists()


@pytest.mark.parametrize("name", ["My-Index", "8bit", "a_b", "", "-a", "a--", "../x", "a/b", "ä", "a b", "class", "task", "x" * 61])
def test_a_bad_name_is_refused_and_nothing_is_written(checkout, name):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(EffbenchError):
        make("method", name, "vector-search")
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "name", "task", "says"),
    [
        ("methode", "x", "vector-search", "Did you mean 'method'"),
        ("method", "x", "vector-serch", "Did you mean 'vector-search'"),
        ("method", "exact", "vector-search", "already has a method 'exact'"),
        ("method", "kmeans", "vector-search", "there is a file already"),
    ],
)
def test_mistakes_are_named(checkout, kind, name, task, says):
    with pytest.raises(EffbenchError, match=says):
        make(kind, name, task)


def test_a_test_in_the_way_keeps_the_method_from_being_written(checkout):
    (checkout / "tests" / "techniques").mkdir()
    (checkout / "tests" / "techniques" / "test_mine.py").write_text("mine\n")
    with pytest.raises(EffbenchError, match="nothing was written"):
        make("method", "mine", "vector-search")
    assert not (checkout / "implementations" / "search" / "mine.py").exists()
    assert (checkout / "tests" / "techniques" / "test_mine.py").read_text() == "mine\n"


def test_an_installed_copy_asks_for_a_folder(checkout, monkeypatch):
    (checkout / "implementations").rename(checkout / "effbench_implementations")
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(checkout / "effbench_implementations"))
    with pytest.raises(EffbenchError, match="--folder"):
        make("method", "mine", "vector-search")


def test_class_names():
    assert class_name("adam_plus") == "AdamPlus"
