"""Benchmarks for asv with its defaults; `amount` is of the commit that is measured."""

import amount
import peer_work

_matmul = peer_work.make("matmul", amount.EXTRA)
_loop = peer_work.make("loop", amount.EXTRA)


def time_matmul():
    _matmul()


def time_loop():
    _loop()
