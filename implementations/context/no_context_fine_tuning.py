"""Fine-tuning on questions alone: the same steps, every row without a context. What a model keeps of its reading."""

from __future__ import annotations

from .kaft_task import FineTuning


class NoContext(FineTuning):
    name = "no-context"

    def mix(self):
        return 0.0, 0.0, 0.0
