"""Every mistake of a person gets one message: what is wrong with its value, where, and what to do. Exit code 2, no traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from effbench import cli
from effbench.run.command import absent

TOYS = Path(__file__).resolve().parents[1] / "api" / "toys"

HEAD = 'name = "mine"\nsize = "smoke"\n'
RUN = '[[run]]\ntask = "toy-search"\n'

SUITES = [
    # suite file, what the message says (the last is the remedy)
    (HEAD + '[[run]]\ntask = "toy-serch"\n', ["toy-serch", "mine.toml", "Did you mean 'toy-search'?"]),
    (HEAD + RUN + 'methods = ["toy-exakt"]\n', ["toy-exakt", "methods", "Did you mean 'toy-exact'?"]),
    (HEAD + RUN + "[params.toy-scan]\nloss = 1\n", ["toy-scan", "[params.toy-scan]", "Did you mean 'toy-scann'?"]),
    (HEAD + RUN + "[params.toy-scann]\nparttions = 4\n", ["parttions", "[params.toy-scann]", "Did you mean 'partitions'?"]),
    (HEAD + RUN + "[knobs.toy-scann]\nleafs = 4\n", ["leafs", "[knobs.toy-scann]", "Did you mean 'leaves'?"]),
    (HEAD + RUN + '[params.toy-scann]\npartitions = "four"\n', ["partitions = 'four'", "default 8", "Mend the type"]),
    (HEAD + RUN + '[knobs.toy-scann]\n"leaves, rescore" = [[1, 2, 3]]\n', ["[1, 2, 3]", "needs 2 values"]),
    (HEAD + RUN + "[knobs.toy-scann]\nleaves = []\n", ["leaves", "empty list", "Name at least one"]),
    (HEAD + RUN + 'data = ["blob"]\n', ["'blob'", "data", "Did you mean 'blobs'?"]),
    (HEAD + RUN + 'data = ["blobs(m=3)"]\n', ["'m'", "blobs", "known: d, n"]),
    (HEAD + RUN + 'data = ["blobs(n=3.5)"]\n', ["n = 3.5", "type of 400"]),
    (HEAD + RUN + 'data = ["blobs(n=__import__(1))"]\n', ["name=value", "For example"]),
    (HEAD + RUN + 'data = ["blobs(n=3"]\n', ["blobs(n=3", "name(arg=value)"]),
    (HEAD + RUN + 'cases = ["bach"]\n', ["bach", "cases", "Did you mean 'batch'?"]),
    (HEAD + RUN + "budget = { stepps = 3 }\n", ["stepps", "budget", "Did you mean 'steps'?"]),
    (HEAD + RUN + 'budget = { steps = "3" }\n', ["steps = '3'", "integers"]),
    (HEAD + RUN + "budget = { steps = 3, samples = 4 }\n", ["exactly one", "budget"]),
    (HEAD + RUN + "budget = { steps = 0 }\n", ["positive", "budget"]),
    (HEAD + '[[run]]\ntask = "toy-training"\nbudget = { steps = 3, like = "toy-sgdd" }\n', ["toy-sgdd", "Did you mean 'toy-sgd'?"]),
    (HEAD + RUN + "tune = { trials = 0 }\n", ["trials", "tune"]),
    (HEAD + "sedes = [1]\n" + RUN, ["sedes", "mine.toml", "Did you mean 'seeds'?"]),
    (HEAD + RUN + 'metods = ["*"]\n', ["metods", "[[run]] 1", "Did you mean 'methods'?"]),
    (HEAD + "seeds = [-1]\n" + RUN, ["[-1]", "seeds = [0, 1, 2]"]),
    (HEAD + "seeds = [0, 0]\n" + RUN, ["[0, 0]", "drop one"]),
    (HEAD + 'seeds = "0"\n' + RUN, ["seeds = '0'", "not list"]),
    (HEAD + "threads = 0\n" + RUN, ["threads = 0", "at least one"]),
    (HEAD + 'devices = ["gpu0"]\n' + RUN, ["gpu0", "known: cpu, cuda, tpu"]),
    (HEAD + "devices = []\n" + RUN, ["devices = []", 'Write devices = ["cpu"]']),
    (HEAD + "devices = [1]\n" + RUN, ["'1'", "known: cpu"]),
    (HEAD + 'dtype = "float23"\n' + RUN, ["float23", "Did you mean 'float32'?"]),
    (HEAD.replace("smoke", "smok") + RUN, ["smok", "Did you mean 'smoke'?"]),
    (HEAD.replace('"smoke"', '["smoke"]') + RUN, ["size", "list, not str"]),
    (HEAD + RUN + "[limits]\nsecond = 3\n", ["second", "[limits]", "Did you mean 'seconds'?"]),
    (HEAD + RUN + "[limits]\nseconds = 0\n", ["seconds = 0", "[limits]"]),
    (HEAD + RUN + "[limits]\nseconds = nan\n", ["seconds = nan", "[limits]"]),
    (HEAD + RUN + '[limits]\nmemory = "a lot"\n', ["a lot", "[limits]", "GiB"]),
    (HEAD + RUN + "[limits]\nmemory = nan\n", ["'nan'", "[limits]", "GiB"]),
    (HEAD + RUN + "[limits]\nrounds = true\n", ["rounds", "bool"]),
    (HEAD + "[[run]\n", ["not valid TOML", "line 3"]),
    (HEAD + RUN + RUN.replace("[[run]]\n", ""), ["not valid TOML", "line 5"]),
    (HEAD, ["selects nothing", "[[run]]"]),
    (HEAD + "run = []\n", ["selects nothing", "[[run]]"]),
    (HEAD + "run = [3]\n", ["[[run]]"]),
    (HEAD + RUN + "methods = []\n", ["methods", "default"]),
    (RUN, ["name", "plain name"]),
    ("name = 3\n" + RUN, ["name = 3", "not str"]),
    ('name = "../x"\n' + RUN, ["../x", "plain name"]),
    ("\x00", ["not valid TOML", "line 1"]),
]


def message(done, *parts):
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


@pytest.mark.parametrize("text, parts", SUITES, ids=[parts[0][:24].replace(" ", "-") for _, parts in SUITES])
def test_a_mistake_in_a_suite(tmp_path, monkeypatch, capsys, text, parts):
    """In this process, since there are many; the same through `main`, which decides on exit code and traceback."""
    suite = tmp_path / "mine.toml"
    suite.write_text(text)
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS))
    monkeypatch.setattr("sys.argv", ["effbench", "run", str(suite), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    for part in parts:
        assert part in said, said
    assert not (tmp_path / "run").exists(), "nothing was started"
    assert len(said.strip().splitlines()) <= 3


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "good.toml"
    path.write_text(HEAD.replace("mine", "good") + RUN + "[limits]\nturn = 0.002\nrounds = 3\nserve = 0.02\n")
    return path


OPTIONS = [
    (["--task", "toy-serch"], ["toy-serch", "--task", "Did you mean 'toy-search'?"]),
    (["--task", "toy-training"], ["toy-training", "--task", "known: toy-search"]),
    (["--method", "toy-exakt"], ["toy-exakt", "--method", "Did you mean 'toy-exact'?"]),
    (["--case", "bach"], ["bach", "--case", "Did you mean 'batch'?"]),
    (["--size", "smokey"], ["smokey", "--size", "Did you mean 'smoke'?"]),
    (["--device", "cudo"], ["cudo", "--device", "Did you mean 'cuda'?"]),
    (["--device", "tpu"], ["no device 'tpu' here", "--device", "Choose cpu"]),
    (["--timeout", "0"], ["0 s is not a deadline", "--timeout", "above 0"]),
    (["--timeout", "-3"], ["-3 s", "--timeout"]),
    (["--timeout", "nan"], ["nan", "--timeout"]),
    (["--timeout", "soon"], ["--timeout", "number"]),
    (["--within", "0"], ["0 s", "--within", "above 0"]),
    (["--memory", "plenty"], ["'plenty'", "--memory", "GiB"]),
    (["--memory", "0"], ["0", "--memory"]),
    (["--memory", "1.2.3GiB"], ["1.2.3GiB", "--memory"]),
    (["--memory", "-1GiB"], ["-1GiB", "--memory"]),
    (["--seeds", "one,two"], ["'one,two'", "--seeds", "0,1,2"]),
    (["--seeds", ""], ["''", "--seeds"]),
    (["--seeds", "-1"], ["-1", "--seeds"]),
    (["--seeds", "0,0"], ["0,0", "--seeds"]),
    (["--sise", "smoke"], ["--sise"]),
    (["extra"], ["extra"]),
]


@pytest.mark.parametrize("arguments, parts", OPTIONS, ids=["-".join(arguments) for arguments, _ in OPTIONS])
def test_a_mistake_on_the_command_line(suite, tmp_path, monkeypatch, capsys, arguments, parts):
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS))
    monkeypatch.setattr("effbench.run.command.absent", lambda device: "" if device == "cpu" else "there is none")
    monkeypatch.setattr("sys.argv", ["effbench", "run", str(suite), "--out", str(tmp_path / "run"), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    for part in parts:
        assert part in said, said
    assert not (tmp_path / "run").exists()


COMMANDS = [
    (["run", "smoky"], ["no suite 'smoky'", "Did you mean 'smoke'?"]),
    (["run", "./nowhere.toml"], ["nowhere.toml", "No such file", "name of a suite"]),
    (["list", "serch"], ["serch", "Did you mean 'search'?"]),
    (["show", "toy-exakt"], ["toy-exakt", "Did you mean 'toy-exact'?"]),
    (["report", "nowhere"], ["nowhere"]),
    (["report", ".", "--format", "pdf"], [""]),
    (["data", "fetch", "fashion-mnits"], ["fashion-mnits", "Did you mean 'fashion-mnist'?"]),
    (["data", "path", "digit"], ["digit", "Did you mean 'digits'?"]),
    (["data", "unpack", "nothing.tar"], ["nothing.tar"]),
    (["rum"], ["rum"]),
    (["run"], ["suite"]),
]


@pytest.mark.parametrize("arguments, parts", COMMANDS, ids=["-".join(arguments) for arguments, _ in COMMANDS])
def test_a_mistake_in_other_commands(tmp_path, monkeypatch, capsys, arguments, parts):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS))
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("sys.argv", ["effbench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    for part in parts:
        assert part.lower() in said.lower(), said


def test_through_a_real_process_too(effbench, suite):
    message(effbench("run", suite, "--seeds", "many"), "'many'", "--seeds", "0,1,2")
    message(effbench("run", suite, "--nonsense"), "--nonsense")
    if absent("cuda"):
        message(effbench("run", suite, "--device", "cuda"), "no device 'cuda' here", "--device", "Choose cpu")


def test_a_folder_that_cannot_be_written(effbench, suite, tmp_path):
    (tmp_path / "file").write_text("in the way")
    message(effbench("run", suite, "--out", tmp_path / "file" / "below"), "cannot write", "file/below", "--out")
    message(effbench("run", suite, "--out", "/proc/effbench"), "cannot write", "/proc/effbench", "--out")


def test_a_cache_that_cannot_be_written(effbench, suite, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = effbench("run", suite, "--out", tmp_path / "run", EFFBENCH_DATA=tmp_path / "file" / "data")
    message(done, "cannot write", "file", "EFFBENCH_DATA")


def test_a_folder_of_another_suite_and_newer_records(effbench, suite, tmp_path):
    out = tmp_path / "run"
    assert effbench("run", suite, "--out", out, "--method", "toy-exact", "--quiet").returncode == 0
    other = tmp_path / "other.toml"
    other.write_text(suite.read_text().replace("good", "other"))
    message(effbench("run", other, "--out", out), "suite 'good', not 'other'", str(out), "--fresh")
    path = out / "records.jsonl"
    path.write_text("".join(json.dumps({**json.loads(line), "schema": 7}) + "\n" for line in path.read_text().splitlines()))
    message(effbench("run", suite, "--out", out), "schema 7", "records.jsonl: line 1", "upgrade effbench")
    message(effbench("report", out), "schema 7", "upgrade effbench")
    path.write_text("this is no record\n")
    message(effbench("run", suite, "--out", out), "not valid JSON", "line 1")
    path.unlink()
    (out / "environment.json").write_text("{torn")
    message(effbench("run", suite, "--out", out, "--method", "toy-exact"), "environment.json", "not valid JSON")


def test_a_report_on_nothing(effbench, tmp_path):
    (tmp_path / "empty").mkdir()
    message(effbench("report", tmp_path / "empty"), "empty")
    (tmp_path / "empty" / "records.jsonl").write_text("")
    message(effbench("report", tmp_path / "empty"), "no records", "empty")


def test_a_damaged_data_set_is_named_and_never_used(effbench, tmp_path):
    folder = tmp_path / "cache" / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not what it should be")
    done = effbench("data", "verify", "fashion-mnist")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "damaged" in done.stdout + done.stderr
    load = 'import effbench; effbench.dataset("fashion-mnist")'
    found = subprocess.run([sys.executable, "-c", load], env=effbench.environment, capture_output=True, text=True)
    assert "DataError" in found.stderr
    assert "fashion-mnist" in found.stderr
