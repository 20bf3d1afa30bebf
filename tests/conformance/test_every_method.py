"""Every registered method passes the conformance set; the default run takes two of them."""

import json

import pytest

from effbench.plan.registry import Registry
from effbench.run.conformance import check

FAST = {"exact", "random-search"}
METHODS = sorted(Registry.read().methods)


@pytest.mark.parametrize(
    "task, name", [pytest.param(task, name, marks=() if name in FAST else pytest.mark.slow) for task, name in METHODS]
)
def test_method_conforms(task, name):
    lines = []
    code = check(name, task=task, as_json=True, echo=lines.append)
    found = json.loads("".join(lines))
    failed = [f"{finding['check']}: {finding['detail']}" for finding in found["findings"] if finding["outcome"] == "FAIL"]
    assert code == 0, failed
    assert found["methods"] == 1 and found["counts"]["ok"] >= 4


def test_the_registry_has_no_problems():
    assert Registry.read().problems == []
