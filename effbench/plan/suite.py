"""Suite files: strict TOML. An unknown key, name or type is an error that says where, and what was meant."""

from __future__ import annotations

import ast
import itertools
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..api.errors import SuiteError, suggest
from ..api.param import same_type
from ..api.values import SIZES, Budget, Data
from ..backends import DEVICES
from .origins import beside

TOP = {"name": str, "title": str, "size": str, "seeds": list, "devices": list, "threads": int, "dtype": str, "run": list,
       "params": dict, "knobs": dict, "limits": dict, "report": dict}  # fmt: skip
RUN = {
    "task": str,
    "data": list,
    "methods": list,
    "cases": list,
    "budget": (dict, list),
    "tune": dict,
    "params": dict,
    "knobs": dict,
}
LIMITS = {
    "seconds": (int, float),
    "memory": (int, float, str),
    "turn": (int, float),
    "rounds": int,
    "serve": (int, float),
    "energy": (int, float),
}
REPORT = {"baseline": str, "fronts": list}
TUNE = {"trials": int, "search": bool}
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Limits:
    """seconds: deadline of one trial's own turns; memory: bytes a trial may allocate; turn: seconds of one timed turn;
    rounds: how often each (case, knobs) is visited; serve: seconds a group may spend on timing each (case, knobs) of a method; energy: seconds of calls under the energy
    counter for each (case, knobs), 0 for none."""

    seconds: float = 600.0
    memory: int = 8 << 30
    turn: float = 0.05
    rounds: int = 10
    serve: float = 3.0
    energy: float = 0.0


@dataclass(frozen=True)
class RunSpec:
    """One [[run]] table, as written."""

    task: str
    data: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("*",)
    cases: tuple[str, ...] = ()
    budgets: tuple[Budget | None, ...] = (None,)
    tune: int = 0  # tuning trials per arm; 0 = settings as written
    search: bool = False  # search settings now, instead of reading committed tuning records
    params: dict = field(default_factory=dict)
    knobs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    name: str
    runs: tuple[RunSpec, ...]
    title: str = ""
    size: str = "quick"
    seeds: tuple[int, ...] = (0,)
    devices: tuple[str, ...] = ("cpu",)
    threads: int = 1
    dtype: str = "float32"
    limits: Limits = Limits()
    baseline: str = ""
    fronts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    where: str = ""

    def override(self, **changes) -> Suite:
        return replace(self, **{key: value for key, value in changes.items() if value is not None})


def folder() -> Path | None:
    return beside("suites", "effbench_suites")


def names() -> list[str]:
    found = folder()
    return sorted(path.stem for path in found.glob("*.toml")) if found else []


def read(name: str) -> Suite:
    """A suite by name or by path."""
    path = Path(name)
    if path.suffix != ".toml" and "/" not in name:
        found = folder()
        path = (found or Path()) / f"{name}.toml"
        if not path.is_file():
            raise SuiteError(f"no suite '{name}'", remedy=suggest(name, names()) + " A path to a .toml file works too.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(
            f"cannot read the suite ({error})", where=str(path), remedy="Give the name of a suite or the path of a .toml file."
        ) from None
    return parse(text, where=str(path))


def parse(text: str, where: str = "suite") -> Suite:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"not valid TOML: {error}", where=where, remedy="Mend the line named.") from None
    _keys(table, TOP, where)
    if not table.get("run"):
        raise SuiteError("no [[run]] table: this suite selects nothing", where=where, remedy="Add [[run]] with a task.")
    name = table.get("name", "")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise SuiteError(f"name = {name!r} is not a plain name", where=where, remedy="Use letters, digits, '.', '_' and '-'.")
    one_of(table.get("size", "quick"), SIZES, "size", where)
    one_of(table.get("dtype", "float32"), DTYPES, "dtype", where)
    if not table.get("devices", ["cpu"]):
        raise SuiteError("devices = [] names none", where=where, remedy='Write devices = ["cpu"], or leave it out.')
    for device in table.get("devices", ["cpu"]):
        one_of(device, DEVICES, "device", where)
    report = table.get("report", {})
    _keys(report, REPORT, f"{where}: [report]")
    fronts = report.get("fronts", [])
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(m, str) for m in pair) for pair in fronts):
        raise SuiteError(
            f"fronts = {fronts} is not a list of pairs of metric names",
            where=f"{where}: [report]",
            remedy='Write [["quality.recall@10", "serve.throughput"]].',
        )
    return Suite(
        name, tuple(_run(item, f"{where}: [[run]] {i + 1}", table) for i, item in enumerate(table["run"])), table.get("title", ""),
        table.get("size", "quick"), _seeds(table.get("seeds", [0]), where), tuple(table.get("devices", ["cpu"])), _threads(table, where),
        table.get("dtype", "float32"), _limits(table.get("limits", {}), f"{where}: [limits]"), report.get("baseline", ""),
        tuple(tuple(pair) for pair in fronts), text, where,
    )  # fmt: skip


def _keys(table: dict, known: dict, where: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise SuiteError(f"unknown key '{key}'", where=where, remedy=suggest(key, known))
        types = known[key] if isinstance(known[key], tuple) else (known[key],)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise SuiteError(
                f"{key} = {value!r} is {type(value).__name__}, not {types[0].__name__}", where=where, remedy="Mend the type."
            )


def one_of(value: str, known, what: str, where: str) -> None:
    if value not in known:
        raise SuiteError(f"unknown {what} '{value}'", where=where, remedy=suggest(str(value), known))


def _seeds(values: list, where: str) -> tuple[int, ...]:
    if not values or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**31 for v in values):
        raise SuiteError(f"seeds = {values} is not a list of integers from 0", where=where, remedy="Write seeds = [0, 1, 2].")
    if len(set(values)) < len(values):
        raise SuiteError(f"seeds = {values} has one twice", where=where, remedy="The same seed is the same measurement: drop one.")
    return tuple(values)


def _threads(table: dict, where: str) -> int:
    if table.get("threads", 1) < 1:
        raise SuiteError(f"threads = {table['threads']} is below 1", where=where, remedy="Use at least one thread.")
    return table.get("threads", 1)


def _strings(table: dict, key: str, default: tuple, where: str) -> tuple[str, ...]:
    values = table.get(key, list(default))
    if not all(isinstance(value, str) for value in values) or (key in table and not values):
        raise SuiteError(f"{key} = {values!r} is not a list of names", where=where, remedy=f"Leave {key} out to take the default.")
    return tuple(values)


def _run(item: dict, where: str, table: dict) -> RunSpec:
    if not isinstance(item, dict):
        raise SuiteError("a run is a table", where=where, remedy="Write [[run]].")
    _keys(item, RUN, where)
    if "task" not in item:
        raise SuiteError("no task", where=where, remedy='Add task = "...".')
    budgets = item.get("budget", [])
    budgets = [budgets] if isinstance(budgets, dict) else budgets
    tune = item.get("tune", {})
    _keys(tune, TUNE, f"{where}: tune")
    if tune and not tune.get("trials", 0) > 0:
        raise SuiteError(f"tune = {tune} has no positive number of trials", where=where, remedy="Write tune = {trials = 6}.")
    settings = {}
    for kind in ("params", "knobs"):
        settings[kind] = {**table.get(kind, {}), **item.get(kind, {})}
        for method, values in settings[kind].items():
            if not isinstance(values, dict):
                raise SuiteError(f"{kind}.{method} is not a table", where=where, remedy=f"Write [{kind}.{method}].")
    return RunSpec(
        item["task"], _strings(item, "data", (), where), _strings(item, "methods", ("*",), where), _strings(item, "cases", (), where),
        tuple(_budget(b, f"{where}: budget") for b in budgets) or (None,), tune.get("trials", 0), tune.get("search", False),
        settings["params"], settings["knobs"],
    )  # fmt: skip


def _budget(table: Any, where: str) -> Budget:
    if not isinstance(table, dict):
        raise SuiteError(f"{table!r} is not a table", where=where, remedy="Write budget = {steps = 100}.")
    known = {f.name for f in fields(Budget)}
    for key, value in table.items():
        if key not in known:
            raise SuiteError(f"unknown key '{key}'", where=where, remedy=suggest(key, known))
        kind = {"like": str, "steps": int, "samples": int}.get(key, (int, float))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SuiteError(
                f"{key} = {value!r} has the wrong type", where=where, remedy="steps and samples are integers, like is a name."
            )
    try:
        return Budget(**table)
    except ValueError as error:
        raise SuiteError(str(error), where=where, remedy="Write budget = {steps = 100}.") from None


def _limits(table: dict, where: str) -> Limits:
    _keys(table, LIMITS, where)
    values = dict(table)
    if "memory" in values:
        values["memory"] = parse_bytes(values["memory"], where)
    for key, value in values.items():
        if not (value > 0 or (key == "energy" and value == 0)):
            raise SuiteError(f"{key} = {value} is not positive", where=where, remedy="Leave it out to take the default.")
    return Limits(**values)


def parse_bytes(value: int | float | str, where: str = "--memory") -> int:
    """Bytes from a number, or from text such as "4 GiB", "512MB"."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e[+]?\d+)?)\s*(([KMGT]?)(i?)B?)?\s*", str(value), re.IGNORECASE)
    amount = float(found[1]) * (1024 if found[4] else 1000) ** " KMGT".index((found[3] or " ").upper()) if found else 0.0
    if not 0 < amount < 2**63:
        raise SuiteError(f"'{value}' is not an amount of memory", where=where, remedy="Write bytes, or a number with MiB or GiB.")
    return int(amount)


def parse_data(text: str, known: tuple[Data, ...], where: str) -> Data:
    """A data set as a suite writes it, `name(arg=value, ...)`, merged with the task's defaults."""
    found = re.fullmatch(r"\s*([\w.@+-]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if not found:
        raise SuiteError(
            f"data '{text}' is not written as name(arg=value)", where=where, remedy='For example "clustered(n=20000, d=128)".'
        )
    chosen = next((data for data in known if data.name == found[1]), None)
    if chosen is None:
        raise SuiteError(f"no data set '{found[1]}'", where=where, remedy=suggest(found[1], [data.name for data in known]))
    args = dict(chosen.args)
    try:
        call = ast.parse(f"f({found[2] or ''})", mode="eval").body
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if call.args or None in given:
            raise ValueError
    except (SyntaxError, ValueError):
        raise SuiteError(
            f"the arguments of data '{text}' are not name=value pairs", where=where, remedy='For example "clustered(n=20000)".'
        ) from None
    for key, value in given.items():
        if key not in args:
            raise SuiteError(f"data '{chosen.name}' has no argument '{key}'", where=where, remedy=suggest(key, args))
        if not same_type(value, args[key]):
            raise SuiteError(
                f"data '{chosen.name}': {key} = {value!r} is not of the type of {args[key]!r}", where=where, remedy="Mend the type."
            )
        args[key] = value
    # Trials run in other folders, with another home.
    args |= {key: os.path.abspath(os.path.expanduser(value)) for key, value in files(args).items()}
    return Data(chosen.name, args, chosen.needs)


def files(args: Mapping[str, Any]) -> dict[str, str]:
    """Those data arguments that name a file of the user's own: `path` and `..._path`, where they are not empty."""
    return {key: value for key, value in args.items() if (key == "path" or key.endswith("_path")) and value}


def expand(values: dict, known: dict, where: str) -> list[dict]:
    """Settings as written to a list of combinations: scalars stay, lists multiply, `"a, b" = [[1, 2], [3, 4]]` goes in step."""
    axes = []
    for key, value in values.items():
        parts = [part.strip() for part in key.split(",")]
        for name in parts:
            if name not in known:
                raise SuiteError(f"{where} has no setting '{name}'", remedy=suggest(name, known))
        rows = value if isinstance(value, list) else [value]
        if not rows:
            raise SuiteError(f"{where}: {key} is an empty list: it selects nothing", remedy="Name at least one value.")
        rows = [row if isinstance(row, list) else [row] for row in rows]
        for row in rows:
            if len(row) != len(parts):
                raise SuiteError(f"{where}: {key} = {row} needs {len(parts)} values", remedy='Write "a, b" = [[1, 2], [3, 4]].')
            for name, item in zip(parts, row):
                if not known[name].accepts(item):
                    raise SuiteError(
                        f"{where}: {name} = {item!r} is not of the type of its default {known[name].default!r}",
                        remedy="Mend the type.",
                    )
        axes.append([dict(zip(parts, row)) for row in rows])
    return [{name: item for row in combination for name, item in row.items()} for combination in itertools.product(*axes)]
