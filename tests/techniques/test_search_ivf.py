"""The inverted file: partitions cover the base, more leaves never find less, and work is what the formula says."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from effbench_implementations.search import ivf, kmeans
from effbench_implementations.search.task import Given
from effbench_implementations.search.vectors import clustered, nearest

from effbench import Run
from effbench.backends import get

RNG = np.random.default_rng(7)
POINTS = clustered(RNG, 3100, 16, centers=30, rank=12, spread=1.0, noise=0.15)
BASE, QUERIES = POINTS[:3000], POINTS[3000:]


def built(metric="l2", base=BASE, **settings):
    method = ivf.Ivf(**{"partitions": 40, "iterations": 5, **settings})
    method.run = run = Run(backend=get("torch"), seed=3)
    method.build(Given(base, metric, 10, None), run)
    return method


def found(method, leaves, queries=QUERIES, k=10):
    method.configure(leaves=leaves)
    return method.run.numpy(method.search(queries, k))


def recall(ids, truth):
    return np.mean([len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist())]) / truth.shape[1]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_all_leaves_are_exact_and_recall_never_falls_with_leaves(metric):
    truth = nearest(metric, QUERIES, BASE, 10)[0]
    method = built(metric)
    values = [recall(found(method, leaves), truth) for leaves in (1, 2, 4, 8, 16, 40, 999)]
    assert all(a <= b for a, b in pairwise(values))
    assert values[-2:] == [1, 1]
    assert 0.2 < values[0] < 0.95, "one leaf must neither fail nor be as good as all of them"


def test_the_oracle_rejects_an_index_that_looks_into_one_leaf_and_claims_all():
    class Lazy(ivf.Ivf):
        def _nearest(self, queries, leaves, k):
            return super()._nearest(queries, 1, k)

    method = Lazy(partitions=40, iterations=5)
    method.run = Run(backend=get("torch"), seed=3)
    method.build(Given(BASE, "l2", 10, None), method.run)
    truth = nearest("l2", QUERIES, BASE, 10)[0]
    assert recall(found(method, 40), truth) < 0.95
    assert recall(found(built(), 40), truth) == 1


def test_every_row_lies_in_exactly_one_partition_and_that_is_the_nearest():
    method = built()
    assert sorted(method.order.tolist()) == list(range(3000))
    assert int(method.sizes.sum()) == 3000
    member = torch.repeat_interleave(torch.arange(40), method.sizes)
    distance = torch.cdist(method.vectors.double(), method.centres.double())
    chosen = distance.gather(1, member[:, None])[:, 0]
    assert (chosen <= distance.min(1).values + 1e-5).all()
    torch.testing.assert_close(method.vectors, torch.from_numpy(BASE)[method.order] - method.mean)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_cost_of_k_means_never_rises(spherical):
    _, cost = kmeans.kmeans(torch.from_numpy(BASE), 50, 12, spherical=spherical, rng=np.random.default_rng(0))
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(cost))
    assert cost[-1] < cost[0] - 0.01


def test_lost_centres_are_seeded_again():
    """Ten far groups of very unlike size: random starts fall into few groups, and duplicates empty centres."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), [500, *[4] * 9])
    rows = torch.from_numpy((100.0 * np.eye(10)[groups]).astype(np.float32))
    centres, cost = kmeans.kmeans(rows, 10, 12, spherical=False, rng=rng)
    member, left = kmeans.assign(rows, centres, spherical=False)
    assert len(member.unique()) == 10
    assert float(left.max()) < 1e-3 and all(b <= a + 1e-3 for a, b in pairwise(cost))


def test_one_query_and_a_batch_get_the_same_answers_and_splitting_changes_nothing(monkeypatch):
    method = built()
    for leaves in (1, 3, 40):
        batch = found(method, leaves)
        single = np.concatenate([found(method, leaves, QUERIES[i : i + 1]) for i in range(10)])
        np.testing.assert_array_equal(batch[:10], single)
        with monkeypatch.context() as patch:
            patch.setattr(ivf, "SCRATCH", 5000)
            np.testing.assert_array_equal(found(method, leaves), batch)


def test_fewer_candidates_than_k_are_filled_with_minus_one_and_nothing_else_is_lost():
    method = built(partitions=300)
    ids = found(method, 1, k=50)
    probed = torch.cdist(torch.from_numpy(QUERIES) - method.mean, method.centres).argmin(1)
    for row, leaf in zip(ids, probed.tolist()):
        size = int(method.sizes[leaf])
        first = int(method.sizes[:leaf].sum())
        kept = row[row >= 0]
        assert len(kept) == min(size, 50) == len(set(kept))
        assert set(kept) <= set(method.order[first : first + size].tolist())


def test_points_and_flops_agree_with_a_count_by_hand():
    method = built(leaves=3)
    method.run._counting = True
    method.run._counts = {}
    method.search(QUERIES, 10)
    distance = torch.cdist(torch.from_numpy(QUERIES).double() - method.mean, method.centres.double())
    probes = distance.argsort(1)[:, :3]
    points = sum(int(method.sizes[leaf]) for row in probes.tolist() for leaf in row)
    assert method.run._counts == {"points": points, "queries": 100, "distances": 100 * 40 + points}
    flops = method.flops("serve", None, {"points": points, "queries": 100})
    assert flops.executed == 2 * 16 * (100 * 40 + points)
    assert flops.dense == 2 * 16 * 100 * 3000
    assert method.flops("build", None, {}).executed == 2 * 16 * 40 * (5 * 3000 + 3000)


def test_a_seed_reproduces_and_settings_are_checked():
    assert torch.equal(built().centres, built().centres)
    assert len(built(base=BASE[:7], partitions=40).centres) == 7  # never more partitions than rows
    for bad in ({"partitions": 0}, {"iterations": 0}, {"training": -1}):
        with pytest.raises(ValueError, match="at least 1"):
            built(**bad)
    with pytest.raises(ValueError, match="leaves"):
        found(built(), 0)
    assert built(training=50).trained_on == 50
