"""Techniques are importable in tests as `effbench_implementations.<area>.<file>`, from this checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from effbench.plan.origins import mount, own_origin

mount(own_origin())
