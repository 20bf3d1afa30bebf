"""Feature selection: the task, the arms and their bad input. The theorem and the rounds have a file of their own."""

import dataclasses
import types

import numpy as np
import pytest
import torch
from effbench_implementations.features import tables, task
from effbench_implementations.features.all_features import AllFeatures, AllFeaturesNarrow
from effbench_implementations.features.gradient_boosting import GradientBoosting
from effbench_implementations.features.lasso import Lasso, solve
from effbench_implementations.features.linear import Problem
from effbench_implementations.features.mutual_information import MutualInformation
from effbench_implementations.features.omp import Omp
from effbench_implementations.features.one_shot_mask import OneShotMask
from effbench_implementations.features.random_features import RandomFeatures
from effbench_implementations.features.rounds import Rounds
from effbench_implementations.features.sequential_attention import SequentialAttention
from effbench_implementations.features.sequential_attention_linear import SequentialAttentionLinear
from effbench_implementations.features.sequential_lasso import SequentialLasso

from effbench import Budget, Case, Data, DataError, Wrong
from effbench.api.run import Allowance, Run
from effbench.backends import get
from effbench.run.exercise import exercise

FAST = {
    GradientBoosting: {"iterations": 3, "repeats": 1, "rows": 100},
    MutualInformation: {"rows": 200},
    SequentialAttentionLinear: {"round_steps": 100},
}
ARMS = [
    AllFeatures, AllFeaturesNarrow, GradientBoosting, Lasso, MutualInformation, Omp, OneShotMask, RandomFeatures,
    SequentialAttention, SequentialAttentionLinear, SequentialLasso,
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def a_run(steps=60, seed=0):
    return Run(seed=seed, budget=Allowance(steps=steps), backend=get("torch"))


def table(rows=300, columns=12, k=3, seed=0, informative=(2, 5, 7), constant=()):
    """Three classes by the signs of a few independent columns."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    y = (x[:, list(informative)] > 0).sum(1).clip(0, 2)
    x[:, list(constant)] = 0
    return task.Given(x[50:], y[50:], x[:50], y[:50], 3, k, 16, 32)


def build(arm, given, steps=60, seed=0, **settings):
    method = arm(**{**FAST.get(arm, {}), **settings})
    method.run = a_run(steps, seed)
    assert method.skip(given) == ""
    for _ in method.build(given, method.run):
        pass
    return method


# -- every arm ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_gives_k_different_columns_and_never_a_constant_one(arm):
    given = table(constant=(0, 11))
    method = build(arm, given)
    count = 10 if issubclass(arm, AllFeatures) else 3
    assert len(set(method.chosen.tolist())) == len(method.chosen) == count
    assert not {0, 11} & set(method.chosen.tolist())
    method.run.put(given.x)
    assert method.predict(method.run.put(given.x)).shape == (250, 3)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize(
    "change, said",
    [
        ({"k": 0}, "k=0"),
        ({"k": 13}, "k=13 features asked for; 12 of 12"),
        ({"y": np.zeros(250, np.int64)}, "one class"),
    ],
)
def test_an_arm_refuses_what_makes_no_sense(arm, change, said):
    with pytest.raises(ValueError, match=said):
        build(arm, dataclasses.replace(table(), **change))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_arm_refuses_numbers_that_are_none(arm, value):
    given = table()
    given.x[7, 4] = value
    with pytest.raises(ValueError, match="row 7, column 4"):
        build(arm, given)


def test_k_beyond_the_columns_that_vary_is_an_error():
    with pytest.raises(ValueError, match="k=3 features asked for; 2 of 12 columns vary"):
        build(Omp, table(informative=(2,), constant=(0, 1, 3, 4, 5, 6, 8, 9, 10, 11)))


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm is not AllFeaturesNarrow])
def test_with_k_of_d_every_arm_ends_with_all_columns(arm):
    method = build(arm, table(columns=6, k=6, informative=(0, 2, 4)), steps=30)
    assert sorted(method.chosen.tolist()) == list(range(6))


@pytest.mark.parametrize("arm", [arm for arm in ARMS if not issubclass(arm, (AllFeatures, RandomFeatures))])
def test_an_arm_finds_the_columns_that_make_the_labels(arm):
    settings = {"iterations": 20, "repeats": 2} if arm is GradientBoosting else {}
    settings |= {"selection_rate": 0.02} if issubclass(arm, Rounds) else {}
    method = build(arm, table(rows=1500), steps=400, **settings)
    assert set(method.chosen.tolist()) == {2, 5, 7}


@pytest.mark.parametrize("arm", [Omp, Lasso, SequentialAttentionLinear, SequentialAttention, SequentialLasso, OneShotMask])
def test_a_column_picked_by_chance_does_not_pass_as_found(arm):
    """The oracle above rejects a selector that ignores the labels."""

    class Blind(arm):
        def select(self, given, run):
            shuffled = dataclasses.replace(given, y=np.random.default_rng(3).permutation(given.y))
            return super().select(shuffled, run)

    assert set(build(Blind, table(rows=1500), steps=100).chosen.tolist()) != {2, 5, 7}


@pytest.mark.parametrize("given", [np.array([1, 1, 2]), np.array([0, 1]), np.array([0, 1, 12]), np.array([0.0, 1.0, 2.0])])
def test_a_selection_that_breaks_the_contract_is_wrong(given):
    class Broken(Omp):
        def select(self, _, run):
            return given

    with pytest.raises(Wrong, match="3 different columns of 12"):
        build(Broken, table())


@pytest.mark.parametrize(
    "arm, settings",
    [
        (SequentialAttention, {"variant": "two-pass"}),
        (SequentialAttention, {"pick_at": "middle"}),
        (SequentialAttention, {"pick_at": "round-start", "features_per_round": 2}),
        (SequentialAttention, {"features_per_round": 0}),
        (SequentialAttention, {"warm_up": 1.0}),
        (SequentialAttention, {"selection_share": 0.01}),
        (SequentialLasso, {"strength": -1.0}),
        (SequentialAttentionLinear, {"tightness": 0.0}),
        (Lasso, {"smallest": 2.0}),
        (MutualInformation, {"neighbours": 0}),
        (MutualInformation, {"rows": 1}),
        (GradientBoosting, {"iterations": 0}),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(arm, settings):
    with pytest.raises(ValueError):
        build(arm, table(), **settings)


def test_a_budget_that_is_not_in_steps_is_an_error():
    method = Omp()
    method.run = Run(budget=Allowance(time=1.0), backend=get("torch"))
    with pytest.raises(ValueError, match="budget in steps"):
        list(method.build(table(), method.run))


# -- the narrow ceiling and the costs ---------------------------------------------------------------------------------------


def test_the_narrow_ceiling_has_as_many_first_layer_weights():
    given = dataclasses.replace(table(), hidden=64)
    narrow, selected = build(AllFeaturesNarrow, given), build(Omp, given)
    assert narrow.net.parameters[0].numel() == selected.net.parameters[0].numel()


@pytest.mark.parametrize(
    "arm", [AllFeatures, Lasso, Omp, OneShotMask, SequentialAttention, SequentialAttentionLinear, SequentialLasso]
)
def test_the_build_formula_agrees_with_the_counter(arm):
    from effbench.measure.flops import count

    method = arm(**FAST.get(arm, {}))
    method.run = a_run(20)
    counted = count(lambda: list(method.build(table(), method.run)), "torch").executed
    assert method.flops("build", None, {}).executed == pytest.approx(counted, rel=0.01)
    assert counted != pytest.approx(method.fitted, rel=0.01) or arm is AllFeatures


def test_the_serve_formula_agrees_with_the_counter_and_drops_with_k():
    from effbench.measure.flops import count

    method = build(Omp, table())
    found = method.flops("serve", Case("c", {"batch": 250}), {})
    assert found.executed == count(lambda: method.predict(method.run.put(table().x)), "torch").executed
    assert found.dense / found.executed == (12 + 3) / (3 + 3)


# -- the task ---------------------------------------------------------------------------------------------------------------


def test_a_trial_through_the_engine():
    found = exercise(task.FeatureSelection, Omp, data="redundancy(rows=400)", budget=Budget(steps=40), cases=("batch-256",))
    assert found["build"]["build.steps"]["value"] == 40
    readings = found["batch-256", ()]
    assert 0.4 < readings["quality.accuracy"]["value"] <= 1
    assert 0 < readings["quality.groups"]["value"] <= 1
    assert found["curve"]["accuracy"]


@pytest.mark.parametrize("name, least", [("digits", 0.5), ("breast-cancer", 0.85), ("wine", 0.7)])
def test_every_packaged_table_is_learned(name, least):
    given, hidden = given_of(name)
    method = build(Omp, given, steps=120, learning_rate=0.01)
    assert set(given.y) == set(hidden.y) == set(range(given.classes))
    assert (task.predict_all(method, hidden.x).argmax(1) == hidden.y).mean() > least


def given_of(name, seed=0, **changed):
    data = next(data for data in task.FeatureSelection.data if data.name == name)
    data = Data(name, {**data.args, **changed})
    return task.FeatureSelection().given(data, "smoke", seed, {}), task.FeatureSelection().hidden(data, "smoke", seed, {})


def test_the_parts_of_a_table_are_standardised_and_apart():
    given, hidden = given_of("digits")
    varying = np.ptp(given.x, axis=0) > 0
    assert 0 < varying.sum() < 64  # digits has border pixels that never change
    np.testing.assert_allclose(given.x[:, varying].std(0), 1, atol=1e-4)
    assert not given.x[:, ~varying].any()
    assert len(given.y) + len(given.validation_y) + len(hidden.y) == 1797
    rows = tables.split(1797, np.random.default_rng(0))
    assert len(np.unique(np.concatenate(rows))) == 1797


def test_another_scale_of_a_column_changes_nothing():
    table_ = tables.read("wine", {}, 0)
    scaled = dataclasses.replace(table_, x=table_.x * np.where(np.arange(13) == 4, 10.0, 1.0))
    for a, b in zip(task.standardised(table_), task.standardised(scaled)):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("changed", [{"k": 0}, {"k": 14}, {"hidden": 0}, {"batch": 0}])
def test_the_task_refuses_arguments_that_make_no_sense(changed):
    with pytest.raises(DataError):
        given_of("wine", **changed)


def test_redundancy_is_what_it_says():
    found = tables.redundancy(8000, 100, np.random.default_rng(0))
    counts = [int((found.groups == g).sum()) for g in range(-1, tables.GROUPS)]
    assert counts == [73, 5, 5, 5, 5, 5, 1, 1]
    x = (found.x - found.x.mean(0)) / found.x.std(0)
    alone = np.abs(x.T @ (found.y - found.y.mean())) / len(x)
    pair = [int(np.flatnonzero(found.groups == g)[0]) for g in (5, 6)]
    assert alone[pair].max() < 0.02 < 0.03 < alone[(found.groups >= 0) & (found.groups < 5)].min()
    assert abs((x[:, pair].prod(1) * (found.y - 0.5)).mean()) > 0.1
    assert np.array_equal(found.x, tables.redundancy(8000, 100, np.random.default_rng(0)).x)
    with pytest.raises(DataError):
        tables.redundancy(8000, 20, np.random.default_rng(0))


def test_unknown_answers_are_wrong():
    given, hidden = given_of("wine")
    method = build(Omp, given, steps=20)
    case = Case("batch-1", {"batch": 1})
    batches = task.FeatureSelection().batches(case, hidden, method.run)
    outputs = [method.predict(batch).numpy() for batch in batches]
    task.FeatureSelection().score(method, given, hidden, case, outputs)
    with pytest.raises(Wrong):
        task.FeatureSelection().score(method, given, hidden, case, outputs[::-1])
    for bad in task.FeatureSelection().bad_batches(case, hidden, method.run).values():
        with pytest.raises(ValueError, match="columns"):
            method.predict(bad)


def test_the_task_calls_other_budgets_unfair():
    one, two = ({"budget": {"steps": steps}} for steps in (10, 20))
    assert task.FeatureSelection().unfair(one, two) and not task.FeatureSelection().unfair(one, one)


# -- the linear baselines -----------------------------------------------------------------------------------------------------


def test_lasso_satisfies_its_optimality_conditions():
    """Subgradient: |C - G b| = penalty along b on active rows, at most penalty elsewhere."""
    given = table()
    problem = Problem.of(given, types.SimpleNamespace(put=torch.from_numpy))
    penalty = 0.4 * float(problem.correlations().max())
    step = 1 / float(torch.linalg.eigvalsh(problem.gram)[-1])

    def holds(weights):
        left, norms = problem.cross - problem.gram @ weights, weights.norm(dim=1)
        active = norms > 0
        expected = penalty * weights[active] / norms[active, None]
        return torch.allclose(left[active], expected, atol=1e-4 * penalty) and bool(
            (left[~active].norm(dim=1) <= penalty * 1.0001).all()
        )

    start = torch.zeros_like(problem.cross)
    weights, _ = solve(problem.gram, problem.cross, start, penalty, step, 2000, tolerance=1e-12)
    assert 0 < int((weights.norm(dim=1) > 0).sum()) < 12
    assert holds(weights)
    assert not holds(torch.linalg.solve(problem.gram, problem.cross))
