"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def directions() -> dict[tuple[str, str], str]:
    """Which way each quality of each task is better, as the tasks say; what a task is about first."""
    from ..plan.registry import Registry

    return Registry.read().directions()
