"""A repository with a few branches, each of which does one thing to one method."""

import shutil
import subprocess
from pathlib import Path

import pytest

from effbench.commands import gate
from effbench.run.pairs import Effort

HERE = Path(__file__).parent
SUITE = 'name = "sums"\nsize = "smoke"\n[[run]]\ntask = "sums"\n[limits]\nseconds = 20\nmemory = "1 GiB"\n'
BRANCHES = {
    "slow": ("loop.py", "for i in range(ROWS)])", "for i in range(ROWS * 2)])[:ROWS]"),
    "large": ("loop.py", "8 << 20", "16 << 20"),
    "wrong": ("vector.py", "(rows * rows).sum(1)", "(rows * rows).sum(1) * 1.01"),
    "broken": ("vector.py", "return (rows * rows)", 'raise ValueError("lost")\n        return (rows * rows)'),
}


class Repository:
    def __init__(self, folder: Path):
        self.folder = folder
        self.suite = folder / "sums.toml"

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", str(self.folder), *who, *arguments], capture_output=True, text=True, check=True).stdout

    def commit(self, branch: str, changes: dict[str, str]) -> None:
        """A branch off main with these files."""
        self.git("checkout", "-q", "-b", branch, "main")
        for name, text in changes.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", branch)
        self.git("checkout", "-q", "main")

    def compare(self, branch: str, **changes) -> gate.Verdicts:
        changes = {"effort": Effort(pairs=3, facts=2, turns=6, turn=0.004, serve=0.5), "effect": 0.2, "quiet": True, **changes}
        return gate.compare(gate.Options(f"main..{branch}", str(self.suite), repository=self.folder, **changes))


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFBENCH_DATA", str(tmp_path_factory.mktemp("cache") / "data"))
    patch.delenv("EFFBENCH_IMPLEMENTATIONS", raising=False)
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(HERE / "techniques", folder / "implementations", ignore=shutil.ignore_patterns("__pycache__"))
    found = Repository(folder)
    found.suite.write_text(SUITE)
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["numpy>=1"]\n')
    found.git("init", "-q", "-b", "main")
    found.git("add", "-A")
    found.git("commit", "-q", "-m", "start")
    for branch, (name, before, after) in BRANCHES.items():
        text = (folder / "implementations/sums" / name).read_text()
        assert before in text
        text = text.replace("2 * self.n", "3 * self.n") if branch == "wrong" else text
        found.commit(branch, {f"implementations/sums/{name}": text.replace(before, after)})
    found.commit("docs", {"docs/index.md": "words"})
    new = (
        (folder / "implementations/sums/vector.py")
        .read_text()
        .replace("vector-sum", "new-sum")
        .replace("class Vector", "class New")
    )
    found.commit("new", {"implementations/sums/new.py": new})
    found.commit(
        "needs",
        {"pyproject.toml": '[project]\nname = "x"\ndependencies = ["numpy>=2"]\n', "effbench/run/worker.py": "PROTOCOL = 7\n"},
    )
    yield found
    patch.undo()
