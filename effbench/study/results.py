"""Committed reference records: results/<machine>/<suite>.jsonl, and tuning records in results/tuning/<suite>.jsonl.

Records come here from run folders only, unchanged, and only from a commit that can be looked up. Adding a run twice changes
nothing; of two records of the same measurement one stays (`stands`), in the file of its suite: two suites of one machine may hold the
same trial.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..api.errors import RecordError
from ..api.record import dumps, identity
from ..measure import roofline
from ..plan.origins import beside
from .records import ENVIRONMENT, read

TUNING = "tuning"
COMMIT = re.compile(r"[0-9a-f]{7,64}")
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


def folder() -> Path | None:
    """The results beside the engine: of the checkout, or as installed."""
    return beside("results", "effbench_results")


def files(where: Path | None = None) -> list[Path]:
    """Record files of a results folder, tuning records left out; [] where there is none."""
    where = where or folder()
    found = sorted(where.glob("*/*.jsonl")) if where is not None else []
    return [path for path in found if path.parent.name != TUNING]


def roofs(key: str, where: Path | None = None) -> dict[str, Any] | None:
    """What a calibration of this environment key reached, of this machine or of one with the same description; None without one."""
    where = where or folder()
    for path in sorted(where.glob(f"*/{ENVIRONMENT}")) if where is not None else ():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))[key]["roofs"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if roofline.sound(found):
            return found
    return None


def add(run: Path, to: Path | None = None) -> list[str]:
    """Copy the records of a run folder; one line for every file written or left as it is. RecordError, and nothing written, where
    a record is damaged, has no commit that can be looked up, or was made on a machine that nothing describes."""
    loaded = read(run)
    if loaded.problems:
        more = f" (and {len(loaded.problems) - 1} more)" if len(loaded.problems) > 1 else ""
        raise RecordError(
            f"the records are damaged: {loaded.problems[0]}{more}", where=str(run), remedy="Run it again; records are not edited."
        )
    for record in loaded.records:
        refuse(record, str(run))
    to = Path(to) if to is not None else target()
    chosen: dict[Path, list[dict]] = {}
    for record in loaded.records:
        name = TUNING if record["role"] == TUNING else machine(record["environment"], loaded.environments[record["environment"]])
        chosen.setdefault(to / name / f"{record['suite']}.jsonl", []).append(record)
    plans, outdated = [], {}  # all is read before anything is written
    for path, records in sorted(chosen.items()):
        later, left = elsewhere(path, records)
        outdated |= left
        plans.append((path, *merged(path, later)))
    lines = []
    for path, records in outdated.items():
        if records:
            write(path, "".join(dumps(record) + "\n" for record in records))
        else:
            path.unlink()
        lines.append(
            f"{path.parent.name}/{path.name}: gives way to records of the same trials in another suite, {len(records)} records"
        )
    for path, records, new, replaced in plans:
        described = describe(path.parent, {r["environment"]: loaded.environments[r["environment"]] for r in chosen[path]})
        shown = f"{path.parent.name}/{path.name}"
        if not new and not replaced and not described:
            lines.append(f"{shown}: nothing new, {len(records)} records")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if described:
            write(path.parent / ENVIRONMENT, json.dumps(described, indent=1, sort_keys=True) + "\n")
        write(path, "".join(dumps(record) + "\n" for record in records))
        lines.append(f"{shown}: {new} new, {replaced} replaced, {len(records)} records")
    return lines


def target() -> Path:
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise RecordError("effbench does not run from a checkout", where="results", remedy="Name the results folder with --to.")
    return root / "results"


def refuse(record: dict, where: str) -> None:
    """RecordError where a record cannot be traced to a commit, or its names are none."""
    label = f"{record['task']}/{record['method']}"
    if not COMMIT.fullmatch(record["commit"]):
        why = "has changes that no commit holds" if record["commit"].endswith("-dirty") else "cannot be looked up"
        raise RecordError(
            f"{label} was measured at commit '{record['commit'][:60]}', which {why}",
            where=where,
            remedy="Commit effbench/, implementations/ and suites/, and run again: only then can others repeat it.",
        )
    if not PLAIN.fullmatch(record["suite"]):
        raise RecordError(f"suite '{record['suite'][:60]}' of {label} is no plain name", where=where, remedy="Rename the suite.")


def machine(key: str, facts: dict[str, Any]) -> str:
    """A folder's name: model of the CPU, or of the GPU where that was measured, how many, and the environment key's head."""
    gpus = [gpu.get("name", "gpu") for gpu in facts.get("gpus") or () if isinstance(gpu, dict)]
    if facts.get("device", "cpu") == "cpu":
        model, count = str(facts.get("cpu", "cpu")), f"{facts.get('cores', 0)}c"
    else:
        model, count = (str(gpus[0]), f"{len(gpus)}x") if gpus else (str(facts["device"]), "1x")
    return f"{slug(model)}-{count}-{slug(key)[:6]}"


def slug(text: str) -> str:
    text = re.sub(r"\((r|tm|c)\)", " ", text.lower())
    text = re.sub(r"\b(cpu|processor|with|graphics)\b|@.*", " ", text)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:40].strip("-") or "unknown"


def merged(path: Path, records: Iterable[dict]) -> tuple[list[dict], int, int]:
    """What the file will hold, sorted, and how many records are new and how many replace an older one."""
    held = {identity(record): record for record in read(path).records} if path.exists() else {}
    new = replaced = 0
    for record in records:
        key = identity(record)
        if key not in held:
            new += 1
        elif stands(held[key], record) is held[key]:
            continue
        else:
            replaced += 1
        held[key] = record
    return sorted(held.values(), key=order), new, replaced


def stands(a: dict, b: dict) -> dict:
    """Which of two records of the same trial and content stays; `a` where they are equal.

    The later one, but a record that the host disturbed gives way to one that it did not, one at the defaults to one whose settings were
    tuned and came out the same, and one that leaves out a quantity (the joules of a suite that asks for no energy) to one that has it
    and all others. Roofs are no such quantity: they are drawn over what was measured, where a machine has been calibrated.
    """
    if {a["status"], b["status"]} == {"ok", "unstable"}:
        return a if a["status"] == "ok" else b
    tuned = [bool(record.get("tuning", {}).get("trials")) for record in (a, b)]
    if a["status"] == b["status"] and tuned[0] != tuned[1]:
        return a if tuned[0] else b
    in_a, in_b = (
        {name for name, reading in record["readings"].items() if reading.get("value") is not None and not name.endswith(".roof")}
        for record in (a, b)
    )
    if a["status"] == b["status"] and (in_a < in_b or in_b < in_a):
        return a if in_b < in_a else b
    return a if (a["time"], dumps(a)) >= (b["time"], dumps(b)) else b


def elsewhere(path: Path, records: list[dict]) -> tuple[list[dict], dict[Path, list[dict]]]:
    """The records that do not give way to those of the same trials in other suites' files; and {file: what it keeps} of those files that
    lose records to them."""
    mine, outdated = {identity(record): record for record in records}, {}
    for other in sorted(set(path.parent.glob("*.jsonl")) - {path}):
        held = read(other).records
        both = {identity(record): record for record in held if identity(record) in mine}
        gone = {key for key, record in both.items() if stands(record, mine[key]) is not record}
        if gone:
            outdated[other] = [record for record in held if identity(record) not in gone]
        for key in both.keys() - gone:
            del mine[key]
    return list(mine.values()), outdated


def order(record: dict) -> tuple:
    settings = json.dumps([record["budget"], record["params"]], sort_keys=True)
    place = (record["area"], record["task"], record["data"], record["size"], record["device"], record["method"], settings)
    return (*place, record["seed"], record["case"], json.dumps(record["knobs"], sort_keys=True), record["role"], record["key"])


def describe(where: Path, new: dict[str, dict]) -> dict[str, dict]:
    """environment.json with these environments in it; {} where it says all that already. A known environment keeps its words and
    gains the facts that it lacked, as the roofs of a machine that was calibrated later; of two calibrations the higher roofs stay, since
    a roof is what the machine has reached.
    """
    path = where / ENVIRONMENT
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    made = {**new, **known} | {key: {**new[key], **known[key]} for key in set(new) & set(known)}
    for key in set(new) & set(known):
        if "roofs" in new[key] and "roofs" in known[key]:
            made[key]["roofs"] = highest(known[key]["roofs"], new[key]["roofs"])
    return {} if made == known else made


def highest(known: dict, new: dict) -> dict:
    """Roofs of which each is the higher of the two; what else a calibration says is the known one's. Another version's is none."""
    if known.get("measure") != new.get("measure"):
        return known
    products = known.get("matmul", {}), new.get("matmul", {})
    matmul = {dtype: max(made[dtype] for made in products if dtype in made) for dtype in {**products[1], **products[0]}}
    copies = [made["copy"] for made in (known, new) if "copy" in made]
    return {**new, **known, "matmul": matmul, **({"copy": max(copies)} if copies else {})}


def write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise RecordError(f"cannot write ({error.strerror})", where=str(path), remedy="Free space or mend permissions.") from None
