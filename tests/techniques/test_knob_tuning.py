"""Tuning an index under a constraint: the table, the Lagrangian sweep, fair trials. Oracles reject broken variants."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from effbench_implementations.search_tuning import constrained_autoconf as autoconf
from effbench_implementations.search_tuning import table
from effbench_implementations.search_tuning.bench import Answer, Bench, Target
from effbench_implementations.search_tuning.constrained_autoconf import ConstrainedAutoconf, Frontier, hull, survival, sweep
from effbench_implementations.search_tuning.grid_search import GridSearch, lattice
from effbench_implementations.search_tuning.optuna_samplers import OptunaNsga2, OptunaTpe
from effbench_implementations.search_tuning.random_search_knobs import RandomSearchKnobs
from effbench_implementations.search_tuning.rule_of_thumb import RuleOfThumb
from effbench_implementations.search_tuning.task import KnobTuning, checked, halves

from effbench import Data, Wrong

ALL = [ConstrainedAutoconf, GridSearch, RandomSearchKnobs, RuleOfThumb, OptunaTpe, OptunaNsga2]
TASK = KnobTuning()
DATA = Data("clustered", {**KnobTuning.data[0].args, "d": 32, "n": 2000})


@pytest.fixture(scope="module")
def prepared():
    return TASK.prepare(DATA, "smoke", 0, None)


def tuned(method, prepared, seed=0, data=DATA):
    given = TASK.given(data, "smoke", seed, prepared)
    if reason := method.skip(given):
        pytest.skip(reason)
    method.build(given, SimpleNamespace(rng=np.random.default_rng(seed)))
    return given, TASK.score(method, given, TASK.hidden(data, "smoke", seed, prepared), None, [])


# -- the table ------------------------------------------------------------------------------------------------------------


def search(base, centres, member, decoded, query, probes, rescored):
    """The index itself, one query, with no counting trick: ids that come back, and bytes."""
    near = np.argsort(((query - centres) ** 2).sum(1), kind="stable")[:probes]
    points = np.flatnonzero(np.isin(member, near))
    kept = points[np.argsort(((query - decoded[points]) ** 2).sum(1), kind="stable")[:rescored]]
    order = np.argsort(((query - base[kept]) ** 2).sum(1), kind="stable")
    d = base.shape[1]
    return kept[order[: table.K]], centres.size * 4 + len(points) * -(-d // 2) / 2 + len(kept) * d * 4


def check_table(make):
    """Hits and bytes of the table are those of a real search at every setting tried."""
    rng = np.random.default_rng(5)
    made = table.clustered(rng, 340, 16, centers=12, rank=8, spread=1.0, noise=0.15)
    base, queries = made[:320].astype(np.float64), made[320:332].astype(np.float64)
    found = make(base, queries, width=2, grid=(5, 6), seed=1)
    rng = np.random.default_rng([1, 3])
    centres = table.kmeans(base, 18, 10, rng)
    member = table.nearest(base, centres)
    decoded = centres[member] + table.coded(base - centres[member], 2, 8, rng)
    for q, query in enumerate(queries):
        true = set(np.argsort(((query - base) ** 2).sum(1))[: table.K].tolist())
        for a, b in itertools.product(range(len(found["probes"])), range(len(found["rescored"]))):
            ids, read = search(base, centres, member, decoded, query, found["probes"][a], found["rescored"][b])
            assert found["hits"][q, a, b] == len(true & set(ids.tolist()))
            assert found["cost"][q, a, b] == pytest.approx(read / (base.size * 4))


def test_the_table_holds_what_the_index_returns():
    check_table(table.build)


def test_a_table_that_forgets_the_partitions_among_better_points_is_rejected():
    def broken(*arguments, **options):
        found = table.build(*arguments, **options)
        inside = (found["probe_rank"][:, :, None] < found["probes"])[..., None] & (
            found["code_rank"][:, :, None] < found["rescored"]
        )[:, :, None]
        return {**found, "hits": inside.sum(1)}

    with pytest.raises(AssertionError):
        check_table(broken)


def test_cost_grows_with_both_knobs_and_recall_with_rescoring(prepared):
    """More probes may cost recall at few rescored points: the new points displace others."""
    assert (np.diff(prepared["hits"].astype(int), axis=2) >= 0).all()
    for axis in (1, 2):
        assert (np.diff(prepared["cost"], axis=axis) >= 0).all()
    assert prepared["hits"][:, -1, -1].mean() / table.K > 0.95


def test_senseless_tables_are_refused():
    with pytest.raises(ValueError, match="at least 100 rows"):
        table.build(np.zeros((50, 4)), np.zeros((9, 4)), width=2, grid=(4, 4), seed=0)


# -- the sweep ------------------------------------------------------------------------------------------------------------


def model(seed, sizes=(9, 12)):
    """Random levels: cost ascends, loss descends, not convex."""
    rng = np.random.default_rng(seed)
    return [(np.cumsum(rng.exponential(1, n)), np.cumsum(rng.exponential(1, n) ** 3)[::-1].copy()) for n in sizes]


def check_sweep(make):
    """Each swept setting minimises loss + multiplier * cost over the whole product for some multiplier, and none is missing."""
    for seed in range(20):
        levels = model(seed, (9, 12) if seed % 2 else (4, 5, 6))
        product = list(itertools.product(*(range(len(cost)) for cost, _ in levels)))
        cost = np.array([sum(c[i] for (c, _), i in zip(levels, setting)) for setting in product])
        loss = np.array([sum(x[i] for (_, x), i in zip(levels, setting)) for setting in product])
        expected = {product[i] for i in (int(np.argmin(loss + m * cost)) for m in np.geomspace(1e-4, 1e4, 20001))}
        settings = make(levels)
        assert expected <= set(settings)
        spent = dict(zip(product, cost))
        left = dict(zip(product, loss))
        for setting in settings:  # nothing in the product is cheaper at this loss
            assert spent[setting] == pytest.approx(cost[loss <= left[setting] + 1e-12].min())
        for before, after in itertools.pairwise(settings):
            assert spent[before] < spent[after] and left[before] > left[after]
            assert all(b >= a for a, b in zip(before, after))


def test_the_sweep_is_the_lower_hull_of_the_whole_product():
    check_sweep(sweep)


def test_a_sweep_without_convexity_is_rejected(monkeypatch):
    monkeypatch.setattr(autoconf, "hull", lambda cost, loss: list(range(len(cost))))
    with pytest.raises(AssertionError):
        check_sweep(sweep)


def test_the_hull_drops_points_that_are_dearer_and_no_better():
    assert hull(np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 5.0, 1.0, 1.0])) == [0, 2]
    assert hull(np.array([2.0, 1.0]), np.array([1.0, 3.0])) == [1, 0]


def test_one_level_gives_the_smallest_number_that_reaches_the_recall():
    ranks = np.random.default_rng(0).geometric(0.05, 4000) - 1
    keep = np.arange(1, 200)
    alive = survival(ranks, keep)
    frontier = Frontier([(keep.astype(float), -np.log(alive))])
    for recall in (0.5, 0.8, 0.9, 0.99):
        found = frontier.settings[frontier.for_recall(recall)][0]
        # On the hull: at least the smallest sufficient number, and the next hull corner below it does not suffice.
        smallest = int(np.flatnonzero(alive >= recall)[0])
        corners = hull(keep.astype(float), -np.log(alive))
        assert found == min(corner for corner in corners if corner >= smallest)


def test_survival_is_a_distribution():
    ranks = np.random.default_rng(1).integers(0, 50, (30, 10))
    alive = survival(ranks, np.arange(1, 61))
    assert (np.diff(alive) >= 0).all()
    assert 0 < alive[0] < alive[-1] < 1
    exact = np.array([(ranks < t).mean() for t in range(1, 61)])
    assert np.abs(alive - exact).max() <= 0.5 / ranks.size + 1e-12


def check_targets(frontier):
    recalls, positions = np.linspace(0.3, 0.999, 40), []
    for recall in recalls:
        at = frontier.for_recall(recall)
        positions.append(at)
        if np.exp(-frontier.loss[-1]) >= recall:
            assert np.exp(-frontier.loss[at]) >= recall
            assert at == 0 or np.exp(-frontier.loss[at - 1]) < recall
    assert positions == sorted(positions)
    for cap in np.linspace(frontier.cost[0], frontier.cost[-1], 40):
        at = frontier.for_cost(cap)
        assert frontier.cost[at] <= cap
        assert at == len(frontier.cost) - 1 or frontier.cost[at + 1] > cap


def test_targets_are_kept_and_monotone():
    levels = [(cost, loss / loss.max()) for cost, loss in model(3)]
    check_targets(Frontier(levels, 2.0))

    class Late(Frontier):
        def for_cost(self, cost):
            return int(np.searchsorted(self.cost, cost, side="right")) % len(self.cost)

    with pytest.raises(AssertionError):
        check_targets(Late(levels, 2.0))


# -- tuners ---------------------------------------------------------------------------------------------------------------


def check_autoconf(method, prepared):
    """Close to the exhaustive front of the held-out half, without a trial, for a hundredth of its measuring."""
    scores = [tuned(method(), prepared, seed)[1] for seed in range(5)]
    mean = {name: np.mean([score[name] for score in scores]) for name in scores[0]}
    assert mean["front-gap"] < 0.05
    assert mean["recall-loss-at-cost"] < 0.01
    assert mean["recall-error"] < 0.05
    assert mean["shortfall"] < 0.03
    assert mean["cost-overrun"] < 1e-9
    assert mean["measuring-cost"] < 0.02 and mean["trials"] == 0


def test_constrained_autoconf_stays_on_the_front(prepared):
    check_autoconf(ConstrainedAutoconf, prepared)


def test_a_tuner_that_takes_one_level_for_the_other_is_rejected(prepared):
    class Swapped(ConstrainedAutoconf):
        def tune(self, bench, targets, rng):
            ranks = bench.ranks()
            constant, *costs = bench.byte_costs(ranks.visited)
            alive = survival(ranks.code, bench.probes), survival(ranks.probe, bench.rescored)
            frontier = Frontier([(cost, -np.log(share)) for cost, share in zip(costs, alive)], constant)
            return [self.answer(bench, frontier, ranks.visited, target) for target in targets]

    with pytest.raises(AssertionError):
        check_autoconf(Swapped, prepared)


def test_verified_targets_are_met_on_the_tuning_half(prepared):
    given, scores = tuned(method := ConstrainedAutoconf(verify=6), prepared)
    for target, answer in list(zip(given.targets, method.answers))[:4]:
        assert answer.recall >= target.value
    assert 4 <= scores["trials"] <= 24


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_every_tuner_keeps_to_its_trials_and_repeats_itself(method, prepared):
    _, first = tuned(method(), prepared)
    _, again = tuned(method(), prepared)
    assert first == again
    assert first["trials"] <= 48
    assert set(first) == set(KnobTuning.metrics)


@pytest.mark.parametrize("method", [GridSearch, RandomSearchKnobs, OptunaTpe, OptunaNsga2], ids=lambda method: method.name)
def test_what_was_measured_is_what_is_expected(method, prepared):
    given, _ = tuned(made := method(), prepared)
    for target, answer in zip(given.targets, made.answers):
        assert given.bench.seen[answer.probes, answer.rescored] == (answer.recall, answer.cost)
        if any(target.met(*seen) for seen in given.bench.seen.values()):
            assert target.met(answer.recall, answer.cost), "an infeasible answer although a feasible setting was seen"


def test_the_exhaustive_grid_has_no_excess_and_costs_all_of_it(prepared):
    whole = Data(DATA.name, {**DATA.args, "trials": prepared["hits"][0].size})
    _, scores = tuned(GridSearch(), prepared, data=whole)
    assert scores["excess-cost"] == pytest.approx(0, abs=1e-12)
    assert scores["measuring-cost"] == pytest.approx(1)
    assert scores["cost-overrun"] == 0


def test_a_trial_too_many_is_wrong(prepared):
    class Greedy(RandomSearchKnobs):
        def tune(self, bench, targets, rng):
            for cell in range(bench.limit + 1):
                bench.measure(*divmod(cell, bench.shape[1]))

    with pytest.raises(Wrong, match="a trial more"):
        tuned(Greedy(), prepared)


def test_lattices_use_their_trials():
    assert len(lattice((40, 60), 48)) == 48
    assert lattice((3, 3), 100) == [(i, j) for i in range(3) for j in range(3)]
    assert lattice((5, 5), 4) == [(0, 0), (0, 4), (4, 0), (4, 4)]


def test_the_halves_share_no_query():
    tuning, held_out = halves(201, 3)
    assert len(tuning) == 100 and len(held_out) == 101
    assert sorted([*tuning, *held_out]) == list(range(201))
    assert halves(201, 4)[0].tolist() != tuning.tolist()


def test_a_tuner_sees_the_tuning_half_alone(prepared):
    _, held_out = halves(len(prepared["hits"]), 0)
    spoiled = {**prepared, **{name: prepared[name].copy() for name in ("hits", "cost", "probe_rank", "code_rank", "visited")}}
    for name in ("hits", "cost", "probe_rank", "code_rank", "visited"):
        spoiled[name][held_out] = 0
    for method in (ConstrainedAutoconf, RandomSearchKnobs):
        tuned(clean := method(), prepared)
        other = method()
        other.build(TASK.given(DATA, "smoke", 0, spoiled), SimpleNamespace(rng=np.random.default_rng(0)))
        assert clean.answers == other.answers


def test_bad_answers_are_wrong():
    targets, shape = (Target("recall", 0.9),), (3, 3)
    with pytest.raises(Wrong, match="0 answers"):
        checked([], targets, shape)
    with pytest.raises(Wrong, match="outside"):
        checked([Answer(3, 0, 0.5, 0.1)], targets, shape)
    with pytest.raises(Wrong, match="no numbers"):
        checked([Answer(0, 0, float("nan"), 0.1)], targets, shape)


def test_pick_prefers_what_meets_the_target_then_what_is_nearest(prepared):
    bench = Bench(prepared, np.arange(50), 4)
    bench.seen = {(0, 0): (0.5, 0.1), (1, 0): (0.9, 0.3), (2, 0): (0.95, 0.2), (3, 0): (0.7, 0.15)}
    chosen = [bench.pick(Target(*wish)) for wish in (("recall", 0.9), ("recall", 0.99), ("cost", 0.16), ("cost", 0.01))]
    assert [answer.probes for answer in chosen] == [2, 2, 3, 0]
