"""The proof of `effbench compare`: how often it cries wolf, how often it finds a true 2, 5 and 10 %, and what other tools say.

    python tests/power/run.py collect --minutes 20                 # quiet: leave the machine alone meanwhile
    python tests/power/run.py collect --minutes 20 --disturb       # a burner process on each core
    python tests/power/run.py collect --minutes 7 --device cuda    # needs no git: EFFBENCH_COMMIT names the commit
    python tests/power/run.py collect --minutes 9 --beside 8       # eight collectors with two cores each, on a larger machine
    python tests/power/run.py peers --minutes 60 [--tool pyperf]   # pyperf, pytest-benchmark and asv with their defaults
    python tests/power/run.py table
    python tests/power/run.py draw                                 # docs/power.svg

`collect` measures process pairs with the engine of `effbench compare`, no copy of it: in each pair one side does the work as it is,
the other the same (A/A) or a known amount more. Every pair is one line of pairs-STATE-HOST.jsonl, so it resumes and is never lost.
With `--beside` the lines of one collector follow those of another, so that a comparison is made of one collector's pairs, and the host's
name says how many worked side by side: they share caches and memory, and on CUDA each has a GPU of its own.
`table` cuts the pairs of an arm, in the order in which they were measured, into disjoint comparisons: the first pairs are judged;
where they raise a suspicion the next ones are the second look, as the product does it. n comparisons, Clopper-Pearson bounds.
`peers` makes whole comparisons with other tools, one line of peers-STATE-HOST.jsonl each.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import drawing
import peers
import tallies
from places import default_cache, target_of

from effbench.plan import benches
from effbench.plan.origins import OWN, Origin
from effbench.plan.registry import Registry
from effbench.plan.suite import parse
from effbench.run.contexts import DeviceDriver
from effbench.run.materials import Materials
from effbench.run.pairs import SIDES, Driver, Effort, Evidence, Side
from effbench.run.provenance import commit

# per cent of work more -> share of the pairs that measure it
ARMS = {"cpu": {0: 1.0, 2: 0.5, 5: 0.5, 10: 0.1}, "cuda": {0: 1.0, 2: 1.0, 5: 0.0, 10: 0.0}}
# A kind is measured in process pairs of its own: 88 A/A comparisons of three workloads and 44 of one on the CPU, 308 in all.
KINDS = {"numpy": ("matmul", "loop", "copy"), "torch": ("layer",), "cuda": ("chain",)}
WANTED = {"numpy": 880, "torch": 440, "cuda": 200}  # process pairs
EFFORT = {"cpu": Effort(pairs=1, facts=0), "cuda": Effort(pairs=1, facts=0, turns=60, serve=30.0)}
DRIVERS = {"cpu": Driver, "cuda": DeviceDriver}
PEER_COMPARISONS = {0: 20, 5: 10}  # of each of the two workloads: 40 of a tool without a change, 20 with 5 % more


def burn(until: float) -> None:
    while time.time() < until:
        sum(range(10_000))


class Burners:
    """One busy process on each core that this process may use, as a disturbed host has them."""

    def __init__(self, wanted: bool, minutes: float):
        self.wanted, self.until, self.running = wanted, time.time() + 60 * minutes + 1800, []
        self.count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def __enter__(self):
        if self.wanted:
            context = multiprocessing.get_context("spawn")
            self.running = [context.Process(target=burn, args=(self.until,), daemon=True) for _ in range(self.count)]
            for process in self.running:
                process.start()
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()


def costed(device: str, *given, **named) -> Driver:
    """The driver of `effbench compare`, which also remembers the CPU seconds of each benchmark's own part of a pair."""

    class Costed(DRIVERS[device]):
        def time(self, pair, item) -> None:
            before, name = pair.cpu(), name_of(item.bench.head)
            super().time(pair, item)
            self.spent[name] = self.spent.get(name, 0.0) + max(0.0, pair.cpu() - before)

    return Costed(*given, **named)


def name_of(trial) -> str:
    return f"{trial.method}+{trial.params['extra']}"


def sides(device: str) -> tuple[dict[str, Side], list[benches.Bench]]:
    """Both sides load the same files from the same folder; the arms differ in a param."""
    registry = Registry.read([Origin(OWN, HERE / "workloads", "effbench")])
    names = [name for names in KINDS.values() for name in names]
    values = ", ".join(map(str, ARMS[device]))
    methods = "".join(f"[run.params.{name}]\nextra = [{values}]\n" for name in names)
    text = f'name = "power"\nsize = "smoke"\ndevices = ["{device}"]\n[[run]]\ntask = "power"\n{methods}'
    suite = parse(text + '[limits]\nseconds = 60\nmemory = "2 GiB"\n')
    found = benches.match(suite, registry, registry).benches
    plain = {bench.base.method: bench.base for bench in found if bench.base.params["extra"] == 0}
    arms = [replace(bench, base=plain[bench.head.method], deterministic=True) for bench in found]
    return {side: Side(side, registry, Materials()) for side in SIDES}, arms


def digest_of(*parts: Path) -> str:
    files = [path for part in parts for path in (sorted(part.rglob("*.py")) if part.is_dir() else [part])]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def digests() -> dict[str, str]:
    """Of what decides a measurement: lines of another engine, other workloads or other tools are not mixed in."""
    measure = [ROOT / "effbench" / name for name in ("run/pairs.py", "measure/latency.py", "measure/cuda.py")]
    pins = hashlib.sha256(json.dumps(peers.PINS, sort_keys=True).encode()).hexdigest()[:4]
    device = [*measure, ROOT / "effbench" / "run" / "contexts.py", HERE / "workloads"]
    return {
        "pairs": digest_of(*measure, HERE / "workloads"), "pairs on a device": digest_of(*device),
        "peers": f"{digest_of(peers.FILES)[:8]}{pins}",
    }  # fmt: skip


def used() -> float:
    """CPU seconds of this process, and of its children that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime + time.process_time()


def collect(
    minutes: float, disturbed: bool, folder: Path, kinds: list[str], *, device: str = "cpu", limit: int = 0, effort: Effort | None = None,
    among: int = 1,
) -> Path:  # fmt: skip
    """Measure until `minutes` are over, or `limit` process pairs (0: what is wanted of one `among` several) are there; the file."""
    target, on = target_of("pairs", disturbed, folder, device)
    on = f"{on}, {among} side by side" if among > 1 else on
    mark, have = digests()["pairs" if device == "cpu" else "pairs on a device"], defaultdict(int)
    wants = {kind: -(-count // among) for kind, count in WANTED.items()}
    for row in tallies.read(target, mark):
        have[row["backend"]] += 1
    both, arms = sides(device)
    chosen = {kind: [bench for bench in arms if bench.head.method in KINDS[kind]] for kind in kinds}
    head = {"digest": mark, "device": device, "on": on, "commit": commit()}
    start, first, done = time.monotonic(), used(), 0
    end = start + 60 * minutes
    driver = costed(device, both, effort or EFFORT[device], say=lambda text: None, seed=time.time_ns())
    with Burners(disturbed, minutes), target.open("a", encoding="utf-8") as file:
        try:
            while time.monotonic() < end and done != (limit or -1) and (left := [k for k in kinds if have[k] < wants[k]]):
                kind = min(left, key=lambda name: have[name] / wants[name])
                picked = [bench for bench in chosen[kind] if driver.rng.random() < ARMS[device][bench.head.params["extra"]]]
                wanted = {bench.label: Evidence(bench, builds=dict.fromkeys(SIDES, 1.0)) for bench in picked}
                driver.spent, before = {}, used()
                driver.measure(wanted, times=wanted, facts=())
                shared = max(0.0, used() - before - sum(driver.spent.values()))
                cost = {name: round(value, 3) for name, value in {"start": shared, **driver.spent}.items()}
                line = {**head, "backend": kind, "time": time.time(), "cpu": cost, "arms": row_of(wanted)}
                file.write(json.dumps(line) + "\n")
                file.flush()
                have[kind], done = have[kind] + 1, done + 1
                if done % 10 == 1:
                    progress(have, wants, done, start, end)
        finally:
            driver.close()
    print(f"{done} process pairs in {time.monotonic() - start:.0f} s ({used() - first:.0f} CPU s); {target}")
    return target


def beside(count: int, minutes: float, disturbed: bool, folder: Path, kinds: list[str], device: str) -> Path:
    """`count` collectors at once, each on two cores (and a GPU) of its own, in folders of their own; then their lines, one after the other."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 * count:
        raise SystemExit(f"--beside {count} needs {2 * count} cores, and {len(cores)} may be used here")
    target, _ = target_of("pairs", disturbed, folder, device)
    with tempfile.TemporaryDirectory(prefix="power-") as place:
        running = []
        for number in range(count):
            own = ",".join(map(str, cores[2 * number : 2 * number + 2]))
            command = [
                sys.executable,
                __file__,
                "collect",
                "--minutes",
                str(minutes),
                "--device",
                device,
                "--folder",
                f"{place}/{number}",
            ]
            command += ["--among", str(count), "--cores", own, *(["--disturb"] if disturbed else [])]
            command += [f"--backend={kind}" for kind in kinds if kind != "cuda"]
            gpu = {"CUDA_VISIBLE_DEVICES": str(number)} if device == "cuda" else {}
            said = None if number == 0 else subprocess.DEVNULL
            running.append(subprocess.Popen(command, env={**os.environ, **gpu}, stdout=said))
        codes = [process.wait() for process in running]
        with target.open("ab") as file:
            for path in sorted(Path(place).rglob("*.jsonl")):
                file.write(path.read_bytes())
    print(f"{count} collectors ended with {codes}; {target}")
    return target


def progress(have: dict, wants: dict, done: int, start: float, end: float) -> None:
    rate = (time.monotonic() - start) / done
    missing = sum(wants[kind] - have[kind] for kind in have)
    state = ", ".join(f"{kind} {have[kind]} of {wants[kind]}" for kind in have)
    left = max(0.0, end - time.monotonic()) / 60
    print(f"{state} pairs; {rate:.1f} s a pair; stops in {left:.1f} min, all would take {missing * rate / 60:.0f} min", flush=True)


def row_of(wanted: dict[str, Evidence]) -> dict[str, list]:
    """ "workload+extra" -> [base wall, head wall, base CPU, head CPU], a value a turn."""
    out = {}
    for item in wanted.values():
        if item.failed:
            raise SystemExit(f"{item.bench.label}: {item.failed}")
        sample = next(samples[0] for (setting, _), samples in item.times.items() if setting is not None)
        columns = [sample.wall["base"], sample.wall["head"], sample.cpu["base"], sample.cpu["head"]]
        out[name_of(item.bench.head)] = [[float(f"{value:.6g}") for value in column] for column in columns]
    return out


def others(
    minutes: float, disturbed: bool, folder: Path, tools: list[str], cache: Path, *, python: Path | None = None, limit: int = 0
) -> Path:  # fmt: skip
    """Whole comparisons by other tools, the arm with the fewest first, PEER_COMPARISONS of an arm; the file."""
    target, on = target_of("peers", disturbed, folder, "cpu")
    mark, have = digests()["peers"], defaultdict(int)
    for row in tallies.read(target, mark):
        have[row["tool"], row["workload"], row["extra"]] += 1
    cache.mkdir(parents=True, exist_ok=True)
    made, places = {}, {tool: peers.scratch(cache, tool) for tool in tools}
    try:
        for tool in tools:
            made[tool] = peers.Peer(tool, python or peers.environment(tool, cache), places[tool])
        arms = [(tool, workload, extra) for workload in peers.WORKLOADS for extra in peers.ARMS for tool in tools]
        end, done = time.monotonic() + 60 * minutes, 0
        with Burners(disturbed, minutes), target.open("a", encoding="utf-8") as file:
            while time.monotonic() < end and done != (limit or -1):
                left = [one for one in arms if have[one] < PEER_COMPARISONS[one[2]]]
                if not left:
                    break
                tool, workload, extra = arm = min(left, key=lambda one: have[one])
                said = made[tool].compare(workload, extra)
                line = {
                    "digest": mark, "device": "cpu", "on": on, "commit": commit(), "time": time.time(), "tool": tool,
                    "version": made[tool].version, "workload": workload, "extra": extra, "verdicts": said.verdicts,
                    "ratios": {rule: round(ratio, 5) for rule, ratio in said.ratios.items()}, "cpu": round(said.cpu, 2), "wall": round(said.wall, 2),
                }  # fmt: skip
                file.write(json.dumps(line) + "\n")
                file.flush()
                have[arm], done = have[arm] + 1, done + 1
                total = sum(min(have[one], PEER_COMPARISONS[one[2]]) for one in arms)
                print(
                    f"{total} of {sum(PEER_COMPARISONS[one[2]] for one in arms)}: {tool}, {workload} +{extra} %: {said}", flush=True
                )
    finally:
        for tool in set(tools) - {"asv"}:
            shutil.rmtree(places[tool], ignore_errors=True)
    print(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("collect", "peers", "table", "draw"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--limit", type=int, default=0, help="stop after so many process pairs or comparisons")
    parser.add_argument("--disturb", action="store_true", help="a burner process on each core")
    parser.add_argument("--beside", type=int, default=1, help="collect: so many collectors, each with two cores of its own")
    parser.add_argument("--among", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=sorted(ARMS), default="cpu", help="collect: where the work is done")
    parser.add_argument("--backend", action="append", choices=("numpy", "torch"), help="collect: numpy (three workloads) or torch")
    parser.add_argument("--tool", action="append", choices=sorted(peers.PINS), help="peers: only this one; may be repeated")
    parser.add_argument(
        "--python", type=Path, help="peers: an interpreter that has the one tool, in place of an environment made here"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="peers: where their environments are kept")
    parser.add_argument("--folder", type=Path, default=HERE / "records")
    parser.add_argument("--json", type=Path, help="table: also write the rows here")
    parser.add_argument("--svg", type=Path, default=ROOT / "docs" / "power.svg", help="draw: the file")
    given = parser.parse_args()
    if given.python and len(given.tool or ()) != 1:
        parser.error("--python goes with one --tool")
    if given.command == "collect":
        kinds = ["cuda"] if given.device == "cuda" else given.backend or ["numpy", "torch"]
        if given.beside > 1:
            beside(given.beside, given.minutes, given.disturb, given.folder, kinds, given.device)
        else:
            if given.cores:
                os.sched_setaffinity(0, set(map(int, given.cores.split(","))))
            collect(given.minutes, given.disturb, given.folder, kinds, device=given.device, limit=given.limit, among=given.among)
    elif given.command == "peers":
        tools = given.tool or sorted(peers.PINS)
        try:
            others(
                given.minutes, given.disturb, given.folder, tools, given.cache.absolute(), python=given.python, limit=given.limit
            )
        except peers.PeerError as error:
            raise SystemExit(f"peers: {error}") from None
    else:
        rows = tallies.all_rows(given.folder, digests())
        if given.command == "draw":
            given.svg.write_text(drawing.svg(rows), encoding="utf-8")
            print(given.svg)
        else:
            print(tallies.markdown(rows))
        if given.json:
            given.json.write_text(json.dumps({"digests": digests(), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
