"""Schedulers of the hyper-parameter search: brackets, rungs and promotions. Every oracle also rejects a broken variant."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from effbench_implementations.automation.asha import Asha, AshaSerial, AshaStopping, Ladder
from effbench_implementations.automation.hyperband import Hyperband, brackets
from effbench_implementations.automation.random_search import RandomSearch
from effbench_implementations.automation.successive_halving import Bracket, OverlappingHalving, SuccessiveHalving, deepest, rungs
from effbench_implementations.automation.task import HyperparameterSearch

from effbench import Data, Wrong

ALL = [RandomSearch, SuccessiveHalving, OverlappingHalving, Hyperband, Asha, AshaSerial, AshaStopping]
TASK = HyperparameterSearch()


def table(final, epochs=27, early=None):
    """A table with final errors `final`; `early` (default: ordered as the final ones) fills the epochs before."""
    final = np.asarray(final, float)
    decay = np.linspace(0.3, 0, epochs)[None, :]
    errors = final[:, None] + decay if early is None else np.array(early, float)
    errors[:, -1] = final
    ones = np.ones(len(final))
    return {"settings": ones[:, None], "val_error": errors, "test_error": errors + 0.01, "epoch_cost": ones}


def search(method, prepared, *, workers=1, sigma=0.0, budget=20, seed=0, check=True):
    data = Data("synthetic", {"workers": workers, "sigma": sigma, "budget": budget})
    given = TASK.given(data, "smoke", seed, prepared)
    method.build(given, None)
    scores = TASK.score(method, given, TASK.hidden(data, "smoke", seed, prepared), None, []) if check else None
    return given.cluster, scores


# -- brackets -------------------------------------------------------------------------------------------------------------


def check_brackets(make):
    """The published table for R = 81 and eta = 3, and integer logarithms at exact powers."""
    shown = []
    for count, levels in make(81, 3):
        sizes = [count // 3**i for i in range(len(levels))]
        shown.append(list(zip(sizes, levels)))
    assert shown == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert len(make(243, 3)) == 6
    for power in range(1, 12):
        assert len(make(2**power, 2)) == power + 1


def test_brackets_are_those_of_the_paper():
    check_brackets(brackets)


def test_brackets_by_floating_logarithm_are_rejected():
    def broken(maximum, eta):
        most = int(math.log(maximum, eta))
        return [(math.ceil((most + 1) / (s + 1) * eta**s), rungs(maximum, eta, s)) for s in range(most, -1, -1)]

    with pytest.raises(AssertionError):
        check_brackets(broken)


@pytest.mark.parametrize(("maximum", "eta"), [(81, 3), (27, 3), (64, 2), (64, 4)])
def test_each_bracket_costs_about_the_same(maximum, eta):
    most = deepest(maximum, 1, eta)
    for count, levels in brackets(maximum, eta):
        # Charged from scratch at each rung, as the paper's B = (s_max + 1) R; resuming is cheaper.
        cost = sum(count // eta**i * level for i, level in enumerate(levels))
        assert cost <= (most + 1) * maximum + maximum
        assert cost >= (most + 1) * maximum / 2


@pytest.mark.parametrize(("eta", "minimum"), [(1, 1), (3, 0), (3, 28)])
@pytest.mark.parametrize("method", [SuccessiveHalving, Hyperband, Asha, AshaStopping])
def test_senseless_settings_are_refused(method, eta, minimum):
    with pytest.raises(ValueError, match="min_resource"):
        search(method(eta=eta, min_resource=minimum), table(np.linspace(0.1, 0.5, 27)))


# -- successive halving ---------------------------------------------------------------------------------------------------


def halve(losses, *, make=Bracket, order=None, eta=3):
    """Run one bracket on static losses; reports of a rung arrive in `order`. Returns the survivors of each rung."""
    numbers = iter(range(len(losses)))
    bracket = make(lambda: next(numbers), len(losses), rungs(eta**9, eta, deepest(len(losses), 1, eta)), eta)
    survivors = []
    while not bracket.done:
        running = []
        while job := bracket.propose():
            running.append(job[0])
        survivors.append(sorted(running))
        for trial in sorted(running, key=order or (lambda trial: trial)):
            bracket.observe(trial, losses[trial])
    return survivors


def test_halving_keeps_exactly_the_best_third_of_each_rung():
    losses = np.random.default_rng(0).permutation(27) / 27
    best = np.argsort(losses)
    assert halve(losses) == [sorted(best[:n]) for n in (27, 9, 3, 1)]


def test_halving_does_not_depend_on_the_order_of_reports():
    losses = np.random.default_rng(1).permutation(81) / 81
    expected = halve(losses)
    for seed in range(5):
        rank = np.random.default_rng(seed).permutation(81)
        assert halve(losses, order=lambda trial, rank=rank: rank[trial]) == expected


def test_halving_never_keeps_a_failed_trial():
    losses = np.linspace(0.1, 0.9, 27)
    losses[:22] = math.nan
    kept = halve(losses)
    assert kept[1:] == [[22, 23, 24, 25, 26], [22]]  # 5 of 9 places can be filled, and 5 // 3 = 1 of the next


def test_a_bracket_that_keeps_in_order_of_arrival_is_rejected():
    class Arrival(Bracket):
        def observe(self, trial, error):
            super().observe(trial, trial / 1e3)

    losses = np.random.default_rng(0).permutation(27) / 27
    assert halve(losses, make=Arrival) != halve(losses)


@pytest.mark.parametrize("method", [SuccessiveHalving, OverlappingHalving, Hyperband, Asha])
@pytest.mark.parametrize("workers", [1, 4])
def test_ordered_curves_lead_to_the_true_best(method, workers):
    errors = np.random.default_rng(2).permutation(np.linspace(0.1, 0.5, 27))
    cluster, scores = search(method(), table(errors), workers=workers, budget=30)
    assert scores["final-regret"] == pytest.approx(0, abs=1e-12)
    finished = [job for job in cluster.log if job.epoch == 27]
    assert min(job.error for job in finished) == errors.min()


def test_one_bracket_pays_only_for_the_new_epochs():
    cluster, _ = search(SuccessiveHalving(), table(np.linspace(0.1, 0.5, 27)), budget=3)
    # 27 x 1 + 9 x 2 + 3 x 6 + 1 x 18 = 81 = 3 full trainings, and the one full training ends it.
    assert [sum(job.epoch == level for job in cluster.log) for level in (1, 3, 9, 27)] == [27, 9, 3, 1]
    assert cluster.clock == 81


def test_halving_gains_nothing_where_early_errors_say_nothing():
    rng = np.random.default_rng(3)
    final = np.linspace(0.1, 0.5, 81)
    blind = table(final, early=rng.uniform(0.6, 0.9, (81, 27)))
    found = {method: [] for method in (RandomSearch, SuccessiveHalving)}
    for method, regrets in found.items():
        for seed in range(60):
            regrets.append(search(method(), blind, budget=24, seed=seed)[1]["final-regret"])
    # Eight brackets end in eight full trainings; twenty-four full trainings of random trials must do better.
    assert np.mean(found[RandomSearch]) < 0.6 * np.mean(found[SuccessiveHalving])


# -- ASHA -----------------------------------------------------------------------------------------------------------------


def check_ladder(make, *, eta=3, steps=600, seed=0):
    """Drive a ladder by random arrivals; what is promoted must be allowed by the reports so far.

    The number above a rung may exceed 1/eta of it, since those promoted early can drop out of the best: the paper's algorithm
    does so as well, and the test of wrong promotions bounds the excess.
    """
    rng = np.random.default_rng(seed)
    ladder = make([1, 3, 9, 27], eta)
    reports = [{} for _ in range(4)]
    promoted = [set() for _ in range(4)]
    running = []
    for trial in range(steps):
        running.append((trial, 0))
        while running and rng.random() < 0.8:
            who, rung = running.pop(rng.integers(len(running)))
            error = math.nan if rng.random() < 0.1 else rng.random()
            reports[rung][who] = error
            ladder.report(who, rung, error)
        if job := ladder.promote():
            who, rung = job
            below = reports[rung - 1]
            assert math.isfinite(below[who]), "promoted a failed trial"
            assert who not in promoted[rung], "promoted twice"
            allowed = len(below) // eta
            rank = sum(error < below[who] for error in below.values())
            assert rank < allowed, "not among the best 1/eta"
            promoted[rung].add(who)
            running.append(job)
    assert all(promoted[1:])


class RoundsUp(Ladder):
    def promote(self):
        counts = self.size
        self.size = [-(-n // self.eta) * self.eta for n in counts]
        try:
            return super().promote()
        finally:
            self.size = counts


class PromotesTwice(Ladder):
    def promote(self):
        job = super().promote()
        if job:
            self.open[job[1] - 1].insert(0, self.finite[job[1] - 1][0])
        return job


class PromotesFailed(Ladder):
    def report(self, trial, rung, error):
        return super().report(trial, rung, error if error == error else 0.0)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_promotions_are_always_among_the_best_of_the_rung_so_far(eta):
    for seed in range(5):
        check_ladder(Ladder, eta=eta, seed=seed)


@pytest.mark.parametrize("broken", [RoundsUp, PromotesTwice, PromotesFailed])
def test_broken_ladders_are_rejected(broken):
    with pytest.raises(AssertionError):
        check_ladder(broken)


def test_with_a_full_first_rung_the_survivors_are_those_of_halving():
    losses = np.random.default_rng(4).permutation(27) / 27
    ladder = Ladder([1, 3, 9, 27], 3)
    for trial, loss in enumerate(losses):
        ladder.report(trial, 0, loss)
    reached = [set(range(27)), set(), set(), set()]
    while job := ladder.promote():
        trial, rung = job
        reached[rung].add(trial)
        ladder.report(trial, rung, losses[trial])
    assert [sorted(group) for group in reached] == halve(losses)


def test_wrong_promotions_grow_no_faster_than_the_root_of_the_number_of_trials():
    def wrong(n, seed):
        losses = np.random.default_rng(seed).random(n)
        ladder, promoted = Ladder([1, 3], 3), []
        for trial, loss in enumerate(losses):
            ladder.report(trial, 0, loss)
            while job := ladder.promote():
                promoted.append(job[0])
        best = set(np.argsort(losses)[: n // 3].tolist())
        return sum(trial not in best for trial in promoted)

    for n in (100, 400, 1600):
        assert np.mean([wrong(n, seed) for seed in range(10)]) < 1.5 * math.sqrt(n)


def test_stopping_goes_on_only_from_the_best_third_or_as_first():
    method = AshaStopping()
    cluster = SimpleNamespace(epochs=27, sample=iter(range(100)).__next__)
    method.begin(cluster)
    errors = [0.5, 0.6, 0.55, 0.4, 0.45, 0.42, 0.3, math.nan]
    #          first  no   no   best (4//3 = 1)  no   third best: no (6//3 = 2: rank 1, yes)
    on = []
    for error in errors:
        method.going.clear()
        trial, epoch = method.propose()
        assert epoch == 1
        method.observe(SimpleNamespace(trial=trial, error=error))
        on.append(bool(method.going))
    assert on == [True, False, False, True, False, True, True, False]


# -- all methods ----------------------------------------------------------------------------------------------------------


def noisy(configurations=81, seed=5):
    rng = np.random.default_rng(seed)
    prepared = table(rng.uniform(0.1, 0.5, configurations))
    prepared["val_error"] = prepared["val_error"] + rng.normal(0, 0.02, prepared["val_error"].shape)
    prepared["val_error"][::9, 4:] = math.nan
    prepared["val_error"][4::9, 0:] = math.nan
    return prepared


@pytest.mark.parametrize("method", ALL)
def test_failed_trials_do_not_stop_a_search_and_are_never_trained_on(method):
    _, scores = search(method(), noisy(), workers=5, sigma=1.0, budget=40)
    assert scores["target-share"] in (0, 1)
    assert all(np.isfinite(value) for name, value in scores.items() if name != "regret")


@pytest.mark.parametrize("method", ALL)
def test_one_seed_gives_one_log(method):
    logs = [repr(search(method(), noisy(), workers=4, sigma=1.0, seed=seed)[0].log) for seed in (7, 7, 8)]
    assert logs[0] == logs[1] != logs[2]


@pytest.mark.parametrize("method", [Asha, AshaStopping, RandomSearch, OverlappingHalving])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_asynchronous_methods_never_idle(method, sigma):
    _, scores = search(method(), noisy(), workers=9, sigma=sigma, budget=40)
    assert scores["idle-share"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", [SuccessiveHalving, Hyperband])
def test_barriers_do_idle(method):
    assert search(method(), noisy(), workers=9, sigma=1.0, budget=40)[1]["idle-share"] > 0.2


def test_the_serial_arm_uses_one_worker():
    cluster, scores = search(AshaSerial(), noisy(), workers=4, sigma=1.0)
    assert {job.worker for job in cluster.log} == {0}
    assert scores["worker-time-to-target"] == scores["time-to-target"]
    assert scores["idle-share"] == pytest.approx(0, abs=1e-9)


def check_hit_rate(order, *, n=60, share=0.05, replicates=400):
    """Whether n draws hit the best `share` with probability 1 - (1 - share)^n, within three standard errors."""
    size = 5000
    prepared = table(np.linspace(0.1, 0.5, size), epochs=1)
    hits = 0
    for seed in range(replicates):
        data = Data("synthetic", {"workers": 1, "sigma": 0.0, "budget": n})
        given = TASK.given(data, "smoke", seed, prepared)
        order(given.cluster)
        RandomSearch().build(given, None)
        hits += given.cluster.history()["configuration"].min() < share * size
    expected = 1 - (1 - share) ** n
    assert abs(hits / replicates - expected) < 3 * math.sqrt(expected * (1 - expected) / replicates)


def test_random_search_hits_the_best_share_as_often_as_the_formula_says():
    check_hit_rate(lambda cluster: None)


def test_a_search_in_the_order_of_the_table_is_rejected():
    def in_order(cluster):
        cluster._orders = SimpleNamespace(permutation=lambda n: np.arange(n)[::-1])

    with pytest.raises(AssertionError):
        check_hit_rate(in_order, replicates=40)


def test_a_method_that_peeks_at_later_epochs_is_stopped():
    class Peeks(RandomSearch):
        def propose(self):
            trial = self.cluster.sample()
            return trial, 27 if self.cluster.error(trial, 27) < 0.2 else 1

    with pytest.raises(Wrong, match="was asked for"):
        search(Peeks(), noisy())


def test_a_search_that_ends_early_is_wrong():
    class Lazy(RandomSearch):
        def build(self, given, run):
            given.cluster.start(0, given.cluster.sample(), 27)
            given.cluster.wait()

    with pytest.raises(Wrong, match="ended at"):
        search(Lazy(), noisy())
