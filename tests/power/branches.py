"""What `effbench compare` and `asv continuous` say of four branches whose change is known: 5 % slower, twice the memory, other
answers, words in docs/ only.

    python tests/power/branches.py                    # the changed methods of one task (--task, --since)
    python tests/power/branches.py --whole            # the whole smoke suite: everything unchanged is a chance for a false alarm
    python tests/power/branches.py --table            # only print what is recorded

The branches are commits in a temporary clone of HEAD. Each (branch, tool) is one line of records/branches-HOST.jsonl, so it resumes;
lines of other sources than HEAD's are not shown.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections import defaultdict
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import peers
import tallies
from places import default_cache, target_of

TASK, METHOD, FILE = "vector-search", "exact", "implementations/search/exact.py"
# Appended to FILE, so that they do not depend on its text. The slower one spends 5 % of the CPU time of the call itself.
CHANGES = {
    "slower": """

def _slower(nearest):
    import time

    def slower(self, queries, k):
        start = time.process_time()
        found = nearest(self, queries, k)
        now = time.process_time()
        while time.process_time() < now + 0.05 * (now - start):
            pass
        return found

    return slower


Exact.nearest = _slower(Exact.nearest)
""",
    "larger": """

def _larger(index, save):
    def with_ballast(self, base, given, run):
        found = index(self, base, given, run)
        self.ballast = np.ones(7 << 20, np.uint8)  # a build in the smoke suite takes 7 MB
        return found

    def twice(self, folder):
        save(self, folder)
        (folder / "again.npz").write_bytes((folder / "index.npz").read_bytes())

    return with_ballast, twice


Exact.index, Exact.save = _larger(Exact.index, Exact.save)
""",
    "answers": """

def _other(nearest):
    def other(self, queries, k):
        found = nearest(self, queries, k).clone()
        some = torch.arange(k + 1, device=found.device)  # one of these rows is not among k: naming a row twice would be refused
        absent = (found[::10, :, None] != some).all(1)
        found[::10, -1] = absent.float().argmax(1).to(found.dtype)
        return found

    return other


Exact.nearest = _other(Exact.nearest)
""",
    "docs": "",
}
TRUTH = {
    "slower": "serving 5 % slower",
    "larger": "build memory and size twice",
    "answers": "one neighbour of every tenth query is wrong",
    "docs": "words only",
}
TOOLS = ("effbench", "asv")


def digest() -> str:
    """Of everything that decides an answer: HEAD's sources, and the changes."""
    settled = {"GIT_CONFIG_NOSYSTEM": "1"}
    trees = [f"HEAD:{name}" for name in ("effbench", "implementations", "suites")]
    found = peers.must(["git", "rev-parse", *trees], ROOT, env=settled).text
    return hashlib.sha256((found + json.dumps([CHANGES, TASK])).encode()).hexdigest()[:12]


def clone(folder: Path) -> str:
    """A clone of HEAD with the four branches; HEAD's commit."""
    settled = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=power", "-c", "user.email=power@example.org", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> str:
        return peers.must(["git", *who, *arguments], folder, env=settled).text.strip()

    peers.must(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], folder.parent, env=settled)
    base = peers.must(["git", "rev-parse", "HEAD"], ROOT).text.strip()
    for name, change in CHANGES.items():
        git("checkout", "--quiet", "-b", name, base)
        path = folder / (FILE if change else "docs/comparing.md")
        path.write_text(path.read_text(encoding="utf-8") + (change or "\nA sentence more.\n"), encoding="utf-8")
        git("commit", "--quiet", "--all", "-m", TRUTH[name])
    git("checkout", "--quiet", "--detach", base)
    return base


# -- what they say ----------------------------------------------------------------------------------------------------


def read_effbench(text: str) -> str:
    """The JSON of `effbench compare --json` in one line: every verdict but SAME, and how many rows were the same."""
    found = json.loads(text)
    groups = defaultdict(list)
    for row in found["rows"]:
        if row["verdict"] != "SAME":
            groups[row["verdict"], row["bench"].split(" ")[0], row["metric"]].append(row)
    parts = []
    for (verdict, bench, metric), rows in groups.items():
        ratios = [row["ratio"] for row in rows]
        known = [ratio for ratio in ratios if ratio is not None]
        shown = f" x{median(known):.3f}" if known else f" ({rows[0]['note'][:80]})"
        parts.append(f"{verdict} {bench} {metric}{shown}" + (f" ({len(ratios)} settings)" if len(ratios) > 1 else ""))
    same = found["verdicts"].get("SAME", 0)
    if not found["rows"]:
        parts += found["notes"][:1]
    return "; ".join([*parts, f"{same} SAME"])


def read_asv(text: str) -> str:
    """The rows that `asv continuous` marks as changed, and its last word."""
    rows = re.findall(r"^\|\s*([-+!])\s*\|[^|]*\|[^|]*\|\s*~?([\d.]+|n/a)\s*\|\s*([^|]*?)\s*\|\s*$", text, re.MULTILINE)
    last = re.findall(r"^(BENCHMARKS NOT .*|SOME BENCHMARKS .*|PERFORMANCE .*)$", text, re.MULTILINE)
    if not last:
        raise peers.PeerError(f"asv continuous said: {text[-800:]}")
    words = {"+": "worse", "-": "better", "!": "fails"}
    short = [name.removeprefix("bridge.") for *_, name in rows]
    return "; ".join([*(f"{words[mark]} {name} x{ratio}" for (mark, ratio, _), name in zip(rows, short)), " ".join(last).lower()])


def effbench(folder: Path, base: str, branch: str, *, whole: bool, since: bool) -> tuple[int, str, peers.Ran]:
    command = [sys.executable, "-m", "effbench", "compare", f"{base}..{branch}", "--repository", folder, "--json", "--quiet"]
    command += [] if whole else ["--task", TASK]
    command += ["--since", base] if since else []
    done = peers.ran(command, ROOT, env=dict(os.environ), timeout=3600, apart=True)
    try:
        return done.code, read_effbench(done.text), done
    except (ValueError, KeyError) as error:
        raise peers.PeerError(f"effbench compare ended with {done.code} ({error!r}): {done.text[-600:]}") from None


def asv(python: Path, rounds: int, folder: Path, base: str, branch: str, *, whole: bool, since: bool) -> tuple[int, str, peers.Ran]:
    """As docs/comparing.md recommends it. asv has no --since: without `whole` it is told the method."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    settled = {
        **os.environ, "EFF_SHARED_SITE": sysconfig.get_paths()["purelib"], "HOME": str(home), "OMP_NUM_THREADS": "1",
        "PATH": f"{python.parent}:{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
    }  # fmt: skip
    if not (home / ".asv-machine.json").exists():
        peers.must([python, "-m", "asv", "machine", "--yes"], folder, env=settled)
    conf = json.loads((folder / "asv.conf.json").read_text())
    conf["pythons"] = [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    (folder / "asv.conf.json").write_text(json.dumps(conf))
    if not whole:  # the bridge plans its whole suite in every process
        suite = folder.parent / "one.toml"
        full = tomllib.loads((folder / "suites" / "smoke.toml").read_text(encoding="utf-8"))
        data = next(run["data"] for run in full["run"] if run["task"] == TASK)
        suite.write_text(f'name = "one"\nsize = "smoke"\n[[run]]\ntask = "{TASK}"\ndata = {json.dumps(data)}\n')
        settled["EFFBENCH_ASV_SUITE"] = str(suite)
    pick = [] if whole else ["-b", f"bridge.{TASK}_{METHOD}\\.".replace("-", "_")]
    command = [python, "-m", "asv", "continuous", base, branch, "--interleave-rounds", "--launch-method", "forkserver", "-e"]
    done = peers.ran([*command, "-a", f"rounds={rounds}", "--factor", "1.1", *pick], folder, env=settled, timeout=3600)
    return done.code, read_asv(done.text), done


# -- doing it ---------------------------------------------------------------------------------------------------------


def collect(target: Path, branches: list[str], tools: list[str], *, whole: bool, since: bool, cache: Path, rounds: int = 4) -> None:
    mark, mode = digest(), mode_of(whole, since)
    have = {(row["branch"], row["tool"]) for row in tallies.read(target, mark) if row["mode"] == mode}
    missing = [(branch, tool) for branch in branches for tool in tools if (branch, tool) not in have]
    if not missing:
        return
    cache.mkdir(parents=True, exist_ok=True)
    python = peers.environment("asv", cache) if any(tool == "asv" for _, tool in missing) else None
    with tempfile.TemporaryDirectory(prefix="power-branches-") as place, target.open("a", encoding="utf-8") as file:
        folder = Path(place) / "clone"
        base = clone(folder)
        for branch, tool in missing:
            print(f"{tool} on {branch} ...", flush=True)
            measure = effbench if tool == "effbench" else lambda *rest, **how: asv(python, rounds, *rest, **how)
            code, said, done = measure(folder, base, branch, whole=whole, since=since)
            line = {
                "digest": mark, "mode": mode, "base": base, "branch": branch, "tool": tool, "code": code, "said": said,
                "seconds": round(done.wall, 1), "cpu": round(done.cpu, 1), "time": time.time(),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"  {code}, {done.wall:.0f} s: {said}", flush=True)


def mode_of(whole: bool, since: bool) -> str:
    return ("smoke suite" if whole else TASK) + (", --since" if since else "")


def table(rows: list[dict]) -> str:
    if not rows:
        return "nothing is recorded for these sources"
    lines = [
        "| branch | what it changes | tool | measured | exit | said | s | CPU s |",
        "| --- | --- | --- | --- | ---: | --- | ---: | ---: |",
    ]
    latest = {(row["mode"], row["branch"], row["tool"]): row for row in rows}
    for branch in TRUTH:
        for (mode, name, tool), row in sorted(latest.items()):
            if name == branch:
                said = row["said"].replace("|", "\\|")
                lines.append(
                    f"| {branch} | {TRUTH[branch]} | {tool} | {mode} | {row['code']} | {said} | {row['seconds']:.0f} | {row['cpu']:.0f} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="the whole smoke suite, unchanged methods too")
    parser.add_argument("--no-since", action="store_true", help="every method of the task, changed or not")
    parser.add_argument("--branch", action="append", choices=sorted(CHANGES), help="only this one; may be repeated")
    parser.add_argument("--tool", action="append", choices=TOOLS, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=4, help="of asv")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the environment of asv is kept")
    parser.add_argument("--folder", type=Path, default=HERE / "records")
    given = parser.parse_args()
    target, _ = target_of("branches", False, given.folder, "cpu")
    if not given.table:
        branches, tools = given.branch or list(CHANGES), given.tool or list(TOOLS)
        since = not (given.whole or given.no_since)
        collect(target, branches, tools, whole=given.whole, since=since, cache=given.cache.absolute(), rounds=given.rounds)
    print(table(tallies.read(target, digest())))


if __name__ == "__main__":
    main()
