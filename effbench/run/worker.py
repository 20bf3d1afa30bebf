"""The child's side: reads commands from its socket, drives a Session, answers with plain JSON.

An exception in a method becomes a status and a reason; it never ends more than its own trial.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..api.errors import EffbenchError, Wrong
from ..api.values import Budget, Data
from ..backends import get
from ..plan.origins import Origin, digest_files, loaded_digest, mount
from .session import Session, Skipped

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
PROTOCOL = 1  # raised when commands or answers change, so that a comparison of commits can say it
TURN_SAMPLES = 30  # raw samples that one turn sends back


class Worker:
    def __init__(self, channel: socket.socket):
        self.channel = channel
        self.pid = os.getpid()
        self.id = 0  # of the request that is being answered
        self.session: Session | None = None
        self.backend: Any = None
        self.kit: Any = None  # events and buffers of the CUDA device, made when first needed
        self.origins: list[Origin] = []
        self.params: dict[str, Any] = {}
        self.prepared: dict[str, Any] = {}

    def serve(self) -> None:
        stream = self.channel.makefile("rb")
        for line in stream:
            request = json.loads(line)
            self.id = request.pop("id")
            try:
                answer = getattr(self, "do_" + request.pop("op"))(**request)
                self.send({"status": "ok", **(answer or {})})
            except BaseException as error:
                self.send(self.failure(error))
                if isinstance(error, (SystemExit, KeyboardInterrupt)):
                    return

    def send(self, message: dict) -> None:
        if os.getpid() != self.pid:
            os._exit(70)  # a method forked and its child came back into the engine
        self.channel.sendall(json.dumps({"id": self.id, **message}, default=float).encode() + b"\n")

    def failure(self, error: BaseException) -> dict:
        try:
            traceback.print_exc()
        except Exception:
            pass  # a method may have closed or replaced stderr
        if self.backend is not None and self.backend.is_out_of_memory(error):
            return {"status": "memory", "reason": f"out of memory: {first_line(error)}"}
        if isinstance(error, MemoryError):
            return {"status": "memory", "reason": "out of memory"}
        if isinstance(error, Wrong):
            return {"status": "wrong", "reason": first_line(error)}
        if isinstance(error, Skipped):
            return {"status": "skipped", "reason": first_line(error)}
        if isinstance(error, NotImplementedError):
            return {"status": "skipped", "reason": first_line(error) or "not implemented"}
        if isinstance(error, EffbenchError):
            return {"status": "error", "reason": text_of(error)[:600]}
        if isinstance(error, OSError) and error.errno in FULL:
            # The parent looks whether that is so; it is not the method's fault then.
            return {"status": "full", "reason": f"{type(error).__name__}: {first_line(error)}{place(error)}"}
        return {"status": "error", "reason": f"{type(error).__name__}: {first_line(error)}{place(error)}"}

    # -- commands -----------------------------------------------------------------------------------------------------

    def do_open(self, *, origins: list, task: list, method: list, like: list | None, trial: dict, cores: list[int]) -> dict:
        """Load the technique from its folder, settle threads and cores."""
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        if self.session is not None:  # a comparison times several methods in one process, one after the other
            self.session = None
            gc.collect()
        self.origins = [Origin(package, Path(folder), source) for package, folder, source in origins]
        wanted = {reference[0].split(".")[0] for reference in (task, method, like) if reference}
        for origin in self.origins:
            try:
                mount(origin)
            except Exception:
                if origin.package.split(".")[0] in wanted:
                    raise
                traceback.print_exc()  # another package's trouble; what is asked for here does not need it
        start = time.perf_counter()
        self.backend = get(trial["backend"])
        reason = self.backend.available(trial["device"])
        if reason:
            raise Skipped(reason)
        self.backend.pin_threads(trial["threads"])
        task_class, method_class = load(task), load(method[:2])
        self.params = method[2]
        like_class = load(like[:2]) if like else None
        self.session = Session(
            task_class(), lambda: method_class(**method[2]), backend=self.backend, data=Data(trial["data"][0], trial["data"][1]),
            size=trial["size"], seed=trial["seed"], device=trial["device"], dtype=trial["dtype"], threads=trial["threads"],
            budget=Budget(**trial["budget"]) if trial["budget"] else None, like=(lambda: like_class(**like[2])) if like else None,
            replicates=trial["replicates"], tuning=trial["tuning"], announce=lambda text: self.send({"progress": text}),
        )  # fmt: skip
        own = next(origin for origin in self.origins if method[0].split(".")[0] == origin.package.split(".")[0])
        return {"loaded": loaded_digest(own), "import": time.perf_counter() - start}

    def do_prepare(self, *, path: str) -> dict:
        """Make the prepared material and keep it as npz, by rename so that a torn file is never read."""
        import numpy as np

        made, seconds = self.session.prepare()
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        arrays = {name: np.asarray(value) for name, value in made.items()}
        bad = [name for name, value in arrays.items() if value.dtype.hasobject]
        if bad:
            raise Wrong(f"prepared material {bad} holds Python objects; only arrays, numbers and text can be kept")
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, target)
        return {"seconds": seconds, "bytes": target.stat().st_size}

    def do_build(self, *, prepared: str, artifact: str, restore: bool) -> dict:
        session = self.session
        self.prepared = read_prepared(prepared)
        session.build(self.prepared, restore=Path(artifact) if restore else None)
        if not restore and artifact:
            session.store(Path(artifact))
        return {"readings": session.build_readings, "quality": session.quality, "curve": session.curve, "notes": session.notes,
                "loaded": self.do_digest()["loaded"]}  # fmt: skip

    def do_digest(self) -> dict:
        module = type(self.session.method).__module__
        own = next(origin for origin in self.origins if module.split(".")[0] == origin.package.split(".")[0])
        return {"loaded": loaded_digest(own)}

    def do_files(self) -> dict:
        """Every technique file that this process has imported, by module, with the digest of what lies on the disk."""
        found = {}
        for origin in self.origins:
            folder = origin.folder.resolve()
            for name, module in list(sys.modules.items()):
                path = getattr(module, "__file__", None)
                if path and (name == origin.package or name.startswith(origin.package + ".")):
                    found[name] = digest_files(folder, [Path(path).resolve()])
        return {"files": found}

    def do_open_serve(self) -> dict:
        self.session.open_serve(self.prepared)
        return {}

    def do_turn(self, *, case: str, knobs: list, seconds: float, first: int) -> dict:
        """One timed turn: seconds per call (on the device where it has a clock of its own), and what it cost."""
        setting = (case, tuple((name, value) for name, value in knobs))
        call, batches = self.session.call(setting), self.session.batches(case)
        start, cpu, compiled = time.perf_counter(), time.process_time(), self.session.backend.compile_seconds()
        if self.session.device == "cuda" and self.session.method.backend == "torch":
            answer, index, output = self.device_turn(call, batches, seconds, first)
        else:
            from ..measure.latency import turn

            timed = turn(call, batches, seconds=seconds, synchronise=self.session.backend.synchronise, first=first)
            answer = {"wall": thin(timed.wall), "cpu": thin(timed.cpu), "calls": timed.calls, "first": timed.first}
            index, output = timed.last_index, timed.last_output
            del timed
        self.session.remember(setting, index, output)
        del output
        self.session.backend.release()
        if compiled is not None:
            answer["compile"] = self.session.backend.compile_seconds() - compiled
        return {**answer, "spent": time.perf_counter() - start, "own": time.process_time() - cpu}

    def device_turn(self, call, batches: list, seconds: float, first: int) -> tuple[dict, int, Any]:
        """By events on the device, beside the time on the host from call to answer."""
        from ..measure import cuda

        if self.kit is None:
            self.kit = cuda.TorchKit()
        start = time.perf_counter()
        self.session.backend.synchronise(call(batches[first % len(batches)]))
        spent = time.perf_counter() - start
        for attempt in range(2):  # an early return must show twice: a stray interrupt shows once
            turn = cuda.device_turn(call, batches, seconds=seconds, first=first, min_samples=20 if attempt else 5, kit=self.kit)
            if not turn.early:
                break
            if attempt:
                raise Wrong(f"returned before its work was done: {turn.early}")
        answer = {
            "wall": thin(turn.device), "host": thin(turn.wall), "cpu": [0.0], "calls": 2 * len(turn.wall) * turn.launches,
            "first": spent, "how": turn.how,
        }  # fmt: skip
        return answer, turn.last_index, turn.last_output

    def do_draw(self, *, case: str, cores: list[int]) -> dict:
        """The inputs of a case, before its first turn. `cores` may be used meanwhile, not those of timed turns alone."""
        with on_cores(cores):
            self.session.batches(case)
        return {}

    def do_finish(self, *, case: str, knobs: list, energy: float, part: str = "", later: bool = False) -> dict:
        setting = (case, tuple((name, value) for name, value in knobs))
        readings = self.session.finish(setting, energy, part, later=later)
        self.session.backend.release()
        return self._answered(readings)

    def do_warm(self, *, cores: list[int]) -> dict:
        """Load what counts a call's operations: seconds of imports that must not come before the timed turns."""
        from ..measure.counting import warm

        with on_cores(cores):
            warm(self.session.method.backend)
        return {}

    def do_score(self, *, cores: list[int]) -> dict:
        """The score that the last `finish` left for later."""
        with on_cores(cores):
            return self._answered(self.session.score())

    def _answered(self, readings: dict) -> dict:
        own = [str(note) for note in self.session.method.notes]  # what a reader of this record must know
        return {"readings": readings, "notes": [*self.session.notes, *own]}

    def do_probe(self, *, name: str, **arguments) -> dict:
        """A question of `effbench check`."""
        from .probes import PROBES

        return PROBES[name](self, **arguments)

    def do_profile(self, *, case: str, knobs: list, out: str) -> dict:
        from .profiling import profile

        session, setting = self.session, (case, tuple((name, value) for name, value in knobs))
        call, batches = session.call(setting), session.batches(case)
        found = profile(call, batches, session.method.backend, session.device, Path(out), session.backend.synchronise)
        stated = session.stated(setting)
        return found | {"formula": None if stated is None else {"flops": stated.executed, "bytes": stated.bytes}}


@contextlib.contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    """Let this process run on `cores` for a while; none named: where it is."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def thin(values: list[float]) -> list[float]:
    """At most TURN_SAMPLES of them, evenly, in order."""
    step = max(1, -(-len(values) // TURN_SAMPLES))
    return values[::step]


def load(reference: list) -> type:
    module, name = reference[:2]
    return getattr(importlib.import_module(module), name)


def read_prepared(path: str) -> dict:
    import numpy as np

    if not path:
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] if stored[name].ndim else stored[name].item() for name in stored.files}


def first_line(error: BaseException) -> str:
    text = text_of(error).strip().splitlines()
    return text[0][:240] if text else ""


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def place(error: BaseException) -> str:
    """Where in a technique's own file it happened; the deepest frame that is not effbench's."""
    frames = traceback.extract_tb(error.__traceback__)
    engine = str(Path(__file__).resolve().parents[1])
    own = [frame for frame in frames if not frame.filename.startswith(engine) and "site-packages/torch" not in frame.filename]
    return f" ({Path(own[0].filename).name}:{own[0].lineno})" if own else ""


def main(channel: socket.socket) -> None:
    sys.stdout.reconfigure(line_buffering=True)
    Worker(channel).serve()
