"""Knowledge-aware fine-tuning: what a context states, what it must not state, whose answer is asked, and how answers are scored."""

import types

import numpy as np
import pytest
import torch
from effbench_implementations.context import kaft_facts as facts
from effbench_implementations.context import kaft_network as network
from effbench_implementations.context import kaft_task
from effbench_implementations.context.kaft import Kaft
from effbench_implementations.context.kaft_task import ContextFaithfulness, Examination, examination, rates
from effbench_implementations.context.no_context_fine_tuning import NoContext
from effbench_implementations.context.pretrained import Pretrained
from effbench_implementations.context.standard_fine_tuning import StandardFineTuning

from effbench import Budget, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.plan.suite import parse_data
from effbench.run.exercise import exercise

SMALL = "facts(entities=36, fictional=20, relations=3, answers=12, d=16, batch=32)"
ARMS = [Kaft, StandardFineTuning, NoContext, Pretrained]
S = 6


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def named(seed=0):
    """A world in which half of the entities have two names."""
    rng = np.random.default_rng(seed)
    aliases = np.concatenate((np.arange(30), np.arange(15)))
    return facts.world(*facts.synthetic(30, 3, 12, rng), aliases, 10, rng)


def read(world, ids):
    """Names, relations and answers of the statements; those of the question. The ids are what the model sees."""
    offsets = np.array([facts.FIRST, facts.FIRST + len(world.names), facts.FIRST + len(world.names) + world.relations])
    return (ids[:, :-1] - offsets), (ids[:, -1, :2] - offsets[:2])


def about_the_question(world, ids):
    """For each statement, whether it is about the asked entity, under any of its names, and the asked relation."""
    rows, asked = read(world, ids)
    return (world.names[rows[..., 0]] == world.names[asked[:, 0]][:, None]) & (rows[..., 1] == asked[:, 1][:, None])


def many(world, kind, part=facts.TEST, n=3000, seed=1):
    rng = np.random.default_rng(seed)
    name, relation = world.questions(part)
    chosen = rng.integers(0, len(name), n)
    kinds = np.full(n, kind)
    ids, stated = facts.prompts(world, kinds, name[chosen], relation[chosen], part, S, rng)
    return ids, stated, world.truth(name[chosen], relation[chosen])


# -- contexts -----------------------------------------------------------------------------------------------------------


def counterfactuals_never_state_the_truth(world, ids, stated, truth):
    rows, _ = read(world, ids)
    about = about_the_question(world, ids)
    assert about.any(1).all()
    assert (rows[..., 2] == stated[:, None])[about].all()
    assert (stated != truth).all()


def test_counterfactuals_state_the_swapped_answer_under_every_name():
    world = named()
    ids, stated, truth = many(world, facts.COUNTERFACTUAL)
    counterfactuals_never_state_the_truth(world, ids, stated, truth)
    assert (about_the_question(world, ids).sum(1) == 2).any()  # a second mention, under the other name
    rows, _ = read(world, ids)
    broken = ids.copy()  # the answer is swapped once, and another mention keeps the old one
    twice = np.flatnonzero(about_the_question(world, ids).sum(1) == 2)
    place = about_the_question(world, ids)[twice].argmax(1)
    broken[twice, place, 2] += truth[twice] - rows[twice, place, 2]
    with pytest.raises(AssertionError):
        counterfactuals_never_state_the_truth(world, broken, stated, truth)


def irrelevant_contexts_are_silent(world, ids):
    assert not about_the_question(world, ids).any()


def test_irrelevant_contexts_are_silent_about_the_question_under_every_name():
    world = named()
    ids, _, _ = many(world, facts.IRRELEVANT)
    irrelevant_contexts_are_silent(world, ids)
    rows, asked = read(world, ids)
    assert (rows[..., 0] == asked[:, :1]).mean() > 0.2  # the same entity, in another relation
    with pytest.raises(AssertionError):
        irrelevant_contexts_are_silent(world, many(world, facts.RELEVANT)[0])
    broken = ids.copy()  # a filter by name instead of by entity
    broken[:, 0, 0] = world.twin[asked[:, 0]] + facts.FIRST
    broken[:, 0, 1] = asked[:, 1] + facts.FIRST + len(world.names)
    with pytest.raises(AssertionError):
        irrelevant_contexts_are_silent(world, broken)


def test_relevant_contexts_state_the_truth_and_empty_ones_nothing():
    world = named()
    ids, stated, truth = many(world, facts.RELEVANT)
    assert (read(world, ids)[0][..., 2] == truth[:, None])[about_the_question(world, ids)].all() and (stated == truth).all()
    assert (many(world, facts.EMPTY)[0][:, :-1] == facts.PAD).all()


def test_a_distractor_is_false_half_the_time_and_about_entities_of_the_same_part():
    world = named()
    for part in (facts.TRAIN, facts.TEST):
        rows, _ = read(world, many(world, facts.IRRELEVANT, part)[0])
        assert (world.part[world.names[rows[..., 0]]] == part).all()
        true = rows[..., 2] == world.truth(rows[..., 0], rows[..., 1])
        assert 0.45 < true.mean() < 0.72  # some of the random ones are true by chance


def test_no_part_shares_its_swapped_answers():
    world = named()
    for one, other in ((facts.TRAIN, facts.TEST), (facts.TRAIN, facts.VALIDATION), (facts.VALIDATION, facts.TEST)):
        for mine, theirs in zip(world.swaps[one], world.swaps[other]):
            assert len(mine) >= 2 and not set(mine) & set(theirs)
    for part in (facts.TRAIN, facts.TEST):
        ids, stated, _ = many(world, facts.COUNTERFACTUAL, part, n=300)
        relation = read(world, ids)[1][:, 1]
        assert all(answer in world.swaps[part][r] for answer, r in zip(stated, relation))


def test_a_relation_with_too_few_answers_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="needs 6 answers"):
        facts.world(*facts.synthetic(30, 2, 5, rng), np.arange(30), 3, rng)


def test_reading_is_about_strangers_and_the_context_tells():
    world = named()
    ids, target = facts.reading(world, 500, S, np.random.default_rng(0))
    rows, asked = read(world, ids)
    assert (world.names[rows[..., 0]] == -1).all() and (world.names[asked[:, 0]] == -1).all()
    mine = (rows[..., 0] == asked[:, :1]) & (rows[..., 1] == asked[:, 1:])
    assert (mine.sum(1) == 1).all() and (rows[..., 2][mine] == target).all()


def test_the_library_has_its_facts_under_two_names():
    rng = np.random.default_rng(0)
    table, groups = facts.library(60, rng)
    assert table.shape == (60, 4) and len({tuple(row) for row in table}) > 50
    world = facts.world(table, groups, np.repeat(np.arange(60), 2), 10, rng)
    assert len(world.names) == 130 and (world.names[world.twin] == world.names).all() and (world.twin[:120] != np.arange(120)).all()
    for relation, group in enumerate(world.answers):
        assert np.isin(table[:, relation], group).all() and len(group) >= 6


# -- training mixes -----------------------------------------------------------------------------------------------------


def material(seed=0, data=SMALL):
    task, chosen = ContextFaithfulness(), parse_data(data, ContextFaithfulness.data, where="test")
    run = Run(backend=get("torch"), budget=Allowance(steps=3), seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kaft_task.PRETRAINING, "smoke", 5)
        prepared = task.prepare(chosen, "smoke", seed, run)
    return task, chosen, prepared, task.given(chosen, "smoke", seed, prepared), run


def started(arm, given, run, **settings):
    method = arm(**settings)
    method.run = run
    method.prepare(given)
    return method


def batch(method, labels=None):
    return next(method.examples(method.mix(), labels))


def test_an_irrelevant_context_is_answered_as_before_fine_tuning_right_or_wrong():
    _, _, prepared, given, run = material()
    method = started(Kaft, given, run)
    own = method.own_answers()
    name, relation = given.world.questions(facts.TRAIN)
    assert (own[name, relation] == prepared["before"][name, relation]).all() and (own >= 0).sum() == len(name)
    assert (own[name, relation] != given.world.truth(name, relation)).any()  # five steps teach no facts: the oracle can tell
    ids, target = batch(method, own)
    silent = ~about_the_question(given.world, ids).any(1) & (ids[:, 0, 0] != facts.PAD)
    _, asked = read(given.world, ids)

    def holds(target):
        assert silent.sum() == 8 and (target[silent] == own[asked[silent, 0], asked[silent, 1]]).all()

    holds(target)
    with pytest.raises(AssertionError):
        holds(batch(method)[1])  # the gold label: it trains guessing


def test_arms_see_the_same_questions_in_the_same_order():
    _, _, _, given, run = material()
    seen = [batch(started(arm, given, run)) for arm in (Kaft, StandardFineTuning)]
    (ids, _), (other, _) = seen
    assert (ids[:, -1] == other[:, -1]).all() and (ids != other).any()
    for one in (ids, other):
        assert (one[:, 0] == facts.PAD).all(1).sum() == 8  # the rehearsal, in every arm
    again = batch(started(Kaft, given, run))
    assert (again[0] == ids).all()
    other_seed = Run(backend=get("torch"), budget=run.budget, seed=7)
    assert (batch(started(Kaft, given, other_seed))[0] != ids).any()


def test_weights_of_zero_leave_their_slice_out():
    _, _, _, given, run = material()
    for settings, contradicting in (({"counterfactual": 0.0}, 0), ({"irrelevant": 0.0}, 8)):
        method = started(Kaft, given, run, **settings)
        ids, _ = batch(method)
        rows, asked = read(given.world, ids)
        truth = given.world.truth(asked[:, 0], asked[:, 1])
        about = about_the_question(given.world, ids)
        assert ((rows[..., 2] != truth[:, None]) & about).any(1).sum() == contradicting
    with pytest.raises(ValueError, match="add up to 1"):
        exercise(ContextFaithfulness, Kaft, data=SMALL, budget=Budget(steps=1), counterfactual=0.7, irrelevant=0.7)
    with pytest.raises(ValueError, match="budget in steps"):
        exercise(ContextFaithfulness, Kaft, data=SMALL)


# -- scores -------------------------------------------------------------------------------------------------------------


def scripted(answer):
    """An examination of a world that the model knows by heart, answered by `answer(ids, stated, truth, rng)`."""
    rng = np.random.default_rng(0)
    world = facts.world(*facts.synthetic(200, 4, 40, rng), np.arange(200), 10, rng)
    before = np.full((len(world.names), 4), -1)
    name, relation = world.questions(None)
    before[name, relation] = world.truth(name, relation)
    exam = examination(world, before, {"statements": S, "random": 0.5}, 12, facts.TEST, 0)
    said = []
    for key, (ids, stated) in exam.slices.items():
        truth = exam.truth["seen-" if key.startswith("seen-") else ""]
        said.append(answer(ids, stated, np.tile(truth, len(ids) // len(truth)), rng))
    return {key: float(np.mean(value)) for key, value in rates(exam, said).items()}


def test_scripted_answers_get_the_scores_they_deserve():
    copier = scripted(lambda ids, stated, truth, rng: stated)
    assert copier["controllability"] == 1 and copier["stubbornness"] == 0 and copier["seen-controllability"] == 1
    stubborn = scripted(lambda ids, stated, truth, rng: truth)
    assert stubborn["robustness"] == stubborn["stubbornness"] == stubborn["closed-book-accuracy"] == 1
    assert stubborn["controllability"] == 0 and stubborn["seen-robustness"] == 1
    guess = scripted(lambda ids, stated, truth, rng: rng.integers(0, 40, len(ids)))
    for name in ("controllability", "robustness", "stubbornness", "relevant-accuracy", "seen-controllability"):
        assert guess[name] == pytest.approx(1 / 40, abs=0.01)


def test_robustness_is_against_the_model_before_and_not_the_truth():
    ids = np.zeros((2, S + 1, 3), np.int64)
    slices = {name: (ids, np.array([3, 4])) for name in ("relevant", "counterfactual", "irrelevant", "empty")}
    exam = Examination(slices, {"": np.array([1, 9])}, {"": np.array([1, 2])})  # the second question it got wrong
    found = rates(exam, [np.array([1, 2]), np.array([3, 9]), np.array([1, 9]), np.array([1, 2])])
    assert found["robustness"].tolist() == [1, 1] and found["controllability"].tolist() == [1]  # of what it knew
    assert found["relevant-accuracy"].tolist() == [1, 1]


# -- network and runs ---------------------------------------------------------------------------------------------------


def test_the_order_of_statements_says_nothing():
    net = network.Reader(40, 7, 16, 2, 4).double()
    ids = torch.randint(0, 40, (5, S + 1, 3))
    shuffled = torch.cat((ids[:, torch.randperm(S)], ids[:, -1:]), 1)
    torch.testing.assert_close(net(ids), net(shuffled))
    assert not torch.allclose(net(ids), net(ids.flip(1)))


def test_formulas_are_what_the_counter_sees():
    net = network.Reader(40, 7, 16, 2, 4)
    ids = torch.randint(0, 40, (9, S + 1, 3))
    assert count_torch(net, ids).executed == pytest.approx(network.forward_flops(9, S + 1, 7, 16, 2), rel=0.01)

    def step():
        next(network.train(net, iter([(ids, torch.zeros(9, dtype=torch.int64))]), 1, 1e-3, lambda x: x))

    assert count_torch(step).executed == pytest.approx(network.step_flops(9, S + 1, 7, 16, 2), rel=0.01)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_at_smoke_size_and_costs_the_same_to_ask(arm):
    out = exercise(ContextFaithfulness, arm, data=SMALL, budget=Budget(steps=4), seconds=0.001)
    readings = out["prompts", ()]
    assert readings["serve.flops"]["how"] == "formula, counter agrees"
    assert readings["serve.flops"]["value"] == pytest.approx(
        network.forward_flops(readings["serve.items"]["value"], S + 1, 12, 16, 2)
    )
    for name in ContextFaithfulness.metrics:
        value = readings[f"quality.{name}"]["value"]
        assert value is None or 0 <= value <= 1


def test_what_is_saved_is_what_answers(tmp_path):
    task, chosen, prepared, given, run = material()
    first = started(Kaft, given, run)
    for _ in first.build(given, run):
        pass
    first.save(tmp_path)
    second = Kaft()
    second.run = run
    second.load(tmp_path, given)
    ids = torch.from_numpy(next(iter(given.validation.slices.values()))[0])
    torch.testing.assert_close(second.answer(ids), first.answer(ids))
    for name, bad in task.bad_batches(
        None, task.hidden(chosen, "smoke", 0, prepared), types.SimpleNamespace(put=torch.from_numpy)
    ).items():
        with pytest.raises(ValueError, match="prompts are int64"):
            task.call(first, bad, name)


def test_a_model_that_does_not_know_its_facts_is_no_material():
    task, chosen, _, _, run = material()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kaft_task.PRETRAINING, "quick", 2)
        with pytest.raises(ValueError, match="says nothing"):
            task.prepare(chosen, "quick", 0, run)


@pytest.mark.slow
def test_the_mix_does_what_it_promises():
    """The pilot's picture, coarse: contradictions keep control, irrelevant contexts give robustness and alone take control away."""
    settings = {"data": "facts(batch=64)", "size": "quick", "budget": Budget(steps=400), "seconds": 0.001}
    kaft, plain, blind = (
        {
            name: exercise(ContextFaithfulness, arm, **settings, **more)["prompts", ()][f"quality.{name}"]["value"]
            for name in ("controllability", "robustness")
        }
        for arm, more in ((Kaft, {}), (StandardFineTuning, {}), (Kaft, {"counterfactual": 0.0}))
    )
    assert kaft["robustness"] > plain["robustness"] + 0.1
    assert blind["controllability"] < 0.3 < 0.7 < kaft["controllability"]


def test_the_registry_reads_the_task():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "context" in problem]
    assert {"kaft", "standard-fine-tuning", "no-context", "pretrained"} <= set(found.methods_of("context-faithfulness"))
