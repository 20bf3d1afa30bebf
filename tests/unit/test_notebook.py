"""The two functions for notebooks."""

import effbench
from effbench.study import synthetic


def test_measure_can_be_called_again_after_its_package_is_imported():
    first, second = (effbench.measure(sum, [1, 2, 3], seconds=0.02) for _ in range(2))
    assert first["unit"] == second["unit"] == "s"
    assert 0 < first["value"] < 1e-3
    assert first["n"] > 100


def test_load_gives_one_row_a_record(tmp_path):
    made = list(synthetic.records(20))
    synthetic.write(tmp_path / "run", made)
    frame = effbench.load(tmp_path / "run")
    assert len(frame) == len(made)
    assert {"method", "status", "serve.latency"} <= set(frame.columns)
