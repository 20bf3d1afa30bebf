"""Decoupled context processing and its rivals: what a cache may change (nothing), what may not reach it, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from effbench_implementations.context import caches, corpus, costs
from effbench_implementations.context.corpus import PAD, UNASKED, VOCABULARY, Questions
from effbench_implementations.context.coupled import Coupled
from effbench_implementations.context.decoupled import Decoupled
from effbench_implementations.context.fusion_in_decoder import FusionInDecoder
from effbench_implementations.context.no_context import NoContext
from effbench_implementations.context.scoring import break_even, judged
from effbench_implementations.context.task import ContextTask
from effbench_implementations.shared import text

from effbench import Budget, Case, Data, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

ARMS = [NoContext, Coupled, FusionInDecoder, Decoupled]
SMALL = {"d": 16, "heads": 2, "layers": 2, "documents": 3, "batch": 4}
BOOK = Data("kvbook", {**SMALL, "pairs": 4, "asked": 3})
TEXT = Data("stdlib-text", {**SMALL, "length": 12, "prompt": 3, "answer": 5})
DATA = pytest.mark.parametrize("data", [BOOK, TEXT], ids=lambda data: data.name)
PREPARED = {"text": text.standard_library(60_000)}
MODES = ("nothing", "apart", "together")


def given_of(data=TEXT, seed=0):
    return ContextTask().given(data, "smoke", seed, PREPARED)


def reader(arm, data=TEXT, *, given=None, scale=3.0, seed=0, dtype=torch.float64, **settings):
    """A method with random weights in float64, large enough that everything it reads shows."""
    method = arm(**settings)
    method.run = Run(backend=get("torch"), budget=Allowance(steps=2), seed=seed)
    method.prepare(given or given_of(data))
    method.net.to(dtype)
    with torch.no_grad():
        for parameter in method.net.parameters():
            parameter.mul_(scale)
    method.finish()
    return method


def asked(data=TEXT, seed=0):
    hidden = ContextTask().hidden(data, "smoke", seed, PREPARED)
    run = Run(backend=get("torch"))
    return ContextTask().batches(Case("c", {"cached": "nothing", "batch": 4}), hidden, run)[0]


def call(method, batch, cached):
    return ContextTask().call(method, batch, Case("c", {"cached": cached, "batch": len(batch[0])}))


# -- a cache changes nothing ----------------------------------------------------------------------------------------------


def cache_is_true(method, data, tolerance=1e-10):
    batch = asked(data)
    for cached in ("apart", "together"):
        torch.testing.assert_close(call(method, batch, cached), call(method, batch, "nothing"), rtol=0, atol=tolerance)


@DATA
@pytest.mark.parametrize("arm", ARMS)
def test_an_answer_from_the_cache_is_the_answer(arm, data):
    cache_is_true(reader(arm, data), data)


@DATA
def test_hidden_and_key_value_cache_answer_alike(data):
    method = reader(Decoupled, data)
    for cache in ("hidden", "kv"):
        method.configure(cache=cache)
        cache_is_true(method, data)


def test_the_cache_oracle_rejects_what_is_broken():
    class Shifted(Decoupled):
        def store(self, library):
            super().store(library)
            self.projected = self.projected.roll(1, 2)  # vectors of the document beside it

    class Continued(Decoupled):
        def store(self, library):  # positions that run on over the documents of a context
            table = self.net["encoder"].positions.weight
            with torch.no_grad():
                table.copy_(table.roll(1, 0))
                super().store(library)
                table.copy_(table.roll(-1, 0))
            self.encoded_from = caches.state(self.net)

    class Wholesale(Coupled):
        def resume(self, slots, kept, documents, inputs):  # keys and values of other documents in front, taken for one's own
            if kept == 1:
                slots[:, :, :, self.given.length : self.given.context] = slots[:, :, :, : self.given.length].repeat(1, 1, 1, 2, 1)
                kept = 3
            return super().resume(slots, kept, documents, inputs)

    for broken in (Shifted, Continued, Wholesale):
        with pytest.raises(AssertionError):
            cache_is_true(reader(broken), TEXT)


def test_a_stale_cache_is_refused():
    for arm in (Coupled, Decoupled):
        method = reader(arm)
        with torch.no_grad():
            next(method.net.parameters()).mul_(1.01)
        with pytest.raises(ValueError, match="other parameters"):
            call(method, asked(), "together")
        method.finish()
        cache_is_true(method, TEXT)


# -- decoupling -----------------------------------------------------------------------------------------------------------


def order_is_free(method):
    """The order of the documents in a context, and the company they keep, change nothing."""
    inputs, documents, places = asked()
    for cached in MODES:
        first = call(method, (inputs, documents, places), cached)
        turned = call(method, (inputs, documents[:, [2, 0, 1]], places[:, [2, 0, 1]]), cached)
        torch.testing.assert_close(turned, first, rtol=0, atol=1e-10)


def test_the_order_of_documents_changes_nothing_unless_they_are_coupled():
    order_is_free(reader(Decoupled))
    order_is_free(reader(FusionInDecoder))
    with pytest.raises(AssertionError):
        order_is_free(reader(Coupled))


def test_the_question_has_no_way_into_the_stored_vectors():
    method, (_, documents, _) = reader(Decoupled), asked()
    first = method.encode(documents)
    assert torch.equal(first, method.encode(documents)) and not torch.equal(first, method.encode(documents.flip(0)))
    seen = []

    def watch(module, args):
        seen.append(args[0])

    hook = method.net["encoder"].blocks[0].norms[0].register_forward_pre_hook(watch)
    for inputs in (asked()[0], asked()[0].flip(1)):
        method.read(inputs, documents)
    hook.remove()
    assert len(seen) == 2 and torch.equal(seen[0], seen[1]) and seen[0].shape[1] == 12


def test_a_document_of_padding_changes_nothing_and_padding_is_not_read():
    given = given_of(TEXT)
    library = given.library.copy()
    library[:, 2], library[:, 1, 7:] = PAD, PAD
    padded = replace(given, library=library)
    assert padded.padded and not given.padded
    inputs, _, places = asked()
    documents = torch.from_numpy(library)
    for arm in (Decoupled, FusionInDecoder):
        method = reader(arm, given=padded)
        short = reader(arm, given=replace(padded, documents=2, library=library[:, :2]))
        out = call(method, (inputs, documents, places), "nothing")
        torch.testing.assert_close(short.read(inputs, documents[:, :2]), out, rtol=0, atol=1e-10)
        for cache in ("kv", "hidden") if arm is Decoupled else ():
            method.configure(cache=cache)
            torch.testing.assert_close(call(method, (inputs, documents, places), "together"), out, rtol=0, atol=1e-10)
        blind = reader(arm, given=replace(padded, library=given.library))  # takes padding for text
        assert not torch.allclose(blind.read(inputs, documents), out, atol=1e-3)
    assert "padding" in Coupled.skip(reader(Coupled), padded)


def test_without_cross_attention_it_is_the_arm_without_context():
    method, alone = reader(Decoupled), reader(NoContext)
    assert method.net["encoder"].tokens is method.net["decoder"].tokens  # one table, so that a query can look like a key
    with torch.no_grad():
        for block in method.net["decoder"].blocks:
            block.cross.out.weight.zero_()
    own = method.net["decoder"].state_dict()
    alone.net.load_state_dict({name: own[name] for name in alone.net.state_dict()})
    inputs, documents, _ = asked()
    torch.testing.assert_close(method.read(inputs, documents), alone.read(inputs, documents), rtol=0, atol=1e-10)
    level(alone.net), level(method.net["decoder"])
    shared = method.net["decoder"](inputs, torch.randn(4, 7, 16).double())
    torch.testing.assert_close(alone.net(inputs), shared, rtol=0, atol=1e-10)
    torch.testing.assert_close(alone.read(inputs, documents), shared, rtol=0, atol=1e-10)


def level(net):
    """Without slopes, so that a causal network is the shared one; who may be seen stays."""
    net.bias[net.bias > caches.UNSEEN / 2] = 0.0


def test_the_encoder_learns_in_training_and_not_through_the_cache():
    method, (inputs, documents, places) = reader(Decoupled), asked()
    method.logits(inputs, documents).square().mean().backward()
    encoder = [parameter for name, parameter in method.net["encoder"].named_parameters() if "tokens" not in name]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder)
    for parameter in encoder:
        parameter.grad = None
    assert not method.read_cached(inputs, documents, places, True).requires_grad
    pairs = method.projected[:, :, places.flatten()].unflatten(2, places.shape).flatten(3, 4)
    method.answer(inputs, pairs, None).square().mean().backward()
    assert all(parameter.grad is None for parameter in encoder)


# -- the rivals are what they say -----------------------------------------------------------------------------------------


@DATA
def test_coupled_in_parts_is_the_causal_network_over_the_whole_text(data):
    for depth in (1, 2):
        method, (inputs, documents, _) = reader(Coupled, data, depth=depth), asked(data)
        sloped = method.logits(inputs, documents)
        torch.testing.assert_close(method.read(inputs, documents), sloped, rtol=0, atol=1e-10)
        level(method.net)
        whole = method.net(torch.cat((documents.flatten(1), inputs), 1))[:, method.given.context :]
        assert len(method.net.blocks) == 2 * depth
        torch.testing.assert_close(method.logits(inputs, documents), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(method.read(inputs, documents), whole, rtol=0, atol=1e-10)
        assert not torch.allclose(sloped, whole, atol=1e-3)


def test_encoder_and_decoder_are_the_shared_ones_but_for_the_directions():
    method, (inputs, documents, _) = reader(Decoupled), asked()
    hidden = method.net["encoder"].encode(documents.flatten(0, 1)).unflatten(0, (4, 3)).flatten(1, 2)
    shared = method.net["decoder"](inputs, hidden)
    assert not torch.allclose(method.read(inputs, documents), shared, atol=1e-3)
    method.net["encoder"].bias.zero_()
    level(method.net["decoder"])
    torch.testing.assert_close(method.read(inputs, documents), shared, rtol=0, atol=1e-10)


def test_heads_look_left_and_right():
    bias = caches.directions(6, 5)
    seen = bias > caches.UNSEEN / 2
    assert (seen[::2] == torch.ones(5, 5).tril().bool()).all() and (seen[1::2] == torch.ones(5, 5).triu().bool()).all()
    assert bias[0, 4].tolist() == [-2, -1.5, -1, -0.5, 0] and bias[2, 4, 3] == -0.125 and (bias[4:][seen[4:]] == 0).all()
    assert (caches.directions(2, 3)[1, 0] == torch.tensor([0, -0.5, -1])).all()
    behind = caches.backwards(6, 5)
    assert ((behind > caches.UNSEEN / 2) == torch.ones(5, 5).tril().bool()).all() and (behind[:, 0, 0] == 0).all()
    assert (behind[::2] == bias[::2]).logical_or(~seen[::2]).all() and (behind[1::2] == behind[::2]).all()  # the same slopes


def test_fusion_reads_the_prompt_with_each_document_and_not_the_answer():
    method, (inputs, documents, _) = reader(FusionInDecoder), asked()
    first = method.read(inputs, documents)
    other = inputs.clone()
    other[:, 3:] = (other[:, 3:] + 1) % 128
    torch.testing.assert_close(method.read(other, documents)[:, :3], first[:, :3], rtol=0, atol=1e-10)
    other[:, 0] = (other[:, 0] + 1) % 128
    assert not torch.allclose(method.read(other, documents)[:, 2], first[:, 2], atol=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_sees_the_answer_before_it_gives_it(arm):
    method, (inputs, documents, _) = reader(arm), asked()
    other = inputs.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 128
    same = torch.isclose(method.read(other, documents), method.read(inputs, documents), atol=1e-10).all(-1)
    assert same[:, :5].all() and not same[:, 5:].any()


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
    for pairs, asked in ((16, 49), (60, 5), (4, 0)):
        with pytest.raises(ValueError, match="room for at most"):
            corpus.kvbook(np.random.default_rng(0), 5, 2, pairs, asked)


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
