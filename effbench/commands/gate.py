"""`effbench compare BASE..HEAD`: two worktrees, process pairs, verdicts, a second look at what changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ..api.errors import RunError
from ..plan import benches as plan
from ..plan import suite as suites
from ..plan.benches import Matched
from ..plan.origins import plugin_origins
from ..plan.registry import Registry
from ..run import commits
from ..run.command import stoppable
from ..run.committed import Committed
from ..run.counts import driver_for
from ..run.materials import Materials
from ..run.pairs import SIDES, Driver, Effort, Evidence, Samples, Setting, Side
from ..study import compare as study
from ..study.compare import Judged, Row, Times, Verdicts

DEFAULT, PRECISE = (Effort(), 0.02), (Effort(pairs=30, facts=5), 0.01)
# On a device the clock is steadier and each pair holds ten contexts (`run.contexts`).
ON_DEVICE, PRECISE_ON_DEVICE = (Effort(pairs=5, turns=60, serve=6.0), 0.01), (Effort(pairs=15, facts=5, turns=60, serve=6.0), 0.01)


@dataclass
class Options:
    """The command line of `effbench compare BASE..HEAD`."""

    commits: str
    suite: str = "smoke"
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    since: str = ""
    unchanged: bool = False  # also measure benchmarks whose content is the same on both sides
    precise: bool = False
    strict: bool = False
    device: str = "cpu"
    repository: Path | None = None
    quiet: bool = False
    effort: Effort | None = None  # for tests
    effect: float | None = None


def compare(options: Options) -> Verdicts:
    """Measure BASE against HEAD. EffbenchError where nothing can be compared."""
    start = time.monotonic()
    say = (lambda text: None) if options.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    change = commits.resolve(options.commits, options.repository)
    suite = suites.read(options.suite).override(devices=(options.device,))
    on_cpu = options.device == "cpu"
    effort, effect = (PRECISE if options.precise else DEFAULT) if on_cpu else (PRECISE_ON_DEVICE if options.precise else ON_DEVICE)
    effort, effect = options.effort or effort, options.effect or effect
    found = Verdicts(change.base, change.head)
    named = {"base": change.base, "head": change.head}
    if options.since:
        named["since"] = commits.commit(change.repository, options.since, "--since")
    with stoppable(), commits.worktrees(change.repository, **named) as folders:
        found.notes += commits.remarks(change, folders)
        if options.commits.rstrip(".").endswith("HEAD") or options.commits.endswith(".."):
            found.notes += uncommitted(change.repository)
        plugins = plugin_origins()[0]
        registries = {
            name: Registry.read([commits.origin(folder, f"{name} ({named[name][:12]})"), *plugins])
            for name, folder in folders.items()
        }
        matched = select(options, suite, registries, change.techniques, found)
        benches = matched.benches
        if benches:
            say(f"{change.base[:10]} against {change.head[:10]}: {len(benches)} benchmarks, {effort.pairs} process pairs")
            materials = Materials()
            sides = {name: Side(name, registries[name], materials) for name in SIDES}
            driver = driver_for(options.device)(sides, effort, memory=suite.limits.memory, seconds=suite.limits.seconds, say=say)
            try:
                judge = Judge(effect, on_cpu, directions(registries["head"]))
                found.rows = measured(driver, benches, judge, registries, change, found.notes, say)
            finally:
                driver.close()
        else:
            verify((), registries, change, found.notes)
    found.rule = f"{effort.pairs} process pairs, minimum effect {effect:.0%}, changes measured again with fresh processes"
    found.code = study.code(found.rows, strict=options.strict)
    found.seconds = time.monotonic() - start
    return found


def uncommitted(repository: Path) -> list[str]:
    state = commits.git(repository, "status", "--porcelain", "--untracked-files=no")
    return ["the working tree has uncommitted changes, which are not part of HEAD and were not measured"] if state else []


def select(options: Options, suite, registries: dict[str, Registry], techniques, found: Verdicts) -> Matched:
    """The benchmarks to measure, and notes on those that are not. `techniques`: files of techniques that the diff touches."""

    def tuned(registry):
        return Committed(registry, suite.size)

    def match(base: str, head: str) -> Matched:
        return plan.match(suite, registries[base], registries[head], tasks=options.tasks, methods=options.methods, tuned=tuned)

    matched = match("base", "head")
    for label, names in (("only in head, not compared", matched.added), ("only in base, not compared", matched.removed)):
        if names:
            found.notes.append(f"{label}: {', '.join(names[:8])}" + (f" and {len(names) - 8} more" if len(names) > 8 else ""))
    found.notes += matched.notes
    for name in SIDES:
        found.notes += [f"{name}: {problem}" for problem in registries[name].problems[:5]]
    if options.since:
        chosen = plan.since(matched.benches, match("since", "since"))
        if not chosen:
            found.notes.append(f"no content key differs between {options.since} and head: nothing was measured")
        else:
            found.notes.append(
                f"--since {options.since}: {len(chosen)} of {len(matched.benches)} benchmarks have another content key"
            )
        matched.benches = chosen
    elif not matched.benches:
        found.notes.append("the two sides share no benchmark: nothing was measured")
    elif not options.unchanged:
        # One that loads a file of the diff is measured whatever its key says: whether each side loaded its own is then verified.
        chosen = [bench for bench in matched.benches if bench.changed or plan.touched(bench, registries, techniques)]
        same, what = len(matched.benches) - len(chosen), "the same content key (files, settings and data) on both sides"
        if not chosen:
            found.notes.append(
                f"all {same} benchmarks have {what}: nothing can differ, and nothing was measured; --unchanged measures them"
            )
        elif same:
            found.notes.append(
                f"{same} of {len(matched.benches)} benchmarks have {what}: not measured; --unchanged measures them too"
            )
        matched.benches = chosen
    return matched


def directions(registry: Registry) -> dict[str, str]:
    return {f"quality.{name}": metric.better for task in registry.tasks.values() for name, metric in task.metrics.items()}


# -- measuring --------------------------------------------------------------------------------------------------------


def measured(driver: Driver, benches, judge, registries, change, notes: list[str], say) -> list[Row]:
    wanted = {bench.label: Evidence(bench) for bench in benches}
    driver.measure(wanted, times=wanted, facts=wanted)
    verify(wanted.values(), registries, change, notes)
    first = [look for item in wanted.values() for look in judge.looks(item)]
    times = {look.item.bench.label for look in first if look.suspected and look.timed}
    facts = {look.item.bench.label for look in first if look.suspected and not look.timed}
    failing = {label for label, item in wanted.items() if one_sided(item)}
    times, facts = times | failing, facts | failing
    again: dict[str, Evidence] = {}
    if doubtful := times | facts:
        say(f"measuring {len(doubtful)} of {len(wanted)} benchmarks again with fresh processes")
        again = {
            label: Evidence(item.bench, builds=item.builds, saved=item.saved) for label, item in wanted.items() if label in doubtful
        }
        look_again(driver, first, again, times, facts)
    rows = []
    for item in wanted.values():
        rows += broken(item, again.get(item.bench.label), notes)
    for look in first:
        rows.append(judge.row(look, again.get(look.item.bench.label)))
    disturbed = [reason for item in wanted.values() for reason in item.disturbed]
    if disturbed:
        pairs = sum(len(next(iter(item.times.values()), [])) for item in wanted.values())
        notes.append(f"{len(disturbed)} of {pairs} timings were disturbed, for example: {disturbed[0]}")
    return study.ordered(rows)


def look_again(driver: Driver, first: list[Look], again: dict[str, Evidence], times: set[str], facts: set[str]) -> None:
    """Fresh pairs into `again`, half of them at first; the rest for benchmarks that these leave open."""
    effort, done = driver.effort, 0
    try:
        for upto in study.looks(effort.pairs):
            driver.effort = replace(effort, pairs=upto - done)
            driver.measure(again, times=times, facts=facts, first=effort.facts)
            done, facts = upto, set()
            doubted = [look for look in first if look.suspected and look.timed]
            times = {label for look in doubted if not look.settled(again[label := look.item.bench.label])}
            if not times:
                break
    finally:
        driver.effort = effort


def verify(items, registries: dict[str, Registry], change, notes: list[str]) -> None:
    """Each side must have loaded its own commit's techniques: files that the diff touches may not be the same on both sides."""
    covered: set[str] = set()
    for item in items:
        bench, touched = item.bench, plan.touched(item.bench, registries, change.techniques)
        covered |= touched
        if set(item.files) < set(SIDES):
            continue
        for name in sorted(touched):
            stem = name.removesuffix(".py").removesuffix("/__init__")
            module = "effbench_implementations" + ("." + stem.replace("/", ".") if stem != "__init__" else "")
            seen = [item.files[side].get(module) for side in SIDES]
            if seen[0] is not None and seen[0] == seen[1]:
                raise RunError(
                    f"both sides loaded the same {name} (digest {seen[0]}), although the diff changes it", where=bench.label,
                    remedy="The comparison did not see the change; remove EFFBENCH_IMPLEMENTATIONS or report this.",
                )  # fmt: skip
    unseen = sorted(set(change.techniques) - covered)
    if unseen:
        shown = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
        notes.append(f"changed technique files that no compared benchmark loads: {shown}")
        loaded = [item for item in items if item.files]
        if not covered and loaded and not any(item.bench.changed for item in loaded):
            notes.append("both sides loaded the same techniques in every benchmark: this comparison says nothing about the change")


def one_sided(item: Evidence) -> bool:
    return any(len(sides) == 1 and next(iter(sides.values()))[0] != "skipped" for sides in item.failed.values())


def broken(item: Evidence, again: Evidence | None, notes: list[str]) -> Iterator[Row]:
    """A row for every setting (or the whole benchmark) where one side failed and the other did not; a note where both did."""
    for setting, sides in item.failed.items():
        said = "; ".join(f"{side} {status}: {reason}" for side, (status, reason) in sorted(sides.items()))
        label = " ".join(filter(None, [item.bench.label, described(setting)]))
        if len(sides) == 2:
            notes.append(f"{label}: not measured on either side ({said})")
            continue
        side, nothing = next(iter(sides)), float("nan")
        verdict = study.BROKEN if side == "head" else study.MENDED
        if again is not None and side not in again.failed.get(setting, {}):
            verdict, said = "UNCLEAR", f"{said}; measured again with fresh processes it did not fail"
        numbers = (nothing,) * 5
        yield Row(
            item.bench.label, described(setting), "status", "", *numbers, verdict, "status", again=again is not None, note=said
        )


# -- judging ----------------------------------------------------------------------------------------------------------


@dataclass
class Look:
    """One metric of one benchmark, judged once."""

    item: Evidence
    setting: Setting | None
    metric: str
    first: list
    judged: Judged
    judge: Callable[[list], Judged]
    suspected: bool
    timed: bool
    unit: str

    def of(self, item: Evidence) -> list:
        """The same metric in other processes' evidence of the same benchmark."""
        key = (self.setting, self.metric)
        return [times(sample) for sample in item.times.get(key, ())] if self.timed else known(item.facts.get(key, []))

    def settled(self, again: Evidence) -> bool:
        """Whether a second look has confirmed a change, or can measure no more."""
        fresh = self.of(again)
        confirmed = bool(fresh) and study.settle(self.first, fresh, self.judge)[0].changed
        return confirmed or not again.usable or self.setting in again.failed


@dataclass
class Judge:
    effect: float
    on_cpu: bool
    better: dict[str, str]

    def looks(self, item: Evidence) -> Iterator[Look]:
        if not item.usable:
            return
        for (setting, metric), samples in item.times.items():
            if setting in item.failed:
                continue
            pairs = [times(sample) for sample in samples]
            if metric == "build.time" and median(min(pair.base_wall) for pair in pairs) < study.BUILD_FLOOR:
                continue
            judged = self.times(pairs)
            yield Look(item, setting, metric, pairs, judged, self.times, study.suspected(judged, self.effect), True, "s")
        for (setting, metric), readings in item.facts.items():
            judge = study.judge_reading(metric, self.better, item.bench.deterministic)
            values = known(readings)
            if judge is None or not values or setting in item.failed:
                continue
            judged = judge(values)
            unit = readings[0][0].get("unit") or readings[0][1].get("unit", "")
            yield Look(item, setting, metric, values, judged, judge, judged.changed, False, unit)

    def times(self, pairs: list[Times]) -> Judged:
        return study.judge_times(pairs, effect=self.effect, on_cpu=self.on_cpu)

    def row(self, look: Look, again: Evidence | None) -> Row:
        judged, note, values = look.judged, "", look.first
        if look.suspected and again is not None:
            if failures := again.failed.get(None) or again.failed.get(look.setting):
                side, (status, reason) = next(iter(failures.items()))
                verdict = study.BROKEN if set(failures) == {"head"} else "UNCLEAR"
                judged, note = replace(judged, verdict=verdict), f"measured again: {side} {status}: {reason}"
            else:
                fresh = look.of(again)
                if fresh:
                    judged, note = study.settle(look.first, fresh, look.judge)
                    values = [*look.first, *fresh]
                else:
                    judged, note = replace(judged, verdict="UNCLEAR"), "measured again: no value"
        if look.timed:
            clock = "cpu" if judged.wall is not None else "wall"
            base, head = (median(median(getattr(pair, f"{side}_{clock}")) for pair in values) for side in SIDES)
        else:
            base, head = (median(pair[index] for pair in values) for index in (0, 1))
        setting = described(look.setting)
        return Row(
            look.item.bench.label, setting, look.metric, look.unit, base, head, judged.ratio, judged.low, judged.high, judged.verdict,
            judged.how, judged.wall, bool(note), note,
        )  # fmt: skip


def known(readings: list[tuple[dict, dict]]) -> list[tuple[float, float]]:
    return [(a["value"], b["value"]) for a, b in readings if a.get("value") is not None and b.get("value") is not None]


def times(sample: Samples) -> Times:
    return Times(sample.wall["base"], sample.wall["head"], sample.cpu["base"], sample.cpu["head"])


def described(setting: Setting | None) -> str:
    if setting is None:
        return ""
    case, base, head = setting
    shown = " ".join(f"{name}={value}" for name, value in head)
    return f"{case} {shown}".strip() + (f" (base: {' '.join(f'{n}={v}' for n, v in base)})" if base != head else "")
