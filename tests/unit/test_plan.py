"""What the command line leaves of a suite."""

import pytest

from effbench.api.errors import SuiteError
from effbench.plan import plan as plans
from effbench.plan import suite as suites
from effbench.plan.registry import Registry


@pytest.fixture(scope="module")
def registry():
    return Registry.read()


def test_only_some_cases_of_a_suite(registry):
    suite = suites.read("attention-gpu")
    plan = plans.make(suite, registry, only=("n-65536", "n-256"))
    asked = {trial.cases for trial in plan.trials}
    assert asked == {("n-256",), ("n-65536",), ("n-256", "n-65536")}  # in the order of the suite; a run without either is dropped
    assert {trial.task for trial in plan.trials} == {"attention-forward"}
    everything = plans.make(suite, registry)
    assert {trial.key for trial in plan.trials} <= {trial.key for trial in everything.trials}  # so that a run is resumed by it


def test_a_case_that_no_selected_run_has(registry):
    suite = suites.read("attention-gpu")
    with pytest.raises(SuiteError, match="n-512"):
        plans.make(suite, registry, only=("n-256", "n-512"))
    with pytest.raises(SuiteError, match="n-256"):
        plans.make(suite, registry, tasks=("attention-training",), only=("n-256",))


def test_every_seed_is_measured_beside_the_same_baseline(registry):
    """Also where the baseline is deterministic, so that one seed of it says all; other deterministic methods are run once."""
    plan = plans.make(suites.read("search-reference"), registry)
    assert {group.seed for group in plan.groups} == {0, 1, 2}
    for group in plan.groups:
        names = [trial.method for trial in group.trials]
        assert names[0] == "exact" and names.count("exact") == 1
        assert ("faiss-flat" in names) == (group.seed == 0)
