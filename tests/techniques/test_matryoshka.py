"""Matryoshka heads, projections and the task's judges: identities that hold exactly, and variants that must break them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from effbench_implementations.matryoshka import encoder, judge, recipe, sources
from effbench_implementations.matryoshka.mrl import Mrl
from effbench_implementations.matryoshka.mrl_e import MrlE
from effbench_implementations.matryoshka.pca_prefix import PcaPrefix
from effbench_implementations.matryoshka.prefix import Prefix
from effbench_implementations.matryoshka.random_projection import RandomProjection
from effbench_implementations.matryoshka.represent import represent_all, scores_by_size
from effbench_implementations.matryoshka.separate_sizes import SeparateSizes
from effbench_implementations.matryoshka.sources import Encoder, Part
from effbench_implementations.matryoshka.task import Given, PrefixRepresentations
from torch.nn.functional import cross_entropy

from effbench import Budget, Data, DataError, Run, Wrong
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.run.exercise import exercise

SIZES, CLASSES = (2, 4, 8), 5
ARMS = [Mrl, MrlE, SeparateSizes, Prefix, PcaPrefix, RandomProjection]
SHARED = [Mrl, MrlE, Prefix, PcaPrefix, RandomProjection]


def batch(n=32, d=8, seed=0):
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.standard_normal((n, d)).astype(np.float32)).requires_grad_()
    return z, torch.from_numpy(rng.integers(0, CLASSES, n))


def run(steps=6, seed=0):
    return Run(backend=get("torch"), budget=Allowance(steps=steps), seed=seed)


def material(rows=400, seed=1, side=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    shape = (1, side, side) if side else (10,)
    centres = rng.standard_normal((CLASSES, *shape))
    inputs = (centres[labels] + 0.5 * rng.standard_normal((rows, *shape))).astype(np.float32)
    part = Part(inputs, labels)
    return Given(part, part.first(200), Encoder(int(np.prod(shape)), 2 if side else 16, 8, CLASSES, side=side))


def built(arm, given, steps=6, **settings):
    method = arm(**settings)
    method.run = run(steps)
    for _ in method.build(given, method.run):
        pass
    return method


# -- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [recipe.Heads, recipe.TiedHeads])
def test_one_size_is_an_ordinary_classifier(kind):
    (z, y), (z2, _) = batch(), batch()
    heads = kind((8,), CLASSES, 0)
    plain = torch.nn.Linear(8, CLASSES)
    layer = heads.layers[0] if kind is recipe.Heads else heads.layer
    plain.load_state_dict(layer.state_dict())
    ours, theirs = recipe.nested_loss(heads(z), y), cross_entropy(plain(z2), y)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(z.grad, z2.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=0, atol=1e-6)


def tied_is_untied_with_shared_columns(kind):
    z, y = batch()
    tied, untied = kind(SIZES, CLASSES, 3), recipe.Heads(SIZES, CLASSES, 4)
    with torch.no_grad():
        for layer in untied.layers:
            layer.weight.copy_(tied.layer.weight[:, : layer.in_features])
            layer.bias.copy_(tied.layer.bias)
    torch.testing.assert_close(recipe.nested_loss(tied(z), y), recipe.nested_loss(untied(z), y), rtol=1e-5, atol=1e-6)


def test_tied_heads_are_column_prefixes():
    tied_is_untied_with_shared_columns(recipe.TiedHeads)


def test_the_oracle_of_tied_heads_rejects_blocks_that_are_not_added_up():
    class Forgetful(recipe.TiedHeads):
        def forward(self, z):
            w, edges = self.layer.weight, (0, *self.sizes)
            return [z[:, a:b] @ w[:, a:b].T + self.layer.bias for a, b in pairwise(edges)]

    with pytest.raises(AssertionError):
        tied_is_untied_with_shared_columns(Forgetful)


def later_numbers_get_no_gradient(kind):
    for number, m in enumerate(SIZES):
        z, y = batch()
        cross_entropy(kind(SIZES, CLASSES, 0)(z)[number], y).backward()
        assert (z.grad[:, m:] == 0).all() and (z.grad[:, :m] != 0).any()


@pytest.mark.parametrize("kind", [recipe.Heads, recipe.TiedHeads])
def test_the_loss_of_a_size_leaves_later_numbers_alone(kind):
    later_numbers_get_no_gradient(kind)


def test_the_gradient_oracle_rejects_suffixes():
    class Suffixes(recipe.Heads):
        def forward(self, z):
            return [layer(z[:, -layer.in_features :]) for layer in self.layers]

    with pytest.raises(AssertionError):
        later_numbers_get_no_gradient(Suffixes)


# -- arms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("side", [0, 8])
def test_served_is_what_was_trained(arm, side):
    """At the full size every arm gives the scores of its own network and head; a rotation loses nothing there."""
    given = material(side=side)
    method = built(arm, given)
    nets, heads = method.training
    with torch.no_grad():
        z = nets[-1](torch.from_numpy(given.train.inputs))
        expected = heads.layers[-1](z) if hasattr(heads, "layers") else heads(z)[-1]
    np.testing.assert_allclose(represent_all(method, given.train.inputs, 8)[1], expected.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_scores_belong_to_the_prefix(arm):
    given = material()
    method = built(arm, given)
    full = represent_all(method, given.train.inputs, 8)[0]
    shared = scores_by_size(method, given.train.inputs)
    for m in given.encoder.sizes:
        z, scores = represent_all(method, given.train.inputs, m)
        if arm is not SeparateSizes:
            np.testing.assert_allclose(z, full[:, :m], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(shared[m], scores, rtol=1e-4, atol=1e-4)


def pca_keeps_the_most_variance(arm):
    given = material()
    method = built(arm, given)
    z = represent_all(method, given.train.inputs, 8)[0]
    plain = represent_all(built(Prefix, given), given.train.inputs, 8)[0]
    values = np.linalg.svd(plain - plain.mean(0), compute_uv=False) ** 2 / len(plain)
    np.testing.assert_allclose(z.var(0), values, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(z - z.mean(0), axis=1), np.linalg.norm(plain - plain.mean(0), axis=1), rtol=1e-3)


def test_pca_directions_are_those_of_the_svd():
    pca_keeps_the_most_variance(PcaPrefix)


def test_the_pca_oracle_rejects_the_other_end_of_the_spectrum():
    class Upside(PcaPrefix):
        def extract(self, nets, heads, given, rows):
            found = super().extract(nets, heads, given, rows)
            return {**found, "basis": found["basis"].flip(0)}

    for broken in (Upside, RandomProjection):
        with pytest.raises(AssertionError):
            pca_keeps_the_most_variance(broken)


def test_separate_sizes_train_each_network_as_if_alone():
    given, steps = material(), 5
    together = built(SeparateSizes, given, steps)
    heads = recipe.Heads(given.encoder.sizes, CLASSES, 0)
    for number, m in enumerate(given.encoder.sizes):
        net, head = encoder.network(given.encoder, m, 0), heads.layers[number]
        options = {"steps": steps, "learning_rate": together.learning_rate, "seed": 0, "run": run()}
        modules = torch.nn.ModuleList([net, head])
        for _ in recipe.optimise(modules, lambda x, y: cross_entropy(head(net(x)), y), given.train, **options):  # noqa: B023
            pass
        torch.testing.assert_close(together.nets[number].linear.weight, net.linear.weight, rtol=1e-4, atol=1e-5)


def test_a_size_that_is_trained_for_is_better_than_one_cut_off():
    """What the area is about, on data with five classes: two numbers of MRL against two numbers of a model never cut."""
    given = material(rows=1000)
    cut, nested = (
        (represent_all(built(arm, given, 60), given.train.inputs, 2)[1].argmax(1) == given.train.labels).mean()
        for arm in (Prefix, Mrl)
    )
    assert nested > cut + 0.1


def test_equal_flops_are_fewer_steps_for_separate_sizes():
    given = material()
    costs = {}
    for arm in (Mrl, MrlE, SeparateSizes, Prefix):
        method = arm()
        method.run = run()
        costs[arm] = method.step_flops(given)
    assert costs[Prefix] == costs[MrlE] < costs[Mrl] < 2 * costs[Prefix]
    assert 2 * costs[Mrl] < costs[SeparateSizes] < 3 * costs[Prefix]


@pytest.mark.parametrize("arm", ARMS)
def test_formulas_agree_with_the_counter(arm):
    found = exercise(PrefixRepresentations, arm, data="digits", budget=Budget(steps=3), cases=("dims-2", "dims-64"))
    for case in ("dims-2", "dims-64"):
        assert found[(case, ())]["serve.flops"]["how"] == "formula, counter agrees"
        assert 0 < found[(case, ())]["quality.nearest-accuracy"]["value"] <= 1


@pytest.mark.parametrize("arm", ARMS)
def test_saved_and_loaded(arm, tmp_path):
    given = material()
    method = built(arm, given)
    method.save(tmp_path)
    other = arm()
    other.run = method.run
    other.load(tmp_path, given)
    assert other.parameters() == method.parameters()
    for m in given.encoder.sizes:
        for mine, theirs in zip(represent_all(method, given.train.inputs, m), represent_all(other, given.train.inputs, m)):
            np.testing.assert_array_equal(mine, theirs)


def test_what_cannot_be_is_refused():
    given = material()
    method = built(Mrl, given)
    with pytest.raises(NotImplementedError, match="3"):
        method.represent(torch.zeros(2, 10), 3)
    with pytest.raises(ValueError, match="shape"):
        method.represent(torch.zeros(2, 11), 4)
    with pytest.raises(ValueError, match="budget"):
        built(Mrl, given, steps=None)
    with pytest.raises(ValueError, match="batch"):
        built(Mrl, Given(given.train.first(100), given.validation, given.encoder))


# -- data and judges --------------------------------------------------------------------------------------------------


def test_parts_are_disjoint_and_complete():
    parts = sources.split(Data("digits", {"width": 8, "d": 8}), "smoke")
    rows = [row.tobytes() for part in parts.values() for row in part.inputs]
    assert len(rows) == 1797 and len(set(rows)) == 1797
    assert {name: len(part) for name, part in parts.items()} == {"train": 1000, "validation": 250, "test": 547}


def test_an_embedding_longer_than_what_it_is_made_of_is_an_error():
    data = Data("digits", {"width": 8, "d": 16})
    with pytest.raises(DataError, match="fewer hidden"):
        sources.encoder(data, sources.split(data, "smoke"))


@pytest.mark.parametrize("d", [0, 2, 24])
def test_a_length_that_cannot_be_halved_is_an_error(d):
    data = Data("digits", {"width": 8, "d": d})
    with pytest.raises(DataError, match="power of two"):
        sources.encoder(data, sources.split(data, "smoke"))


def test_nearest_is_the_largest_cosine():
    rng = np.random.default_rng(0)
    known, asked = rng.standard_normal((300, 4)) * rng.uniform(0.1, 9, (300, 1)), rng.standard_normal((70, 4))
    cosine = (asked @ known.T) / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(known, axis=1)
    np.testing.assert_array_equal(judge.nearest(known, asked, block=32), cosine.argmax(1))
    assert (judge.nearest(known, asked) != (asked @ known.T).argmax(1)).any(), "lengths differ enough to be seen"


def test_the_probe_finds_what_a_linear_classifier_can():
    given = material(rows=1000)
    found = judge.probe(given.train.inputs[:500], given.train.labels[:500], CLASSES, given.train.inputs[500:])
    assert (found == given.train.labels[500:]).mean() > 0.95
    noise = np.random.default_rng(3).standard_normal((1000, 4)).astype(np.float32)
    assert (judge.probe(noise[:500], given.train.labels[:500], CLASSES, noise[500:]) == given.train.labels[500:]).mean() < 0.35


def test_answers_that_differ_are_wrong():
    z = np.random.default_rng(0).standard_normal((5, 3))
    judge.agree(z + 1e-6, z)
    for output in (z + 0.1, z[:4], np.full_like(z, np.nan), z[::-1]):
        with pytest.raises(Wrong):
            judge.agree(output, z)
