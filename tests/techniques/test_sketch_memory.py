"""Sketch-based memory: hashing against its law, sketches against theirs, modules that stay as they are, and answers one by one."""

import math
import types

import numpy as np
import pytest
import torch
from effbench_implementations.context import sketch_modules as modules
from effbench_implementations.context import sketch_recursive as recursive
from effbench_implementations.context.sketch_memory import SketchMemory
from effbench_implementations.context.sketch_oracle import OracleModules
from effbench_implementations.context.sketch_plain import EndToEnd, Joint
from effbench_implementations.context.sketch_random import RandomModules
from effbench_implementations.context.sketch_table import SketchTable
from effbench_implementations.context.sketch_task import ParityTree, school

from effbench import Budget, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

ARMS = [SketchMemory, OracleModules, RandomModules, EndToEnd, Joint]
SMALL = "parities(bits=12, atoms=2, batch=64)"
RUN = types.SimpleNamespace(
    put=lambda array: torch.from_numpy(np.ascontiguousarray(array)), numpy=lambda tensor: tensor.numpy(), tally=lambda **counts: None, device="cpu"
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def table(bits=12, tables=4, buckets=1, threshold=0.8, m=64, seed=0):
    rng = np.random.default_rng(seed)
    return SketchTable(m, tables=tables, bits=bits, buckets=buckets, threshold=threshold, rng=rng, run=RUN)


def turned(unit, angle, rng):
    away = rng.standard_normal(unit.shape)
    away -= (away * unit).sum(1, keepdims=True) * unit
    return (math.cos(angle) * unit + math.sin(angle) * away / np.linalg.norm(away, axis=1, keepdims=True)).astype(np.float32)


def units(n, m, rng):
    found = rng.standard_normal((n, m))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


# -- the table ----------------------------------------------------------------------------------------------------------


def obeys_the_law(make):
    """Frequency of equal keys, over pairs and tables with planes of their own."""
    rng, n = np.random.default_rng(1), 1000
    for angle in (0.1, 0.3, 0.8):
        same = []
        for seed in range(5):  # 5 x 4 tables x 1000 pairs
            made, one = make(seed), units(n, 64, rng)
            keys = [made.keys(torch.from_numpy(x)) for x in (one, turned(one, angle, rng))]
            same.append((keys[0] == keys[1]).double().mean().item())
        assert np.mean(same) == pytest.approx((1 - angle / math.pi) ** 12, abs=0.02)


def test_keys_agree_as_often_as_the_angle_says():
    obeys_the_law(lambda seed: table(seed=seed))

    class NotCentred(SketchTable):
        def keys(self, sketches):
            return super().keys(sketches + 0.5)  # hyperplanes that miss the origin

    class OneBitLess(SketchTable):
        def keys(self, sketches):
            return super().keys(sketches) // 2

    for broken in (NotCentred, OneBitLess):

        def make(seed, broken=broken):
            made = table(seed=seed)
            made.__class__ = broken
            return made

        with pytest.raises(AssertionError):
            obeys_the_law(make)


def by_loop(made, query):
    """The look-up as it is described: every record of the query's buckets, then the nearest mean."""
    best, found = made.threshold, -1
    for record, seen in enumerate(made.seen):
        hit = any(
            int(made.keys(query[None])[0, t]) in [key for key, _ in seen[t].most_common(made.buckets)] for t in range(made.tables)
        )
        cosine = float(made.means[record] @ query / query.norm())
        if hit and cosine >= best:
            best, found = cosine, record
    return found


@pytest.mark.parametrize(("bits", "buckets", "threshold"), [(12, 1, 0.8), (4, 3, 0.5), (1, 2, -1.0), (20, 2, 0.0)])
def test_the_look_up_is_the_loop_over_records(bits, buckets, threshold):
    rng = np.random.default_rng(0)
    made, true = table(bits=bits, buckets=buckets, threshold=threshold), units(30, 64, rng)
    for row in true:
        made.add(torch.from_numpy(turned(np.repeat(row[None], 20, 0), 0.2, rng)))
    queries = torch.from_numpy(np.concatenate((turned(true, 0.2, rng), units(30, 64, rng))))
    found = made.look_up(queries)
    assert found.tolist() == [by_loop(made, query) for query in queries]
    assert (made.look_up(3.5 * queries) == found).all()  # of a sketch only the direction counts
    assert count_torch(made.look_up, queries).executed == pytest.approx(made.flops(60), rel=0.01)


def test_the_same_descriptor_finds_the_same_record_and_recall_is_the_theorys():
    rng = np.random.default_rng(0)
    made, true = table(threshold=0.5), units(40, 64, rng)
    for row in true:
        made.add(torch.from_numpy(row[None]))
    assert made.look_up(torch.from_numpy(true)).tolist() == list(range(40))
    for angle in (0.1, 0.3):
        recall = []
        for _ in range(30):
            recall.append((made.look_up(torch.from_numpy(turned(true, angle, rng))) == torch.arange(40)).double().mean().item())
        p = (1 - angle / math.pi) ** 12
        assert np.mean(recall) == pytest.approx(1 - (1 - p) ** 4, abs=0.06)
    assert (table().look_up(torch.from_numpy(true)) == -1).all()  # nobody is there


def test_a_table_survives_its_arrays():
    rng = np.random.default_rng(0)
    made, other, true = table(), table(seed=5), units(10, 64, rng)
    for row in true:
        made.add(torch.from_numpy(row[None]))
    other.restore(made.arrays())
    queries = torch.from_numpy(turned(true, 0.2, rng))
    assert (other.look_up(queries) == made.look_up(queries)).all() and other.bytes() == made.bytes() == 4 * 10 * 16 + 10 * 64 * 2
    with pytest.raises(ValueError, match="bits=0"):
        table(bits=0)


# -- recursive sketches -------------------------------------------------------------------------------------------------


def error_of(k, kept, recover, a=32, m=512, trials=24):
    rng = np.random.default_rng(k)
    errors = []
    matrices = [recursive.orthonormal(m, a, rng) for _ in range(k)]
    for _ in range(trials):
        parts = list(units(k, a, rng))
        s = recursive.erase(recursive.combine(parts, matrices), kept, rng)
        errors.append(np.linalg.norm(recover(s, 0, matrices, k) - parts[0]))
    return np.mean(errors)


def errors_are_the_theorys(recover):
    for k, kept, tolerance in ((1, 1.0, 0), (16, 1.0, 0.1), (48, 1.0, 0.1), (16, 0.5, 0.15), (16, 0.25, 0.15)):
        theory = math.sqrt(((k - 1) / kept + 1 / kept - 1) * 32 / 512)
        assert error_of(k, kept, recover) == pytest.approx(theory, rel=tolerance, abs=1e-5)


def test_recovery_has_the_error_that_theory_gives_it():
    errors_are_the_theorys(recursive.recover)
    for broken in (
        lambda s, i, matrices, k: matrices[i].T @ s,
        lambda s, i, matrices, k: recursive.recover(s, (i + 1) % k, matrices, k),
    ):
        with pytest.raises(AssertionError):
            errors_are_the_theorys(broken)


def test_recovery_and_erasure_are_unbiased():
    rng = np.random.default_rng(0)
    part, sums = units(1, 8, rng)[0], np.zeros(8)
    for _ in range(400):
        matrices = [recursive.orthonormal(32, 8, rng) for _ in range(2)]
        sums += recursive.recover(
            recursive.erase(recursive.combine([part, units(1, 8, rng)[0]], matrices), 0.5, rng), 0, matrices, 2
        )
    assert np.abs(sums / 400 - part).max() < 0.25
    with pytest.raises(ValueError, match="can be kept"):
        recursive.erase(part, 0.0, rng)
    with pytest.raises(ValueError, match="do not fit"):
        recursive.orthonormal(4, 5, rng)


def test_a_call_is_unrolled_to_its_parts_and_degrades_gracefully():
    rng = np.random.default_rng(0)
    attributes, parents = units(15, 32, rng), [[]] * 8 + [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13]]
    sketcher = recursive.Sketcher(512, 32, 2, rng)
    sketches = recursive.library(sketcher, attributes, parents)
    assert sketches.dtype == np.float16 and sketches.shape == (15, 512)  # whatever the depth
    assert recursive.parts_recognised(sketcher, sketches, parents) == 1
    assert recursive.parts_recognised(sketcher, sketches, [row[::-1] for row in parents]) < 0.2  # the wrong slots
    errors = [recursive.recovery_error(sketcher, sketches, attributes, kept, rng) for kept in (1.0, 0.75, 0.5, 0.25)]
    assert errors == sorted(errors) and errors[0] < 0.3 and errors[-1] < 1.5


# -- modules ------------------------------------------------------------------------------------------------------------


def grown(parents_of, bits=10, seed=0):
    torch.manual_seed(seed)
    library = modules.Library(bits, RUN)
    for parents in parents_of:
        library.add(modules.Growing(bits, parents, 1e-3, "cpu"))
    return library


def one_by_one(library, x, module):
    """A module's answer by recursion, from its own arrays."""
    up, bias, down, shift = library.frozen[module]
    inputs = np.concatenate((x, [one_by_one(library, x, parent) for parent in library.parents[module]]))
    return 1.0 if float((np.maximum(up @ inputs + bias, 0) @ down[0] + shift)[0]) > 0 else -1.0


TREE = [[], [], [0, 1], [], [1, 3], [2, 4], [5]]


def is_the_recursion(library):
    rng = np.random.default_rng(0)
    x = (2 * rng.integers(0, 2, (60, 10)) - 1).astype(np.float32)
    module = rng.integers(-1, len(TREE), 60)
    found = library.answer(torch.from_numpy(x), torch.from_numpy(module))
    assert found.tolist() == [1.0 if i < 0 else one_by_one(library, row, i) for row, i in zip(x, module)]


def test_grouped_calls_are_the_recursion_over_parents():
    is_the_recursion(grown(TREE))

    class OthersModules(modules.Library):
        def outputs(self, x, needed, count=None):
            return super().outputs(x, needed.roll(1, 0), count)  # runs the modules of another example

    broken = grown(TREE)
    broken.__class__ = OthersModules
    with pytest.raises(AssertionError):
        is_the_recursion(broken)


def test_a_call_runs_the_ancestors_and_nothing_else():
    library = grown(TREE)
    x = torch.ones(1, 10)
    for module, ancestors in ((0, 1), (2, 3), (4, 3), (5, 6), (6, 7)):
        work = []
        library.answer(x, torch.tensor([module]), lambda executed, useful, work=work: work.append((executed, useful)))
        useful = sum(one for _, one in work)
        assert useful == library.chain_flops(module) and library.closure[module].sum() == ancestors
        counted = count_torch(library.answer, x, torch.tensor([module])).executed
        assert counted == pytest.approx(sum(one for one, _ in work), rel=0.01)


def test_a_module_learns_with_what_it_needs_and_drops_the_rest():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module = modules.Growing(6, [0, 1, 2], 5e-3, "cpu")
    for _ in range(400):
        x = torch.from_numpy((2 * rng.integers(0, 2, (128, 9)) - 1).astype(np.float32))
        label = x[:, 6] * x[:, 8]  # of parents 0 and 2
        module.learn(x, label)
        if module.learned(0.01) and not module.pruned:
            module.prune()
            break
    assert module.pruned and module.parents == [0, 2] and module.up.in_features == 8
    kept = x[:, [*range(7), 8]]
    assert ((module.margin(kept) * label) > 0).double().mean() > 0.98


def test_a_training_step_costs_what_the_formula_says():
    module, x = modules.Growing(10, [0], 1e-3, "cpu"), torch.randn(50, 11)
    assert count_torch(module.learn, x, torch.ones(50)).executed == pytest.approx(module.step_flops(50), rel=0.01)


# -- the task -----------------------------------------------------------------------------------------------------------


def lessons(noise=0.1, batch=64):
    return school(12, 2, noise, batch, 64, np.random.default_rng(0))


def test_compound_tasks_are_products_and_some_bits_belong_to_nobody():
    made = school(36, 8, 0.1, 16, 64, np.random.default_rng(0))
    assert made.level.tolist() == [0] * 8 + [1] * 4 + [2] * 2 + [3] and made.supports.sum(1).tolist() == [3] * 8 + [6] * 4 + [
        12
    ] * 2 + [24]
    assert (made.supports[:8].sum(0) <= 1).all() and (~made.supports[-1]).sum() == 12
    x, descriptors, label, task = made.draw(np.array([8, 14]), np.random.default_rng(1))
    assert label[0] == x[0, made.supports[0]].prod() * x[0, made.supports[1]].prod() and label[1] == x[1, made.supports[14]].prod()
    np.testing.assert_allclose((descriptors * made.descriptors[task]).sum(1), math.cos(0.1), rtol=1e-4)
    with pytest.raises(ValueError, match="atoms must be"):
        school(36, 3, 0.1, 16, 64, np.random.default_rng(0))


def test_every_stream_has_the_same_number_of_samples_and_the_curriculum_goes_level_by_level():
    made, rng = lessons(), np.random.default_rng(0)
    streams = [list(stream(20, rng)) for stream in (made.curriculum, made.mixed, made.alone)]
    assert [sum(len(row[0]) for row in stream) for stream in streams] == [20 * 64] * 3
    levels = [made.level[row[3][0]] for row in streams[0]]
    assert levels == sorted(levels) and all(len(set(row[3])) == 1 for row in streams[0])
    assert {int(row[3][0]) for row in streams[2]} == {2} and len(set(streams[1][0][3])) == 3


def learner(arm, steps, given=None, **settings):
    method = arm(**settings)
    method.run = Run(backend=get("torch"), budget=Allowance(steps=steps), seed=0)
    method.run._counting = True
    return method, given or lessons()


def test_tasks_are_found_without_their_names_and_frozen_modules_stay():
    """Hierarchy of three: learned end to end by the memory, in seconds."""
    method, given = learner(SketchMemory, 1650, lessons(batch=128), learning_rate=0.01)
    copies = {}
    for _ in method.build(given, method.run):
        for place, frozen in enumerate(method.library.frozen):
            copies.setdefault(place, [part.copy() for part in frozen])
    for place, frozen in enumerate(method.library.frozen):
        assert all((a == b).all() for a, b in zip(frozen, copies.get(place, frozen)))
    found = method.facts(given)
    assert found["modules"] == 3 and found["false-merges"] == 0 and found["lookup-recall"] > 0.99 and found["parts-recognised"] == 1
    assert [len(parents) for parents in method.library.parents] == [0, 0, 2]
    rng = np.random.default_rng(9)
    x, descriptors, labels, task = given.draw(np.repeat(np.arange(3), 200), rng)
    said = method.answer(*map(torch.from_numpy, (x, descriptors, task)))
    assert (said.numpy() == labels).mean() > 0.99


def test_noisy_descriptors_are_found_less_often_and_never_taken_for_another():
    method, given = learner(SketchMemory, 60, lessons(noise=0.3), buckets=1)
    for _ in method.build(given, method.run):
        pass
    asked = torch.from_numpy(given.describe(np.repeat(np.arange(3), 300), np.random.default_rng(3)))
    found = method.table.look_up(asked).numpy().reshape(3, 300)
    assert 0.6 < (found >= 0).mean() < 0.9  # theory: 0.77
    names = [set(row[row >= 0]) for row in found]
    assert all(len(name) == 1 for name in names) and len(set.union(*names)) == 3


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_is_what_it_saves(arm, tmp_path):
    out = exercise(ParityTree, arm, data=SMALL, budget=Budget(steps=12), seconds=0.001)
    assert out["build"]["build.samples"]["value"] == 12 * 64
    for case in ("mixed", "one-by-one"):
        assert out[case, ()]["serve.flops"]["how"] == "formula, counter agrees"
    assert 0 <= out["mixed", ()]["quality.top-accuracy"]["value"] <= 1
    method, given = learner(arm, 9)
    counted = count_torch(lambda: [None for _ in method.build(given, method.run)]).executed
    stated = method.flops("build", None, dict(method.run._counts))
    assert counted == pytest.approx(stated.executed if stated else 9 * method.step_flops(given), rel=0.01)
    method.save(tmp_path)
    again, _ = learner(arm, 9)
    again.load(tmp_path, given)
    rng = np.random.default_rng(3)
    x, descriptors, _, task = map(torch.from_numpy, given.draw(rng.integers(0, 3, 100), rng))
    assert (again.answer(x, descriptors, task) == method.answer(x, descriptors, task)).all()
    assert again.parameters() == method.parameters() and again.facts(given) == method.facts(given)


def test_settings_that_make_no_sense_are_refused():
    for arm, settings, message in (
        (SketchMemory, {"tables": 0}, "tables=0"), (SketchMemory, {"patience": 0}, "patience"), (Joint, {"layers": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            exercise(ParityTree, arm, data=SMALL, budget=Budget(steps=1), **settings)
    with pytest.raises(ValueError, match="budget in steps"):
        exercise(ParityTree, EndToEnd, data=SMALL)


def test_the_registry_reads_the_task():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "context" in problem]
    assert {"sketch-memory", "oracle-modules", "random-modules", "end-to-end", "joint"} <= set(found.methods_of("parity-tree"))
