"""`effbench run SUITE --plan`: what a run would do, before anything starts: trials, minutes, memory, downloads, what is done already.

Minutes come from earlier records (the run folder, then the committed results): of the same settings where there are any,
else of the same method, else of its task. The rest are guesses, and the page says how many.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..api.errors import RecordError
from ..api.record import identity
from ..data import registry as datasets
from ..measure.host import environment_key, fingerprint
from ..plan.plan import Group, Plan
from ..plan.trial import Trial
from ..run.tuning import choose
from ..study import results
from ..study.records import read

GUESS = 20.0  # s of a trial of a task that was never measured
START = 1.0  # s of a trial beside its build and its turns: a fork, imports, scoring
Known = dict[tuple, list[dict]]


def preview(plan: Plan, options: Any) -> dict[str, Any]:
    """The plan as plain data. Reads records and the data cache; starts no worker, imports no technique, fetches nothing."""
    folder = options.out or Path("runs") / plan.suite.name
    here = [] if options.fresh else stored([folder])
    known = index([*stored(results.files()), *stored([folder])])
    environment = environment_key(fingerprint(), plan.suite.threads, plan.suite.devices[0])
    done = {identity(record): record for record in here}
    away = missing(plan)
    rows: dict[tuple, dict] = {}
    total = {"trials": 0, "finished": 0, "guessed": 0, "seconds": 0.0, "at_most": 0.0}
    skipped: Counter = Counter()
    for group in plan.groups:
        for trial, reason in group.skipped:
            skipped[f"{trial.task}/{trial.method}", reason] += 1
        for trial in everything(plan, group, done, environment):
            absent = [name for name in group.data.needs if name in away]
            if absent and options.offline:
                skipped[f"{trial.task}/{trial.method}", f"data set '{absent[0]}' is missing and --offline is set"] += 1
                continue
            add(rows, total, trial, plan, known, finished(trial, done, environment))
    limits = plan.suite.limits
    return {
        "suite": plan.suite.name, "size": plan.suite.size, "folder": str(folder), "devices": list(plan.suite.devices),
        "seeds": list(plan.suite.seeds), "trials": total["trials"], "finished": total["finished"],
        "minutes": minutes(total["seconds"]), "minutes_at_most": minutes(total["at_most"]), "guessed": total["guessed"],
        "memory_limit": limits.memory, "deadline": limits.seconds,
        "rows": [finish(row) for row in rows.values()],
        "downloads": [
            {"name": name, "bytes": datasets.get(name).bytes, "licence": datasets.get(name).licence, "state": state}
            for name, state in away.items()
        ],
        "skipped": [{"what": what, "reason": reason, "trials": count} for (what, reason), count in skipped.items()],
        "notes": list(dict.fromkeys([*plan.registry.problems, *plan.notes])),
    }  # fmt: skip


def minutes(seconds: float) -> float:
    return round(seconds / 60, 2)


def stored(paths: Iterable[Path]) -> list[dict]:
    """Records under these paths; what is not there, or cannot be read, counts as nothing known."""
    found: list[dict] = []
    for path in paths:
        try:
            found += read(path).records
        except RecordError:
            continue
    return found


def missing(plan: Plan) -> dict[str, str]:
    """Data set -> "missing" or "damaged"."""
    return {name: state for name in plan.needs if (state := datasets.state(name)) != "here"}


def everything(plan: Plan, group: Group, done: dict[tuple, dict], environment: str) -> Iterable[Trial]:
    """Tuning trials and measured ones; the latter at the settings that finished tuning has chosen, where it is finished."""
    for trials in group.tuning.values():
        yield from trials
    for trial in group.trials:
        tuning = group.tuning.get(trial.method, [])
        found = [done.get(key(one, "", {}, environment)) for one in tuning]
        yield choose(plan, group.task, trial, found) if tuning and all(found) else trial


def key(trial: Trial, case: str, knobs: dict, environment: str) -> tuple:
    return identity({"role": trial.role, "key": trial.key, "case": case, "knobs": knobs, "environment": environment})


def finished(trial: Trial, done: dict[tuple, dict], environment: str) -> bool:
    return all(key(trial, case, dict(knobs), environment) in done for case, knobs in trial.settings())


# -- how long, how much ---------------------------------------------------------------------------------------------------


def levels(task: str, method: str, size: str, params: dict, data: str, budget: dict) -> list[tuple]:
    """From the same trial to the same task: where records are looked up, nearest first."""
    near = (task, size, method)
    return [
        (*near, data, repr(sorted(params.items())), repr(sorted(budget.items()))),
        (*near, data, repr(sorted(budget.items()))),
        near,
        (task, size),
    ]


def index(records: Sequence[dict]) -> Known:
    known: Known = {}
    for record in records:
        if record["readings"].get("build.time", {}).get("value") is not None:
            names = (record[name] for name in ("task", "method", "size", "params", "data", "budget"))
            for level in levels(*names):
                known.setdefault(level, []).append(record)
    return known


def nearest(trial: Trial, known: Known) -> tuple[list[dict], bool]:
    """Earlier records to judge by, and whether they are of this method at all."""
    budget = {name: value for name, value in vars(trial.budget).items() if value not in (None, "")} if trial.budget else {}
    for number, level in enumerate(levels(trial.task, trial.method, trial.size, trial.params, str(trial.data), budget)):
        if level in known:
            return known[level], number < 3
    return [], False


def seconds(trial: Trial, found: Sequence[dict], plan: Plan) -> float:
    """Build, then the turns of every case and knob setting; GUESS where nothing is known."""
    limits = plan.suite.limits
    if not found:
        return GUESS
    build = statistics.median(record["readings"]["build.time"]["value"] for record in found) * replicates(trial)
    calls = [v for record in found if (v := record["readings"].get("serve.latency", {}).get("value"))]
    call = statistics.median(calls) if calls else 0.0
    settings = len(trial.settings()) if trial.cases else 0
    turns = min(limits.rounds * max(limits.turn, 2 * call), max(limits.serve, 6 * call))
    return min(limits.seconds, START + build + settings * turns)


def replicates(trial: Trial) -> int:
    return min(trial.replicates, 20) if trial.size == "smoke" else trial.replicates


def add(rows: dict, total: dict, trial: Trial, plan: Plan, known: Known, is_done: bool) -> None:
    found, own = nearest(trial, known)
    row = rows.setdefault(
        (trial.task, trial.method, trial.role),
        {"task": trial.task, "method": trial.method, "role": trial.role, "trials": 0, "finished": 0, "guessed": 0, "seconds": 0.0,
         "peak": None, "labels": {}, "data": {}, "cases": trial.cases, "knobs": len(trial.knobs) if trial.cases else 0},
    )  # fmt: skip
    row["trials"] += 1
    total["trials"] += 1
    row["labels"][", ".join(f"{name}={value}" for name, value in trial.params.items())] = None
    row["data"][str(trial.data)] = None
    for record in found if own else ():
        for name in ("build.peak_memory", "serve.peak_memory", "build.device_peak_memory", "serve.device_peak_memory"):
            value = record["readings"].get(name, {}).get("value")
            row["peak"] = max(row["peak"] or 0, value) if value is not None else row["peak"]
    if is_done:
        row["finished"] += 1
        total["finished"] += 1
        return
    spent = seconds(trial, found, plan)
    for item in (row, total):
        item["seconds"] += spent
        item["guessed"] += not own
    total["at_most"] += plan.suite.limits.seconds


def finish(row: dict) -> dict:
    row = {**row, "params": list(row["labels"]), "data": list(row["data"]), "cases": list(row["cases"])}
    row["minutes"], row["peak_memory"] = minutes(row.pop("seconds")), row.pop("peak")
    del row["labels"]
    return row


# -- for people -----------------------------------------------------------------------------------------------------------


def text(found: dict[str, Any]) -> str:
    """The plan as lines: what, how long, how much memory, what has to be fetched."""
    lines = [f"suite {found['suite']}, size {found['size']}, devices {', '.join(found['devices'])} -> {found['folder']}", ""]
    width = max((len(f"{row['task']}/{row['method']}") for row in found["rows"]), default=10)
    for row in found["rows"]:
        name = f"{row['task']}/{row['method']}"
        serve = f", {len(row['cases'])} cases x {row['knobs']} knob settings" if row["cases"] else ""
        tuning = "tuning " if row["role"] == "tuning" else ""
        state = f", {row['finished']} done" if row["finished"] else ""
        peak = f", {size(row['peak_memory'])}" if row["peak_memory"] else ""
        guess = " (guess)" if row["guessed"] else ""
        count = f"{row['trials']} {tuning}trial{'s' if row['trials'] > 1 else ''}"
        lines.append(f"  {name:<{width}}  {count}{serve}{state}: {duration(row['minutes'])}{guess}{peak}")
        if row["role"] == "measure":
            lines += [f"  {'':<{width}}    {params}" for params in row["params"] if params]
    lines.append("")
    left = found["trials"] - found["finished"]
    lines.append(
        f"{found['trials']} trials, {found['finished']} finished, {left} to run: about {duration(found['minutes'])}, "
        f"at most {duration(found['minutes_at_most'])} (the deadline of {found['deadline']:g} s for each)"
    )
    if found["guessed"]:
        lines.append(
            f"{found['guessed']} of these times are guesses: the task's median, or {GUESS:g} s where nothing of it was measured"
        )
    lines.append("Not in these times: fetching, and shared material that is made once.")
    lines.append(f"memory limit of a trial: {size(found['memory_limit'])}")
    for item in found["downloads"]:
        lines.append(f"to fetch: {item['name']} ({item['state']}), {item['bytes'] / 1e6:.1f} MB, {item['licence']}")
    lines += [
        f"skipped: {item['what']}, {item['trials']} trial{'s' if item['trials'] > 1 else ''}: {item['reason']}"
        for item in found["skipped"]
    ]
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join([*lines, "Nothing was started."])


def duration(value: float) -> str:
    return f"{value * 60:.0f} s" if value < 2 else f"{value:.0f} min" if value < 120 else f"{value / 60:.1f} h"


def size(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
