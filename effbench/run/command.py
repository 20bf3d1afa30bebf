"""`effbench run`: from a suite's name to records in a folder."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..api.errors import DeviceError, RunError
from ..data import registry as datasets
from ..data.cache import roofline_folder
from ..measure import roofline
from ..measure.host import environment_key, fingerprint
from ..plan import plan as plans
from ..plan import suite as suites
from ..plan.plan import Plan
from ..plan.registry import Registry
from . import provenance
from .assemble import Provenance
from .committed import Committed
from .journal import Journal
from .materials import Materials
from .progress import Progress
from .schedule import OutOfTime, Runner
from .supervisor import Nurseries

OK, FAILED, STOPPED = 0, 1, 3


@dataclass
class Options:
    """The command line of `effbench run`."""

    suite: str
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    size: str | None = None
    seeds: tuple[int, ...] = ()
    timeout: float | None = None
    memory: str | None = None
    fresh: bool = False
    out: Path | None = None
    within: float | None = None
    bare: bool = False
    offline: bool = False
    quiet: bool = False
    data: tuple[str, ...] = ()  # instead of the suite's
    cases: tuple[str, ...] = ()  # of the suite's only these
    started: float | None = None  # `time.monotonic()` from which --within counts; default now


@dataclass
class Outcome:
    """What a run left behind."""

    folder: Path
    code: int
    counts: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def make_plan(options: Options) -> Plan:
    """Read the suite and the registry, apply the command line, expand. All mistakes of a person end here."""
    registry = Registry.read()
    suite = suites.read(options.suite)
    if options.size is not None:
        suites.one_of(options.size, suites.SIZES, "size", "--size")
    for device in options.devices:
        suites.one_of(device, suites.DEVICES, "device", "--device")
    if options.timeout is not None and not options.timeout > 0:
        raise RunError(f"{options.timeout:g} s is not a deadline", where="--timeout", remedy="Give seconds above 0.")
    limits = suite.limits
    if options.timeout is not None:
        limits = replace(limits, seconds=options.timeout)
    if options.memory is not None:
        limits = replace(limits, memory=suites.parse_bytes(options.memory))
    suite = suite.override(size=options.size, devices=options.devices or None, seeds=options.seeds or None, limits=limits)
    for device in suite.devices:
        if reason := absent(device):
            raise DeviceError(
                f"no device '{device}' here: {reason}",
                where="--device",
                remedy="Choose cpu, or install a build that sees the device.",
            )
    tuned = Committed(registry, suite.size)
    return plans.make(
        suite, registry, tasks=options.tasks, methods=options.methods, data=options.data, only=options.cases, tuned=tuned
    )


def absent(device: str) -> str:
    """Why this machine has no such device, asked without importing a framework, or ""."""
    if device == "cpu":
        return ""
    if device == "cuda":
        found = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() or Path("/dev/nvidia0").exists()
        return "" if found else "there is no NVIDIA driver"
    found = Path("/dev/accel0").exists() or Path("/dev/vfio").exists()
    return "" if found else "there is no TPU"


class Stopped(KeyboardInterrupt):
    """A signal asked to stop.

    Of a class of its own, since CPython remembers a plain KeyboardInterrupt that left a string given to `exec` (every dataclass is made
    by one), and then ends by killing itself with SIGINT, whatever exit code was asked for after it was caught.
    """


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly, resumable. Ctrl-C that the shell ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise Stopped

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(options: Options) -> Outcome:
    with stoppable():
        return _run(options)


def _run(options: Options) -> Outcome:
    start = options.started or time.monotonic()
    if options.within is not None and not options.within > 0:
        raise RunError(f"{options.within:g} s is no time", where="--within", remedy="Give seconds above 0.")
    plan = make_plan(options)
    suite = plan.suite
    folder = options.out or Path("runs") / suite.name
    progress = Progress(len({trial.key for trial in plan.trials}), quiet=options.quiet)
    outcome = Outcome(folder, OK)
    with Journal.open(folder, suite=suite.name, text=suite.text, fresh=options.fresh) as journal:
        for note in [*plan.registry.problems, *journal.notes, *plan.notes]:
            progress.line(f"note: {note}")
        outcome.notes = [*plan.registry.problems, *journal.notes, *plan.notes]
        fetch(plan, options, progress)
        machine = fingerprint()
        key = environment_key(machine, suite.threads, suite.devices[0])
        roofs = measured_roofs(machine, suite)
        details = {**machine, "threads": suite.threads, "device": suite.devices[0]}
        journal.add_environment(key, details | ({"roofs": roofs[suite.devices[0]]} if suite.devices[0] in roofs else {}))
        origin = Provenance(suite.name, key, provenance.commit(), provenance.tree_digest())
        try:
            with Nurseries() as nurseries:
                until = start + options.within if options.within else None
                Runner(plan, journal, origin, Materials(), progress, nurseries, until, roofs=roofs).run()
        except OutOfTime:
            took = time.monotonic() - start
            outcome.stopped = f"stopped after {took:.0f} s of the {options.within:g} s of --within; the same command resumes"
        except KeyboardInterrupt:
            outcome.stopped = "interrupted; the same command resumes"
        finally:
            progress.close()
        outcome.counts = dict(Counter(record["status"] for record in journal.done.values()))
        if options.bare:
            journal.strip()
        else:
            journal.tidy()
    outcome.seconds = time.monotonic() - start
    outcome.code = code(outcome)
    return outcome


def measured_roofs(machine: dict, suite: suites.Suite) -> dict[str, dict]:
    """device -> roofs that `effbench doctor --calibrate` measured on this machine."""
    found = {}
    for device in suite.devices:
        key = environment_key(machine, suite.threads, device)
        if roofs := roofline.load(roofline_folder(), key, device, suite.threads):
            found[device] = roofs
    return found


def code(outcome: Outcome) -> int:
    """A run in which nothing was measured did not succeed."""
    if outcome.stopped:
        return STOPPED
    bad = sum(count for status, count in outcome.counts.items() if status not in ("ok", "skipped"))
    return FAILED if bad or not outcome.counts.get("ok") else OK


def fetch(plan: Plan, options: Options, progress: Progress) -> None:
    """Bring the data sets that the suite needs. What cannot be had is skipped trial by trial, with the reason."""
    from ..api.errors import DataError

    for name in plan.needs:
        if datasets.state(name) == "here":
            continue
        dataset = datasets.get(name)
        if options.offline:
            progress.line(f"note: data set '{name}' is missing and --offline is set: its trials are skipped")
            continue
        cost = f": computed here, {dataset.cost}" if dataset.cost else ""
        progress.line(f"fetching data set '{name}' ({dataset.bytes / 1e6:.1f} MB{cost})")
        try:
            # What is computed takes minutes and says how far it is; downloads are left silent.
            datasets.fetch(name, lambda text, done, total: None if total else progress.line(text))
        except DataError as error:
            progress.line(f"note: {error}")
