"""A process that has imported one framework and forks a fresh worker for every trial.

Importing torch takes over a second; a fork of a process that has done it takes 20 ms. The nursery only imports: no thread,
no device, no matmul before the fork. It also cleans up: a worker's process group dies with the worker, and what escaped the
group (a daemon) is found because orphans are handed to the nursery. When the parent goes away, for whatever reason, the
control socket closes and everything below ends.

Protocol on the control socket (SOCK_SEQPACKET, one JSON object a message). In: {"op": "spawn", ...} with two file descriptors (command socket, log), or
{"op": "kill", "pid"}. Out: {"pid"} after a spawn, {"exit": pid, "status": code} when a worker has ended.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    """Best effort: sandboxes without prctl still have process groups."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def main() -> None:
    # An import may take seconds, during which nobody looks at the control socket. Nothing is below yet that needs cleaning up.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()  # an import frees little, and looking for it takes a tenth of torch's
    for module in filter(None, sys.argv[2].split(",")):
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # the worker says it, as the reason of its trial
    importlib.import_module("effbench.run.worker")
    # A framework's million objects stay out of every later collection, whose length would else depend on the framework.
    gc.collect()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, 0)
    Nursery(control).serve()


class Nursery:
    def __init__(self, control: socket.socket):
        self.control = control
        self.homes: dict[int, str] = {}
        self.wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.control, self.wake_read], [], [])
            if self.wake_read in ready:
                try:
                    os.read(self.wake_read, 4096)
                except BlockingIOError:
                    pass
                self.reap()
            if self.control in ready:
                try:
                    data, fds, _, _ = socket.recv_fds(self.control, 65536, 2)
                except OSError:  # a reset, not an end of file: the parent was killed before it had read our last message
                    data, fds = b"", []
                if not data:
                    self.close()
                request = json.loads(data)
                if request["op"] == "spawn":
                    self.spawn(request, fds)
                else:
                    self.kill(request["pid"])

    def spawn(self, request: dict, fds: list[int]) -> None:
        # Made here and not by the parent: a parent that is killed while it waits would leave it to nobody.
        home = tempfile.mkdtemp(prefix="effbench-")
        pid = os.fork()
        if pid == 0:
            try:
                self.become_worker(request, home, fds)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)
        self.homes[pid] = home
        self.say({"pid": pid})

    def become_worker(self, request: dict, home: str, fds: list[int]) -> None:
        os.setsid()
        prctl(PR_SET_CHILD_SUBREAPER, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close()
        os.close(self.wake_read)
        sink = os.open(os.devnull, os.O_RDONLY)
        os.dup2(sink, 0)
        os.dup2(fds[1], 1)
        os.dup2(fds[1], 2)
        os.close(fds[1])
        os.environ["HOME"] = os.environ["TMPDIR"] = home
        os.environ.pop("XDG_CACHE_HOME", None)
        tempfile.tempdir = None  # it may have been looked up before the fork
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(home, "inductor")  # compile time is each trial's own
        os.chdir(home)
        if request["memory"]:
            # RLIMIT_DATA and not RLIMIT_AS: frameworks reserve far more address space than they use.
            resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from .worker import main as work

        work(socket.socket(fileno=fds[0]))
        os._exit(0)

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.homes:
                self.end_group(pid)
                shutil.rmtree(self.homes.pop(pid), ignore_errors=True)
                self.say({"exit": pid, "status": os.waitstatus_to_exitcode(status)})

    def end_group(self, pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.end_strays()

    def end_strays(self) -> None:
        """Until none is left: the children of a stray come here only when it is dead."""
        for _ in range(500):
            found = strays(set(self.homes))
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
                except (ProcessLookupError, ChildProcessError):
                    pass
            time.sleep(0.002)

    def kill(self, pid: int) -> None:
        if pid in self.homes:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def say(self, message: dict) -> None:
        try:
            self.control.sendall(json.dumps(message).encode())
        except OSError:
            self.close()

    def close(self) -> None:
        for pid in list(self.homes):
            self.kill(pid)
        homes, self.homes = self.homes, {}  # from here on workers are strays like their children
        self.end_strays()
        for home in homes.values():
            shutil.rmtree(home, ignore_errors=True)
        os._exit(0)


def strays(known: set[int]) -> list[int]:
    """Children of this process that are no worker: orphans of a worker that left its process group."""
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == me and int(entry.name) not in known and fields[0] != "Z":
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main()
