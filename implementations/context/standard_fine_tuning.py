"""Supervised fine-tuning on relevant contexts that agree with the facts: as many steps, questions and contexts as any other arm.

The usual recipe of reading comprehension, to which Li et al., arXiv 2211.05110, compare theirs.
"""

from __future__ import annotations

from .kaft_task import FineTuning


class StandardFineTuning(FineTuning):
    name = "standard-fine-tuning"

    def mix(self):
        return 1.0, 0.0, 0.0
