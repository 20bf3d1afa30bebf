"""`effbench tune` finds settings under constraints, resumes, and never lets tuning see what the choice is judged on."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from effbench.api.errors import EffbenchError
from effbench.cli import app
from effbench.commands import tuning
from effbench.plan import suite as suites
from effbench.run.quality import half

TOYS = Path(__file__).parents[1] / "api" / "toys"


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS))
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "cache" / "data"))
    return tmp_path


def run(*words, out, code=0):
    shown = CliRunner().invoke(app, ["tune", *words, "--size", "smoke", "--out", str(out), "--json"])
    assert shown.exit_code == code, shown.output
    return json.loads(shown.stdout)


def records(folder, role=""):
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["role"] == role or not role]


# -- the whole command, on toys -------------------------------------------------------------------------------------------

SEARCH = ("toy-search", "toy-scann", "--minimize", "serve.flops", "--subject-to", "recall@5>=0.9")


def test_a_search_finds_the_cheapest_feasible_setting_and_resumes(toys):
    whole = run(*SEARCH, "--sampler", "grid", out=toys / "grid")
    assert whole["trials"] == whole["grid"] == whole["measured"] == 6
    tried = records(toys / "grid", "tuning")
    feasible = [r for r in tried if r["readings"]["quality.recall@5"]["value"] >= 0.9]
    cheapest = min(feasible, key=lambda r: r["readings"]["serve.flops"]["value"])
    assert whole["knobs"] == cheapest["knobs"]
    assert whole["tuning"]["serve.flops"] == cheapest["readings"]["serve.flops"]["value"]
    (last,) = records(toys / "grid", "measure")
    assert last["readings"]["quality.recall@5"]["value"] == whole["held_out"]["quality.recall@5"]
    assert last["readings"]["quality.recall@5"]["n"] == 24 and cheapest["readings"]["quality.recall@5"]["n"] == 24

    again = run(*SEARCH, "--sampler", "grid", out=toys / "grid")
    assert again["measured"] == 0
    assert {name: again[name] for name in ("knobs", "tuning", "held_out")} == {n: whole[n] for n in ("knobs", "tuning", "held_out")}
    # A killed run: the last line is torn and one trial is missing.
    path = toys / "grid" / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:40])
    resumed = run(*SEARCH, "--sampler", "grid", out=toys / "grid")
    assert resumed["measured"] == 3
    assert resumed["knobs"] == whole["knobs"]
    # Another goal in the same folder measures nothing anew.
    other = run("toy-search", "toy-scann", "--maximize", "recall@5", "--subject-to", "serve.flops<=1e9", out=toys / "grid")
    assert other["measured"] == 0
    assert other["tuning"]["quality.recall@5"] == max(r["readings"]["quality.recall@5"]["value"] for r in tried)


def test_an_interrupted_model_search_goes_on_as_if_it_had_not_been(toys):
    words = (*SEARCH, "--param", "partitions=4,8", "--trials", "7")
    whole = run(*words, out=toys / "out")
    path = toys / "out" / "records.jsonl"
    tried = [line for line in path.read_text().splitlines(keepends=True) if '"role":"tuning"' in line]
    path.write_text("".join(tried[:4]))
    resumed = run(*words, out=toys / "out")
    assert resumed["measured"] == whole["measured"] - 4
    assert [r["knobs"] for r in records(toys / "out", "tuning")] == [json.loads(line)["knobs"] for line in tried]
    assert resumed["params"] | resumed["knobs"] == whole["params"] | whole["knobs"]


def test_what_is_printed_is_a_suite_that_runs_these_settings(toys):
    found = run(*SEARCH, "--param", "partitions=4,8", "--param", "loss=exact", "--trials", "6", out=toys / "out")
    assert set(found["params"]) == {"partitions", "loss"}
    suite = suites.parse('name = "mine"\n' + found["toml"])
    plan_of = suite.runs[0]
    assert plan_of.methods == ("toy-scann",)
    assert plan_of.params["toy-scann"] == found["params"]
    assert plan_of.knobs["toy-scann"] == found["knobs"]
    assert tomllib.loads(found["toml"])["run"][0]["data"] == [found["data"]]
    shown = tuning.text(found)
    for piece in ("setting: ", "held-out", "predicted", "one half of the scored samples", "[[run]]"):
        assert piece in shown


@pytest.mark.parametrize("sampler", ["lagrange", "random"])
def test_samplers_stay_within_their_trials(toys, sampler):
    found = run(*SEARCH, "--sampler", sampler, "--trials", "3", out=toys / "out")
    assert found["trials"] <= 3
    assert len(records(toys / "out", "tuning")) == found["measured"] == found["trials"]


def test_an_infeasible_wish_names_the_nearest(toys):
    words = ("toy-search", "toy-scann", "--minimize", "serve.flops", "--subject-to", "recall@5>=1.5")
    found = run(*words, "--sampler", "grid", out=toys / "out", code=1)
    assert not found["feasible"] and "toml" not in found
    best = max(r["readings"]["quality.recall@5"]["value"] for r in records(toys / "out"))
    assert found["nearest"]["tuning"]["quality.recall@5"] == best
    assert f"{best:.6g}" in tuning.text(found) and "Loosen" in tuning.text(found)
    assert not records(toys / "out", "measure"), "nothing was chosen, so nothing is held out"


def test_a_task_that_trains_is_tuned_on_its_validation_split(toys):
    words = ("toy-training", "toy-sgd", "--minimize", "validation-loss", "--budget", "steps=20", "--trials", "3")
    found = run(*words, out=toys / "out")
    assert found["split"] == "validation"
    tried = records(toys / "out", "tuning")
    for record in tried:
        names = [name for name in record["readings"] if name.startswith("quality.")]
        assert names == ["quality.validation-loss"], "tuning saw a score on hidden data"
    assert found["tuning"]["quality.validation-loss"] == min(r["readings"]["quality.validation-loss"]["value"] for r in tried)
    assert set(found["held_out_qualities"]) == {"quality.train-loss", "quality.test-loss"}


def test_a_task_with_one_number_is_held_out_on_another_seed(toys):
    words = ("toy-tuning", "toy-asha", "--minimize", "final-regret", "--param", "eta=2,3")
    found = run(*words, out=toys / "out")
    assert found["split"] == "seeds"
    assert [record["seed"] for record in records(toys / "out")] == [0, 0, 1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("toy-search", "toy-scan", "--minimize", "serve.cpu"), "Did you mean 'toy-scann'"),
        (("toy-serch", "toy-scann", "--minimize", "serve.cpu"), "Did you mean 'toy-search'"),
        (("toy-search", "toy-scann", "--minimize", "serve.latncy"), "Did you mean 'serve.latency'"),
        (("toy-search", "toy-scann", "--maximize", "recall@50"), "Did you mean 'quality.recall@5'"),
        (("toy-search", "toy-scann"), "one of --maximize and --minimize"),
        (("toy-search", "toy-scann", "--maximize", "recall@5", "--minimize", "serve.cpu"), "exclude each other"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--subject-to", "recall@5"), "no constraint"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--subject-to", "recall@5>0.9"), "neither <= nor >="),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--subject-to", "recall@5>=high"), "no finite number"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--sampler", "bayes"), "unknown sampler"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--knob", "leafs=1,2"), "Did you mean 'leaves'"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--knob", "partitions=4,8"), "'partitions' is a param"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--knob", "leaves=1,two"), "not of the type"),
        (("toy-search", "toy-exact", "--minimize", "serve.cpu"), "nothing to choose"),
        (("toy-search", "toy-scann", "--minimize", "serve.cpu", "--case", "batches"), "Did you mean 'batch'"),
        (("toy-search", "toy-scann", "--minimize", "serve.tally.rows"), "known: "),
    ],
)
def test_mistakes_are_told(toys, words, told):
    shown = CliRunner().invoke(app, ["tune", *words, "--size", "smoke", "--out", str(toys / "out"), "-q"])
    assert isinstance(shown.exception, EffbenchError), shown.output
    assert told in str(shown.exception)


def test_a_folder_of_another_suite_is_refused(toys):
    (toys / "out").mkdir()
    (toys / "out" / "records.jsonl").write_text('{"suite": "quick"}\n')
    shown = CliRunner().invoke(app, ["tune", *SEARCH, "--size", "smoke", "--out", str(toys / "out"), "-q"])
    assert "holds records of suite 'quick'" in str(shown.exception)


def test_help_has_an_example():
    shown = re.sub(r"\s+", " ", CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "200"}).stdout)
    assert "Example: effbench tune vector-search ivf --maximize serve.throughput" in shown
    for option in ("--subject-to", "--sampler", "--trials", "--data", "--size", "--device", "--seed", "--out", "--json"):
        assert option in shown


# -- halves ---------------------------------------------------------------------------------------------------------------


def check_halves(make):
    values = np.arange(101.0)
    tuned, held_out = (make({"recall": values, "one": 3.0}, part) for part in ("tuning", "held-out"))
    assert sorted([*tuned["recall"], *held_out["recall"]]) == values.tolist()
    assert abs(len(tuned["recall"]) - len(held_out["recall"])) == 1
    assert tuned["one"] == held_out["one"] == 3.0
    other = make({"recall": values + 500}, "tuning")
    assert (other["recall"] - 500 == tuned["recall"]).all(), "another setting is judged on other samples"


def test_halves_are_apart_and_the_same_for_every_setting():
    check_halves(half)
    with pytest.raises(ValueError, match="held-out"):
        half({"recall": np.arange(3)}, "test")


def test_halves_that_overlap_are_rejected():
    with pytest.raises(AssertionError):
        check_halves(
            lambda scored, part: {
                k: np.asarray(v)[: 60 if part == "tuning" else None] if np.size(v) > 1 else v for k, v in scored.items()
            }
        )
