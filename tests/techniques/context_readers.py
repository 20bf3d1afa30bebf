"""Readers of context with random weights that show everything they read, and what a test asks them."""

import pytest
import torch
from effbench_implementations.context.coupled import Coupled
from effbench_implementations.context.decoupled import Decoupled
from effbench_implementations.context.fusion_in_decoder import FusionInDecoder
from effbench_implementations.context.no_context import NoContext
from effbench_implementations.context.task import ContextTask
from effbench_implementations.shared import text

from effbench import Case, Data, Run
from effbench.api.run import Allowance
from effbench.backends import get

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
