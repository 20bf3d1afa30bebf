"""The figures that the measuring engine must reach, measured: `python tests/figures/run.py`.

Each figure is kept in a file and not measured again until the engine's sources change, so that a stopped run goes on where it was.
Times depend on the host: on a loaded one only the CPU figures and the simulation mean something (`effbench doctor`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import measurements  # noqa: E402

from effbench.measure import host  # noqa: E402
from effbench.run.provenance import tree_digest  # noqa: E402


@dataclass(frozen=True)
class Figure:
    """`values` of a result are held to `low <= value <= high`; `pick` chooses them out of what was measured."""

    name: str
    title: str
    measure: str
    pick: tuple[str, ...] | None
    low: float
    high: float
    unit: str
    folder: bool = False


FIGURES = (
    Figure("overhead", "cost inside the timed region, a call", "call_overhead", None, -1e-6, 1e-6, "s"),
    Figure("parent", "the parent's share of a core while timing", "parent_share", ("share",), 0.0, 0.01, "1", True),
    Figure("shares", "wall time that is neither build, serve nor score", "wall_shares", ("share",), 0.0, 0.10, "1", True),
    Figure("start", "CPU time to start one more trial", "trial_start", None, 0.0, 0.1, "s"),
    Figure("coverage", "95 % intervals cover, by simulation", "coverage", None, 0.93, 0.97, "1"),
    Figure("agreement", "two runs agree within their intervals", "agreement", ("serve.latency.ratio", "serve.cpu.ratio"), 0.9, 1.0, "1", True),
)  # fmt: skip


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help=f"comma-separated: {', '.join(figure.name for figure in FIGURES)}")
    options.add_argument("--fresh", action="store_true", help="measure again what is there")
    options.add_argument("--out", type=Path, default=Path("runs/figures"), help="folder of the results")
    chosen = options.parse_args()
    wanted = set(filter(None, chosen.only.split(",")))
    if unknown := wanted - {figure.name for figure in FIGURES}:
        options.error(f"unknown figure {sorted(unknown)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    found = [(figure, result(figure, chosen.out, chosen.fresh)) for figure in FIGURES if not wanted or figure.name in wanted]
    print(table(found))
    return 0 if all(reached(figure, values) for figure, values in found) else 1


def result(figure: Figure, out: Path, fresh: bool) -> dict:
    """Measured now, or kept from these very sources."""
    own = hashlib.sha256(Path(measurements.__file__).read_bytes()).hexdigest()[:8]
    path, tree = out / f"{figure.name}.json", f"{tree_digest()}-{own}"
    if not fresh and path.is_file():
        kept = json.loads(path.read_text())
        if kept["tree"] == tree:
            return kept["values"]
    print(f"measuring: {figure.title}", file=sys.stderr, flush=True)
    measure = getattr(measurements, figure.measure)
    with tempfile.TemporaryDirectory(prefix="effbench-figures-") as folder:
        values = measure(Path(folder)) if figure.folder else measure()
    kept = {"tree": tree, "cpu": host.cpu_model(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "values": values}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(kept, indent=1))
    partial.replace(path)
    return values


def held(figure: Figure, values: dict) -> dict:
    return {name: values[name] for name in figure.pick} if figure.pick else values


def reached(figure: Figure, values: dict) -> bool:
    return all(figure.low <= value <= figure.high for value in held(figure, values).values())


def table(found: list) -> str:
    from effbench.publish.format import number

    lines = [("figure", "measured", "wanted", "")]
    for figure, values in found:
        for name, value in held(figure, values).items():
            good = figure.low <= value <= figure.high
            shown = f"{value:.2%}" if figure.unit == "1" else number(value, figure.unit)
            low, high = (f"{end:.0%}" if figure.unit == "1" else number(end, figure.unit) for end in (figure.low, figure.high))
            wanted = f"{low} to {high}" if figure.low > 0 else f"at most {high}"
            label = figure.title if figure.pick and len(figure.pick) == 1 else f"{figure.title}: {name}"
            remark = ", the host was disturbed" if values.get("unstable") else ""
            lines.append((label, shown, wanted, ("reached" if good else "MISSED") + remark))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
