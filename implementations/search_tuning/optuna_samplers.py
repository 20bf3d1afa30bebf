"""Optuna's TPE and NSGA-II over the two knobs, recall and log cost as two objectives: one study serves all targets.

Ozaki et al., "Multiobjective tree-structured Parzen estimator" (JAIR 2022); Deb et al., "A fast and elitist multiobjective genetic
algorithm: NSGA-II" (2002); Akiba et al., "Optuna" (KDD 2019). Knobs are integers on the logarithmic grid. A repeated setting is
free, as for every tuner. Population 8 instead of Optuna's 50, or 48 trials would all be random. Left out: constraints, pruning.
"""

from __future__ import annotations

import importlib.util
import math

from effbench import param

from .task import KnobTuner

PATIENCE = 4  # asks for each trial: a sampler that repeats itself must end


class OptunaTuner(KnobTuner):
    """A study over both objectives; a method names its sampler."""

    def skip(self, given):
        return "" if importlib.util.find_spec("optuna") else "optuna is not installed: pip install optuna"

    def sampler(self, optuna, seed: int):
        raise NotImplementedError

    def tune(self, bench, targets, rng):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=self.sampler(optuna, int(rng.integers(2**31))), storage=None
        )
        rows, columns = bench.shape
        for _ in range(PATIENCE * bench.limit):
            trial = study.ask()
            setting = trial.suggest_int("probes", 0, rows - 1), trial.suggest_int("rescored", 0, columns - 1)
            if setting not in bench.seen and not bench.left:
                break
            recall, cost = bench.measure(*setting)
            study.tell(trial, [recall, math.log(cost)])
            if not bench.left:
                break
        return [bench.pick(target) for target in targets]


class OptunaTpe(OptunaTuner):
    name = "optuna-tpe"
    version = 1
    startup = param(10)  # random trials at the start

    def sampler(self, optuna, seed):
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup)


class OptunaNsga2(OptunaTuner):
    name = "optuna-nsga2"
    version = 1
    population = param(8)

    def sampler(self, optuna, seed):
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.population)
