"""The nursery on its own: whoever held the other end of its control socket is gone, and nothing of a worker is left.

A parent that is killed before it has read the last message resets the socket, where one that had read all ends the file. The parent
here is the test: it never reads (it peeks), so that closing its end is such a death.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0  # until a process has started or ended on a busy machine


def wait_for(condition, what):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class Parent:
    """A nursery with one worker, whose pid lies unread in the control socket."""

    def __init__(self, folder, stack):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(self.control.close)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "effbench.run.nursery", str(theirs.fileno()), ""], pass_fds=[theirs.fileno()],
                env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        ours, command = socket.socketpair()
        stack.enter_context(ours)  # stays open to the end: the worker is not told to go by its own socket
        with command, open(os.devnull, "w") as log:
            request = json.dumps({"op": "spawn", "memory": 0}).encode()
            socket.send_fds(self.control, [request], [command.fileno(), log.fileno()])
        assert select.select([self.control], [], [], SECONDS)[0], "the nursery says nothing"
        self.worker = json.loads(self.control.recv(4096, socket.MSG_PEEK))["pid"]
        (self.home,) = folder.iterdir()
        wait_for(lambda: os.readlink(f"/proc/{self.worker}/cwd") == str(self.home), "the worker never came home")

    def ended(self):
        """The nursery's exit code and what it wrote."""
        _, error = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, error


@pytest.fixture
def parent(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            theirs.sendall(b"unread")
        try:
            theirs.recv(1)
            pytest.skip("this kernel ends the file where Linux resets the socket")
        except ConnectionResetError:
            pass
    with ExitStack() as stack:
        yield Parent(tmp_path, stack)


def nothing_is_left(parent):
    assert parent.ended() == (0, "")
    assert not parent.home.exists(), "the worker's home is left"
    wait_for(lambda: not alive(parent.worker), "the worker is left")


def test_a_reset_while_the_nursery_waits_leaves_nothing(parent):
    parent.control.close()
    nothing_is_left(parent)


def test_a_nursery_that_can_tell_nobody_of_an_exit_leaves_nothing(parent):
    """Worker and parent die together and the exit is seen first. Our end shut for reading: to send fails, and nothing is to be read."""
    parent.control.shutdown(socket.SHUT_RD)
    os.kill(parent.worker, signal.SIGKILL)
    nothing_is_left(parent)


def test_a_parent_that_had_read_everything_leaves_nothing(parent):
    parent.control.recv(4096)
    parent.control.close()
    nothing_is_left(parent)
