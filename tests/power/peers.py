"""pyperf, pytest-benchmark and asv on the same work and with their defaults: one comparison of one workload, and what each said.

The tools run in environments of their own, made on demand with pinned versions. What a tool prints is read by `read_*`, which are
pure; a text that none of them knows is an error and never "no change".
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).resolve().parent / "peer_files"
PINS = {
    "pyperf": ("pyperf==2.10.0", "numpy=={numpy}"),
    "pytest-benchmark": ("pytest==9.2.0", "pytest-benchmark==5.3.1", "numpy=={numpy}"),
    "asv": ("asv==0.6.6", "virtualenv==21.15.8"),
}
WORKLOADS = ("matmul", "loop")
ARMS = (0, 5)  # per cent of work more
THRESHOLD = 5  # per cent, of the fail rule that is given to pytest-benchmark
FIELDS = ("min", "median")
Verdicts = dict[str, str]  # rule -> SLOWER, FASTER, SAME or UNCLEAR


class PeerError(Exception):
    """A tool could not be made, or answered what nobody knows how to read."""


@dataclass(frozen=True)
class Ran:
    code: int
    text: str
    cpu: float  # CPU s of the command and all processes that it waited for
    wall: float


@dataclass(frozen=True)
class Said:
    """One comparison. `ratios` are head over base of the number that each rule judges."""

    verdicts: Verdicts
    ratios: dict[str, float]
    cpu: float
    wall: float


# -- reading what they print --------------------------------------------------------------------------------------------


def read_pyperf(text: str) -> str:
    """The verdict of `pyperf compare_to`, which prints only what its t-test calls significant."""
    if re.search(r"hidden because not significant \(1\)|^Not significant!", text, re.MULTILINE):
        return "SAME"
    found = re.search(r": (?:[\d.]+x )?(slower|faster|no change)", text)
    if not found:
        raise PeerError(f"pyperf compare_to said: {text[-400:]}")
    return {"slower": "SLOWER", "faster": "FASTER", "no change": "SAME"}[found[1]]


def read_pytest(code: int, text: str) -> Verdicts:
    """pytest-benchmark with a fail rule for each of FIELDS; without one it prints a table, exits with 0 and judges nothing."""
    # A failing rule ends the session before its summary: the dot of the one test is all that says that it passed.
    if not re.search(r"^pytest_bench\.py \.\s", text, re.MULTILINE):
        raise PeerError(f"pytest-benchmark said: {text[-400:]}")
    failed = set(re.findall(r"Field '(\w+)' has failed PercentageRegressionCheck", text))
    if bool(code) != bool(failed):
        raise PeerError(f"pytest-benchmark ended with {code} and said: {text[-400:]}")
    rules = {f"{field}:{THRESHOLD}%": "SLOWER" if field in failed else "SAME" for field in FIELDS}
    return {"no fail rule (its default)": "SAME", **rules}


def read_asv(code: int, text: str) -> tuple[str, float]:
    """Verdict and ratio of `asv continuous --no-only-changed` on one benchmark."""
    rows = re.findall(r"^\|\s*([-+x!* ]?)\s*\|[^|]*\|[^|]*\|\s*~?([\d.]+|n/a)\s*\|[^|]*\|\s*$", text, re.MULTILINE)
    if len(rows) != 1 or rows[0][1] == "n/a" or code not in (0, 1):
        raise PeerError(f"asv continuous ended with {code} and said: {text[-600:]}")
    mark, ratio = rows[0]
    verdict = {"+": "SLOWER", "-": "FASTER"}.get(mark, "SAME")
    if (verdict == "SLOWER") != bool(code):
        raise PeerError(f"asv continuous ended with {code} and marked its row '{mark}'")
    return verdict, float(ratio)


# -- running them -------------------------------------------------------------------------------------------------------


def ran(command: list, cwd: Path, *, env: dict[str, str] | None = None, timeout: float = 900.0, apart: bool = False) -> Ran:
    """`text` holds both streams, or standard output alone with `apart` (both where that is empty)."""

    def used() -> float:
        found = resource.getrusage(resource.RUSAGE_CHILDREN)
        return found.ru_utime + found.ru_stime

    cpu, start = used(), time.monotonic()
    settled = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(cwd), "LANG": "C.UTF-8", "NO_COLOR": "1", **(env or {})}
    second = subprocess.PIPE if apart else subprocess.STDOUT
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=settled, text=True, timeout=timeout, stdout=subprocess.PIPE, stderr=second
    )
    return Ran(done.returncode, done.stdout or done.stderr or "", used() - cpu, time.monotonic() - start)


def must(command: list, cwd: Path, **options) -> Ran:
    found = ran(command, cwd, **options)
    if found.code:
        raise PeerError(f"{' '.join(map(str, command))} ended with {found.code}: {found.text[-600:]}")
    return found


def environment(tool: str, cache: Path, say: Callable[[str], None] = print) -> Path:
    """The interpreter of the tool's own environment, made where it is missing. numpy is the version of this interpreter."""
    import numpy

    pins = [pin.format(numpy=numpy.__version__) for pin in PINS[tool]]
    folder = cache / "-".join([tool, f"{sys.version_info[0]}.{sys.version_info[1]}", *(pin.partition("==")[2] for pin in pins)])
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists():
        say(f"making {folder} with {', '.join(pins)}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # pip's own settings (mirror, certificates) are the user's.
        must([sys.executable, "-m", "venv", folder], cache, env=dict(os.environ))
        must([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins], cache, env=dict(os.environ))
        made.write_text("\n".join(pins))
    return python


class Peer:
    """A tool in a scratch folder of its own; `compare` measures base and head afresh, as a user of its defaults does."""

    def __init__(self, tool: str, python: Path, folder: Path):
        self.tool, self.python, self.folder = tool, Path(python).absolute(), folder
        folder.mkdir(parents=True, exist_ok=True)
        for path in FILES.glob("*.py"):
            shutil.copy(path, folder)
        probe = f"import importlib.metadata as m; print('version', m.version('{tool}'))"
        self.version = must([self.python, "-c", probe], folder).text.split()[-1]
        self.compare = {"pyperf": self.pyperf, "pytest-benchmark": self.pytest, "asv": self.asv}[tool]
        if tool == "asv":
            self.prepare_asv()

    def pyperf(self, workload: str, extra: int) -> Said:
        cpu = wall = 0.0
        means = {}
        for side, more in (("base", 0), ("head", extra)):
            target = self.folder / f"{side}.json"
            target.unlink(missing_ok=True)
            done = must([self.python, "pyperf_bench.py", "--workload", workload, "--extra", more, "-o", target.name], self.folder)
            cpu, wall = cpu + done.cpu, wall + done.wall
            found = [value for run in json.loads(target.read_text())["benchmarks"][0]["runs"] for value in run.get("values", ())]
            means[side] = sum(found) / len(found)
        done = must([self.python, "-m", "pyperf", "compare_to", "base.json", "head.json"], self.folder)
        ratio = means["head"] / means["base"]
        return Said({"compare_to": read_pyperf(done.text)}, {"compare_to": ratio}, cpu + done.cpu, wall + done.wall)

    def pytest(self, workload: str, extra: int) -> Said:
        store = self.folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        command = [self.python, "-m", "pytest", "pytest_bench.py", "-p", "no:cacheprovider", "--rootdir", ".", "--color=no"]
        command += [f"--benchmark-storage=file://{store}"]
        rules = [f"--benchmark-compare-fail={field}:{THRESHOLD}%" for field in FIELDS]
        names = {"PEER_WORKLOAD": workload}
        base = must([*command, "--benchmark-save=base"], self.folder, env={**names, "PEER_EXTRA": "0"})
        head = ran(
            [*command, "--benchmark-save=head", "--benchmark-compare=0001", *rules], self.folder,
            env={**names, "PEER_EXTRA": str(extra)},
        )  # fmt: skip
        verdicts = read_pytest(head.code, head.text)
        stats = {}
        for side in ("base", "head"):
            text = next(store.rglob(f"*_{side}.json")).read_text()
            stats[side] = json.loads(text)["benchmarks"][0]["stats"]
        ratios = {field: stats["head"][field] / stats["base"][field] for field in FIELDS}
        ratios = {rule: ratios.get(rule.partition(":")[0], ratios["median"]) for rule in verdicts}
        return Said(verdicts, ratios, base.cpu + head.cpu, base.wall + head.wall)

    # -- asv compares commits of a project: a small one is made, whose commits differ in how much is done -----------------

    def prepare_asv(self) -> None:
        import numpy

        project = self.folder / "project"
        settled = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        if not (project / "asv.conf.json").exists():
            (project / "benchmarks").mkdir(parents=True)
            (project / "benchmarks" / "__init__.py").write_text("")
            shutil.copy(FILES / "asv_bench.py", project / "benchmarks")
            shutil.copy(FILES / "peer_work.py", project)
            must(["git", "init", "--quiet", "--initial-branch=main"], project, env=settled)
            for name, extra, note in (("base", 0, "as it is"), ("same", 0, "the same"), ("more", ARMS[1], "more")):
                (project / "amount.py").write_text(f'"""How much is done: {note}."""\n\nEXTRA = {extra}\n')
                must(["git", "add", "amount.py", "peer_work.py"], project, env=settled)
                author = ["-c", "user.name=power", "-c", "user.email=power@example.org", "-c", "commit.gpgsign=false"]
                must(["git", *author, "commit", "--quiet", "-m", note], project, env=settled)
                must(["git", "tag", name], project, env=settled)
            copy = "import pathlib,shutil,sysconfig; to=sysconfig.get_paths()['purelib']; " \
                   "[shutil.copy(p, to) for p in pathlib.Path(r'{build_dir}').glob('*.py')]"  # fmt: skip
            conf = {
                "version": 1, "project": "work", "repo": ".", "branches": ["main"], "benchmark_dir": "benchmarks",
                "environment_type": "virtualenv", "pythons": [f"{sys.version_info[0]}.{sys.version_info[1]}"],
                "matrix": {"req": {"numpy": [numpy.__version__]}}, "build_command": [],
                "install_command": [f'in-dir={{env_dir}} python -c "{copy}"'], "uninstall_command": ["return-code=any python -c pass"],
            }  # fmt: skip
            (project / "asv.conf.json").write_text(json.dumps(conf, indent=1))
        outer = {name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "http", "ssl", "no_proxy"))}
        outer["PIP_CONFIG_FILE"] = os.environ.get("PIP_CONFIG_FILE", str(Path("~/.config/pip/pip.conf").expanduser()))
        self.asv_env = {
            **outer,
            **settled,
            "HOME": str(self.folder),
            "PATH": f"{self.python.parent}:{os.environ.get('PATH', os.defpath)}",
        }
        must([self.python, "-m", "asv", "machine", "--yes"], project, env=self.asv_env)
        setup = ran([self.python, "-m", "asv", "setup"], project, env=self.asv_env)
        if "Creating environments" not in setup.text or "rror" in setup.text:  # its exit status is 1 where all went well (0.6.6)
            raise PeerError(f"asv setup ended with {setup.code}: {setup.text[-600:]}")

    def asv(self, workload: str, extra: int) -> Said:
        project = self.folder / "project"
        shutil.rmtree(project / "results", ignore_errors=True)
        head = "more" if extra else "same"
        command = [self.python, "-m", "asv", "continuous", "base", head, "-b", f"time_{workload}$", "--no-only-changed"]
        done = ran(command, project, env=self.asv_env)
        verdict, ratio = read_asv(done.code, done.text)
        rule = "continuous, factor 1.1"
        return Said({rule: verdict}, {rule: ratio}, done.cpu, done.wall)


def scratch(cache: Path, tool: str) -> Path:
    """asv's environments are kept, for they take a minute; the others start empty."""
    if tool == "asv":
        return cache / "asv-scratch"
    return Path(tempfile.mkdtemp(prefix=f"power-{tool}-"))
