"""What the modular arms share: route each example to a module, let it learn, freeze it, call it. They differ in `route` alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from effbench import Flops, Log, Step, param

from . import sketch_modules as modules
from .sketch_task import Learner, School

FEW = 16  # examples of one record in a batch that are worth a step


class Modular(Learner):
    """A record (the number that `route` and `open` give) has one module, growing or frozen. `route` may answer -1: nobody."""

    learning_rate = param(0.003, tune=Log(0.0005, 0.01))  # Adam's, of every module
    patience = param(1500)  # steps after which a module is frozen whether it has learned or not

    def start(self, given: School, run) -> None:
        """Make the router."""

    def route(self, descriptors, task, count=None):
        """int64 [n] of records."""
        raise NotImplementedError

    def assign(self, descriptors, task) -> tuple[np.ndarray, list[int]]:
        """While learning: the records of a batch, and those among them that did not exist before."""
        found = self.run.numpy(self.route(descriptors, task, self._count("build")))
        new = sorted(set(found.tolist()) - self.opened - {-1})
        self.opened.update(new)
        return found, new

    def note(self, record: int, descriptors) -> None:
        """A growing record has met these descriptors again."""

    def close(self) -> None:
        """The library has grown by a module."""

    def prepare(self, given: School) -> None:
        self.given, self.library = given, modules.Library(given.bits, self.run)
        self.growing: dict[int, modules.Growing] = {}
        self.place: dict[int, int] = {}  # record -> place in the library
        self.used, self.opened = 0, set()
        self.start(given, self.run)

    def build(self, given: School, run):
        steps = self.check(given, run)
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, not {self.patience}")
        torch.manual_seed(run.seed)
        self.prepare(given)
        self.purity: list[np.ndarray] = []  # pairs (record, task) seen while learning: the arm never looks at them
        for x, descriptors, labels, task in given.curriculum(steps, np.random.default_rng((run.seed, 43))):
            put = [run.put(part) for part in (x, descriptors, labels, task)]
            found, new = self.assign(put[1], put[3])
            for record in new:
                parents = list(range(len(self.library)))
                self.growing[record] = modules.Growing(given.bits, parents, self.learning_rate, run.device)
            for record in np.unique(found[found >= 0]):
                rows = np.flatnonzero(found == record)
                if len(rows) < FEW or int(record) not in self.growing:
                    continue
                self.purity.append(np.array([record, np.bincount(task[rows]).argmax()]))
                rows = run.put(rows)
                self.learn(int(record), put[0][rows], put[1][rows], put[2][rows])
            yield Step(samples=given.batch)
        for record in sorted(self.growing):
            self.freeze(record)

    def learn(self, record: int, x, descriptors, labels) -> None:
        run, module = self.run, self.growing[record]
        self.used += len(x)
        self.note(record, descriptors)
        needed = torch.zeros(len(x), len(self.library), dtype=torch.bool, device=x.device)
        if module.parents:
            wanted = np.any(self.library.closure[module.parents], 0)
            needed |= run.put(wanted)
        outputs = self.library.outputs(x, needed, self._count("build"))
        module.learn(torch.cat((x, outputs[:, module.parents]), 1), labels)
        run.tally(learning=module.step_flops(len(x)))
        if module.learned(0.01) and not module.pruned:
            rows = module.prune()
            run.tally(learning=rows * (2.0 * (self.given.bits + len(module.parents)) + 2.0) * modules.WIDTH)
            if not self.growing[record].parents:
                return
        elif module.learned(0.01) or module.steps >= self.patience:
            self.freeze(record)

    def freeze(self, record: int) -> None:
        self.place[record] = self.library.add(self.growing.pop(record))
        self._index()
        self.close()

    def _index(self) -> None:
        """records -> places as an array; the last entry stands for -1 and for what is still learning."""
        size = 2 + max([-1, *self.place])
        table = np.full(size, -1)
        for record, place in self.place.items():
            table[record] = place
        self.places = self.run.put(table)

    def _count(self, phase: str):
        """A counter that the library and the table call with what one call executed, and what of it was useful."""

        def add(executed, useful):
            self.run.tally(**{f"{phase}-executed": executed, f"{phase}-useful": useful})

        return add

    def answer(self, x, descriptors, task):
        count = self._count("serve")
        record = self.route(descriptors, task, count)
        if not self.place:
            return torch.ones(len(x), device=x.device)
        record = torch.where(record < len(self.places) - 1, record, -1)
        return self.library.answer(x, self.places[record], count)

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(tally.get("learning", 0.0) + tally.get("build-executed", 0.0))
        return Flops(tally.get("serve-executed", 0.0), useful=tally.get("serve-useful", 0.0))

    def parameters(self) -> int:
        return sum(value.size for part in self.library.frozen for value in part) if self.library.frozen else self.loaded

    def facts(self, given: School) -> dict[str, float]:
        return {"modules": len(self.library), "samples-used": self.used, **self.merges()}

    def merges(self) -> dict[str, float]:
        """Share of learning steps of a record with a task other than that record's first."""
        first: dict[int, int] = {}
        wrong = [task != first.setdefault(int(record), int(task)) for record, task in self.purity]
        return {"false-merges": float(np.mean(wrong)) if wrong else 0.0}

    def save(self, folder: Path) -> None:
        facts = self.facts(self.given)
        np.savez(
            Path(folder) / "library.npz", places=self.run.numpy(self.places) if self.place else np.full(1, -1),
            facts=np.array(list(facts.values())), names=np.array(list(facts)), count=np.array(self.parameters()),
            **{f"library.{name}": value for name, value in self.library.stored.items()},
            **{f"router.{name}": value for name, value in self.router_arrays().items()},
        )  # fmt: skip

    def load(self, folder: Path, given: School) -> None:
        self.prepare(given)
        with np.load(Path(folder) / "library.npz", allow_pickle=False) as file:
            arrays = dict(file)
        self.library.restore({name: arrays[f"library.{name}"] for name in self.library.stored})
        self.places, self.loaded = self.run.put(arrays["places"]), int(arrays["count"])
        self.place = {i: int(place) for i, place in enumerate(arrays["places"][:-1]) if place >= 0}
        kept = dict(zip(arrays["names"].tolist(), arrays["facts"].tolist()))
        self.facts = lambda given: kept
        self.router_restore({name.removeprefix("router."): value for name, value in arrays.items() if name.startswith("router.")})

    def router_arrays(self) -> dict[str, np.ndarray]:
        return {}

    def router_restore(self, arrays) -> None:
        pass
