"""`results add`: strict about where records come from, idempotent, the later of two wins, the order never changes."""

import json

import pytest

from effbench.api.errors import RecordError
from effbench.api.record import check, dumps
from effbench.study import records as reading
from effbench.study import results, synthetic

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FACTS = {"cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz", "cores": 2, "device": "cpu", "threads": 1}
KEY = "abcdef012345"


def run(folder, made, facts=FACTS):
    synthetic.write(folder, made)
    (folder / "environment.json").write_text(json.dumps({KEY: facts}))
    return folder


@pytest.fixture
def made():
    return [{**r, "commit": COMMIT, "environment": KEY, "suite": "quick"} for r in synthetic.records(30)]


def test_copies_by_machine_sorted_and_idempotent(tmp_path, made):
    to = tmp_path / "results"
    assert results.add(run(tmp_path / "run", made), to) == ["intel-xeon-2c-abcdef/quick.jsonl: 30 new, 0 replaced, 30 records"]
    file = to / "intel-xeon-2c-abcdef" / "quick.jsonl"
    content = file.read_bytes()
    assert sorted(content.decode().splitlines()) == sorted(dumps(record) for record in made), "records are copied unchanged"
    assert all(check(json.loads(line)) == [] for line in content.splitlines())
    assert results.add(tmp_path / "run", to) == ["intel-xeon-2c-abcdef/quick.jsonl: nothing new, 30 records"]
    results.add(run(tmp_path / "back", made[::-1]), tmp_path / "other")
    assert (tmp_path / "other" / "intel-xeon-2c-abcdef" / "quick.jsonl").read_bytes() == content == file.read_bytes()
    assert results.files(to) == [file]
    assert len(reading.read(file).records) == 30 and not reading.read(file).problems


def test_the_later_record_of_a_measurement_wins(tmp_path, made):
    to = tmp_path / "results"
    later = {**made[0], "time": "2030-01-01T00:00:00Z"}
    results.add(run(tmp_path / "a", made), to)
    assert "0 new, 1 replaced, 30" in results.add(run(tmp_path / "b", [later]), to)[0]
    assert "nothing new" in results.add(tmp_path / "a", to)[0], "an older one does not come back"
    assert dumps(later) in (to / "intel-xeon-2c-abcdef" / "quick.jsonl").read_text()


def test_a_trial_of_two_suites_stands_once(tmp_path, made):
    """The later record wins over suites too: a trial is the same, whatever suite asked for it."""
    to, place = tmp_path / "results", tmp_path / "results" / "intel-xeon-2c-abcdef"
    again = [{**r, "suite": "reference", "time": "2030-01-01T00:00:00Z"} for r in made[:4]]
    results.add(run(tmp_path / "quick", made), to)
    said = results.add(run(tmp_path / "reference", again), to)
    assert said == [
        "intel-xeon-2c-abcdef/quick.jsonl: gives way to records of the same trials in another suite, 26 records",
        "intel-xeon-2c-abcdef/reference.jsonl: 4 new, 0 replaced, 4 records",
    ]
    assert len((place / "quick.jsonl").read_text().splitlines()) == 26
    assert results.add(tmp_path / "quick", to) == ["intel-xeon-2c-abcdef/quick.jsonl: nothing new, 26 records"], (
        "older ones stay away"
    )
    assert results.add(tmp_path / "reference", to) == ["intel-xeon-2c-abcdef/reference.jsonl: nothing new, 4 records"]


def test_what_a_host_disturbed_does_not_take_the_place_of_what_it_did_not(tmp_path, made):
    to, soon, late = tmp_path / "results", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"
    disturbed = {**made[0], "status": "unstable", "reason": "9 of 12 turns were disturbed", "time": soon}
    results.add(run(tmp_path / "a", made), to)
    assert "nothing new" in results.add(run(tmp_path / "b", [disturbed]), to)[0]
    file = to / "intel-xeon-2c-abcdef" / "quick.jsonl"
    assert dumps(made[0]) in file.read_text()
    assert "1 replaced" in results.add(run(tmp_path / "c", [{**made[0], "time": late}]), to)[0]
    wrong = {**made[0], "status": "wrong", "reason": "two answers", "time": "2032-01-01T00:00:00Z", "readings": {}}
    assert "1 replaced" in results.add(run(tmp_path / "d", [wrong]), to)[0], "what was found wrong later stands"
    assert results.stands(disturbed, made[0]) is made[0] and results.stands(made[0], disturbed) is made[0]


def test_a_quantity_that_only_one_suite_measures_stays(tmp_path, made):
    """The joules of an energy suite are not lost to a later suite that does not ask for them."""
    to = tmp_path / "results"
    joules = {**made[0], "suite": "energy", "readings": {**made[0]["readings"], "serve.energy": {"unit": "J", "value": 2.0}}}
    plain = {**made[0], "time": "2030-01-01T00:00:00Z"}
    plain["readings"] = {
        **plain["readings"],
        "serve.energy": {"unit": "J", "value": None, "reason": "the suite asks for no energy window"},
    }
    results.add(run(tmp_path / "energy", [joules]), to)
    assert results.add(run(tmp_path / "plain", [plain]), to) == ["intel-xeon-2c-abcdef/quick.jsonl: nothing new, 0 records"]
    assert not (to / "intel-xeon-2c-abcdef" / "quick.jsonl").exists()
    assert dumps(joules) in (to / "intel-xeon-2c-abcdef" / "energy.jsonl").read_text()
    assert results.stands(plain, joules) is joules and results.stands(joules, plain) is joules
    richer = {**plain, "readings": {**joules["readings"], "serve.peak_power": {"unit": "W", "value": 9.0}}}
    assert results.stands(joules, richer) is richer


def test_roofs_do_not_keep_a_record_and_tuning_does(made):
    """A run before this machine was calibrated lacks the roof, and no more; settings that tuning left at the defaults were tuned."""
    plain = {**made[0], "tuning": {}}
    roofed = {**plain, "readings": {**plain["readings"], "serve.roof": {"unit": "1", "value": 0.5}}}
    later = {**plain, "time": "2030-01-01T00:00:00Z"}
    assert results.stands(roofed, later) is later
    tuned = {**plain, "tuning": {"trials": 6, "time": 1.0, "flops": 1}}
    assert results.stands(tuned, later) is tuned and results.stands(later, tuned) is tuned


def test_of_two_calibrations_the_higher_roofs_stay(tmp_path, made):
    """A machine of the same description that reached more: its numbers are not impossible."""
    to, place = tmp_path / "results", "intel-xeon-2c-abcdef"

    def calibrated(name, float32, copy, **more):
        roofs = {"measure": 1, "copy": copy, "matmul": {"float32": float32, **more}, "floor": {"loop wall": copy}}
        results.add(run(tmp_path / name, made, {**FACTS, "roofs": roofs}), to)
        return json.loads((to / place / "environment.json").read_text())[KEY]["roofs"]

    assert calibrated("a", 1.0e11, 2.0e10)["matmul"] == {"float32": 1.0e11}
    second = calibrated("b", 1.2e11, 1.0e10, int8=4.0e11)
    assert second["matmul"] == {"float32": 1.2e11, "int8": 4.0e11} and second["copy"] == 2.0e10
    assert second["floor"] == {"loop wall": 2.0e10}, "the rest is of the first"
    assert calibrated("c", 0.9e11, 0.9e10) == second
    assert results.highest({"measure": 1, "matmul": {}}, {"measure": 2, "matmul": {"float32": 9.0}}) == {"measure": 1, "matmul": {}}


def test_tuning_records_go_to_a_folder_of_their_own(tmp_path, made):
    made[3]["role"] = "tuning"
    to = tmp_path / "results"
    lines = results.add(run(tmp_path / "run", made), to)
    assert lines[1] == "tuning/quick.jsonl: 1 new, 0 replaced, 1 records"
    assert not reading.read(to / "tuning" / "quick.jsonl").problems, "their machine is described beside them"
    assert len(results.files(to)) == 1


@pytest.mark.parametrize("commit", ["unknown", COMMIT + "-dirty", "synthetic", "", "HEAD"])
def test_untraceable_records_are_refused_and_nothing_is_written(tmp_path, made, commit):
    made[7]["commit"] = commit
    with pytest.raises(RecordError, match=r"measured at commit.*Commit effbench/"):
        results.add(run(tmp_path / "run", made), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_damaged_records_are_refused(tmp_path, made):
    folder = run(tmp_path / "run", made)
    with (folder / "records.jsonl").open("ab") as stream:
        stream.write(b'{"schema":1}\n')
    with pytest.raises(RecordError, match="damaged"):
        results.add(folder, tmp_path / "results")
    (folder / "environment.json").unlink()
    with pytest.raises(RecordError, match="damaged"):
        results.add(folder, tmp_path / "results")


@pytest.mark.parametrize("suite", ["../up", "a/b", ".hidden", ""])
def test_a_suite_is_no_path(tmp_path, made, suite):
    made[0]["suite"] = suite
    with pytest.raises(RecordError, match="no plain name"):
        results.add(run(tmp_path / "run", made), tmp_path / "results")


def test_machines_have_plain_names():
    gpu = {"device": "cuda", "gpus": [{"name": "NVIDIA H100 80GB HBM3"}] * 2}
    assert results.machine("0011223344", gpu) == "nvidia-h100-80gb-hbm3-2x-001122"
    assert results.machine("../../x", {"cpu": "../../etc", "cores": 1}) == "etc-1c-x"
    assert results.machine("0011223344", {"device": "tpu"}) == "tpu-1x-001122"
