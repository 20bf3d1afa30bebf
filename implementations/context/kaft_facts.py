"""Worlds of facts (entity, relation) -> answer, and prompts about them in which the context agrees, contradicts or says nothing.

A prompt is int64 [statements + 1, 3]: each statement is (name, relation, answer), the last row asks (name, relation, QUERY). An
entity may have several names (aliases); some names belong to fictional entities, which have no facts.
"""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PAD, QUERY, FIRST = 0, 1, 2  # symbols: a hole, the question mark, and the first name
RELEVANT, COUNTERFACTUAL, IRRELEVANT, EMPTY = range(4)
TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True, eq=False)
class World:
    """facts int64 [entities, relations] of answers; names int64 [names]: the entity of each name, -1 where it is fictional.

    answers: one array of answers for each relation. part int64 [entities]: TRAIN, VALIDATION or TEST. swaps: for each part and
    relation the answers that may replace the true one; no two parts share any.
    """

    facts: np.ndarray
    names: np.ndarray
    answers: tuple[np.ndarray, ...]
    part: np.ndarray
    swaps: tuple[tuple[np.ndarray, ...], ...]
    twin: np.ndarray  # int64 [names]: another name of the same entity, or the name itself

    @property
    def relations(self) -> int:
        return len(self.answers)

    @property
    def count(self) -> int:
        """Answers in all."""
        return 1 + max(int(group.max()) for group in self.answers)

    @property
    def symbols(self) -> int:
        return FIRST + len(self.names) + self.relations + self.count

    def truth(self, name, relation):
        return self.facts[self.names[name], relation]

    def questions(self, part: int | None) -> tuple[np.ndarray, np.ndarray]:
        """All (name, relation) about the entities of a part; None: of all parts; fictional names never."""
        chosen = (self.names >= 0) if part is None else (self.names >= 0) & (self.part[self.names] == part)
        return tuple(side.ravel() for side in np.meshgrid(np.flatnonzero(chosen), np.arange(self.relations), indexing="ij"))


def world(facts, groups, aliases, fictional: int, rng, *, held_out: float = 1 / 3) -> World:
    """Split entities and swapped answers.

    groups int64 [relations, width]: the answers of each relation, padded with -1; aliases int64 [names]: the entity of each name
    (a function of the library is known as `dumps` and as `pickle.dumps`).
    """
    entities, answers = len(facts), [group[group >= 0] for group in groups]
    test, validation = round(held_out * entities), max(1, round(entities / 12))
    part = np.full(entities, TRAIN)
    order = rng.permutation(entities)
    part[order[:test]], part[order[test : test + validation]] = TEST, VALIDATION
    swaps = []
    for group in answers:
        if len(group) < 6:
            raise ValueError(f"a relation needs 6 answers, for three parts with swaps of their own; one has {len(group)}")
        mixed, a, b = rng.permutation(group), max(2, len(group) // 8), max(2, len(group) // 4)
        swaps.append((mixed[a + b :], mixed[:a], mixed[a : a + b]))
    names = np.concatenate((aliases, np.full(fictional, -1)))
    twin = np.arange(len(names))
    for entity in range(entities):
        mine = np.flatnonzero(aliases == entity)
        twin[mine] = np.roll(mine, 1)
    return World(facts, names, tuple(answers), part, tuple(zip(*swaps)), twin)


def synthetic(entities: int, relations: int, answers: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """A random table of facts int64 [entities, relations], and the answers that each relation may have: here all."""
    return rng.integers(0, answers, (entities, relations)), np.tile(np.arange(answers), (relations, 1))


def library_functions() -> list[tuple[str, ...]]:
    """(name, module, first call, number of parameters, number of statements) of functions with unique names in Python's library.

    Only what `ast` reads from the modules at its root. The facts depend on the Python version.
    """
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if path.stem.startswith("_"):
            continue
        body = ast.parse(path.read_bytes()).body
        inner = [node for part in body if isinstance(part, ast.ClassDef) for node in part.body]
        for node in (*body, *inner):
            if isinstance(node, ast.FunctionDef):
                calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
                call = next((getattr(func, "id", getattr(func, "attr", "")) for func in calls), "")
                parameters = sum(
                    arg.arg not in ("self", "cls") for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                )
                found.append((node.name, path.stem, call, str(min(parameters, 6)), str(min(len(node.body), 12))))
    often = Counter(row[0] for row in found)
    return [row for row in found if often[row[0]] == 1]


def library(entities: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """The four facts about functions of Python's library, and each relation's answers, padded with -1."""
    rows = library_functions()
    kept = [sorted(v for v, _ in Counter(row[column] for row in rows if row[column]).most_common(24)) for column in range(1, 5)]
    rows = [row for row in rows if all(value in group for value, group in zip(row[1:], kept))]
    if len(rows) < entities:
        raise ValueError(f"the library has {len(rows)} such functions, {entities} were asked for")
    rows = [rows[i] for i in np.sort(rng.choice(len(rows), entities, replace=False))]
    codes = {pair: code for code, pair in enumerate((column, value) for column, group in enumerate(kept) for value in group)}
    groups = np.full((4, max(map(len, kept))), -1)
    for column, group in enumerate(kept):
        groups[column, : len(group)] = [codes[column, value] for value in group]
    return np.array([[codes[pair] for pair in enumerate(row[1:])] for row in rows]), groups


# Prompts ----------------------------------------------------------------------------------------------------------------


def pick(groups, relation: np.ndarray, rng, *, avoid: np.ndarray | None = None) -> np.ndarray:
    """A random answer of each relation's group, other than `avoid`."""
    width = max(len(group) for group in groups)
    table = np.array([np.pad(group, (0, width - len(group))) for group in groups])
    size = np.array([len(group) for group in groups])[relation]
    draw, step = rng.random(relation.shape), rng.random(relation.shape)
    place = (draw * size).astype(np.int64)
    found = table[relation, place]
    if avoid is None:
        return found
    other = table[relation, (place + 1 + (step * (size - 1)).astype(np.int64)) % size]
    return np.where(found == avoid, other, found)


def prompts(
    world: World, kind: np.ndarray, name: np.ndarray, relation: np.ndarray, part: int, statements: int, rng, *, random: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int64 [n, statements + 1, 3], stated int64 [n]): what the context says about the question, the truth where nothing.

    Distractors are about entities of the same part, one in four about the asked entity in another relation; a `random` share of
    them is false. All draws are made for every row whatever its kind, so that two mixes differ in nothing but the kind.
    """
    n, names = len(name), np.flatnonzero((world.names >= 0) & (world.part[world.names] == part))
    truth, pool = world.truth(name, relation), world.swaps[part]
    about = rng.choice(names, (n, statements))
    about = np.where(rng.random((n, statements)) < 0.25, name[:, None], about)
    other = rng.integers(0, world.relations, (n, statements))
    asked = (world.names[about] == world.names[name][:, None]) & (other == relation[:, None])
    other = np.where(asked, (other + rng.integers(1, world.relations, (n, statements))) % world.relations, other)
    answer = np.where(rng.random((n, statements)) < random, pick(pool, other, rng), world.truth(about, other))
    swapped = pick(pool, relation, rng, avoid=truth)
    stated = np.where(kind == COUNTERFACTUAL, swapped, truth)
    informed = (kind == RELEVANT) | (kind == COUNTERFACTUAL)
    second = world.twin[name]
    twice = (second != name) & (rng.random(n) < 0.5)
    for place, who, where in ((0, name, informed), (1, second, informed & twice)):
        about[:, place] = np.where(where, who, about[:, place])
        other[:, place] = np.where(where, relation, other[:, place])
        answer[:, place] = np.where(where, stated, answer[:, place])
    order = rng.permuted(np.broadcast_to(np.arange(statements), (n, statements)), axis=1)
    rows = np.stack((about, other, answer), -1)[np.arange(n)[:, None], order]
    return assemble(world, rows, name, relation, kind == EMPTY), stated


def assemble(world: World, rows: np.ndarray, name: np.ndarray, relation: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Statements [n, s, 3] of names, relations and answers, and the questions, as ids of symbols."""
    offsets = np.array([FIRST, FIRST + len(world.names), FIRST + len(world.names) + world.relations])
    ids = np.where(empty[:, None, None], PAD, rows + offsets)
    asked = np.stack((name + offsets[0], relation + offsets[1], np.full(len(name), QUERY)), -1)
    return np.concatenate((ids, asked[:, None]), 1).astype(np.int64)


def closed_book(world: World, name: np.ndarray, relation: np.ndarray, statements: int) -> np.ndarray:
    """The questions without a context."""
    return assemble(world, np.zeros((len(name), statements, 3), np.int64), name, relation, np.ones(len(name), bool))


def reading(world: World, n: int, statements: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Prompts about fictional entities, with fresh answers each time: only the context can tell. (ids, answers)."""
    names = np.flatnonzero(world.names < 0)
    name, relation = rng.choice(names, n), rng.integers(0, world.relations, n)
    about = np.where(rng.random((n, statements)) < 0.25, name[:, None], rng.choice(names, (n, statements)))
    other = rng.integers(0, world.relations, (n, statements))
    asked = (about == name[:, None]) & (other == relation[:, None])
    other = np.where(asked, (other + rng.integers(1, world.relations, (n, statements))) % world.relations, other)
    answer = pick(world.answers, other, rng)
    place = rng.integers(0, statements, n)
    rows = np.arange(n)
    about[rows, place], other[rows, place] = name, relation
    target = answer[rows, place] = pick(world.answers, relation, rng)
    return assemble(world, np.stack((about, other, answer), -1), name, relation, np.zeros(n, bool)), target
