"""A worker is ended when it has used its own seconds, or when --within is over, whichever comes first."""

import os
import socket
import time

import pytest

from effbench.run.supervisor import Child, Lost


class Silent:
    """A nursery whose worker never answers."""

    def __init__(self):
        self.exits, self.killed = {}, []

    def spawn(self, memory):
        ours, self.theirs = socket.socketpair()
        read, self.write = os.pipe()
        return 7, ours, read

    def kill(self, pid):
        self.killed.append(pid)
        self.exits[pid] = 0
        os.close(self.write)

    def exit_code(self, pid, timeout):
        return self.exits.get(pid)


@pytest.mark.parametrize(("seconds", "left"), [(8.0, 0.1), (0.1, 8.0), (0.1, None)])
def test_the_earlier_of_two_deadlines_ends_a_worker(seconds, left):
    nursery, start = Silent(), time.monotonic()
    child = Child(nursery, 0, seconds, until=None if left is None else start + left)
    with pytest.raises(Lost) as lost:
        child.ask("score", cores=[])
    assert lost.value.status == "timeout" and nursery.killed == [7] and not child.alive
    assert 0.1 <= time.monotonic() - start < 5
