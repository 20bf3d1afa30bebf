"""The samplers of `effbench tune` on a known problem, its cost model, wishes and grids. Oracles reject broken variants."""

import importlib.util
import math

import numpy as np
import pytest

from effbench.api.param import Choice, Log, Setting, Uniform
from effbench.study import cost, goals, samplers
from effbench.study import space as spaces
from effbench.study.goals import Constraint, Wish
from effbench.study.lagrange import Additive, around, cross, dual, lagrange
from effbench.study.space import Axis, Space

OPTUNA = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
ALL = ["lagrange", "grid", "random", *(pytest.param(name, marks=OPTUNA) for name in ("tpe", "nsga2"))]
WISH = Wish("serve.cpu", "lower", (Constraint("quality.recall", ">=", 0.9),))

# -- samplers on a known problem ------------------------------------------------------------------------------------------


def index(shape=(14, 12), noise=0.0, seed=0):
    """A space and a function like an index: recall is a product, cost a sum, neither is linear."""
    rng = np.random.default_rng(seed)
    values = [
        tuple(int(v) for v in np.unique(np.geomspace(1, top, count).round())) for top, count in ((200, shape[0]), (400, shape[1]))
    ]
    space = Space(
        (Axis("probes", "knob", values[0]), Axis("rescored", "knob", values[1])), {}, {"probes": "knob", "rescored": "knob"}
    )

    def measure(point):
        probes, rescored = values[0][point[0]], values[1][point[1]]
        recall = (1 - math.exp(-((probes / 12) ** 0.6))) * (1 - math.exp(-((rescored / 30) ** 0.8)))
        seconds = 1e-4 + 2e-6 * probes + 1e-6 * rescored
        return {
            "quality.recall": recall, "serve.cpu": seconds * math.exp(noise * rng.standard_normal()),
            "serve.tally.points": 50.0 * probes, "serve.tally.rescored": float(rescored),
        }  # fmt: skip

    return space, measure


def drive(sampler, space, measure, wish, trials, seed=0, known=()):
    """(point, values) in the order asked, and the last prediction."""
    asked, going, values, predicted = {}, sampler(space, wish, trials, seed, known), None, None
    while True:
        try:
            point, predicted = going.send(values)
        except StopIteration:
            break
        if point not in asked and len(asked) >= trials:
            break
        values = asked.setdefault(point, measure(point))
    return list(asked.items()), predicted


def optimum(space, measure, wish):
    everything = [(point, measure(point)) for point in space.points()]
    return everything[wish.best(everything)][1]


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_repeats_itself_and_never_prefers_an_infeasible_setting(name):
    space, measure = index()
    first, _ = drive(samplers.choose(name), space, measure, WISH, 24, seed=3)
    again, _ = drive(samplers.choose(name), space, measure, WISH, 24, seed=3)
    assert first == again
    assert len(first) <= 24
    best = WISH.best(first)
    assert best is None or first[best][1]["quality.recall"] >= 0.9


def check_lagrange(sampler, *, noise):
    """Within 2 % of the exhaustive grid's cost at every target, in a tenth of its trials."""
    for recall in (0.8, 0.9, 0.95, 0.98):
        wish = Wish("serve.cpu", "lower", (Constraint("quality.recall", ">=", recall),))
        space, truth = index(shape=(20, 16))
        _, noisy = index(shape=(20, 16), noise=noise)
        trials = space.size // 10
        asked, _ = drive(sampler, space, noisy, wish, trials)
        assert len(asked) <= trials
        chosen, _ = cost.smoothed(wish, asked)
        best = wish.best(chosen)
        assert best is not None
        assert truth(chosen[best][0])["serve.cpu"] <= 1.02 * optimum(space, truth, wish)["serve.cpu"]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_lagrange_meets_the_exhaustive_front(noise):
    check_lagrange(lagrange, noise=noise)


def test_random_search_does_not(noise=0.0):
    with pytest.raises(AssertionError):
        check_lagrange(samplers.random, noise=noise)


def test_a_model_without_its_logarithm_is_rejected(monkeypatch):
    from effbench.study import lagrange as module

    def wrong(value, metric, better):
        return {"quality.recall": math.sin(40 * value)}.get(metric, value)

    monkeypatch.setattr(module, "scaled", wrong)
    with pytest.raises(AssertionError):
        check_lagrange(lagrange, noise=0.0)


def test_what_another_goal_measured_is_used_and_costs_nothing():
    space, measure = index()
    known, _ = drive(samplers.grid, space, measure, WISH, space.size)
    asked, _ = drive(lagrange, space, measure, WISH, 12, known=known)
    assert asked[WISH.best(asked)][1] == optimum(space, measure, WISH)


def test_lagrange_knows_categories_and_several_constraints():
    axes = (Axis("kind", "param", ("a", "b", "c")), Axis("x", "knob", (1, 2, 4, 8, 16, 32)), Axis("y", "knob", (0.0, 0.5, 1.0)))
    space = Space(axes, {}, {axis.name: axis.kind for axis in axes})

    def measure(point):
        kind, x, y = point
        return {
            "serve.cpu": [3.0, 1.0, 2.0][kind] + axes[1].values[x] + y, "quality.recall": [0.9, 0.6, 0.99][kind] * (0.8 + 0.04 * x),
            "size.bytes": [10.0, 5.0, 30.0][kind] + 2 * y,
        }  # fmt: skip

    wish = Wish("serve.cpu", "lower", (Constraint("quality.recall", ">=", 0.85), Constraint("size.bytes", "<=", 20)))
    asked, _ = drive(lagrange, space, measure, wish, 20)
    assert asked[wish.best(asked)][1] == optimum(space, measure, wish)


def check_dual(solve):
    """On additive tables the answer is the cheapest of the product's lower hull that keeps the bound."""
    space, _ = index(shape=(7, 8))
    points = list(space.points())
    rng = np.random.default_rng(2)
    tables = [(np.sort(rng.exponential(1, n)), np.sort(rng.exponential(1, n))[::-1]) for n in space.shape]
    price = [tables[0][0][i] + tables[1][0][j] for i, j in points]
    loss = [tables[0][1][i] + tables[1][1][j] for i, j in points]
    models = []
    for k, values in enumerate((price, loss)):
        model = Additive(space, points, values)
        model.tables, model.constant = [table[k] for table in tables], 0.0
        models.append(model)
    hull = {int(np.argmin(np.array(price) + w * np.array(loss))) for w in np.exp(np.linspace(-12, 12, 40001))}
    for bound in np.linspace(min(loss) + 0.01, max(loss), 25):
        expected = min(price[i] for i in hull if loss[i] <= bound)
        chosen = points.index(solve(models[0], [(models[1], bound)]))
        assert loss[chosen] <= bound
        assert price[chosen] == pytest.approx(expected)


def test_the_multiplier_finds_the_hull():
    check_dual(dual)


def test_a_fixed_multiplier_is_rejected():
    def broken(objective, constraints):
        ((model, _),) = constraints
        return tuple(int(np.argmin(a + 2.0 * b)) for a, b in zip(objective.tables, model.tables))

    with pytest.raises(AssertionError):
        check_dual(broken)


def test_an_additive_function_is_fitted():
    space, _ = index(shape=(9, 8))
    points = list(space.points())
    x = [axis.positions() for axis in space.axes]
    values = [3 + 2 * x[0][i] + x[1][j] ** 2 for i, j in points]
    model = Additive(space, points[::3], values[::3])
    assert np.abs(model.predict(np.array(points)) - values).max() < 0.05


def test_starting_points_are_a_cross_within_the_trials():
    space, _ = index()
    for trials in (1, 2, 5, 24):
        found = cross(space, trials)
        assert 1 <= len(found) <= trials and len(set(found)) == len(found)
    assert len(around(space, (0, 0))) == space.size


# -- the cost model -------------------------------------------------------------------------------------------------------


def test_prices_are_found_through_noise():
    space, measure = index(noise=0.05, seed=4)
    measured = [measure(point) for point in list(space.points())[::5]]
    model = cost.fit("serve.cpu", measured)
    assert model.prices["serve.tally.points"] == pytest.approx(2e-6 / 50, rel=0.1)
    assert model.prices["serve.tally.rescored"] == pytest.approx(1e-6, rel=0.1)
    assert 0.03 < model.error < 0.07
    _, exact = index()
    for point in list(space.points())[::17]:
        assert model(measure(point)) == pytest.approx(exact(point)["serve.cpu"], rel=0.04)


def test_throughput_is_modelled_by_seconds_an_item():
    space, measure = index()
    measured = [{**values, "serve.throughput": 1 / values["serve.cpu"]} for values in map(measure, space.points())]
    model = cost.fit("serve.throughput", measured)
    assert model(measured[40]) == pytest.approx(measured[40]["serve.throughput"])


def test_a_cost_that_counts_do_not_explain_is_not_modelled():
    rng = np.random.default_rng(0)
    measured = [{"serve.cpu": float(rng.exponential(1)), "serve.tally.points": float(i)} for i in range(1, 30)]
    assert cost.fit("serve.cpu", measured) is None
    assert cost.fit("serve.flops", measured) is None
    assert cost.fit("serve.cpu", measured[:3]) is None


# -- wishes and grids -----------------------------------------------------------------------------------------------------


def test_wishes_prefer_the_feasible_then_the_nearest():
    wish = Wish("size.bytes", "lower", (Constraint("quality.a", ">=", 0.8), Constraint("serve.cpu", "<=", 2.0)))
    measured = [
        ((0,), {"size.bytes": 1, "quality.a": 0.7, "serve.cpu": 1}), ((1,), {"size.bytes": 9, "quality.a": 0.9, "serve.cpu": 2}),
        ((2,), {"size.bytes": 5, "quality.a": 0.8, "serve.cpu": 1}),
        ((3,), {"size.bytes": None, "quality.a": None, "serve.cpu": None}),
    ]  # fmt: skip
    assert wish.best(measured) == 2
    assert wish.best(measured[:1]) is None and wish.nearest(measured[:1]) == 0
    assert wish.nearest(measured[3:]) is None


@pytest.mark.parametrize(
    ("metric", "value"), [("serve.throughput", 40.0), ("quality.recall", 0.7), ("serve.cpu", 0.2), ("quality.loss", 2.5)]
)
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_scales_are_monotone_and_have_a_way_back(metric, value, better):
    moved = [goals.scaled(v, metric, better) for v in (0.5 * value, value, 1.3 * value)]
    assert moved == sorted(moved, reverse=better == "higher")
    assert goals.unscaled(moved[1], metric, better) == pytest.approx(value)


def test_levels_of_ranges():
    def setting(default, **more):
        return spaces.levels(Setting(default, "param", **more))

    assert setting(0.1, tune=Log(1e-4, 1.0))[::4] == (1e-4, 0.01, 1.0)
    assert setting(3, tune=Uniform(1, 4)) == (1, 2, 3, 4)
    assert setting("a", tune=Choice("a", "b")) == ("a", "b")
    assert setting(8, sweep=(1, 16, 4)) == (1, 4, 8, 16)


def test_the_grid_sampler_uses_its_trials_evenly():
    space, measure = index()
    assert [point for point, _ in drive(samplers.grid, space, measure, WISH, space.size)[0]] == list(space.points())
    few = [point for point, _ in drive(samplers.grid, space, measure, WISH, 20)[0]]
    assert 16 <= len(few) <= 20
    assert {point[0] for point in few} >= {0, space.shape[0] - 1}
