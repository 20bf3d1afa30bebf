"""Probes into answers: that they reproduce, survive save and load, and are computed rather than remembered."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from .answers import close, leaves
from .probing import answer, defaults, fresh, outputs, untimed_build
from .quality import quality
from .session import Session

COLLAPSE = 5.0  # a repeated input that is answered this many times faster than a new one was answered from memory
TOO_SHORT = 50e-6  # s; below this a call is all overhead and times say nothing
SAME = 1e-4  # relative difference that two builds of one seed may show in a quality


def seeds(worker: Any, cases: list[str]) -> dict:
    """The same seed gives the same quality; a method that calls itself deterministic answers the same for every seed."""
    session: Session = worker.session
    same = fresh(session, session.replicates)
    same.build(worker.prepared)
    if cases:
        for case in cases[:1]:
            session.method.configure(**defaults(session.method))
            first, second = (qualities(worker, one, case) for one in (session, same))
            if wrong := different(first, second):
                return answer("FAIL", f"built twice with seed {session.seed}: {wrong}")
    elif wrong := different(session.quality, same.quality):
        return answer("FAIL", f"built twice with seed {session.seed}: {wrong}")
    if not type(session.method).deterministic:
        return answer("ok", "one seed, one quality")
    if not cases:
        return answer("ok", "one seed, one quality; no answers to compare between seeds")
    other = untimed_build(worker, fresh(session), session.seed + 12345)
    for case in cases:
        for index, (mine, theirs) in enumerate(zip(outputs(worker, session, case), outputs(worker, other, case))):
            if not close(mine, theirs):
                return answer("FAIL", f"deterministic = True, but another seed answers batch {index} of {case} differently")
    return answer("ok", "one seed, one quality; deterministic over seeds")


def qualities(worker: Any, session: Session, case: str) -> dict:
    task, home = session.task, worker.session
    scored = task.score(session.method, session.given, home.hidden, home.case(case), outputs(worker, session, case))
    return quality(home.task.metrics, [scored])[0]


def different(first: dict, second: dict) -> str:
    for name, reading in first.items():
        a, b = reading["value"], second[name]["value"]
        if a != b and (a is None or b is None or abs(a - b) > SAME * max(abs(a), abs(b))):
            return f"{name} is {a} and then {b}"
    return ""


def cached(worker: Any, case: str) -> dict:
    """No answer comes from memory: not by the identity of an input, not by its content."""
    session: Session = worker.session
    task, method, found, backend = session.task, session.method, session.case(case), session.backend
    method.configure(**defaults(method))
    batches = session.batches(case)

    def call(batch):
        output = task.call(method, batch, found)
        backend.synchronise(output)
        return output

    host = backend.to_numpy(batches[0])
    leaf = first_float(host)
    if leaf is None:
        return answer("n.a.", "the batch holds no array of floats to perturb")
    # The same object with changed content.
    changed = rebuilt(batches[0], host, session.method.run, 0.0)
    before = backend.to_numpy(call(changed))
    if overwrite(changed, batches[1], backend):
        after, expected = backend.to_numpy(call(changed)), backend.to_numpy(call(batches[1]))
        if not close(expected, before) and not close(after, expected):
            return answer("FAIL", f"{case}: the same object with other content gets the answer to its old content")
    # A new input against the same input again, in turns: minima, since another load only adds.
    fresh, repeated = [], []
    call(batches[0])
    for number in range(1, 8):
        new = rebuilt(batches[0], host, session.method.run, 1e-4 * number)
        for batch, times in ((new, fresh), (batches[0], repeated)):
            start = time.perf_counter()
            output = call(batch)
            times.append(time.perf_counter() - start)
    new_time, old_time = min(fresh), statistics.median(repeated)
    if new_time > TOO_SHORT and old_time * COLLAPSE < new_time:
        text = f"{case}: a new input takes {new_time:.3g} s, one seen before {old_time:.3g} s: its answers come from memory"
        return answer("FAIL", text)
    far = rebuilt(batches[0], host, session.method.run, 0.5)
    if same_bytes(backend.to_numpy(output), backend.to_numpy(call(far))) and np.asarray(first_float(host)).size > 1:
        others = [backend.to_numpy(call(batch)) for batch in batches[1:]]
        if all(same_bytes(backend.to_numpy(output), other) for other in others):
            return answer("FAIL", f"{case}: every input gets the same answer")
    return answer("ok", f"{case}: new input {new_time:.2g} s, seen before {old_time:.2g} s")


def first_float(tree: Any):
    return next((leaf for leaf in leaves(tree) if getattr(leaf, "dtype", None) is not None and leaf.dtype.kind == "f"), None)


def rebuilt(batch: Any, host: Any, run: Any, noise: float) -> Any:
    """A new batch of the same shapes on the device; floats moved by `noise` times their spread."""
    if isinstance(host, dict):
        return {key: rebuilt(batch[key], host[key], run, noise) for key in host}
    if isinstance(host, (list, tuple)):
        parts = [rebuilt(b, h, run, noise) for b, h in zip(batch, host)]
        return type(host)(*parts) if hasattr(host, "_fields") else type(host)(parts)
    if not isinstance(host, np.ndarray) or host.dtype.kind != "f" or not hasattr(batch, "dtype"):
        return batch
    spread = float(host.std()) or 1.0
    moved = host + (noise * spread * np.random.default_rng(7).standard_normal(host.shape)).astype(host.dtype)
    made = run.put(np.ascontiguousarray(moved, dtype=host.dtype))
    if made.dtype == batch.dtype:
        return made
    return made.astype(batch.dtype) if hasattr(made, "astype") else made.to(batch.dtype)


def overwrite(target: Any, source: Any, backend: Any) -> bool:
    """Put the content of `source` into the arrays of `target`; False where they cannot be written or do not fit."""
    if isinstance(target, dict):
        return all(overwrite(target[key], source[key], backend) for key in target)
    if isinstance(target, (list, tuple)):
        return len(target) == len(source) and all(overwrite(t, s, backend) for t, s in zip(target, source))
    if getattr(target, "shape", None) is None or getattr(source, "shape", None) != target.shape:
        return False
    try:
        target[...] = source
    except Exception:  # an array that cannot change needs no check
        return False
    return True


def same_bytes(a: Any, b: Any) -> bool:
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(leaves(a), leaves(b)))


def keeping(worker: Any, cases: list[str]) -> dict:
    """Saved and loaded, the method answers the same; the files hold data only."""
    session: Session = worker.session
    cls = type(session.method)
    if (cls.save is None) != (cls.load is None):
        return answer("FAIL", f"has {'load' if cls.save is None else 'save'} without the other one of the pair")
    if cls.save is None:
        return answer("n.a.", "the method does not save itself")
    folder = Path(os.environ["HOME"]) / "saved"
    folder.mkdir(exist_ok=True)
    session.method.save(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        return answer("FAIL", "save wrote no file")
    for path in files:
        if wrong := opaque(path):
            return answer("FAIL", f"{path.name}: {wrong}")
    loaded = fresh(session)
    loaded.build(worker.prepared, restore=folder)
    for case in cases:
        for mine, theirs in zip(outputs(worker, session, case), outputs(worker, loaded, case)):
            if not close(mine, theirs):
                return answer("FAIL", f"after save and load it answers {case} differently")
    if not cases and different_rows(session, loaded):
        return answer("FAIL", f"after save and load it evaluates differently: {different_rows(session, loaded)}")
    return answer("ok", ", ".join(f"{path.name} {path.stat().st_size} B" for path in files)[:120])


def different_rows(session: Session, loaded: Session) -> str:
    first, second = (one.task.evaluate(one.method, one.given) for one in (session, loaded))
    return next((f"{n} {v:.6g} and {second[n]:.6g}" for n, v in first.items() if abs(v - second[n]) > SAME * max(abs(v), 1e-9)), "")


def opaque(path: Path) -> str:
    """Why a saved file is not plain data, or ""."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix in (".npy", ".npz"):
            stored = np.load(path, allow_pickle=False)
            if path.suffix == ".npz":
                with stored:
                    for name in stored.files:
                        stored[name]
        elif path.suffix == ".safetensors":
            with path.open("rb") as stream:
                json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), 1 << 26)))
        else:
            return "only .npy, .npz, .json and .safetensors are plain data"
    except (ValueError, OSError, EOFError) as error:
        return f"cannot be read without pickle ({str(error)[:100]})"
    return ""
