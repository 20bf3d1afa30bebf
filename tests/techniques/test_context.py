"""Decoupled context processing and its rivals: what a cache may change (nothing), and what may not reach it."""

from dataclasses import replace

import pytest
import torch
from effbench_implementations.context import caches
from effbench_implementations.context.corpus import PAD
from effbench_implementations.context.coupled import Coupled
from effbench_implementations.context.decoupled import Decoupled
from effbench_implementations.context.fusion_in_decoder import FusionInDecoder
from effbench_implementations.context.no_context import NoContext

from .context_readers import ARMS, DATA, MODES, TEXT, asked, call, given_of, reader

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
