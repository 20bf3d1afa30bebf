"""The proof of `effbench compare`: how often it cries wolf, and how often it finds a true 2, 5 and 10 %.

    python tests/power/run.py collect --minutes 20            # quiet: leave the machine alone meanwhile
    python tests/power/run.py collect --minutes 20 --disturb  # a burner process on each core
    python tests/power/run.py table

`collect` measures process pairs with the engine of `effbench compare`, no copy of it: in each pair one side does the work as it is,
the other the same (A/A) or a known amount more. Every pair is one line of pairs-QUIET-HOST.jsonl, so it resumes and is never lost.
`table` cuts the pairs of an arm, in the order in which they were measured, into disjoint comparisons: the first pairs are judged;
where they raise a suspicion the next ones are the second look, as the product does it. n comparisons, Clopper-Pearson bounds.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from effbench.measure.host import environment_key, fingerprint
from effbench.plan import benches
from effbench.plan.origins import OWN, Origin
from effbench.plan.registry import Registry
from effbench.plan.suite import parse
from effbench.run.materials import Materials
from effbench.run.pairs import SIDES, Driver, Effort, Evidence, Side
from effbench.stats.interval import share
from effbench.study import compare as study
from effbench.study.compare import Times

HERE = Path(__file__).resolve().parent
ARMS = {0: 1.0, 2: 0.5, 5: 0.5, 10: 0.1}  # per cent of work more -> share of the pairs that measure it
WORKLOADS = ("matmul", "loop", "copy", "layer")
RULES = {"default": (10, 0.02), "precise": (30, 0.01)}  # process pairs, minimum effect
WANTED = {"numpy": 880, "torch": 440}  # process pairs: 88 A/A comparisons of three workloads and 44 of one, 308 in all


def burn(until: float) -> None:
    while time.time() < until:
        sum(range(10_000))


class Burners:
    """One busy process per core, as a disturbed host has them."""

    def __init__(self, wanted: bool):
        self.wanted, self.running = wanted, []

    def __enter__(self):
        if self.wanted:
            context = multiprocessing.get_context("spawn")
            self.running = [
                context.Process(target=burn, args=(time.time() + 3600,), daemon=True) for _ in range(os.cpu_count() or 1)
            ]
            for process in self.running:
                process.start()
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()


def sides() -> tuple[dict[str, Side], list[benches.Bench]]:
    """Both sides load the same files from the same folder; the arms differ in a param."""
    registry = Registry.read([Origin(OWN, HERE / "workloads", "effbench")])
    values = ", ".join(map(str, ARMS))
    methods = "".join(f"[run.params.{name}]\nextra = [{values}]\n" for name in WORKLOADS)
    suite = parse(f'name = "power"\nsize = "smoke"\n[[run]]\ntask = "power"\n{methods}[limits]\nseconds = 60\nmemory = "2 GiB"\n')
    found = benches.match(suite, registry, registry).benches
    plain = {bench.base.method: bench.base for bench in found if bench.base.params["extra"] == 0}
    arms = [replace(bench, base=plain[bench.head.method], deterministic=True) for bench in found]
    return {side: Side(side, registry, Materials()) for side in SIDES}, arms


def digest() -> str:
    """Of what decides a measurement: pairs of another engine or other workloads are not mixed in."""
    files = [ROOT / "effbench/run/pairs.py", ROOT / "effbench/measure/latency.py", *sorted((HERE / "workloads").rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def path_of(disturbed: bool, folder: Path) -> Path:
    key = environment_key(fingerprint(), 1, "cpu")
    return folder / f"pairs-{'disturbed' if disturbed else 'quiet'}-{key}.jsonl"


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # the torn last line of an interrupted run
    return [row for row in rows if row["digest"] == digest()]


def collect(minutes: float, disturbed: bool, folder: Path, backends: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target, mark = path_of(disturbed, folder), digest()
    have = defaultdict(int)
    for row in read(target):
        have[row["backend"]] += 1
    both, arms = sides()
    kinds = {backend: [bench for bench in arms if bench.head.backend == backend] for backend in backends}
    end = time.monotonic() + 60 * minutes
    start, cpu, done, order = time.monotonic(), os.times(), 0, list(kinds)
    driver = Driver(both, Effort(pairs=1, facts=0), say=lambda text: None, seed=time.time_ns())
    with Burners(disturbed), target.open("a", encoding="utf-8") as file:
        if target.stat().st_size and not target.read_bytes().endswith(b"\n"):
            file.write("\n")
        try:
            while time.monotonic() < end and (open_kinds := [kind for kind in order if have[kind] < WANTED[kind]]):
                kind = min(open_kinds, key=lambda name: have[name] / WANTED[name])
                chosen = [bench for bench in kinds[kind] if driver.rng.random() < ARMS[bench.head.params["extra"]]]
                wanted = {bench.label: Evidence(bench, builds=dict.fromkeys(SIDES, 1.0)) for bench in chosen}
                driver.measure(wanted, times=wanted, facts=())
                file.write(json.dumps({"digest": mark, "backend": kind, "time": time.time(), "arms": row_of(wanted)}) + "\n")
                file.flush()
                have[kind], done = have[kind] + 1, done + 1
                if done % 10 == 1:
                    progress(have, done, start, end, backends)
        finally:
            driver.close()
    used = os.times()
    seconds = used.children_user + used.children_system - cpu.children_user - cpu.children_system
    print(f"{done} process pairs in {time.monotonic() - start:.0f} s ({seconds:.0f} CPU s of processes that have ended); {target}")


def progress(have: dict, done: int, start: float, end: float, backends: list[str]) -> None:
    rate = (time.monotonic() - start) / done
    missing = sum(WANTED[kind] - have[kind] for kind in backends)
    state = ", ".join(f"{kind} {have[kind]} of {WANTED[kind]}" for kind in backends)
    left = max(0.0, end - time.monotonic())
    print(
        f"{state} pairs; {rate:.1f} s a pair; stops in {left / 60:.1f} min, all would take {missing * rate / 60:.0f} min",
        flush=True,
    )


def row_of(wanted: dict[str, Evidence]) -> dict[str, list]:
    """ "workload+extra" -> [base wall, head wall, base CPU, head CPU], a value a turn."""
    out = {}
    for item in wanted.values():
        if item.failed:
            raise SystemExit(f"{item.bench.label}: {item.failed}")
        sample = next(samples[0] for (setting, _), samples in item.times.items() if setting is not None)
        trial = item.bench.head
        columns = [sample.wall["base"], sample.wall["head"], sample.cpu["base"], sample.cpu["head"]]
        out[f"{trial.method}+{trial.params['extra']}"] = [[float(f"{value:.6g}") for value in column] for column in columns]
    return out


def comparisons(pairs: list[Times], count: int, effect: float) -> list[tuple[str, float]]:
    """(verdict, ratio) of disjoint comparisons in order: `count` pairs, and as many again where the first raise a suspicion."""

    def judge(found):
        return study.judge_times(found, effect=effect, on_cpu=True)

    out, place = [], 0
    while place + count <= len(pairs):
        first = pairs[place : place + count]
        place, found = place + count, judge(first)
        if study.suspected(found, effect):
            if place + count > len(pairs):
                break
            found, _ = study.settle(first, pairs[place : place + count], judge)
            place += count
        out.append((found.verdict, found.ratio))
    return out


def table(folder: Path) -> dict:
    """Rows of the proof, as data and printed."""
    made: dict = {"digest": digest(), "rows": []}
    for state in ("quiet", "disturbed"):
        rows = read(path_of(state == "disturbed", folder))
        arms = defaultdict(list)
        for row in rows:
            for name, columns in row["arms"].items():
                arms[name].append(Times(*columns))
        for rule, (count, effect) in RULES.items():
            for extra in ARMS:
                pooled = []
                for workload in WORKLOADS:
                    found = comparisons(arms[f"{workload}+{extra}"], count, effect)
                    pooled += found
                    if found:
                        made["rows"].append(line(state, rule, extra, workload, found))
                if pooled:
                    made["rows"].append(line(state, rule, extra, "all", pooled))
    show(made["rows"])
    return made


def line(state: str, rule: str, extra: int, workload: str, found: list[tuple[str, float]]) -> dict:
    """`hit` is a false alarm (either way) in A/A, and SLOWER elsewhere."""
    wanted = ("SLOWER", "FASTER") if extra == 0 else ("SLOWER",)
    hits = sum(verdict in wanted for verdict, _ in found)
    bound = share(hits, len(found))
    ratios = sorted(ratio for _, ratio in found)
    return {
        "host": state, "rule": rule, "extra": extra, "workload": workload, "n": len(found), "hits": hits, "share": bound.value,
        "low": bound.low, "high": bound.high, "unclear": sum(verdict == "UNCLEAR" for verdict, _ in found),
        "ratio": ratios[len(ratios) // 2], "opposite": sum(verdict == "FASTER" for verdict, _ in found) if extra else 0,
    }  # fmt: skip


def show(rows: list[dict]) -> None:
    if not rows:
        print("no pairs yet: run `collect` first")
        return
    print("| host | rule | true change | workload | n | called | share [95 % Clopper-Pearson] | UNCLEAR | median ratio |")
    print("| --- | --- | --- | --- | ---: | ---: | --- | ---: | ---: |")
    for row in rows:
        change = "none (A/A)" if row["extra"] == 0 else f"+{row['extra']} %"
        bound = f"{row['share']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        print(
            f"| {row['host']} | {row['rule']} | {change} | {row['workload']} | {row['n']} | {row['hits']} | {bound} | {row['unclear']} | "
            f"{row['ratio']:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("collect", "table"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--disturb", action="store_true", help="a burner process on each core")
    parser.add_argument("--backend", action="append", choices=sorted(WANTED), help="numpy (three workloads) or torch; default both")
    parser.add_argument("--folder", type=Path, default=HERE / "records")
    parser.add_argument("--json", type=Path, help="table: also write the rows here")
    given = parser.parse_args()
    if given.command == "collect":
        collect(given.minutes, given.disturb, given.folder, given.backend or sorted(WANTED))
    else:
        made = table(given.folder)
        if given.json:
            given.json.write_text(json.dumps(made, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
