"""The simulated cluster, the replay table and the scores of the hyper-parameter search."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from effbench_implementations.automation import table, task
from effbench_implementations.automation.asha import Asha
from effbench_implementations.automation.cluster import Cluster, Job
from effbench_implementations.automation.random_search import RandomSearch
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench import Data, Wrong


def grid(configurations=6, epochs=9):
    errors = 0.9 - 0.05 * np.arange(configurations)[:, None] - 0.01 * np.arange(epochs)
    return {"settings": np.arange(configurations)[:, None], "val_error": errors, "epoch_cost": np.ones(configurations)}


def cluster(*, workers=2, sigma=0.0, horizon=100.0, seed=0, material=None):
    return Cluster(material or grid(), workers=workers, sigma=sigma, horizon=horizon, seed=seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.0, 1.0]))
def test_a_random_policy_keeps_the_books_balanced(seed, workers, sigma):
    rng = np.random.default_rng(seed)
    sim = cluster(workers=workers, sigma=sigma, horizon=40, seed=seed)
    resting, last = [], 0.0
    while not sim.over():
        for worker in sim.idle():
            again = resting and rng.random() < 0.5
            trial = resting.pop(rng.integers(len(resting))) if again else sim.sample()
            sim.start(worker, trial, int(rng.integers(sim.reached(trial) + 1, 10)))
        job = sim.wait()
        assert sim.clock >= last
        last = sim.clock
        if job and job.epoch < 9:
            resting.append(job.trial)
    assert sim.clock == 40
    for worker in range(workers):  # a worker does one thing at a time, without a gap
        jobs = sorted((job.start, job.end) for job in sim.log if job.worker == worker)
        assert jobs[0][0] == 0 and jobs[-1][1] == 40
        assert all(a[1] == b[0] for a, b in itertools.pairwise(jobs))
    reached = {}
    for job in sim.log:  # a trial goes on where it was left, and pays for new epochs only
        assert job.first == reached.get(job.trial, 0)
        reached[job.trial] = job.epoch
        if job.end < 40:
            assert job.end - job.start == pytest.approx((job.epoch - job.first) * sim._speed[job.trial])
    seen = sim.history()
    assert len(seen["time"]) == sum(reached.values())
    assert (np.diff(seen["time"]) >= 0).all() and seen["time"].max() <= 40 + 1e-9


def test_draws_do_not_repeat_before_the_table_is_used_up():
    sim = cluster()
    drawn = [sim.configuration(sim.sample()) for _ in range(18)]
    assert all(sorted(drawn[i : i + 6]) == list(range(6)) for i in (0, 6, 12))


def test_orders_and_speeds_are_the_same_for_every_method():
    material = {**grid(30), "test_error": grid(30)["val_error"]}
    data = Data("synthetic", {"workers": 3, "sigma": 1.0, "budget": 12})
    sims = []
    for method in (RandomSearch(), Asha()):
        material_given = task.HyperparameterSearch().given(data, "smoke", 3, material)
        method.build(material_given, None)
        sims.append(material_given.cluster)
    n = min(sim._drawn for sim in sims)
    assert sims[0]._configuration[:n] == sims[1]._configuration[:n]
    assert sims[0]._speed[:n] == sims[1]._speed[:n]


def test_speeds_are_lognormal():
    sim = cluster(sigma=1.0, material=grid(4000))
    sim.sample()
    logs = np.log(sim._speed)
    assert abs(logs.mean()) < 3 / math.sqrt(4000) and abs(logs.std() - 1) < 0.05
    assert logs.std() > 0.9


def test_what_the_cluster_refuses():
    sim = cluster(workers=2)
    a, b = sim.sample(), sim.sample()
    sim.start(0, a, 3)
    for arguments, text in [
        ((0, b, 3), "not idle"),
        ((1, a, 5), "runs already"),
        ((1, b, 0), "cannot be trained"),
        ((1, b, 10), "cannot be trained"),
        ((1, 7, 1), "never drawn"),
    ]:
        with pytest.raises(Wrong, match=text):
            sim.start(*arguments)
    with pytest.raises(Wrong, match="asked for"):
        sim.error(a, 1)  # it runs, but has not reported
    sim.wait()
    assert sim.error(a, 3) == grid()["val_error"][sim.configuration(a), 2]
    for epoch in (0, 4, -1):
        with pytest.raises(Wrong, match="asked for"):
            sim.error(a, epoch)
    with pytest.raises(Wrong, match="nothing runs"):
        sim.wait()


def test_a_failed_trial_ends_where_it_fails_and_cannot_go_on():
    material = grid(1)
    material["val_error"][0, 4:] = math.nan
    sim = cluster(material=material)
    trial = sim.sample()
    sim.start(0, trial, 9)
    job = sim.wait()
    assert job.failed and (job.epoch, sim.clock) == (5, 5.0) and sim.failed(trial)
    with pytest.raises(Wrong, match="has failed"):
        sim.start(0, trial, 9)


def test_the_horizon_cuts_what_runs_and_keeps_its_epochs():
    sim = cluster(workers=1, horizon=4.0)
    sim.start(0, sim.sample(), 9)
    assert sim.wait() is None and sim.over()
    assert (sim.log[0].epoch, len(sim.history()["time"])) == (4, 4)
    with pytest.raises(Wrong, match="over"):
        sim.start(0, sim.sample(), 1)


@pytest.mark.parametrize("bad", [{"workers": 0}, {"sigma": -1.0}, {"horizon": 0.0}, {"horizon": math.nan}])
def test_senseless_clusters_are_refused(bad):
    with pytest.raises(ValueError, match="cluster needs"):
        cluster(**bad)


# -- scores ---------------------------------------------------------------------------------------------------------------


def score(prepared, *, budget, seed=0, workers=1):
    search, data = task.HyperparameterSearch(), Data("synthetic", {"workers": workers, "sigma": 0.0, "budget": budget})
    material = search.given(data, "smoke", seed, prepared)
    method = RandomSearch()
    method.build(material, None)
    return search.score(method, material, search.hidden(data, "smoke", seed, prepared), None, [])


def test_scores_of_one_trial_by_hand():
    errors = np.array([[0.5, 0.3, 0.304, 0.4]])
    prepared = {"settings": errors, "val_error": errors, "test_error": errors + 0.1, "epoch_cost": np.ones(1)}
    out = score(prepared, budget=1)
    assert out["time-to-target"] == 2 and out["target-share"] == 1
    assert out["final-regret"] == 0 and out["test-error"] == pytest.approx(0.4)  # of the checkpoint after epoch 2
    assert out["epochs-spent"] == 4 and out["idle-share"] == 0 and out["wrong-promotions"] == 0
    at = dict(zip(np.round(out["regret"].x, 6), out["regret"].y))
    assert at[4.0] == 0 and out["regret"].y[0] == pytest.approx(0.7)  # nothing yet: error 1


def test_a_missed_target_counts_with_the_horizon():
    errors = np.full((50, 1), 0.5)
    errors[0] = 0.1
    prepared = {"settings": errors, "val_error": errors, "test_error": errors, "epoch_cost": np.ones(50)}
    outs = [score(prepared, budget=5, seed=seed) for seed in range(40)]
    missed = [out for out in outs if not out["target-share"]]
    assert missed and all(out["time-to-target"] == 5 and out["final-regret"] == pytest.approx(0.4) for out in missed)
    assert 1 <= len(outs) - len(missed) <= 12  # 5 of 50 are drawn: one in ten hits


def test_the_method_does_not_get_the_test_errors():
    prepared = {**grid(), "test_error": grid()["val_error"] + 700}
    data = Data("synthetic", {"workers": 1, "sigma": 0.0, "budget": 1})
    material = task.HyperparameterSearch().given(data, "smoke", 0, prepared)
    arrays = [value for value in vars(material.cluster).values() if isinstance(value, np.ndarray)]
    assert arrays and all((array < 100).all() for array in arrays)


def test_wrong_promotions_are_those_that_hindsight_would_not_repeat():
    stop = [Job(0, trial, 0, 1, error, trial, trial + 1) for trial, error in enumerate([0.3, 0.1, 0.2, math.nan])]
    assert task.wrong_promotions([*stop, Job(0, 1, 1, 3, 0.1, 9, 11)]) == 0
    assert task.wrong_promotions([*stop, Job(0, 0, 1, 3, 0.1, 9, 11)]) == 1
    assert task.wrong_promotions([*stop, Job(0, 0, 1, 3, 0.1, 9, 11), Job(0, 1, 1, 3, 0.1, 9, 11)]) == 0.5
    assert task.wrong_promotions(stop) == 0


# -- the table ------------------------------------------------------------------------------------------------------------


def trained(*, rate, momentum, decay, steps=4):
    """Weights after some steps of `Network`, and of the same network under torch's SGD."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    network = table.Network([5, 8, 7, 3], rng)
    layers = [(torch.tensor(w.copy(), requires_grad=True), torch.tensor(b.copy(), requires_grad=True)) for w, b in network.layers]
    optimiser = torch.optim.SGD([p for pair in layers for p in pair], lr=rate, momentum=momentum, weight_decay=decay)
    for _ in range(steps):
        x, y = rng.standard_normal((16, 5), np.float32), rng.integers(0, 3, 16)
        network.step(x, np.eye(3, dtype=np.float32)[y], rate=rate, momentum=momentum, decay=decay, keep=1.0, rng=rng)
        hidden = torch.tensor(x)
        for w, b in layers[:-1]:
            hidden = torch.relu(hidden @ w + b)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(hidden @ layers[-1][0] + layers[-1][1], torch.tensor(y)).backward()
        optimiser.step()
    theirs = np.concatenate([p.detach().numpy().ravel() for pair in layers for p in pair])
    return network.flat, theirs


def test_training_steps_are_those_of_torch():
    for rate, momentum, decay in [(0.1, 0.0, 0.0), (0.1, 0.9, 0.0), (0.05, 0.5, 0.1)]:
        ours, theirs = trained(rate=rate, momentum=momentum, decay=decay)
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_step_without_momentum_is_told_apart(monkeypatch):
    step = table.Network.step
    monkeypatch.setattr(table.Network, "step", lambda self, x, y, **kw: step(self, x, y, **{**kw, "momentum": 0.0}))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(*trained(rate=0.1, momentum=0.9, decay=0.0), atol=2e-6)


def test_dropout_keeps_the_expected_gradient():
    sums = []
    for keep in (1.0, 0.5):
        total = 0
        for seed in range(300 if keep < 1 else 1):
            network = table.Network([5, 400, 3], np.random.default_rng(0))
            before = network.layers[1][1].copy()
            rng = np.random.default_rng(seed)
            x = np.random.default_rng(1).standard_normal((8, 5), np.float32) * 0.05  # small: softmax is nearly linear
            network.step(x, np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 0]], rate=1, momentum=0, decay=0, keep=keep, rng=rng)
            total = total + (before - network.layers[1][1])
        sums.append(total / (300 if keep < 1 else 1))
    np.testing.assert_allclose(sums[1], sums[0], atol=5e-3)


def blobs(rows=300, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return rng.normal(0, 1, (rows, 6)) + 3 * np.eye(6)[labels], labels


def test_the_table_learns_and_repeats():
    features, labels = blobs()
    made = [table.build(features, labels, sizes=(150, 75), configurations=12, epochs=3, seed=seed) for seed in (0, 0, 1)]
    assert all(np.array_equal(made[0][name], made[1][name], equal_nan=True) for name in made[0])
    assert not np.array_equal(made[0]["val_error"], made[2]["val_error"], equal_nan=True)
    assert made[0]["val_error"].shape == made[0]["test_error"].shape == (12, 3) and made[0]["settings"].shape == (12, 7)
    assert np.nanmin(made[0]["val_error"]) < 0.1


def test_divergence_is_a_failure_from_that_epoch_on():
    features, labels = blobs()
    parts = table.split(features, labels, (150, 75), np.random.default_rng(0))
    wild = np.array([64, 3, 1e30, 0.9, 0.0, 0.0, 32])
    validation, test = table.train(wild, parts, 4, np.random.default_rng(0))
    assert np.isnan(validation).all() and np.isnan(test).all()


def test_draws_stay_in_their_ranges_and_rates_are_uniform_in_the_logarithm():
    drawn = dict(zip(table.NAMES, table.draw(20_000, np.random.default_rng(0)).T))
    assert drawn["width"].min() == 8 and drawn["width"].max() == 255
    assert set(drawn["depth"]) == {1, 2, 3} and set(drawn["batch"]) == {32, 64, 128, 256}
    counts = np.histogram(np.log10(drawn["rate"]), bins=20, range=(-4, 0.5))[0]
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert counts.sum() == 20_000 and chi2 < 43.8  # 99.9 % quantile with 19 degrees of freedom
    linear = np.histogram(np.log10(np.random.default_rng(0).uniform(1e-4, 10**0.5, 20_000)), bins=20, range=(-4, 0.5))[0]
    assert ((linear - 1000) ** 2 / 1000).sum() > 43.8


def test_parts_do_not_overlap_and_the_test_part_is_not_used_for_scaling():
    features, labels = blobs()
    features[:, 0] = np.arange(300)
    parts = table.split(features, labels, (150, 75), np.random.default_rng(0))
    values = np.concatenate([x[:, 0] for x, _ in parts.values()])
    assert len(np.unique(values)) == 300 and [len(x) for x, _ in parts.values()] == [150, 75, 75]
    assert parts["train"][0].mean(0) == pytest.approx(0, abs=1e-5) and abs(parts["test"][0][:, 0].mean()) > 1e-4


def test_prepare_reads_the_data_set_by_name(monkeypatch):
    features, labels = blobs(1400, 4)
    asked = []
    monkeypatch.setattr(
        task, "dataset", lambda name: asked.append(name) or {"images": features.reshape(-1, 2, 3), "labels": labels}
    )
    monkeypatch.setitem(task.CONFIGURATIONS, "smoke", (3, 2))
    search = task.HyperparameterSearch()
    made = search.prepare(search.data[1], "smoke", 0, SimpleNamespace(device="cpu", seed=0))
    assert asked == ["digits"] and made["val_error"].shape == (3, 2)
    with pytest.raises(ValueError, match="known: satellite"):
        search.prepare(Data("mnist"), "smoke", 0, None)
