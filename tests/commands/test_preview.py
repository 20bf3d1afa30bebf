"""`run --plan` says what would happen, and does nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from effbench.commands import preview
from effbench.run import command

TOYS = Path(__file__).parents[1] / "api"


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A finished run of one toy task, and a function that previews with these options."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS / "toys"))
    patch.setenv("EFFBENCH_DATA", str(tmp_path_factory.mktemp("cache") / "data"))
    folder = tmp_path_factory.mktemp("run") / "toys"

    def look(**more):
        options = command.Options(str(TOYS / "toys.toml"), **{"out": folder, "quiet": True, **more})
        return preview.preview(command.make_plan(options), options)

    before = look(tasks=("toy-search",))
    assert not folder.exists(), "a preview leaves nothing behind"
    command.run(command.Options(str(TOYS / "toys.toml"), tasks=("toy-search",), out=folder, quiet=True))
    yield before, look
    patch.undo()


def test_before_anything_was_measured_all_is_a_guess(toys):
    found = toys[0]
    assert found["finished"] == 0 and found["guessed"] == found["trials"] > 0
    assert found["minutes"] == pytest.approx(found["trials"] * preview.GUESS / 60, abs=0.01)
    assert found["minutes_at_most"] == pytest.approx(found["trials"] * found["deadline"] / 60, abs=0.01)
    row = next(row for row in found["rows"] if row["method"] == "toy-scann")
    assert row["cases"] == ["batch", "one-by-one"] and row["knobs"] == 2 and len(row["params"]) == 2
    assert "are guesses" in preview.text(found) and preview.text(found).endswith("Nothing was started.")


def test_finished_trials_cost_nothing(toys):
    found = toys[1](tasks=("toy-search",))
    assert found["finished"] == found["trials"] and found["minutes"] == found["guessed"] == 0
    assert all(row["peak_memory"] is not None for row in found["rows"])


def test_fresh_starts_over_with_what_was_learned(toys):
    found = toys[1](tasks=("toy-search",), fresh=True)
    assert found["finished"] == found["guessed"] == 0
    assert 0 < found["minutes"] < found["trials"] * preview.GUESS / 60


def test_other_seeds_are_judged_by_the_same_method(toys):
    found = toys[1](tasks=("toy-search",), seeds=(7,))
    assert found["finished"] == found["guessed"] == 0


def test_tuning_trials_count(toys):
    rows = toys[1](tasks=("toy-training",))["rows"]
    assert {(row["role"], row["method"]) for row in rows} >= {("tuning", "toy-sgd"), ("measure", "toy-sgd")}


def test_downloads_and_what_is_skipped(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("EFFBENCH_IMPLEMENTATIONS", raising=False)
    options = command.Options("quick", tasks=("vector-search",), out=tmp_path / "run")
    found = preview.preview(command.make_plan(options), options)
    assert [(item["name"], item["state"]) for item in found["downloads"]] == [("fashion-mnist", "missing")]
    assert found["downloads"][0]["bytes"] > 1e6 and found["downloads"][0]["licence"]
    assert "to fetch: fashion-mnist" in preview.text(found)
    options.offline = True
    offline = preview.preview(command.make_plan(options), options)
    assert offline["trials"] == 0 and all("--offline" in item["reason"] for item in offline["skipped"])


def test_nothing_is_imported(monkeypatch):
    monkeypatch.delenv("EFFBENCH_IMPLEMENTATIONS", raising=False)
    code = "import sys; from effbench.cli import main; sys.argv = ['effbench', 'run', 'smoke', '--plan']\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([n for n in ('torch', 'jax', 'pandas', 'effbench_implementations') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("Nothing was started.\n[]"), done.stdout[-300:] + done.stderr[-300:]
