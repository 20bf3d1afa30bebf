"""A growing library of small networks, each of which reads the input and the answers of earlier ones, frozen when learned.

A module is bits + parents -> 128 ReLU -> 1, its answer the sign. What a module can do without it drops, so that a call runs the
few ancestors of its module and nothing else; all examples of one depth run as one grouped product, whatever their modules.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

WIDTH = 128


class Growing:
    """A module while it learns. Inputs: the bits, then the answers of `parents` (module numbers)."""

    def __init__(self, bits: int, parents: list[int], rate: float, device):
        self.bits, self.parents, self.device, self.rate = bits, parents, device, rate
        self.up, self.down = nn.Linear(bits + len(parents), WIDTH), nn.Linear(WIDTH, 1)
        self.up.to(device), self.down.to(device)
        self.steps, self.losses, self.pruned, self.recent = 0, [], False, []
        self._start()

    def _start(self) -> None:
        self.optimiser = torch.optim.Adam([*self.up.parameters(), *self.down.parameters()], lr=self.rate)

    def margin(self, inputs):
        return self.down(torch.relu(self.up(inputs)))[:, 0]

    def learn(self, inputs, labels) -> None:
        """One step of Adam. The loss before it is a validation loss: no example comes twice."""
        loss = softplus(-labels * self.margin(inputs)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        self.losses = [*self.losses, float(loss.detach())][-4:]
        self.recent = [*self.recent, (inputs, labels)][-4:]

    def learned(self, target: float) -> bool:
        return len(self.losses) == 4 and max(self.losses) < target

    @torch.no_grad()
    def prune(self) -> int:
        """Drop the parents without which as many recent examples are right, the least useful first. Returns forward rows spent."""
        inputs, labels = (torch.cat(parts) for parts in zip(*self.recent))
        kept = list(range(len(self.parents)))

        def right(places):
            masked = inputs.clone()
            masked[:, [self.bits + i for i in range(len(self.parents)) if i not in places]] = 0
            return int((self.margin(masked) * labels > 0).sum())

        whole, spent = right(kept), len(inputs)
        alone = sorted(kept, key=lambda i: -right([j for j in kept if j != i]))
        spent += len(kept) * len(inputs)
        for i in alone:
            spent += len(inputs)
            if right([j for j in kept if j != i]) >= whole - 0.002 * len(inputs):
                kept.remove(i)
        old = self.up
        self.up = nn.Linear(self.bits + len(kept), WIDTH).to(self.device)
        columns = [*range(self.bits), *(self.bits + i for i in kept)]
        self.up.weight.data, self.up.bias.data = old.weight.data[:, columns].clone(), old.bias.data.clone()
        self.parents, self.pruned, self.losses, self.recent = [self.parents[i] for i in kept], True, [], []
        self._start()
        return spent

    def step_flops(self, n: float) -> float:
        """Matmul-like, forward and backward; nobody needs the gradient of the inputs."""
        return n * (4.0 * (self.bits + len(self.parents)) * WIDTH + 6.0 * WIDTH)


class Library:
    """Frozen modules as stacked arrays: up [M, bits + P, 128], bias [M, 128], down [M, 128], shift [M], parents [M, P] (-1: none)."""

    def __init__(self, bits: int, run):
        self.bits, self.run, self.frozen = bits, run, []
        self.parents: list[list[int]] = []
        self.stack()

    def add(self, module: Growing) -> int:
        self.frozen.append(
            [
                value.detach().cpu().numpy().copy()
                for value in (module.up.weight, module.up.bias, module.down.weight, module.down.bias)
            ]
        )
        self.parents.append(list(module.parents))
        self.stack()
        return len(self.frozen) - 1

    def stack(self) -> None:
        count, most = len(self.frozen), max([0, *map(len, self.parents)])
        arrays = {
            "up": np.zeros((count, self.bits + most, WIDTH), np.float32), "bias": np.zeros((count, 1, WIDTH), np.float32),
            "down": np.zeros((count, WIDTH, 1), np.float32), "shift": np.zeros((count, 1, 1), np.float32),
            "parents": np.full((count, most), -1),
        }  # fmt: skip
        for i, (up, bias, down, shift) in enumerate(self.frozen):
            arrays["up"][i, : up.shape[1]], arrays["bias"][i, 0] = up.T, bias
            arrays["down"][i], arrays["shift"][i] = down.T, shift
            arrays["parents"][i, : len(self.parents[i])] = self.parents[i]
        self.restore(arrays)

    def restore(self, arrays) -> None:
        self.stored = {name: arrays[name] for name in ("up", "bias", "down", "shift", "parents")}
        parents, count = self.stored["parents"], len(self.stored["up"])
        self.closure, depth = np.eye(count, dtype=bool), np.zeros(count, np.int64)
        for i in range(count):  # parents have smaller numbers
            for j in parents[i][parents[i] >= 0]:
                self.closure[i] |= self.closure[j]
                depth[i] = max(depth[i], depth[j] + 1)
        put = self.run.put
        self.needs = put(np.concatenate((self.closure, np.zeros((1, count), bool))))  # the last row, for -1, needs nothing
        self.groups = []
        for d in range(depth.max() + 1 if count else 0):
            mine = np.flatnonzero(depth == d)
            wide = self.bits + int((parents[mine] >= 0).sum(1).max())
            part = {name: put(self.stored[name][mine]) for name in ("bias", "down", "shift")}
            part["up"] = put(np.ascontiguousarray(self.stored["up"][mine][:, :wide]))
            self.groups.append((put(mine), put(np.maximum(parents[mine][:, : wide - self.bits], 0)), part, wide))

    def __len__(self) -> int:
        return len(self.stored["up"])

    @torch.no_grad()
    def outputs(self, x, needed, count=None):
        """x [n, bits], needed bool [n, M] closed under ancestors -> answers [n, M] of -1 and 1, 0 where not needed."""
        found = torch.zeros(len(x), len(self) + 0, device=x.device)
        for modules, parents, part, wide in self.groups:
            which, row = needed[:, modules].T.nonzero(as_tuple=True)  # by module
            if not len(row):
                continue
            loads = torch.bincount(which, minlength=len(modules))
            room = int(loads.max())
            place = torch.arange(len(row), device=x.device) - (loads.cumsum(0) - loads)[which]
            slots = torch.zeros(len(modules), room, dtype=torch.int64, device=x.device)
            slots[which, place] = row
            inputs = torch.cat((x[slots], found[slots[..., None], parents[:, None]]), -1)
            hidden = torch.baddbmm(part["bias"], inputs, part["up"]).relu_()
            answers = torch.baddbmm(part["shift"], hidden, part["down"])[..., 0]
            found[row, modules[which]] = torch.where(answers[which, place] > 0, 1.0, -1.0)
            if count is not None:
                count(len(modules) * room * (2.0 * wide * WIDTH + 2.0 * WIDTH), len(row) * (2.0 * wide * WIDTH + 2.0 * WIDTH))
        return found

    def answer(self, x, module, count=None):
        """The answer of module [n] to each row, 1 where it is -1 (nobody knows)."""
        if not len(self):
            return torch.ones(len(x), device=x.device)
        found = self.outputs(x, self.needs[module], count)
        return torch.where(module >= 0, found.gather(1, module.clamp(min=0)[:, None])[:, 0], 1.0)

    def chain_flops(self, module: int) -> float:
        """Of one example through a module and its ancestors."""
        wide = self.bits + (self.stored["parents"] >= 0).sum(1)
        return float((self.closure[module] * (2.0 * wide * WIDTH + 2.0 * WIDTH)).sum())
