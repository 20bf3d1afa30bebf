"""Context reading in runs: what is asked, what an answer costs with and without a cache, and that every arm runs."""

import numpy as np
import pytest
import torch
from effbench_implementations.context import corpus, costs
from effbench_implementations.context.corpus import UNASKED, VOCABULARY, Questions
from effbench_implementations.context.coupled import Coupled
from effbench_implementations.context.decoupled import Decoupled
from effbench_implementations.context.fusion_in_decoder import FusionInDecoder
from effbench_implementations.context.no_context import NoContext
from effbench_implementations.context.scoring import break_even, judged
from effbench_implementations.context.task import ContextTask

from effbench import Budget, Case
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

from .context_readers import ARMS, BOOK, DATA, MODES, PREPARED, TEXT, asked, call, given_of, reader

# -- questions ------------------------------------------------------------------------------------------------------------


def test_every_asked_key_is_in_the_book_once_with_its_answer():
    found = corpus.kvbook(np.random.default_rng(0), 500, 3, 16, 5)
    keys, values = found.documents[..., ::2], found.documents[..., 1::2]
    places = set()
    for i in range(5):
        place = keys == found.inputs[:, i, None, None]
        assert (place.sum((1, 2)) == 1).all() and (values[place] == found.targets[:, i]).all()
        places |= set(place.reshape(500, -1).argmax(1))
    assert places == set(range(48)) and keys.max() < 64 <= values.min() and values.max() < 128
    assert all(len(set(document)) == 16 for document in keys.reshape(-1, 16))
    for pairs, count in ((16, 49), (60, 5), (4, 0)):
        with pytest.raises(ValueError, match="room for at most"):
            corpus.kvbook(np.random.default_rng(0), 5, 2, pairs, count)


def test_text_is_asked_after_its_prompt_and_no_answer_is_in_another_document():
    windows = corpus.blocks(np.arange(120, dtype=np.uint8), 3, 40)
    found = corpus.passages(windows, 2, 12, 4)
    assert found.documents.shape == (3, 2, 12) and (found.documents.reshape(3, -1) == windows[:, :24]).all()
    assert (found.inputs == windows[:, 24:39]).all() and (found.targets[:, :3] == UNASKED).all()
    assert (found.targets[:, 3:] == windows[:, 28:]).all()
    assert len(np.unique(windows)) == windows.size
    with pytest.raises(ValueError, match="3 are needed"):
        corpus.blocks(np.zeros(100, np.uint8), 10, 40)


def test_the_library_holds_the_documents_of_the_test_and_not_its_questions():
    for data in (BOOK, TEXT):
        task = ContextTask()
        given, hidden = given_of(data), task.hidden(data, "smoke", 0, PREPARED)
        assert (given.library == hidden.questions.documents).all()
        assert not (given.validation.documents == given.library).all((1, 2)).any()
        rng = np.random.default_rng(0)
        drawn = given.draw(rng, 5)
        assert drawn.documents.shape == (5, given.documents, given.length) and drawn.inputs.shape == (5, given.n)
        assert drawn.targets.shape == drawn.inputs.shape


def test_bits_and_accuracy():
    targets = np.array([[UNASKED, 3, 5], [1, UNASKED, UNASKED]])
    even = np.zeros((2, 3, VOCABULARY))
    bits, accuracy = judged(even, targets)
    assert bits == pytest.approx([np.log2(VOCABULARY)] * 2) and (accuracy == 0).all()
    sure = even.copy()
    for row, column, value in ((0, 1, 3), (0, 2, 6), (1, 0, 1)):
        sure[row, column, value] = 100
    bits, accuracy = judged(sure, targets)
    assert accuracy.tolist() == [0.5, 1.0] and bits == pytest.approx([50 / np.log(2), 0], abs=1e-9)


# -- costs ----------------------------------------------------------------------------------------------------------------


@DATA
@pytest.mark.parametrize("arm", ARMS)
def test_the_formula_is_what_the_counter_sees(arm, data):
    method, batch = reader(arm, data), asked(data)
    caches_ = ("kv", "hidden") if arm is Decoupled else ("",)
    for cache in caches_:
        if cache:
            method.configure(cache=cache)
        for cached in (*MODES, *(("offline",) if arm in (Coupled, Decoupled) else ())):
            stated = method.flops("serve", Case("c", {"cached": cached, "batch": 4}), {}).executed
            assert stated == count_torch(call, method, batch, cached).executed

    def build():
        for _ in method.build(method.given, method.run):
            pass

    assert method.flops("build", None, {}).executed == pytest.approx(count_torch(build).executed, rel=0.01)


def test_costs_by_the_papers_formulas():
    """Sheet of formulas: n decoder tokens, m context tokens, width 4 d, each per layer."""
    method = reader(Decoupled)
    n, m, d, length, layers = 7, 36, 16, 12, 2
    own = layers * (8 * n * d**2 + 4 * n**2 * d + 4 * n * d**2 + 4 * n * m * d + 16 * n * d**2) + 2 * n * d * VOCABULARY
    assert method.online(1, "together").forward == method.online(1, "apart").forward == own
    encoded = layers * 3 * (8 * length * d**2 + 4 * length**2 * d + 16 * length * d**2)
    projected = layers * 4 * m * d**2
    assert method.offline(1).forward == encoded + projected and method.online(1, "nothing").forward == own + encoded + projected
    method.configure(cache="hidden")
    assert method.offline(1).forward == encoded and method.online(1, "together").forward == own + projected
    assert method.stored_bytes() == 4 * d
    method.configure(cache="kv")
    assert method.stored_bytes() == 4 * d * 2 * layers
    assert method.projected.numel() * 4 == method.stored_bytes() * method.given.library.size


def test_break_even():
    assert costs.break_even(100, 10, 0, 30) == [5.0]
    assert costs.break_even(100, 30, 0, 30) == [] and costs.break_even(10, 10, 20, 30) == [0.0]
    method = reader(Decoupled)
    found = break_even(method, method.given, Case("c", {"cached": "apart", "batch": 1}))
    uses = found["break-even"][0]
    rival = costs.prefill(1, 36, 0, 16, 2).forward + costs.extend(1, 7, 36, 16, 2, VOCABULARY).forward
    assert method.offline(1).forward + uses * method.online(1, "apart").forward == pytest.approx(uses * rival)
    assert break_even(reader(NoContext), method.given, Case("c", {"cached": "apart", "batch": 1})) == {}


# -- runs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_at_smoke_size(arm):
    cases = ("new-1", "regrouped-1", "cached-1", *(("offline-1",) if arm in (Coupled, Decoupled) else ()))
    data = "stdlib-text(d=16, heads=2, length=16, prompt=4, answer=8)"
    out = exercise(ContextTask, arm, data=data, budget=Budget(steps=30), learning_rate=0.01, seconds=0.001, cases=cases[-2:])
    assert out["curve"]["bits"][-1] < out["curve"]["bits"][0]
    for case in cases[-2:]:
        readings = out[case, ()]
        assert readings["serve.flops"]["how"] == "formula, counter agrees"
        if case == "cached-1":
            assert 2 < readings["quality.bits"]["value"] < 7.5 and 0 <= readings["quality.accuracy"]["value"] <= 1
            same = readings["quality.bits"]["value"] == readings["quality.bits-shuffled"]["value"]
            assert same == (arm is NoContext)
            assert ("serve.tally.cached_bytes" in readings) == (arm in (Coupled, Decoupled))


@pytest.mark.parametrize("arm", ARMS)
def test_the_reader_stored_is_the_reader_loaded(arm, tmp_path):
    first, second = reader(arm, dtype=torch.float32), reader(arm, seed=1)
    first.save(tmp_path)
    second.load(tmp_path, first.given)
    for cached in MODES:
        torch.testing.assert_close(call(second, asked(), cached), call(first, asked(), cached))


@pytest.mark.parametrize("arm", ARMS)
def test_bad_batches_are_refused(arm):
    task, method = ContextTask(), reader(arm)
    bad = task.bad_batches(task.cases[0], task.hidden(TEXT, "smoke", 0, PREPARED), method.run)
    assert len(bad) == 3
    for batch in bad.values():
        for cached in MODES:
            with pytest.raises(ValueError, match=r"document|question"):
                call(method, batch, cached)


@pytest.mark.parametrize(
    ("arm", "data", "settings", "message"),
    [
        (Coupled, "kvbook(d=16)", {"depth": 0}, "depth=0"),
        (Decoupled, "kvbook(pairs=60)", {}, "room for at most 4"),
        (Decoupled, "kvbook(documents=0)", {}, "documents must be at least 1"),
        (Decoupled, "kvbook(d=18)", {}, "4 heads"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arm, data, settings, message):
    with pytest.raises(ValueError, match=message):
        exercise(ContextTask, arm, data=data, budget=Budget(steps=1), cases=("new-1",), **settings)


def test_an_unknown_cache_and_a_missing_budget_are_refused():
    with pytest.raises(ValueError, match="none of kv, hidden"):
        Decoupled().configure(cache="disk")
    with pytest.raises(ValueError, match="budget in steps"):
        exercise(ContextTask, NoContext, data="kvbook(d=16)", cases=("new-1",))


@pytest.mark.slow
def test_a_context_is_worth_reading():
    """The key's value is found with the documents, and not with those of another question."""
    for arm in (Coupled, Decoupled, FusionInDecoder):
        out = exercise(
            ContextTask, arm, data="kvbook(pairs=4, asked=4, batch=32)", size="quick", budget=Budget(steps=1000),
            learning_rate=0.003, seconds=0.001, cases=("cached-16",),
        )["cached-16", ()]  # fmt: skip
        assert out["quality.accuracy"]["value"] > 0.9 > 0.2 > out["quality.accuracy-shuffled"]["value"]


def test_the_registry_reads_the_area():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "context" in problem]
    assert {"no-context", "coupled", "fusion-in-decoder", "decoupled-context"} <= set(found.methods_of("context-reading"))
    assert set(ContextTask.baselines) < set(found.methods_of("context-reading"))
    assert isinstance(given_of().validation, Questions)
