"""ASHA in miniature: promote whatever is in the top 1/eta of its rung so far, else start something new."""

from effbench import param

from .task import Tuner


class Asha(Tuner):
    name = "toy-asha"
    eta = param(3, sweep=[2, 3])

    def build(self, given, run):
        rungs, promoted, fresh = {1: [], 3: [], 9: []}, set(), 0
        while not given.over():
            worker, job = given.wait()
            if job is not None:
                rungs[job[1]].append((job[2], job[0]))
            for epochs in (3, 1):
                top = sorted(rungs[epochs])[: len(rungs[epochs]) // self.eta]
                ready = [c for _, c in top if (epochs, c) not in promoted]
                if ready:
                    promoted.add((epochs, ready[0]))
                    given.start(worker, ready[0], 3 * epochs, done=epochs)
                    break
            else:
                given.start(worker, fresh, 1)
                fresh += 1
