"""Which settings to measure next: grid, random, lagrange, and Optuna's TPE and NSGA-II, all over the same finite grid.

A sampler is a generator: it yields (point, predicted values or None) and is sent what was measured there. A point that it asks for
twice costs no second trial.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Generator, Sequence

import numpy as np

from ..api.errors import EffbenchError, suggest
from .goals import Values, Wish
from .lagrange import Asked, lagrange
from .space import Point, Space

PATIENCE = 4  # asks for each trial: a sampler that repeats itself must end
POPULATION = 8  # of NSGA-II: with Optuna's 50, a few dozen trials would all be random
Sampler = Generator[Asked, Values, None]


def grid(space: Space, wish: Wish, trials: int, seed: int, known: Sequence = ()) -> Sampler:
    """Every setting, or the evenly spaced lattice with at most `trials` of them; params outside, so that builds are shared."""
    counts = [1] * len(space.axes)
    while True:
        # The axis whose levels are sparsest grows first, as long as the lattice stays within the trials.
        growing = [a for a in range(len(counts)) if counts[a] < space.shape[a]]
        growing = [a for a in growing if math.prod(counts) // counts[a] * (counts[a] + 1) <= trials]
        if not growing:
            break
        counts[min(growing, key=lambda a: counts[a] / space.shape[a])] += 1
    axes = [
        np.unique(np.linspace(0, most - 1, count).round().astype(int)) if count > 1 else np.array([(most - 1) // 2])
        for most, count in zip(space.shape, counts)
    ]
    for flat in range(math.prod(len(axis) for axis in axes)):
        index = np.unravel_index(flat, [len(axis) for axis in axes])
        yield tuple(int(axis[i]) for axis, i in zip(axes, index)), None


def random(space: Space, wish: Wish, trials: int, seed: int, known: Sequence = ()) -> Sampler:
    """Uniform draws from the grid without repeats."""
    rng = np.random.default_rng(seed)
    seen: set[Point] = set()
    while len(seen) < min(trials, space.size):
        point = tuple(int(rng.integers(count)) for count in space.shape)
        if point not in seen:
            seen.add(point)
            yield point, None


def tpe(space: Space, wish: Wish, trials: int, seed: int, known: Sequence = ()) -> Sampler:
    """Optuna's tree-structured Parzen estimator, with the constraints as constraints."""
    import optuna

    startup = min(10, max(2, trials // 3))
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, **constrained(optuna))
    yield from study(optuna, sampler, space, wish, trials)


def nsga2(space: Space, wish: Wish, trials: int, seed: int, known: Sequence = ()) -> Sampler:
    """Optuna's NSGA-II, with the constraints as constraints and a small population."""
    import optuna

    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION, **constrained(optuna))
    yield from study(optuna, sampler, space, wish, trials)


def constrained(optuna) -> dict:
    """How a sampler of this version hears of constraints: from 5.0 on each trial says it itself."""
    if hasattr(optuna.trial.Trial, "set_constraint"):
        return {}
    return {"constraints_func": lambda trial: [value for name, value in trial.user_attrs.items() if name.startswith("over ")]}


def study(optuna, sampler, space: Space, wish: Wish, trials: int) -> Sampler:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.create_study(direction="minimize", sampler=sampler)
    seen: set[Point] = set()
    for _ in range(PATIENCE * trials):
        trial = made.ask()
        point = tuple(
            trial.suggest_int(axis.name, 0, len(axis.values) - 1)
            if axis.numeric
            else trial.suggest_categorical(axis.name, list(range(len(axis.values))))
            for axis in space.axes
        )
        values = yield point, None
        seen.add(point)
        loss = wish.loss(values)
        tell = getattr(trial, "set_constraint", trial.set_user_attr)
        for constraint in wish.constraints:
            tell(f"over {constraint}", min(constraint.distance(values.get(constraint.metric)), 1e9))
        if math.isfinite(loss):
            made.tell(trial, loss)
        else:
            made.tell(trial, state=optuna.trial.TrialState.FAIL)
        if len(seen) >= min(trials, space.size):
            return


SAMPLERS = {"lagrange": lagrange, "grid": grid, "random": random, "tpe": tpe, "nsga2": nsga2}


def choose(name: str):
    """A sampler by name; an error where it is unknown or its library is missing."""
    if name not in SAMPLERS:
        raise EffbenchError(f"unknown sampler '{name}'", where="--sampler", remedy=suggest(name, SAMPLERS))
    if name in ("tpe", "nsga2") and importlib.util.find_spec("optuna") is None:
        raise EffbenchError(
            f"sampler '{name}' needs optuna, which is not installed", where="--sampler",
            remedy="Install it (pip install optuna), or choose lagrange, random or grid.",
        )  # fmt: skip
    return SAMPLERS[name]
