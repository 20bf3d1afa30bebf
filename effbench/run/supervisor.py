"""The parent's side of workers: start, ask with a deadline, kill within two seconds, say why one ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..api.errors import RunError
from ..api.record import STATUSES
from ..backends import PRELOAD

ROOT = Path(__file__).resolve().parents[2]
LOG_BYTES = 16384
KILL_SECONDS = 2.0
MARK = "EFFBENCH_NURSERY"  # in the environment of a nursery and of everything below it
# What an answer must hold. A method may write to the socket itself; that may not end more than its trial.
ANSWERS = {
    "open": {"loaded": str},
    "prepare": {"seconds": (int, float), "bytes": int},
    "build": {"readings": dict, "quality": dict, "curve": dict, "notes": list, "loaded": str},
    "open_serve": {},
    "turn": {"wall": list, "cpu": list, "calls": int, "first": (int, float), "spent": (int, float), "own": (int, float)},
    "draw": {},
    "warm": {},
    "finish": {"readings": dict, "notes": list},
    "score": {"readings": dict, "notes": list},
}


class Lost(Exception):
    """The worker is gone or was ended; `status` and `reason` are what its record says."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


def plain(text: str, limit: int = 600) -> str:
    """One printable line: what a method says ends in records and on terminals. Never empty."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * limit]).split())
    return (line if len(line) <= limit else line[: limit - 3] + "...") or "no reason was given"


class Refused(Lost):
    """The worker answered with a failure of its method and is still there."""


def cores(threads: int) -> tuple[list[int], list[int]]:
    """Cores for (timed worker, parent): the worker gets the last ones, the parent another where there is one."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    have = sorted(os.sched_getaffinity(0))
    if threads >= len(have):
        return have, have
    return have[-threads:], have[: len(have) - threads]


@contextlib.contextmanager
def apart(threads: int) -> Iterator[None]:
    """Keep the parent off the cores of timed workers. Only while nothing is started: children inherit where a process may run."""
    kept = cores(threads)[1]
    before = os.sched_getaffinity(0) if kept else set()
    try:
        if kept:
            os.sched_setaffinity(0, kept)
        yield
    finally:
        if kept:
            os.sched_setaffinity(0, before)


def worker_environment(backend: str, device: str, threads: int) -> dict[str, str]:
    """Frozen when the nursery starts: thread pools, visible devices and caches are read from it only once."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COVERAGE"))}
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "BLIS"):
        env[f"{name}_NUM_THREADS"] = str(threads)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    env["PYTHONHASHSEED"] = "0"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    env["TF_CPP_MIN_LOG_LEVEL"] = "3"
    env.pop("MALLOC_TRIM_THRESHOLD_", None)
    if backend == "jax":
        env["JAX_PLATFORMS"] = {"cpu": "cpu", "cuda": "cuda", "tpu": "tpu"}[device]
        if threads == 1 and device == "cpu":
            env["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false").strip()
    if device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    from ..data.cache import cache_folder

    env["EFFBENCH_DATA"] = str(cache_folder())
    return env


class Nursery:
    """A running forkserver for one (backend, device, threads); `extra` variables override the environment, `preload` names modules
    that are imported before anything is forked, beside the framework's own."""

    def __init__(self, backend: str, device: str, threads: int, *, extra: dict[str, str] | None = None, preload: str = ""):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.mark = uuid.uuid4().hex
        self.lost = False
        environment = {**worker_environment(backend, device, threads), **(extra or {}), MARK: self.mark}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "effbench.run.nursery", str(theirs.fileno()), ",".join(filter(None, [PRELOAD[backend], preload]))],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.control = ours
        self.reading = threading.Lock()  # workers may end while others are asked in threads of their own
        self.exits: dict[int, int] = {}

    def spawn(self, memory: int) -> tuple[int, socket.socket, int]:
        """Fork a worker; returns its pid, its command socket and the reading end of its output."""
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        request = {"op": "spawn", "memory": memory}
        try:
            socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno(), write])
            while True:
                answer = self.receive(60.0)
                if "pid" in answer:
                    self.exits.pop(answer["pid"], None)  # numbers come back
                    return answer["pid"], ours, read
        except (OSError, Lost) as error:
            raise RunError(
                f"the worker process could not be started ({error})", remedy="See the messages above; is memory left?"
            ) from None
        finally:
            theirs.close()
            os.close(write)

    def receive(self, timeout: float) -> dict:
        message = self._message(timeout)
        if message is None:
            self.lost = True
            raise Lost("crash", "the nursery of workers does not answer")
        return message

    def _message(self, timeout: float) -> dict | None:
        """The next message, None where none comes in time. Lost where the nursery is gone."""
        with self.reading:
            if not select.select([self.control], [], [], timeout)[0]:
                return None
            data = self.control.recv(65536)
            if not data:
                self.lost = True
                raise Lost("crash", "the nursery of workers ended")
            message = json.loads(data)
            if "exit" in message:
                self.exits[message["exit"]] = message["status"]
            return message

    def exit_code(self, pid: int, timeout: float) -> int | None:
        end = time.monotonic() + timeout
        while pid not in self.exits:
            if (left := end - time.monotonic()) <= 0:
                self.lost = True
                break
            try:
                # In short waits: the message may be read by another thread, which asks for another worker.
                self._message(min(left, 0.05))
            except Lost:
                break
        return self.exits.get(pid)

    def kill(self, pid: int) -> None:
        try:
            self.control.send(json.dumps({"op": "kill", "pid": pid}).encode())
        except OSError:
            pass

    def close(self, patience: float = KILL_SECONDS / 2) -> None:
        self.control.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode:
            sweep(self.mark)


def sweep(mark: str) -> None:
    """End what a nursery that was killed itself could not end."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


class Nurseries:
    """All forkservers of a run, started when first needed."""

    def __init__(self):
        self.running: dict[tuple[str, str, int], Nursery] = {}

    def get(self, backend: str, device: str, threads: int) -> Nursery:
        key = (backend, device, threads)
        found = self.running.get(key)
        if found is not None and (found.lost or found.process.poll() is not None):
            found.close(0.0)
            found = None
        if found is None:
            self.running[key] = Nursery(*key)
        return self.running[key]

    def __enter__(self) -> Nurseries:
        return self

    def __exit__(self, *error) -> None:
        for nursery in self.running.values():
            nursery.control.close()
        for nursery in self.running.values():
            nursery.close()
        self.running.clear()


@dataclass
class Child:
    """A live worker. `ask` sends one command and waits for its answer; time waited counts against the trial's deadline."""

    nursery: Nursery
    memory: int
    seconds: float
    progress: Callable[[str], None] = lambda text: None
    until: float | None = None  # `time.monotonic()` at which it is ended whatever it has used
    used: float = 0.0
    asked: int = 0
    log: bytearray = field(default_factory=bytearray)

    def __post_init__(self):
        self.pid, self.channel, self.output = self.nursery.spawn(self.memory)
        self.buffer = b""
        self.alive = True

    def ask(self, op: str, **arguments) -> dict:
        """The answer of a command. Raises Refused where the method failed, Lost where the worker is gone."""
        start = time.monotonic()
        self.asked += 1
        try:
            self.channel.sendall(json.dumps({"op": op, "id": self.asked, **arguments}).encode() + b"\n")
            while True:
                own = start + self.seconds - self.used
                message = self._message(own if self.until is None else min(own, self.until))
                if "progress" in message and "status" not in message:
                    self.progress(plain(str(message["progress"]), 120))
                    continue
                break
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None
        finally:
            self.used += time.monotonic() - start
        status = message.get("status")
        if message.get("id") != self.asked or status not in (*STATUSES, "full"):
            raise self._forged()
        if status != "ok":
            raise Refused(status, plain(str(message.get("reason", ""))))
        if not all(isinstance(message.get(name), kind) for name, kind in ANSWERS.get(op, {}).items()):
            raise self._forged()
        return message

    def _forged(self) -> Lost:
        self.end()
        return Lost("crash", "the worker wrote something that is not an answer to its command channel")

    def _message(self, deadline: float) -> dict:
        while True:
            # Also between two lines: a worker that babbles must not keep its parent busy past the deadline.
            wait = deadline - time.monotonic()
            if wait <= 0:
                self.end()
                raise Lost("timeout", f"over its deadline of {self.seconds:g} s; ended")
            if b"\n" in self.buffer:
                break
            watched = [self.channel] + ([self.output] if self.output is not None else [])
            ready, _, _ = select.select(watched, [], [], min(wait, 1.0))
            if self.output in ready:
                self._drain()
            if self.channel in ready:
                data = self.channel.recv(1 << 16)
                if not data:
                    raise self._gone()
                self.buffer += data
                if len(self.buffer) > 64 << 20:
                    self.end()
                    raise Lost("crash", "the worker flooded its command channel")
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise self._forged() from None
        return message

    def _drain(self) -> None:
        data = os.read(self.output, 65536)
        if not data:
            os.close(self.output)
            self.output = None
            return
        self.log += data
        if len(self.log) > 2 * LOG_BYTES:
            del self.log[:-LOG_BYTES]

    def _gone(self) -> Lost:
        """Why a worker that closed its channel ended."""
        self.alive = False
        code = self.nursery.exit_code(self.pid, KILL_SECONDS)
        self.end()
        if code is None:
            return Lost("crash", "the worker closed its channel and was ended")
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; killed from outside, perhaps for memory" if name == "SIGKILL" else ""
            return Lost("crash", f"the worker died of {name}{hint}")
        return Lost("crash", f"the worker left with exit code {code}")

    def end(self) -> None:
        """End the worker and everything it started, now."""
        self.alive = False
        if self.nursery.exits.get(self.pid) is None:
            self.nursery.kill(self.pid)
            self.nursery.exit_code(self.pid, KILL_SECONDS)
        self.channel.close()
        if self.output is not None:
            while self.output is not None and select.select([self.output], [], [], 0)[0]:
                self._drain()
            if self.output is not None:
                os.close(self.output)
                self.output = None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.decode(errors="replace").splitlines()[-lines:])
