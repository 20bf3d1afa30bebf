"""One trial inside its own process: build, serve, count, score. Driven by the worker, command by command.

`effbench.run.exercise` drives a session in the calling process, for tests and notebooks.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..api.errors import Wrong
from ..api.method import Method
from ..api.record import reading
from ..api.run import Allowance, Run
from ..api.task import Task
from ..api.values import Budget, Case, Data, Flops, Step
from ..measure import memory
from ..measure.clock import BuildClock
from .answers import close, fingerprint
from .quality import CURVE_ROWS, half, quality

PROBES, PROBE_SECONDS = 16, 0.5  # batches whose work is counted in the untimed pass, and about how long that may take
Setting = tuple[str, tuple]  # case name, sorted knob items


class Skipped(Exception):
    """The method gave a reason not to run; the trial or the case gets the status "skipped"."""


class Session:
    """The state of one trial. Readings are collected in `build_readings` and, per (case, knobs), in `serve_readings`."""

    def __init__(
        self, task: Task, make: Callable[[], Method], *, backend, data: Data, size: str, seed: int, device: str = "cpu",
        dtype: str = "float32", threads: int = 1, budget: Budget | None = None, like: Callable[[], Method] | None = None,
        replicates: int | None = None, tuning: bool = False, announce: Callable[[str], None] = lambda text: None,
    ):  # fmt: skip
        self.task, self.make, self.like, self.backend, self.data = task, make, like, backend, data
        self.size, self.seed, self.device, self.dtype, self.threads, self.budget = size, seed, device, dtype, threads, budget
        self.replicates = task.replicates if replicates is None else replicates
        if size == "smoke":
            self.replicates = min(self.replicates, 20)
        self.tuning = tuning  # then nothing hidden is loaded and nothing is scored
        self.announce = announce
        self.clock = BuildClock()
        self.build_readings: dict[str, dict] = {}
        self.quality: dict[str, dict] = {}  # of tasks without a serve phase
        self.curve: dict[str, list] = {}
        self.notes: list[str] = []
        self.method: Method | None = None
        self.given: Any = None
        self.hidden: Any = None
        self._batches: dict[str, list] = {}
        self._sums: dict[str, str] = {}
        self._last: dict[Setting, tuple[int, Any]] = {}
        self._unscored: tuple[Setting, list, list] | None = None  # setting, answers and counted answers that `score` takes

    def _run(self, seed: int, budget: Allowance | None = None) -> Run:
        return Run(
            device=self.device, dtype=self.dtype, threads=self.threads, seed=seed, size=self.size, budget=budget,
            backend=self.backend, clock=self.clock,
        )  # fmt: skip

    # -- prepared material --------------------------------------------------------------------------------------------

    def prepare(self) -> tuple[dict, float]:
        """The shared material of (task, data, size, seed), and the seconds it took."""
        start = time.perf_counter()
        self.backend.seed(self.seed)
        made = self.task.prepare(self.data, self.size, self.seed, self._run(self.seed))
        return made, time.perf_counter() - start

    # -- build --------------------------------------------------------------------------------------------------------

    def build(self, prepared: dict, *, restore: Path | None = None) -> None:
        """Build once for every replicate. With `restore`, load what an earlier process saved instead."""
        scores: list[dict] = []
        totals: dict[str, float] = {}
        memory_start = None
        for replicate in range(self.replicates):
            seed = self.seed if replicate == 0 else (self.seed + 1) * 1_000_003 + replicate
            self.given = self.task.given(self.data, self.size, seed, prepared)
            self.method = method = self.make()
            method.run = run = self._run(seed)
            run.budget = self._allow(method)
            if reason := method.skip(self.given):
                raise Skipped(reason)
            if replicate == 0:
                memory_start = memory.reset_peak()
                self.backend.device_reset()
            run._counting = True  # a build's tallies are always kept
            self.backend.seed(seed)
            if restore is not None:
                method.load(restore, self.given)
                run._counting = False
                return
            progress = self._drive(method, run, record_curve=replicate == 0)
            run._counting = False
            for name, seconds in run._parts.items():
                totals[f"build.{name}.time"] = totals.get(f"build.{name}.time", 0.0) + seconds
            for name, value in progress.items():
                totals[name] = totals.get(name, 0.0) + value
            if "serve" not in self.task.phases and not self.tuning:
                hidden = self.task.hidden(self.data, self.size, seed, prepared)
                scores.append(self.task.score(method, self.given, hidden, None, []))
        self._build_readings(totals, memory_start)
        if scores:
            self.quality, curves = quality(self.task.metrics, scores)
            if curves and self.curve:
                raise ValueError(f"task '{self.task.name}' gives curves by evaluate and by score; a record holds one grid")
            self.curve.update(curves)

    def _allow(self, method: Method) -> Allowance:
        """The budget as this method sees it; FLOPs become steps by the method's own formula."""
        budget = self.budget
        if budget is None:
            return Allowance()
        flops = budget.flops
        if budget.like:
            reference = self.like()
            reference.run = self._run(self.seed)
            per_step = reference.step_flops(self.given)
            if not per_step:
                raise ValueError(f"budget like '{budget.like}': that method has no step_flops formula")
            flops = per_step * budget.steps
        if flops is None:
            return Allowance(budget.steps, budget.samples, None, budget.time)
        per_step = method.step_flops(self.given)
        if not per_step:
            raise ValueError(f"a budget in FLOPs needs a step_flops formula; '{method.name}' has none")
        return Allowance(steps=max(1, math.floor(flops / per_step + 1e-9)), flops=flops)

    def _drive(self, method: Method, run: Run, *, record_curve: bool) -> dict[str, float]:
        """Run the build; at each Step the clock stands still for the budget, the curve and the progress line."""
        clock, allowance = self.clock, run.budget
        before, cpu_before = clock.elapsed(), clock.cpu()
        compiled, evaluating = self.backend.compile_seconds(), 0.0
        per_step = method.step_flops(self.given) if "build" in self.task.phases else None
        steps = samples = rows = 0
        marks = self._marks(allowance)
        clock.start()
        try:
            result = method.build(self.given, run)
            if inspect.isgenerator(result):
                for step in result:
                    if not isinstance(step, Step):
                        raise Wrong(f"build yielded {type(step).__name__}, not Step")
                    if not (step.steps >= 0 and step.samples >= 0):
                        raise Wrong(f"build yielded a negative Step ({step.steps} steps, {step.samples} samples)")
                    clock.stop()
                    if run.exhausted:
                        # The step after the last allowed one: its work is not part of the budget any more.
                        self.notes.append("stopped by the engine: it went on after its budget was spent")
                        result.close()
                        break
                    steps, samples = steps + step.steps, samples + step.samples
                    run.exhausted = self._spent(allowance, steps, samples, clock.elapsed() - before)
                    if record_curve and (run.exhausted or steps >= marks[0]):
                        while marks[0] <= steps:
                            marks.pop(0)
                        self.backend.synchronise()
                        paused = self.backend.compile_seconds() or 0.0
                        self._row(method, steps, samples, per_step, clock.elapsed() - before)
                        evaluating += (self.backend.compile_seconds() or 0.0) - paused
                        rows = steps
                        self.announce(f"step {steps}" + (f" of {allowance.steps}" if allowance.steps else ""))
                    clock.start()
            self.backend.synchronise()
        finally:
            clock.stop()
        compiling = None if compiled is None else self.backend.compile_seconds() - compiled - evaluating
        if record_curve and steps and rows != steps:
            self._row(method, steps, samples, per_step, clock.elapsed() - before)
        progress = {"build.time": clock.elapsed() - before, "build.cpu": clock.cpu() - cpu_before}
        if compiling is not None:
            progress["build.compile_time"] = max(0.0, compiling)
        if steps:
            progress["build.steps"] = steps
        if samples:
            progress["build.samples"] = samples
        return progress

    @staticmethod
    def _spent(allowance: Allowance, steps: int, samples: int, seconds: float) -> bool:
        return (
            (allowance.steps is not None and steps >= allowance.steps)
            or (allowance.samples is not None and samples >= allowance.samples)
            or (allowance.time is not None and seconds >= allowance.time)
        )

    @staticmethod
    def _marks(allowance: Allowance) -> list[float]:
        """Step counts at which a curve row is due: even over a known budget, geometric where it is not known."""
        if allowance.steps:
            marks = sorted({math.ceil(allowance.steps * i / CURVE_ROWS) for i in range(1, CURVE_ROWS + 1)})
        else:
            marks = sorted({round(1.5**i) for i in range(60)})
        return [*marks, math.inf]

    def _row(self, method: Method, steps: int, samples: int, per_step: float | None, seconds: float) -> None:
        values = {name: float(value) for name, value in self.task.evaluate(method, self.given).items()}
        if not values:
            return
        row = {"steps": steps, "time": float(f"{seconds:.5g}"), **{name: float(f"{value:.6g}") for name, value in values.items()}}
        if samples:
            row["samples"] = samples
        if per_step:
            row["flops"] = float(f"{per_step * steps:.6g}")
        if any(not math.isfinite(value) for value in row.values()):
            raise Wrong(f"evaluation gave a number that is not finite at step {steps}: {row}")
        for name, value in row.items():
            self.curve.setdefault(name, []).append(value)

    def _build_readings(self, totals: dict[str, float], memory_start: int | None) -> None:
        n = self.replicates
        out = self.build_readings
        how = "wall clock" + (f", mean of {n} replicates" if n > 1 else "")
        cpu = totals.pop("build.cpu", None)
        for name, value in totals.items():
            unit = {"build.steps": "step", "build.samples": "sample"}.get(name, "s")
            told = how if unit == "s" else ""
            if name == "build.compile_time":
                told = "trace, lower and compile, within build.time, by the framework's events"
            out[name] = reading(value / n, unit, how=told, cpu=cpu / n if name == "build.time" else None)
        out["build.peak_memory"] = host_peak(memory_start)
        peak, reason = self.backend.device_peak()
        if self.device != "cpu":
            out["build.device_peak_memory"] = reading(peak, "B", how="allocator peak", reason=reason)
        out["build.flops"] = self._build_flops(totals)
        count = self.method.parameters()
        out["size.parameters"] = reading(count, "1", reason="the method has no parameter count")

    def _build_flops(self, totals: dict[str, float]) -> dict:
        found = self.method.flops("build", None, dict(self.method.run._counts))
        if found is not None:
            return reading(found.executed, "FLOP", how="formula")
        per_step = self.method.step_flops(self.given)
        if per_step and totals.get("build.steps"):
            return reading(per_step * totals["build.steps"] / self.replicates, "FLOP", how="formula, per step x steps")
        return reading(None, "FLOP", reason="the method has no formula for its build")

    def store(self, folder: Path) -> None:
        """Save the built method if it can be saved; gives `size.bytes`."""
        method = self.method
        if method is None or "serve" not in self.task.phases or method.save is None or method.load is None:
            self.build_readings["size.bytes"] = reading(None, "B", reason="the method does not save itself")
            return
        folder.mkdir(parents=True, exist_ok=True)
        method.save(folder)
        self.build_readings["size.bytes"] = reading(method.folder_bytes(folder), "B", how="files written by save")

    # -- serve --------------------------------------------------------------------------------------------------------

    def open_serve(self, prepared: dict) -> None:
        self.hidden = self.task.hidden(self.data, self.size, self.seed, prepared)

    def case(self, name: str) -> Case:
        return next(case for case in self.task.cases if case.name == name)

    def batches(self, name: str) -> list:
        if name not in self._batches:
            made = self.task.batches(self.case(name), self.hidden, self.method.run)
            if len(made) < 3:
                raise ValueError(f"case '{name}' has {len(made)} batches; at least 3 different ones are needed")
            self._batches[name] = made
            self._sums[name] = fingerprint(self.backend.to_numpy(made))
        return self._batches[name]

    def call(self, setting: Setting) -> Callable[[Any], Any]:
        """The timed call of one (case, knobs), configured."""
        name, knobs = setting
        self.method.configure(**dict(knobs))
        task, method, case = self.task, self.method, self.case(name)
        return lambda batch: task.call(method, batch, case)

    def stated(self, setting: Setting) -> Flops | None:
        """FLOPs and bytes of a call of one (case, knobs) by the method's formula; None where it has none. Makes one untimed call."""
        call = self.call(setting)
        _, counts = self._counted(call, self.batches(setting[0])[:1])
        return self.method.flops("serve", self.case(setting[0]), counts)

    def _counted(self, call: Callable[[Any], Any], batches: list) -> tuple[list, dict[str, float]]:
        """The answers to the batches, and what the method counted by `run.tally`, the mean of a call."""
        run = self.method.run
        run._counting, run._counts = True, {}
        try:
            answers = [call(batch) for batch in batches]
        finally:
            run._counting = False
        return answers, {name: value / len(batches) for name, value in run._counts.items()}

    def remember(self, setting: Setting, index: int, output: Any) -> None:
        """Keep the last timed answer: `score` checks that untimed calls give the same."""
        self._last[setting] = (index, self.backend.to_numpy(output))

    def finish(self, setting: Setting, energy: float = 0.0, part: str = "", *, later: bool = False) -> dict[str, dict]:
        """After the last timed call: counts, memory, answers and their score for one (case, knobs).

        With `energy` seconds above 0, calls go on for that long under the energy counter. `part` "tuning" or "held-out" takes
        the score over that half of the samples alone. `later`: without the score, which the next `score(part)` then gives.
        """
        from ..measure.counting import serve_flops

        name, _ = setting
        call, batches = self.call(setting), self.batches(name)
        self.backend.device_reset()
        outputs, peaks, spent = [], [], 0.0
        for batch in batches:
            # Anew for each call: the outputs kept for scoring are no memory that a call needs. Not for hundreds of them: a
            # collection of a framework's objects takes up to 0.2 s.
            start = memory.reset_peak() if len(peaks) < PROBES else None
            began = time.perf_counter()
            output = call(batch)
            self.backend.synchronise(output)
            spent += time.perf_counter() - began
            if len(peaks) < PROBES:
                peaks.append(host_peak(start))
            if self.device != "cpu" and not outputs:  # of the first call alone: an earlier answer may still be held later
                peak, reason = self.backend.device_peak()
                device = reading(peak, "B", how="allocator peak", reason=reason)
            outputs.append(self.backend.to_numpy(output))
        each = spent / len(batches)
        readings = {"serve.peak_memory": max(peaks, key=lambda peak: peak["value"] or 0)}
        if self.device != "cpu":
            readings["serve.device_peak_memory"] = device
        # Work that depends on the data is averaged over several batches, fewer where a call is long.
        probes = batches[: max(1, min(len(batches), PROBES, int(PROBE_SECONDS / max(each, 1e-9))))]
        answers, counts = self._counted(call, probes)
        items = float(sum(self.task.items(batch, answer) for batch, answer in zip(probes, answers))) / len(probes)
        readings["serve.items"] = reading(items, "item")
        formula = self.method.flops("serve", self.case(name), counts)
        readings.update(serve_flops(formula, lambda: [call(batch) for batch in probes], self.method.backend, len(probes)))
        for count, value in counts.items():
            readings[f"serve.tally.{count}"] = reading(value, "1", how=f"mean of {len(probes)} untimed calls")
        self._unscored = (setting, outputs, self.backend.to_numpy(answers))
        del answers
        scores = {} if later else self.score(part)
        readings.update(self._graph(call, batches))
        readings["serve.energy"] = self._energy(call, batches, energy)
        return {**readings, **scores}

    def score(self, part: str = "") -> dict[str, dict]:
        """The score of the answers that the last `finish` got, once they agree with each other and the inputs are as they were."""
        (setting, outputs, counted), self._unscored = self._unscored, None
        name = setting[0]
        if fingerprint(self.backend.to_numpy(self.batches(name))) != self._sums[name]:
            raise Wrong("the method changed its input")
        self._same_answer(setting, outputs)
        if not close(counted, outputs[: len(counted)]):
            raise Wrong("a counted call answered differently from an uncounted call on the same input")
        scored = self.task.score(self.method, self.given, self.hidden, self.case(name), outputs)
        scored = half(scored, part) if part else scored
        scores, curves = quality(self.task.metrics, [scored])
        if curves:
            self.notes.append("curves from the serve phase are not kept")
        return scores

    def _graph(self, call: Callable, batches: list) -> dict[str, dict]:
        """CUDA graph replay: what the call costs without launch overhead, where it can be captured."""
        if self.device != "cuda" or self.method.backend != "torch":
            return {}
        from ..measure.cuda import graph_turn

        turn, reason = graph_turn(call, batches[:3], seconds=0.05)
        if turn is None:
            return {"serve.latency.graph": reading(None, "s", reason=reason)}
        ordered = sorted(turn.device)
        return {"serve.latency.graph": reading(ordered[len(ordered) // 2], "s", how=turn.how, n=len(ordered), min=ordered[0])}

    def _energy(self, call: Callable, batches: list, seconds: float) -> dict:
        if seconds <= 0:
            return reading(None, "J", reason="the suite asks for no energy window")
        from ..measure.energy import meter

        counter = meter(self.device)
        if counter.absent:
            return counter.reading()
        calls, end = 0, time.perf_counter() + seconds
        with counter as energy:
            while time.perf_counter() < end:
                self.backend.synchronise(call(batches[calls % len(batches)]))
                calls += 1
        return energy.reading(calls)

    def _same_answer(self, setting: Setting, outputs: list) -> None:
        if setting not in self._last:
            return
        index, timed = self._last[setting]
        if not close(timed, outputs[index]):
            raise Wrong("a timed call answered differently from an untimed call on the same input")


def host_peak(start: int | None) -> dict:
    if start is None:
        return reading(None, "B", reason="the kernel does not let this process reset its high-water mark")
    now = memory.peak()
    return reading(max(0, now - start) if now is not None else None, "B", how="high-water mark above the start")
