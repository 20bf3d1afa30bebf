"""Everything from nothing: a virtual environment of its own, what effbench needs, then the command. Standard library only.

    python3 -m effbench.bootstrap run quick      set up, then `effbench run quick`; any other effbench command works too
    python3 -m effbench.bootstrap test           set up, then the tests; further arguments go to pytest
    python3 -m effbench.bootstrap setup          set up only; tries again what could not be installed

EFFBENCH_VENV          folder of the environment, instead of .venv in the checkout
EFFBENCH_TORCH_INDEX   package index for torch alone, as PyTorch's own for CPU builds (the README names it)
EFFBENCH_TORCH=none    leave torch out: methods that need it are then skipped with that reason
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OLDEST = (3, 11)
STAMP, LOG = "effbench-stamp.json", "effbench-install.log"
NETWORK = re.compile(
    r"Connection|Timeout|timed out|Temporary failure|Max retries|IncompleteRead|HTTP error 5|RemoteDisconnected", re.I
)


@dataclass(frozen=True)
class Part:
    """One pip call: extras of pyproject.toml ("" stands for the plain dependencies), and its download in MB, measured once."""

    name: str
    extras: tuple[str, ...]
    modules: tuple[str, ...]  # what must be importable afterwards
    megabytes: int
    note: str = ""
    optional: bool = False


PARTS = (
    Part("torch", ("torch",), ("torch",), 200, "a CPU build; Linux builds of the general registry carry CUDA: about 3 GB"),
    Part("core, report, data", ("", "report", "data"), ("numpy", "typer", "pandas", "plotly", "sklearn"), 100),
    Part("jax", ("jax",), ("jax", "jaxlib"), 90, "optional", optional=True),
)
TEST_PARTS = (
    Part("tests", ("test",), ("pytest", "hypothesis", "xdist"), 4),
    Part("third opinions", ("flops", "h5"), ("fvcore", "h5py"), 16, "optional", optional=True),
)


class Failed(Exception):
    """What is wrong and what to do, for a person."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the command that was asked for; 2 for a mistake, 1 where the set-up failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if sys.version_info < OLDEST:
        newer_python()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    root = Path(__file__).resolve().parents[1]
    try:
        if not (root / "pyproject.toml").is_file():
            raise Failed(f"{root} is no checkout of effbench. Where effbench is installed, run `effbench` itself.")
        environment = Environment(root)
        testing = arguments[0] == "test"
        environment.ready((*PARTS, *TEST_PARTS) if testing else PARTS, again=arguments[0] == "setup")
    except Failed as failed:
        say(f"effbench: {failed}")
        return 1
    except KeyboardInterrupt:
        say("effbench: interrupted; the same command goes on")
        return 130
    if arguments[0] == "setup":
        return 0
    if testing:
        os.chdir(root)
    # Two tests at a time on two cores and more: no test judges a time that the other could disturb.
    workers = [] if any(argument.startswith("-n") for argument in arguments) else ["-n", "2" if (os.cpu_count() or 1) > 1 else "0"]
    module = ["pytest", *workers, *arguments[1:]] if testing else ["effbench", *arguments]
    # -P: the environment's own installation, which points at this checkout, and nothing that lies in the current folder.
    os.execve(environment.python, [str(environment.python), "-P", "-m", *module], clean(os.environ))


def newer_python() -> None:
    """Go on in a newer Python of this machine, or say what is missing."""
    for minor in (11, 12, 13, 14):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            os.execv(found, [found, "-m", "effbench.bootstrap", *sys.argv[1:]])
    have = ".".join(map(str, sys.version_info[:2]))
    raise SystemExit(f"effbench: Python {have} is too old: install Python 3.11 or newer and run the same command with it.")


def clean(variables) -> dict[str, str]:
    """The environment without what would make pip or Python look elsewhere."""
    drop = ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in variables.items() if name not in drop}


class Environment:
    """The virtual environment and the stamp in it: digest of what was asked for, parts that are in, parts that failed."""

    def __init__(self, root: Path, run: Callable[[list[str]], tuple[int, str]] | None = None):
        self.root = root
        self.folder = Path(os.environ.get("EFFBENCH_VENV") or root / ".venv").expanduser().absolute()
        self.python = self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.run = run or self._run
        self.step = self.steps = 0

    # -- the whole ----------------------------------------------------------------------------------------------------

    def ready(self, parts: tuple[Part, ...], *, again: bool = False) -> None:
        """Afterwards all parts are in; optional ones may be missing, with a line that says so."""
        if os.environ.get("EFFBENCH_TORCH", "").lower() == "none":
            parts = tuple(part for part in parts if part.name != "torch")
        stamp = self.stamp()
        done, failed = set(stamp.get("parts", ())), {} if again else dict(stamp.get("failed", {}))
        whole = self.works()
        if whole and stamp.get("digest") == self.digest():
            missing = [part for part in parts if part.name not in done and part.name not in failed]
            missing += [part for part in parts if part.name in done and not self.has(part)]
            if not missing and self.imports("effbench"):
                return
        else:
            missing, done, failed = list(parts), set(), {}
        start = time.monotonic()
        self.announce(missing)
        self.steps = len(missing) + (not whole) + 1
        with self.locked():
            if not whole:
                self.timed("virtual environment", self.create)
            for part in missing:
                try:
                    self.timed(part.name, lambda part=part: self.install(part))
                    done.add(part.name)
                    failed.pop(part.name, None)
                except Failed as error:
                    if not part.optional:
                        raise
                    failed[part.name] = str(error)
                    say(f"  {part.name} could not be installed and is left out; `python3 -m effbench.bootstrap setup` tries again")
                self.write(done, failed)
            self.timed("effbench itself", self.install_self)
            self.write(done, failed)
        say(f"set-up: {time.monotonic() - start:.0f} s; environment in {self.folder}\n")

    def announce(self, parts: list[Part]) -> None:
        """What will be downloaded, before anything is."""
        total = sum(part.megabytes for part in parts)
        say(f"effbench sets up its own environment in {self.folder}; nothing outside of it is changed.")
        say(f"To download, at most, about {total} MB (less where pip has it cached):" if parts else "Nothing to download.")
        for part in parts:
            say(f"  {part.name:<20} {part.megabytes:>4} MB" + (f"   {part.note}" if part.note else ""))
        if any(part.name == "torch" for part in parts):
            index = os.environ.get("EFFBENCH_TORCH_INDEX")
            say(
                f"  torch comes from {index}"
                if index
                else "  (EFFBENCH_TORCH_INDEX names another index for torch, EFFBENCH_TORCH=none skips it)"
            )

    def timed(self, name: str, work: Callable[[], None]) -> None:
        self.step += 1
        say(f"[{self.step}/{self.steps}] {name} ...")
        start = time.monotonic()
        work()
        say(f"[{self.step}/{self.steps}] {name}: {time.monotonic() - start:.0f} s")

    # -- state --------------------------------------------------------------------------------------------------------

    def digest(self) -> str:
        # The checkout's place is in it: an environment shared by two checkouts must not run the other one's files.
        total = hashlib.sha256(f"{sys.version_info[:2]} {self.root}".encode())
        for name in ("pyproject.toml", "setup.py", "constraints.txt"):
            total.update((self.root / name).read_bytes())
        return total.hexdigest()[:16]

    def stamp(self) -> dict:
        try:
            found = json.loads((self.folder / STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, done: set[str], failed: dict[str, str]) -> None:
        text = json.dumps({"digest": self.digest(), "parts": sorted(done), "failed": failed}, indent=1)
        (self.folder / STAMP).write_text(text + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def locked(self):
        """Two set-ups of one environment wait for each other, where the system has file locks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".effbench-lock", "w") as file:
            with contextlib.suppress(ImportError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def works(self) -> bool:
        """Whether the environment's Python and pip run, and it is this Python's version."""
        code = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
        return self.python.exists() and self._quiet([str(self.python), "-I", "-c", code])

    def has(self, part: Part) -> bool:
        return self.imports(*part.modules)

    def imports(self, *modules: str) -> bool:
        """Whether these can be found, without importing them."""
        code = f"import sys; from importlib.util import find_spec as f; sys.exit(not all(map(f, {modules!r})))"
        return self._quiet([str(self.python), "-I", "-c", code])

    @staticmethod
    def _quiet(command: list[str]) -> bool:
        try:
            return subprocess.run(command, capture_output=True, timeout=120, stdin=subprocess.DEVNULL).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    # -- work ---------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """A fresh environment. A folder that effbench did not make is left alone."""
        strange = [path for path in self.folder.iterdir() if path.name != ".effbench-lock"]
        if strange:
            if not ((self.folder / STAMP).exists() and (self.folder / "pyvenv.cfg").exists()):
                raise Failed(
                    f"{self.folder} holds something else, or an environment that does not work. Remove it, or set EFFBENCH_VENV."
                )
            say("  the environment there is broken or of another Python: making it anew")
            for path in strange:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / STAMP).write_text("{}\n", encoding="utf-8")
        for tool in ("venv", "virtualenv"):
            if self.run([sys.executable, "-m", tool, str(self.folder)])[0] == 0 and self.works():
                return
        raise Failed(
            "this Python has neither a working `venv` (on Debian: apt install python3-venv) nor `virtualenv` (pip install virtualenv). "
            "Install one of them and run the same command again."
        )

    def install(self, part: Part) -> None:
        command = ["install", "-c", str(self.root / "constraints.txt"), *self.requirements(part)]
        if part.name == "torch" and os.environ.get("EFFBENCH_TORCH_INDEX"):
            command += ["--index-url", os.environ["EFFBENCH_TORCH_INDEX"]]
        self.pip(command)

    def install_self(self) -> None:
        self.pip(["install", "--no-deps", "--no-build-isolation", "-e", str(self.root)])

    def requirements(self, part: Part) -> list[str]:
        """From pyproject.toml, so that they are said once."""
        import tomllib

        project = tomllib.loads((self.root / "pyproject.toml").read_text(encoding="utf-8"))
        named = {"": [*project["project"]["dependencies"], *project["build-system"]["requires"]]}
        named |= project["project"]["optional-dependencies"]
        return [requirement for extra in part.extras for requirement in named[extra]]

    def pip(self, arguments: list[str]) -> None:
        """Run pip, once more where the network failed. The whole of what it said is in the log."""
        for attempt in (1, 2):
            code, text = self.run([str(self.python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments])
            if code == 0:
                return
            if attempt == 1 and NETWORK.search(text):
                say("  the network failed; trying once more")
                time.sleep(3)
                continue
            break
        last = "\n".join("    " + line for line in text.strip().splitlines()[-8:])
        raise Failed(f"pip failed (exit code {code}). Its last lines, the rest is in {self.folder / LOG}:\n{last}\n"
                     "Mend what it names and run the same command again: what is installed stays.")  # fmt: skip

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Exit code and output, which also goes to the log; a line every 20 s shows that it is alive."""
        log = self.folder / LOG
        with open(log, "ab") as sink:
            at = sink.tell()
            try:
                process = subprocess.Popen(
                    command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=clean(os.environ)
                )
            except OSError as error:
                return 127, str(error)
            start = time.monotonic()
            try:
                while True:
                    try:
                        code = process.wait(timeout=20)
                        break
                    except subprocess.TimeoutExpired:
                        say(f"  ... {time.monotonic() - start:.0f} s")
            except BaseException:
                process.kill()
                process.wait()
                raise
        with open(log, "rb") as file:
            file.seek(at)
            return code, file.read().decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
