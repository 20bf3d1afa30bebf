"""How each number is made. MEASURE_VERSION is raised by hand whenever a change here moves numbers: it makes records stale.

The package can be called, `effbench.measure(function, *args)`: importing any module of it makes the package the attribute
`effbench.measure`, in place of the function of that name.
"""

import sys
import types

MEASURE_VERSION = 1


class _Callable(types.ModuleType):
    def __call__(self, function, *args, seconds: float = 0.5, **kwargs):
        from .latency import measure

        return measure(function, *args, seconds=seconds, **kwargs)


sys.modules[__name__].__class__ = _Callable
