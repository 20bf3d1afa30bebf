"""The floor of attention-quality: what a network learns when every earlier token weighs the same (see uniform.py)."""

from __future__ import annotations

from .quality import TrainedAttention
from .uniform import Uniform


class TrainedUniform(TrainedAttention):
    name = "uniform"

    def core(self):
        return Uniform()
