"""One training run in which columns are picked in rounds: what Sequential Attention, the one-shot mask and Sequential LASSO share.

A warm-up in which all columns count alike, then `rounds` equal parts; at the end of each, `features_per_round` open columns are
picked by a score of the technique's. The network keeps its weights from round to round, unless the technique starts anew.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Choice, Log, Step, param

from . import network
from .task import Selector


def round_ends(steps: int, rounds: int, warm_up: float) -> tuple[int, list[int]]:
    """Where the warm-up ends, and each round: counts of steps done, the last is `steps`. ValueError where a round has no step."""
    if not 0 <= warm_up < 1:
        raise ValueError(f"warm_up={warm_up} must be a share of the training, 0 or more and below 1")
    begin = int(warm_up * steps)
    if steps - begin < rounds:
        raise ValueError(
            f"{steps} steps, {begin} of them warm-up, cannot hold {rounds} rounds: raise the budget or features_per_round"
        )
    return begin, [begin + (i + 1) * (steps - begin) // rounds for i in range(rounds)]


class Rounds(Selector):
    """A technique gives `begin`, `mask`, `penalty` and `scores`; `open` is the bool vector of the columns not yet picked."""

    selection_rate = param(0.003, tune=Log(0.0003, 0.03))  # Adam's, of the selection run
    selection_share = param(1.0)  # steps of the selection run over those of the final training
    warm_up = param(0.1, tune=Choice(0.1, 0.3, 0.5))  # share of the steps; 0.1 is the source's
    features_per_round = param(1, sweep=(1, 5))
    restart = False  # a new network for every round, and the whole number of steps for each
    early = False  # pick at the first step of a round, not after its last

    def per_round(self, given) -> int:
        return self.features_per_round

    def begin(self, features: int, run) -> list[dict]:
        """Parameters of the technique's own, as groups for Adam."""
        return []

    def renew(self, optimiser) -> None:
        """After a pick."""

    def mask(self, open_: torch.Tensor) -> torch.Tensor | None:
        """The factor of each column after the warm-up, [d]; None for ones."""
        return None

    def penalty(self, net, open_: torch.Tensor):
        """Added to the loss after the warm-up."""
        return 0.0

    def scores(self, net) -> torch.Tensor:
        """[d]; the largest of the open ones are picked."""
        raise TypeError(f"method '{self.name}' has no scores()")

    def select(self, given, run):
        rows, features = given.x.shape
        each = self.per_round(given)
        if each < 1:
            raise ValueError(f"features_per_round={each} must be at least 1")
        if not self.selection_share > 0:
            raise ValueError(f"selection_share={self.selection_share} must be positive")
        rounds = -(-given.k // each)
        steps = round(self.selection_share * run.budget.steps)
        begin, ends = round_ends(steps, rounds, self.warm_up)
        if self.restart:  # a pass for each round; the warm-up is in the first alone
            ends = [steps * (i + 1) for i in range(rounds)]
        rng = np.random.default_rng((run.seed, 5))
        x, y = run.put(given.x), run.put(given.y)
        start = lambda: network.Network.initial(features, given.hidden, given.classes, rng, run)  # noqa: E731
        net, own = start(), self.begin(features, run)
        optimiser, rates = self.optimiser(net, own)
        picked: list[int] = []
        open_ = torch.ones(features, dtype=torch.bool, device=x.device)
        total, last, done = ends[-1], 0, set(ends)
        for step, rows_ in enumerate(network.batches(rows, given.batch, total, rng, run)):
            if self.early and (step == begin or step in done):
                self.pick(net, optimiser, open_, picked, min(each, given.k - len(picked)))
            place = (step - last, steps) if self.restart else (step, total)
            network.decay(optimiser, rates, *place)
            optimiser.zero_grad()
            warm = step < begin
            loss = net.loss(x[rows_], y[rows_], None if warm else self.mask(open_))
            if not warm:
                loss = loss + self.penalty(net, open_)
            loss.backward()
            optimiser.step()
            if not self.early and step + 1 in done:
                self.pick(net, optimiser, open_, picked, min(each, given.k - len(picked)))
                if self.restart and step + 1 < total:
                    net, last = start(), step + 1
                    optimiser, rates = self.optimiser(net, own)
            yield Step(steps=0, samples=len(rows_))
        self.spent = total * network.step_flops(features, given.hidden, given.classes, min(given.batch, rows))
        return np.array(picked)

    def optimiser(self, net, own: list[dict]):
        groups = [{"params": net.parameters, "lr": self.selection_rate}, *own]
        return network.adam([dict(group) for group in groups]), [group["lr"] for group in groups]

    def pick(self, net, optimiser, open_, picked: list[int], count: int) -> None:
        if count < 1:
            return
        with torch.no_grad():
            best = self.scores(net).masked_fill(~open_, float("-inf")).topk(count).indices
            open_[best] = False
            picked += best.tolist()
            self.renew(optimiser)
