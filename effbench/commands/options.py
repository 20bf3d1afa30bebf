"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def directions() -> dict[str, str]:
    """Which way each quality is better, as the tasks say."""
    from ..plan.registry import Registry

    return {f"quality.{name}": metric.better for task in Registry.read().tasks.values() for name, metric in task.metrics.items()}
