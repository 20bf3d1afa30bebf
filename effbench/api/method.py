"""What a technique implements.

An interface (`VectorIndex`, `Optimiser`) derives from Method and stands beside its task; it may own the loop. A technique
derives from an interface. `name`, `version`, `backend`, `deterministic`, settings and claims are literals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .param import Setting
from .values import Case, Claim, Flops

BACKENDS = ("numpy", "torch", "jax", "native")


class Method:
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    backend: ClassVar[str] = "numpy"  # numpy | torch | jax | native (a compiled library that effbench cannot look into)
    # One seed is enough, unless it is the baseline of others; the interval comes from the items.
    deterministic: ClassVar[bool] = False
    claims: ClassVar[tuple[Claim, ...]] = ()

    run: Any  # the Run that the engine lends, set before `skip`
    notes: Sequence[str] = ()  # what a reader of its records must know; may be a property, read after the last timed call

    # Both or neither. No pickle: numpy's npy/npz with allow_pickle=False, safetensors, JSON. They give `size.bytes`, resume
    # without a rebuild, and several processes from one build.
    save = None  # def save(self, folder: Path) -> None
    load = None  # def load(self, folder: Path, given) -> None

    def __init__(self, **settings):
        """Store the settings and do nothing else."""
        known = self.settings()
        for name, value in settings.items():
            if name not in known:
                raise TypeError(f"{type(self).__name__} has no setting '{name}' (known: {', '.join(known) or 'none'})")
            self.__dict__[name] = value

    @classmethod
    def settings(cls, kind: str = "") -> dict[str, Setting]:
        """All settings of this method by name, those of its bases included; `kind` selects "param" or "knob"."""
        found: dict[str, Setting] = {}
        for base in reversed(cls.__mro__):
            for name, value in vars(base).items():
                if isinstance(value, Setting):
                    found[name] = value
        return {name: value for name, value in found.items() if not kind or value.kind == kind}

    def configure(self, **knobs) -> None:
        """Set knobs between calls. The engine calls it outside the timed region."""
        for name, value in knobs.items():
            if name not in self.settings("knob"):
                raise TypeError(f"{type(self).__name__} has no knob '{name}'")
            self.__dict__[name] = value

    def skip(self, given) -> str:
        """A reason not to run on this material or device, before any work; "" to run."""
        return ""

    def build(self, given, run):
        """Train, index, compress or tune. Returns None, or yields `Step` so that budgets, curves and deadlines work."""

    def step_flops(self, given) -> float | None:
        """FLOPs of one Step of the build by formula, known before it starts. Needed for budgets in FLOPs."""
        return None

    def flops(self, phase: str, case: Case | None, tally: dict[str, float]) -> Flops | None:
        """FLOPs by formula: of the whole build, or of one `Task.call` with the counts that `run.tally` saw in it."""
        return None

    def parameters(self) -> int | None:
        """Number of trainable or stored numbers of the built method; None where the word has no meaning."""
        return None

    def folder_bytes(self, folder: Path) -> int:
        """Bytes on disk of what `save` wrote."""
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
