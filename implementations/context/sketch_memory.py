"""Sketch-based modular memory: a hash of an example's sketch finds the module that knows its task; what is new gets a new module.

Deng, Panigrahy and others, Provable Hierarchical Lifelong Learning with a Sketch-based Modular Architecture, arXiv 2112.10919; sketches of
calls after arXiv 1905.12730. A new module reads the input and the answers of all modules learned before it, so that tasks made
of tasks are learned one step at a time; learned modules are frozen. The routing program is ours (the effbench variant): each
example is looked up by itself, and where more than half of a batch is new, the nearest half of it opens a record. Left out:
learned sketches, forgetting, more than one module for a sketch.
"""

from __future__ import annotations

import numpy as np

from effbench import Bound, Claim, param

from . import sketch_recursive as recursive
from .sketch_learner import FEW, Modular
from .sketch_table import SketchTable


class SketchMemory(Modular):
    name = "sketch-memory"
    claims = (
        Claim(
            "Tasks made of tasks are learned that training end to end fails on, and tasks are found without being named",
            "arXiv 2112.10919, abstract",
            parts=(
                Bound("quality.level-0-accuracy", ">=", 0.99, case="mixed"),
                Bound("quality.level-1-accuracy", ">=", 0.99, case="mixed"),
                Bound("quality.level-2-accuracy", ">=", 0.99, case="mixed"),
                Bound("quality.top-accuracy", ">=", 0.99, case="mixed"),
                Bound("quality.top-accuracy", ">=", 1.65, over="end-to-end", case="mixed"),
                Bound("quality.accuracy", ">=", 0.99, over="oracle-modules", case="mixed"),
                Bound("quality.top-accuracy", ">=", 1.05, over="joint", case="mixed"),
            ),
            partly=(0, 1, 2, 3, 4),
            size="quick",
        ),
        Claim(
            "Sketches of calls can be unrolled, and degrade gracefully where a part of them is erased",
            "arXiv 1905.12730, abstract",
            parts=(Bound("quality.parts-recognised", ">=", 0.95, case="mixed"),),
            size="quick",
        ),
    )

    bits = param(12, sweep=(8, 12, 16))  # of a key
    tables = param(4, sweep=(1, 4, 8))
    buckets = param(4, sweep=(1, 4))  # of each table that a record occupies
    threshold = param(0.8)  # cosine
    sketch = param(512)  # numbers of the sketch of a call

    def start(self, given, run):
        rng = np.random.default_rng((run.seed, 44))
        self.table = SketchTable(
            given.descriptors.shape[1], tables=self.tables, bits=self.bits, buckets=self.buckets, threshold=self.threshold, rng=rng, run=run,
        )  # fmt: skip

    def route(self, descriptors, task, count=None):
        if count is not None:
            work = self.table.flops(len(descriptors))
            count(work, work)
        return self.table.look_up(descriptors)

    def assign(self, descriptors, task):
        found = self.route(descriptors, task, self._count("build"))
        lost = descriptors[found < 0]
        if 2 * len(lost) <= len(descriptors) or len(lost) < FEW:
            return self.run.numpy(found), []
        unit = lost / lost.norm(dim=1, keepdim=True).clamp(min=1e-12)
        near = unit @ unit.T >= self.threshold
        members = near[near.sum(1).argmax()]  # of the sketch that most others are near to
        self.run.tally(learning=2.0 * len(unit) ** 2 * unit.shape[1])
        if 2 * int(members.sum()) <= len(lost):  # no half of them alike: nothing that a module could be about
            return self.run.numpy(found), []
        new = self.table.add(unit[members])
        self.run.tally(learning=2.0 * int(members.sum()) * self.table.m * self.table.tables * self.table.bits)
        return self.run.numpy(self.route(descriptors, task, self._count("build"))), [new]

    def note(self, record, descriptors):
        self.run.tally(learning=2.0 * len(descriptors) * self.table.m * self.table.tables * self.table.bits)
        self.table.learn(record, descriptors)
        if self.growing[record].steps % 10 == 0:
            self.table.file()

    def close(self):
        self.table.file()

    def facts(self, given):
        rng = np.random.default_rng((self.run.seed, 45))
        parents = self.library.parents
        order = sorted(self.place, key=self.place.get)
        attributes = self.table.stored["means"][order]
        sketcher = recursive.Sketcher(self.sketch, given.descriptors.shape[1], max([1, *map(len, parents)]), rng)
        sketches = recursive.library(sketcher, attributes, parents)
        asked = given.describe(np.repeat(np.arange(given.tasks), 64), rng)
        return {
            **super().facts(given),
            "lookup-recall": float((self.table.look_up(self.run.put(asked)) >= 0).float().mean()),
            "erased-error": recursive.recovery_error(sketcher, sketches, attributes, 0.25, rng),
            "parts-recognised": recursive.parts_recognised(sketcher, sketches, parents),
        }

    def router_arrays(self):
        return self.table.arrays()

    def router_restore(self, arrays):
        self.table.restore(arrays)
