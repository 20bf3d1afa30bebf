"""The same modules, routed by the true number of the task: what routing by sketches can at best reach."""

from __future__ import annotations

from .sketch_learner import Modular


class OracleModules(Modular):
    name = "oracle-modules"

    def route(self, descriptors, task, count=None):
        return task
