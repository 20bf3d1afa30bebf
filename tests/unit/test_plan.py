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
