"""Runs of synthetic records, one of them hostile: every string that a method's author controls tries to break out."""

import pytest

from effbench.publish.report import page_of
from effbench.study import synthetic
from effbench.study.records import Loaded, read

HOSTILE = (
    "</script><script>window.injected=1</script>",
    '<img src=x onerror="window.injected=1">',
    "javascript:window.injected=1",
    '" autofocus onfocus="window.injected=1',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "<a href='javascript:window.injected=1'>link</a>",
    "a\x00b\x1b[31mc\x7f\u202e\u2028\ud800",
    "[x](javascript:alert(1)) | cell",
    "=HYPERLINK(1)",
)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return read(synthetic.write(tmp_path_factory.mktemp("run"), synthetic.records(150)))


@pytest.fixture(scope="session")
def hostile():
    """Hostile strings in every field that allows text."""
    made = synthetic.records(150)
    for index, record in enumerate(made):
        text = HOSTILE[index % len(HOSTILE)]
        method = HOSTILE[hash_free(record["method"]) % len(HOSTILE)] + record["method"]
        record |= {"method": method, "backend": text, "notes": [text, {"a": text}]}
        record["params"] = {text: text}
        record["knobs"] = {**record["knobs"], text: text}
        record["task"] = HOSTILE[0] + record["task"]
        record["data"] = HOSTILE[1] + record["data"]
        record["case"] = record["case"] and HOSTILE[6] + record["case"]
        record["baseline"] = HOSTILE[hash_free("exact") % len(HOSTILE)] + "exact"
        record["commit"] = text
        if record["reason"]:
            record["reason"] = text
        record["readings"] = {**record["readings"], "quality." + HOSTILE[0]: {"value": 0.5, "unit": text, "how": text}}
        record["readings"]["size." + HOSTILE[1]] = {"value": None, "unit": "s", "reason": text}
        if "curve" in record:
            record["curve"][HOSTILE[0]] = record["curve"]["loss"]
    environment = {"name": HOSTILE[0], "cpu": {"model": HOSTILE[1], "flags": list(HOSTILE)}}
    suite = {"title": HOSTILE[0], "report": {"fronts": [["quality." + HOSTILE[0], "serve.throughput"], 3, ["one"]]}}
    key = synthetic.environment_key("alpha")
    return Loaded(tuple(made), {key: environment}, problems=HOSTILE, notes=HOSTILE, suite=suite)


@pytest.fixture(scope="session")
def run_page(run):
    return page_of([run])


@pytest.fixture(scope="session")
def hostile_page(hostile):
    return page_of([hostile])


def hash_free(text: str) -> int:
    return sum(text.encode())
