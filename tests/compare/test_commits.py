"""Two commits through the real processes: each branch is heard for what it did, and for nothing else."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from effbench.api.errors import RunError, SuiteError
from effbench.cli import app
from effbench.commands import gate
from effbench.publish import verdicts
from effbench.run.commits import resolve
from effbench.run.pairs import Driver, Effort


def said(found, *words):
    return {(row.bench.split("/")[1].split(" ")[0], row.metric): row.verdict for row in found.rows if row.verdict in words}


def test_a_slower_method_is_heard_and_fails(repository):
    found = repository.compare("slow", methods=("loop-sum",))
    assert said(found, "SLOWER") == {("loop-sum", "serve.latency"): "SLOWER"}
    assert found.code == 1
    row = next(row for row in found.rows if row.verdict == "SLOWER")
    assert row.again
    assert row.low > 1.2
    assert row.wall is not None, "wall time stands beside CPU time"
    assert "SLOWER" in verdicts.markdown(found)
    assert "regression" in verdicts.text(found)
    json.dumps(found.data(), allow_nan=False)


def test_twice_the_memory_is_heard(repository):
    found = repository.compare("large", methods=("loop-sum",))
    assert said(found, "WORSE") == {("loop-sum", "build.peak_memory"): "WORSE"}
    row = next(row for row in found.rows if row.verdict == "WORSE")
    assert 1.8 < row.ratio < 2.2
    assert found.code == 1


def test_other_answers_and_more_work_are_heard(repository):
    found = repository.compare("wrong", methods=("vector-sum",))
    assert said(found, "WORSE") == {("vector-sum", "quality.right"): "WORSE", ("vector-sum", "serve.flops"): "WORSE"}
    assert {row.ratio for row in found.rows if row.metric == "serve.flops"} == {1.5}, "counted work is exact"
    assert found.code == 1


def test_a_method_that_breaks_is_a_regression_with_its_reason(repository):
    found = repository.compare("broken", unchanged=True)
    assert said(found, "BROKEN") == {("vector-sum", "status"): "BROKEN"}
    assert "lost" in found.rows[0].note
    assert any(row.bench.startswith("sums/loop-sum") and row.verdict == "SAME" for row in found.rows), (
        "the others are still compared"
    )
    assert found.code == 1


def test_one_crash_is_tried_again_and_two_are_believed(repository, monkeypatch):
    """A worker that the machine killed says nothing about the change; nor may it hide one."""
    crashes, before = [], Driver.ask_build

    def flaky(self, child, item, side, **how):
        if side == "head" and len(crashes) < limit:
            crashes.append(child.pid)
            child.nursery.kill(child.pid)
        return before(self, child, item, side, **how)

    monkeypatch.setattr(Driver, "ask_build", flaky)
    effort = Effort(pairs=2, facts=1, turns=4, turn=0.002, serve=0.2)
    limit = 1
    found = repository.compare("docs", methods=("vector-sum",), effort=effort, effect=0.5, unchanged=True)
    assert crashes
    assert not said(found, "BROKEN", "SLOWER", "WORSE")
    assert any(row.metric == "serve.latency" for row in found.rows)
    crashes.clear()
    limit = 10_000
    found = repository.compare("docs", methods=("vector-sum",), effort=effort, effect=0.5, unchanged=True)
    assert said(found, "BROKEN", "UNCLEAR")
    assert found.code == 1


def test_words_alone_change_nothing(repository):
    found = repository.compare("docs", unchanged=True)
    assert not said(found, "SLOWER", "FASTER", "WORSE", "BETTER", "BROKEN")
    assert found.code == 0
    assert {row.setting for row in found.rows if row.metric == "serve.latency"} == {"batch"}
    refused = [note for note in found.notes if "first" in note]
    assert len(refused) == 2, "a refused case ends itself and nothing else"
    assert "base skipped: adds batches only; head skipped: adds batches only" in refused[0]


def test_what_cannot_differ_is_not_measured_unless_asked(repository, monkeypatch):
    measured = []
    monkeypatch.setattr(Driver, "measure", lambda self, wanted, **how: measured.extend(wanted))
    found = repository.compare("slow")
    assert [label.split(" ")[0] for label in measured] == ["sums/loop-sum"]
    assert any("1 of 2 benchmarks have the same content key" in note and "--unchanged" in note for note in found.notes)
    measured.clear()
    found = repository.compare("docs")
    assert (measured, found.code) == ([], 2)
    assert "nothing can differ, and nothing was measured" in verdicts.markdown(found), "what the workflow file looks for"
    repository.compare("docs", unchanged=True)
    assert len(measured) == 2


def test_a_changed_file_that_no_benchmark_loads_is_named(repository):
    repository.commit("unused", {"implementations/sums/unused.py": "WORDS = 1\n"})
    found = repository.compare("unused")
    assert found.code == 2
    assert any("no compared benchmark loads: sums/unused.py" in note for note in found.notes)


def test_counting_side_by_side_forks_for_each_benchmark_side_and_number(repository, monkeypatch):
    seen, before = [], Driver.readings

    def watched(self, child, item, side, prepared):
        seen.append((item.bench.head.method, side, child.pid))
        return before(self, child, item, side, prepared)

    monkeypatch.setattr(Driver, "readings", watched)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    effort = Effort(pairs=2, facts=2, turns=2, turn=0.002, serve=0.05)
    found = repository.compare("docs", unchanged=True, effort=effort, effect=0.9)
    assert len({pid for *_, pid in seen}) == len(seen) == 2 * 2 * 2, "a fork for each benchmark, side and number"
    assert {row.verdict for row in found.rows if row.metric.startswith("quality")} == {"SAME"}


def test_since_selects_what_changed_and_nothing_is_an_answer_of_its_own(repository, monkeypatch):
    measured = []
    monkeypatch.setattr(Driver, "measure", lambda self, wanted, **how: measured.extend(wanted))
    found = repository.compare("slow", since="main")
    assert [label.split(" ")[0] for label in measured] == ["sums/loop-sum"]
    found = repository.compare("docs", since="main")
    assert found.code == 2
    assert any("nothing was measured" in note for note in found.notes)
    assert "nothing was measured" in verdicts.markdown(found)


def test_a_new_method_is_named_and_not_compared(repository, monkeypatch):
    monkeypatch.setattr(Driver, "measure", lambda self, wanted, **how: None)
    found = repository.compare("new")
    assert any("only in head" in note and "new-sum" in note for note in found.notes)


def test_protocol_and_dependencies_are_said(repository, monkeypatch):
    monkeypatch.setattr(Driver, "measure", lambda self, wanted, **how: None)
    notes = " ".join(repository.compare("needs").notes)
    assert "worker protocol changed (none to 7)" in notes
    assert "without numpy>=1; with numpy>=2" in notes


def test_the_same_files_on_both_sides_of_a_real_change_are_an_error(repository, monkeypatch):
    """What an editable install or a wrong path would do: both sides read base's techniques."""
    before = gate.commits.origin
    monkeypatch.setattr(gate.commits, "origin", lambda folder, label: before(folder.parent / "base", label))
    with pytest.raises(RunError, match=r"both sides loaded the same sums/loop\.py"):
        repository.compare("slow", methods=("loop-sum",))


def test_a_comparison_that_is_ended_leaves_no_worktree(repository):
    """As the end of a job in CI does it."""
    command = [sys.executable, "-m", "effbench", "compare", "main..docs", "--unchanged", "--suite", str(repository.suite)]
    process = subprocess.Popen([*command, "--repository", str(repository.folder)], stderr=subprocess.PIPE, text=True)
    while "process pairs" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert repository.git("worktree", "list").count("\n") == 1


def test_worktrees_are_gone_afterwards(repository):
    assert repository.git("worktree", "list").count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("main", "not a range"), ("main..nothing", "nothing"), ("main..main", "both ends"), ("--x..y", "not a range")],
)
def test_mistakes_in_the_range(repository, text, message):
    with pytest.raises(RunError, match=message):
        resolve(text, repository.folder)


def test_three_dots_start_where_the_branch_left(repository):
    change = resolve("docs...slow", repository.folder)
    assert change.base == repository.git("rev-parse", "main").strip()
    assert change.techniques == ("sums/loop.py",)


def test_unknown_names(repository):
    with pytest.raises(SuiteError, match="Did you mean 'loop-sum'"):
        repository.compare("slow", methods=("lop-sum",))
    with pytest.raises(SuiteError, match="sums"):
        repository.compare("slow", tasks=("sum",))


def test_command_line(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(Driver, "measure", lambda self, wanted, **how: None)
    arguments = ["compare", "main..docs", "--repository", str(repository.folder), "--suite", str(repository.suite), "--json"]
    found = CliRunner().invoke(app, [*arguments, "--markdown", str(tmp_path / "c.md")])
    assert found.exit_code == 2, found.output
    assert json.loads(found.stdout)["code"] == 2
    assert "nothing was measured" in (tmp_path / "c.md").read_text()
    assert subprocess.run(["git", "-C", str(repository.folder), "status", "--porcelain"], capture_output=True).stdout == b""
