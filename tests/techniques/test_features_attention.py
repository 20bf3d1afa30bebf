"""Sequential Attention against its theorem and the invariants of its rounds. Oracles also meet broken variants and reject them."""

import dataclasses

import numpy as np
import pytest
import torch
from effbench_implementations.features import network, task
from effbench_implementations.features.linear import Problem
from effbench_implementations.features.omp import Omp
from effbench_implementations.features.one_shot_mask import OneShotMask
from effbench_implementations.features.rounds import round_ends
from effbench_implementations.features.sequential_attention import SequentialAttention, attention_mask
from effbench_implementations.features.sequential_attention_linear import SequentialAttentionLinear
from effbench_implementations.features.sequential_lasso import SequentialLasso

from effbench.api.run import Allowance, Run
from effbench.backends import get

CLASSES = 4


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def select(arm, given, steps=200, seed=0, **settings):
    """The columns that an arm picks, in their order, and the arm."""
    method = arm(**settings)
    method.run = Run(seed=seed, budget=Allowance(steps=steps), backend=get("torch"))
    found = method.select(given, method.run)
    if not hasattr(found, "send"):
        return list(map(int, found)), method
    while True:
        try:
            next(found)
        except StopIteration as end:
            return list(map(int, end.value)), method


# -- the theorem: on a linear problem the order is that of orthogonal matching pursuit ------------------------------------------


def planted(seed, rows=200, columns=60, k=10):
    """Labels that are a noisy linear rule of k columns with distinct strengths; an incoherent design."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns))
    x = (x - x.mean(0)) / x.std(0)
    strength = np.zeros((columns, CLASSES))
    strength[rng.permutation(columns)[:k]] = np.geomspace(1, 0.15, k)[:, None] * rng.choice([-1, 1], (k, CLASSES))
    y = x @ strength + 0.01 * rng.standard_normal((rows, CLASSES))
    return x, y


def orthogonal_matching_pursuit(x, y, k):
    """By definition, with least squares in every round: (order, relative gap between the best two correlations of each round)."""
    x = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=0)
    y, order, gaps = y - y.mean(0), [], []
    for _ in range(k):
        left = y - x[:, order] @ np.linalg.lstsq(x[:, order], y, rcond=None)[0] if order else y
        size = np.linalg.norm(x.T @ left, axis=1)
        size[order] = -1
        second, best = np.sort(size)[-2:]
        order.append(int(size.argmax()))
        gaps.append(1 - second / best)
    return order, gaps


def order_of(kind, x, y, k, **settings):
    problem, method = Problem(torch.from_numpy(x), torch.from_numpy(y)), kind(**settings)
    for _ in range(k):
        problem.pick(method.best(problem))
    return problem.order


class Best(Omp):
    def best(self, problem):
        return int(problem.correlations().argmax())


class PenalisesNothing(SequentialAttentionLinear):
    """Without the L2 penalty the factors are a plain least-squares fit: all columns get weight."""

    def weights(self, problem):
        self.__dict__["tightness"] = 1e-9
        return super().weights(problem)


class KeepsPickedColumnsOut(SequentialAttentionLinear):
    """Scores of a round know nothing of what was picked before: the one-shot mistake."""

    def weights(self, problem):
        fresh = Problem.__new__(Problem)
        fresh.__dict__.update(problem.__dict__)
        fresh.cross, fresh.factor = self.first, problem.factor[:0]
        return super().weights(fresh)

    def best(self, problem):
        if not problem.order:
            self.first = problem.cross
        return super().best(problem)


def redundant(seed):
    """Columns 0 and 1 nearly the same and strong, column 2 weaker: OMP takes one copy, then 2."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((400, 8))
    x[:, 1] = x[:, 0] + 0.05 * x[:, 1]
    y = x[:, [0]] @ np.ones((1, CLASSES)) + 0.5 * x[:, [2]] + 0.01 * rng.standard_normal((400, CLASSES))
    return x, y


@pytest.mark.parametrize("seed", range(5))
def test_omp_is_the_one_of_the_text_book(seed):
    x, y = planted(seed)
    assert order_of(Best, x, y, 10) == orthogonal_matching_pursuit(x, y, 10)[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_linear_order_is_that_of_omp(seed):
    x, y = planted(seed)
    expected, gaps = orthogonal_matching_pursuit(x, y, 10)
    clear = next((i for i, gap in enumerate(gaps) if gap < 0.02), len(gaps))
    assert clear >= 4
    assert order_of(SequentialAttentionLinear, x, y, clear) == expected[:clear]


def test_the_linear_order_of_broken_variants_is_not():
    for seed in range(3):
        x, y = redundant(seed)
        expected, _ = orthogonal_matching_pursuit(x, y, 2)
        assert expected[1] == 2
        assert order_of(SequentialAttentionLinear, x, y, 2) == expected
        assert order_of(KeepsPickedColumnsOut, x, y, 2) != expected


def test_a_penalty_above_the_largest_correlation_leaves_nothing_and_one_below_leaves_the_best():
    x, y = planted(0)
    problem = Problem(torch.from_numpy(x), torch.from_numpy(y))
    best = int(problem.correlations().argmax())

    def sizes(kind, **settings):
        return kind(round_steps=2000, **settings).weights(problem).norm(dim=1)

    assert float(sizes(SequentialAttentionLinear, tightness=1.02).max()) < 1e-4
    below = sizes(SequentialAttentionLinear, tightness=0.98)
    assert below[best] > 1e-3 and below.argsort(descending=True)[0] == best
    assert int((below > 1e-4).sum()) == 1
    assert int((sizes(PenalisesNothing) > 1e-4).sum()) > 10


def test_a_picked_column_leaves_the_residual_of_least_squares():
    x, y = planted(3)
    problem = Problem(torch.from_numpy(x), torch.from_numpy(y))
    for j in (4, 9, 31):
        problem.pick(j)
    x, y = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=0), y - y.mean(0)
    left = y - x[:, [4, 9, 31]] @ np.linalg.lstsq(x[:, [4, 9, 31]], y, rcond=None)[0]
    np.testing.assert_allclose(problem.cross.numpy(), x.T @ left, atol=1e-9)
    with pytest.raises(ValueError, match="picked before"):
        problem.pick(9)


def test_a_copy_of_a_picked_column_comes_last():
    x, y = planted(1, columns=6, k=3)
    x[:, 5] = x[:, orthogonal_matching_pursuit(x, y, 1)[0][0]]
    for kind in (Best, SequentialAttentionLinear):
        order = order_of(kind, x, y, 6)
        first, second = sorted((order.index(5), order.index(orthogonal_matching_pursuit(x, y, 1)[0][0])))
        assert first == 0 and second == 5, (kind, order)


# -- the mask and the rounds ------------------------------------------------------------------------------------------------------


def mask_is_right(mask):
    open_ = torch.tensor([True, False, True, True, False])
    found = mask(torch.tensor([0.3, 9.0, -0.2, 0.1, -9.0]), open_)
    assert found[~open_].tolist() == [1.0, 1.0]
    assert abs(float(found[open_].sum()) - 1) < 1e-6
    torch.testing.assert_close(found[open_], torch.softmax(torch.tensor([0.3, -0.2, 0.1]), 0))


def over_all(scores, open_):
    return torch.where(open_, torch.softmax(scores, 0), 1.0)


def picked_keep_their_weight(scores, open_):
    return attention_mask(scores, torch.ones_like(open_))


def test_the_mask_is_one_for_picked_and_a_softmax_over_the_others():
    mask_is_right(attention_mask)
    for broken in (over_all, picked_keep_their_weight):
        with pytest.raises(AssertionError):
            mask_is_right(broken)


def test_the_mask_is_defined_when_nothing_is_open():
    scores = torch.zeros(3, requires_grad=True)
    mask = attention_mask(scores, torch.zeros(3, dtype=torch.bool))
    mask.sum().backward()
    assert mask.tolist() == [1.0] * 3 and not scores.grad.any()


def test_masking_weights_is_masking_inputs():
    rng = np.random.default_rng(0)
    run = Run(backend=get("torch"))
    net = network.Network.initial(5, 7, 3, rng, run)
    x, mask = torch.randn(4, 5), torch.rand(5, requires_grad=True)
    y = torch.tensor([0, 2, 1, 1])
    net.loss(x, y, mask).backward()
    again = mask.detach().clone().requires_grad_()
    net.loss(x * again, y).backward()
    torch.testing.assert_close(mask.grad, again.grad)


@pytest.mark.parametrize("steps, rounds, warm_up", [(100, 9, 0.1), (50, 45, 0.1), (7, 7, 0.0), (1000, 3, 0.5)])
def test_rounds_share_the_steps_after_the_warm_up(steps, rounds, warm_up):
    begin, ends = round_ends(steps, rounds, warm_up)
    lengths = np.diff([begin, *ends])
    assert begin == int(warm_up * steps) and ends[-1] == steps and len(ends) == rounds
    assert lengths.min() >= 1 and lengths.max() - lengths.min() <= 1


def test_more_rounds_than_steps_are_an_error():
    with pytest.raises(ValueError, match="cannot hold 50 rounds"):
        round_ends(50, 50, 0.1)


def classes(seed=0, rows=600, columns=14, k=6):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    y = (x[:, :4] > 0).sum(1)
    return task.Given(x[100:], y[100:], x[:100], y[:100], 5, k, 16, 32)


class Watched(SequentialAttention):
    """Notes the mask of every step, and what was open at it."""

    def mask(self, open_):
        mask = super().mask(open_)
        self.seen.append((mask.detach().clone(), open_.clone(), self.w.detach().clone()))
        return mask

    def begin(self, features, run):
        self.seen = []
        return super().begin(features, run)


@pytest.mark.parametrize("each", [1, 2, 4])
def test_rounds_pick_k_different_features_and_never_put_one_back(each):
    order, method = select(Watched, classes(), features_per_round=each)
    assert len(set(order)) == 6 and len(method.seen) == 180
    counts = [14 - int(open_.sum()) for _, open_, _ in method.seen]
    assert sorted(set(counts)) == list(range(0, 6, each))
    for (_, before, _), (_, after, _) in zip(method.seen, method.seen[1:]):
        assert not (after & ~before).any()
    for mask, open_, _ in method.seen:
        assert abs(float(mask[open_].sum()) - 1) < 1e-5 and (mask[~open_] == 1).all()
        assert set(torch.nonzero(~open_).flatten().tolist()) == set(order[: 14 - int(open_.sum())])


def test_scores_start_anew_after_every_pick_and_the_network_does_not():
    _, method = select(Watched, classes())
    counts = [14 - int(open_.sum()) for _, open_, _ in method.seen]
    starts = [i for i in range(1, len(counts)) if counts[i] != counts[i - 1]]
    assert all(float(method.seen[i][2].abs().max()) < 1e-4 < 1e-3 < float(method.seen[i - 1][2].abs().max()) for i in starts)


def test_the_first_pick_of_the_official_order_is_by_chance_and_ours_is_not():
    firsts = {
        pick: {
            select(SequentialAttention, classes(), seed=seed, pick_at=pick, steps=240, selection_rate=0.01)[0][0]
            for seed in range(4)
        }
        for pick in ("round-start", "round-end")
    }
    assert firsts["round-end"] <= {0, 1, 2, 3}
    assert not firsts["round-start"] <= {0, 1, 2, 3}
    assert len(set(select(SequentialAttention, classes(), pick_at="round-start")[0])) == 6


@pytest.mark.parametrize("settings", [{}, {"variant": "restart"}])
def test_both_variants_find_the_columns_that_count(settings):
    order, method = select(SequentialAttention, classes(k=4, rows=1500), steps=300, **settings)
    assert set(order) == {0, 1, 2, 3}
    passes = 4 if settings else 1
    assert method.spent == passes * 300 * network.step_flops(14, 16, 5, 32)


@pytest.mark.parametrize("arm", [SequentialAttention, SequentialLasso])
def test_rounds_skip_the_copy_of_a_picked_column(arm):
    """Column 4 repeats column 0 exactly; columns 1 to 3 tell something new."""
    given = classes(k=4)
    x = given.x.copy()
    x[:, 4] = x[:, 0]
    order, _ = select(arm, dataclasses.replace(given, x=x), steps=400)
    assert {1, 2, 3} <= set(order) and len({0, 4} & set(order)) == 1


def test_the_one_shot_mask_is_a_single_round():
    given = classes(k=4)
    one, method = select(OneShotMask, given, score_rate=0.03)
    same, _ = select(SequentialAttention, given, features_per_round=4)
    assert one == same and len(set(one)) == 4
    assert method.spent == 200 * network.step_flops(14, 16, 5, 32)


def test_sequential_lasso_takes_the_longest_row_and_frees_what_it_picked():
    method = SequentialLasso(strength=0.5)
    net = network.Network.initial(3, 4, 2, np.random.default_rng(0), Run(backend=get("torch")))
    norms = net.parameters[0].detach().norm(dim=1)
    torch.testing.assert_close(method.scores(net), norms)
    open_ = torch.tensor([True, False, True])
    torch.testing.assert_close(method.penalty(net, open_).detach(), 0.5 * (norms[0] + norms[2]))
