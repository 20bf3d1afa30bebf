"""The set-up from nothing, with a pip that only writes down what it was asked: order, constraints, retries, repairs, refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from effbench import bootstrap
from effbench.bootstrap import PARTS, TEST_PARTS, Environment, Failed

ROOT = Path(__file__).resolve().parents[2]


class Recorder:
    """Stands in for running commands. `answers` maps a word in the command to (exit code, output) pairs, first to last."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def __call__(self, command):
        self.calls.append(command)
        for word, queue in self.answers.items():
            if any(word in part for part in command) and queue:
                return queue.pop(0)
        return 0, ""

    @property
    def pip(self):
        return [call[call.index("install") :] for call in self.calls if "install" in call]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBENCH_VENV", str(tmp_path / "venv"))
    monkeypatch.delenv("EFFBENCH_TORCH", raising=False)
    monkeypatch.delenv("EFFBENCH_TORCH_INDEX", raising=False)
    monkeypatch.setattr(bootstrap.time, "sleep", lambda seconds: None)

    def make(works=(False, True), **answers):
        made = Environment(ROOT, run=Recorder(**answers))
        state = iter([*works, *[True] * 20])
        monkeypatch.setattr(made, "works", lambda: next(state))
        monkeypatch.setattr(made, "imports", lambda *modules: True)
        return made

    return make


def asked(call):
    """The requirements of a pip call, without options and their values."""
    return [part for part in call[3:] if not part.startswith("-")]


def test_torch_goes_first_and_alone_and_everything_is_constrained(environment):
    made = environment()
    made.ready(PARTS)
    first, *others, last = made.run.pip
    assert len(asked(first)) == 1 and asked(first)[0].startswith("torch")
    assert not any(requirement.startswith("torch>") for call in others for requirement in asked(call))
    assert all(call[:3] == ["install", "-c", str(ROOT / "constraints.txt")] for call in [first, *others])
    assert last == ["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    assert sum("numpy" in requirement for call in others for requirement in asked(call)) == 1


def test_a_torch_index_is_for_torch_alone(environment, monkeypatch):
    monkeypatch.setenv("EFFBENCH_TORCH_INDEX", "https://index.invalid/cpu")
    made = environment()
    made.ready(PARTS)
    assert [("--index-url" in call) for call in made.run.pip] == [True, False, False, False]
    assert made.run.pip[0][-2:] == ["--index-url", "https://index.invalid/cpu"]


def test_torch_can_be_left_out_and_asked_for_later(environment, monkeypatch):
    monkeypatch.setenv("EFFBENCH_TORCH", "none")
    made = environment()
    made.ready(PARTS)
    assert not any(word.startswith("torch") for call in made.run.pip for word in call)
    monkeypatch.delenv("EFFBENCH_TORCH")
    again = environment(works=(True,))
    again.ready(PARTS)
    assert [asked(call)[0][:5] for call in again.run.pip[:-1]] == ["torch"]


def test_a_finished_environment_is_used_as_it_is(environment, capsys):
    environment().ready(PARTS)
    capsys.readouterr()
    again = environment(works=(True,))
    again.ready(PARTS)
    assert again.run.calls == [] and capsys.readouterr().err == ""


def test_tests_add_their_parts_to_what_is_there(environment):
    environment().ready(PARTS)
    again = environment(works=(True,))
    again.ready((*PARTS, *TEST_PARTS))
    assert [asked(call)[0].split(">")[0] for call in again.run.pip[:-1]] == ["pytest", "fvcore==0.1.5.post20221221"]


def test_a_changed_stamp_or_a_missing_package_installs_again(environment, monkeypatch, tmp_path):
    environment().ready(PARTS)
    stamp = tmp_path / "venv" / bootstrap.STAMP
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "digest": "0" * 16}))
    again = environment(works=(True,))
    again.ready(PARTS)
    assert len(again.run.pip) == 4
    lacking = environment(works=(True,))
    monkeypatch.setattr(lacking, "imports", lambda *modules: "jax" not in modules)
    lacking.ready(PARTS)
    assert [asked(call)[0][:3] for call in lacking.run.pip[:-1]] == ["jax"]


def test_another_checkout_with_the_same_environment_installs_itself(environment, tmp_path):
    environment().ready(PARTS)
    again = environment(works=(True,))
    again.root = tmp_path
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    again.ready(PARTS)
    assert again.run.pip[-1][-2:] == ["-e", str(tmp_path)]


def test_the_download_is_announced_before_anything_runs(environment, capsys):
    made, said = environment(), []
    made.run = lambda command: said.append(capsys.readouterr().err) or (0, "")
    made.ready(PARTS)
    assert all(f"{part.megabytes} MB" in said[0] for part in PARTS) and "EFFBENCH_TORCH_INDEX" in said[0]


def test_a_network_failure_is_tried_once_more(environment):
    made = environment(**{"torch>": [(1, "ReadTimeoutError: Read timed out."), (0, "")]})
    made.ready(PARTS)
    assert sum(asked(call)[0].startswith("torch") for call in made.run.pip) == 2


def test_another_failure_is_not_and_says_what_pip_said(environment):
    made = environment(**{"torch>": [(1, "ERROR: No matching distribution found for torch")] * 3})
    with pytest.raises(Failed, match="No matching distribution") as failed:
        made.ready(PARTS)
    assert len(made.run.pip) == 1 and "same command" in str(failed.value)


def test_an_optional_part_does_not_block(environment, capsys, tmp_path):
    made = environment(**{"jax>": [(1, "ERROR: no wheel for this platform")] * 3})
    made.ready(PARTS)
    assert "jax could not be installed and is left out" in capsys.readouterr().err
    assert "no wheel" in json.loads((tmp_path / "venv" / bootstrap.STAMP).read_text())["failed"]["jax"]
    again = environment(works=(True,))
    again.ready(PARTS)
    assert again.run.pip == []  # not tried at every start
    asked_for = environment(works=(True,))
    asked_for.ready(PARTS, again=True)
    assert [asked(call)[0][:3] for call in asked_for.run.pip[:-1]] == ["jax"]


def test_a_broken_environment_is_made_anew(environment, tmp_path):
    environment().ready(PARTS)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /nowhere\n")
    (tmp_path / "venv" / "left-over").write_text("x")
    again = environment(works=(False, True))
    again.ready(PARTS)
    assert not (tmp_path / "venv" / "left-over").exists() and len(again.run.pip) == 4


def test_a_folder_of_someone_else_is_left_alone(environment, tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.tex").write_text("x")
    with pytest.raises(Failed, match="EFFBENCH_VENV"):
        environment(works=(False, False)).ready(PARTS)
    assert (tmp_path / "venv" / "thesis.tex").read_text() == "x"


def test_without_venv_virtualenv_serves_and_without_both_a_remedy_is_named(environment):
    made = environment(works=(False, True), venv=[(1, "ensurepip is not available")])
    made.ready(PARTS[:1])
    assert [call[2] for call in made.run.calls[:2]] == ["venv", "virtualenv"]


def test_without_any_of_them_the_remedy_is_named(environment):
    with pytest.raises(Failed, match="python3-venv"):
        environment(works=(False, False, False), venv=[(1, "no"), (1, "no")]).ready(PARTS[:1])


def test_pip_is_kept_from_looking_elsewhere():
    dirty = {"PATH": "p", "PYTHONPATH": "x", "PIP_TARGET": "y", "PIP_INDEX_URL": "kept"}
    assert bootstrap.clean(dirty) == {"PATH": "p", "PIP_INDEX_URL": "kept"}


def test_a_real_environment_is_recognised_and_a_real_failure_is_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBENCH_VENV", str(tmp_path / "venv"))
    made = Environment(ROOT)
    assert not made.works()
    with made.locked():
        made.create()
    assert made.works() and made.imports("pip") and not made.imports("pip", "no_such_module")
    with pytest.raises(Failed, match="no such option"):
        made.pip(["install", "--no-such-option"])
    assert "no such option" in (tmp_path / "venv" / bootstrap.LOG).read_text()
    assert made._run([str(tmp_path / "absent")])[0] == 127


def test_the_command_explains_itself_and_refuses_an_installed_copy(tmp_path):
    done = subprocess.run([sys.executable, "-m", "effbench.bootstrap"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "run quick" in done.stdout
    (tmp_path / "effbench" / "api").mkdir(parents=True)
    for path in [*(ROOT / "effbench" / "api").glob("*.py"), ROOT / "effbench" / "__init__.py", ROOT / "effbench" / "bootstrap.py"]:
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    command = [
        sys.executable,
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import effbench.bootstrap as b; sys.exit(b.main(['setup']))",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "no checkout" in done.stderr


def test_the_constraints_pin_what_pyproject_allows():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert "torch==2.13.0" in lines
    made = Environment(ROOT)
    needed = {
        requirement.split(">")[0].split("=")[0].lower() for part in (*PARTS, *TEST_PARTS) for requirement in made.requirements(part)
    }
    pinned = {line.split(">")[0].split("=")[0].lower() for line in lines}
    assert needed <= pinned, needed - pinned
