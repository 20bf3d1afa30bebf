"""effbench: measures efficiency techniques the way a hostile reviewer would.

Authors of techniques and tasks need the names below; `load` and `measure` are for notebooks.
"""

from .api.errors import DataError, DeviceError, EffbenchError, RecordError, RegistryError, RunError, SuiteError, Wrong
from .api.method import Method
from .api.param import Choice, Log, Uniform, knob, param
from .api.run import Run
from .api.task import Task
from .api.values import Bound, Budget, Case, Claim, Curve, Data, Flops, Metric, Step

__version__ = "0.1.0"


def load(path):
    """Records of a run folder, a records file, or several of them, as a pandas data frame: one row a record."""
    from .study.frame import load

    return load(path)


def dataset(name: str) -> dict:
    """The arrays of a data set in the cache (see `effbench data list`), name to numpy array. DataError where it is missing."""
    from .data.registry import load

    return load(name)


def vectors(path, queries=None, *, rows: int = 0) -> dict:
    """base, queries (or None) and metric (or "") of files of one's own: ann-benchmarks HDF5, big-ann, TexMex, .npy. DataError for others."""
    from .data.foreign import read_set

    return read_set(path, queries, rows=rows)


def measure(function, *args, seconds: float = 0.5, **kwargs):
    """Time one function call in this process; returns a reading (median, interval, samples). For notebooks, not for claims."""
    from .measure.latency import measure

    return measure(function, *args, seconds=seconds, **kwargs)


__all__ = [
    "Bound", "Budget", "Case", "Choice", "Claim", "Curve", "Data", "DataError", "DeviceError", "EffbenchError", "Flops",
    "Log", "Method", "Metric", "RecordError", "RegistryError", "Run", "RunError", "Step", "SuiteError", "Task", "Uniform",
    "Wrong", "dataset", "knob", "load", "measure", "param", "vectors",
]  # fmt: skip
