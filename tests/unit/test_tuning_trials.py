"""Tuning gives every arm the same trials, and the suites that read tuned settings ask for what the tuning suites have tuned."""

import pytest

from effbench.api.param import Choice, Log, Uniform
from effbench.plan import plan as plans
from effbench.plan import suite as suites
from effbench.plan.registry import Registry

SEARCHED, READ = ("tuning", "tuning-architectures"), ("quick", "architectures", "reference")


@pytest.fixture(scope="module")
def registry():
    return Registry.read()


def asked(name: str, registry: Registry) -> set[tuple]:
    """(task, data, budget, trials) of the tuned runs of a suite."""
    suite = suites.read(name)
    assert all(run.search == (name in SEARCHED) for run in suite.runs if run.tune)
    return {
        (run.task, str(suites.parse_data(text, registry.task(run.task).data, name)), budget, run.tune)
        for run in suite.runs
        if run.tune
        for text in run.data or (registry.task(run.task).data[0].name,)
        for budget in run.budgets
    }


def test_what_suites_read_is_what_was_searched(registry):
    searched = set().union(*(asked(name, registry) for name in SEARCHED))
    for name in READ:
        assert asked(name, registry) <= searched, name


def test_settings_of_a_tuned_run_are_tuned_and_not_written(registry):
    """What the suite writes would be replaced by the tuned record, which holds every param."""
    for name in READ:
        for run in suites.read(name).runs:
            if run.tune:
                assert not set(run.params) & set(registry.methods_of(run.task)), (name, run.task)


def test_arms_that_share_a_setting_try_the_same_values_of_it(registry):
    plan = plans.make(suites.read("tuning-architectures"), registry, tasks=["activation-sparsity"])
    rates = {}
    for group in plan.groups:
        for name, trials in group.tuning.items():
            rates[name, str(group.data)] = [trial.params["learning_rate"] for trial in trials]
    assert len(rates) == 10 and len(set(map(tuple, rates.values()))) == 1
    default, *drawn = rates.popitem()[1]
    tune = registry.methods["activation-sparsity", "dense-relu"].settings["learning_rate"].tune
    edges = [tune.at(i / 5) for i in range(6)]
    assert default == 0.002 and all(low <= rate <= high for low, rate, high in zip(edges, sorted(drawn), edges[1:]))


def test_a_range_is_reached_from_end_to_end():
    assert Log(0.001, 0.1).at(0.0) == 0.001 and Log(0.001, 0.1).at(0.5) == 0.01 and Log(0.001, 0.1).at(1.0) == 0.1
    assert Log(1, 100).at(0.5) == 10 and Uniform(0.0, 2.0).at(0.25) == 0.5
    assert [Uniform(1, 3).at(place) for place in (0.0, 0.34, 0.99)] == [1, 2, 3]
    assert [Choice("a", "b").at(place) for place in (0.0, 0.49, 0.5, 0.99)] == ["a", "a", "b", "b"]
