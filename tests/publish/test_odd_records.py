"""Whatever passes the schema can be published: odd values in loose fields end in a cell, not in a traceback."""

import copy
import json
import random

import pytest

from effbench.api.record import check
from effbench.publish import tables
from effbench.publish.report import page_of
from effbench.study import synthetic
from effbench.study.records import Loaded

ODD = [
    None,
    True,
    "",
    "x" * 3000,
    "\ud800",
    -1,
    0,
    1e-320,
    1e300,
    10**300,
    -5.5,
    [],
    [[1], {}],
    {},
    {"a": {"b": [None]}},
    "0",
    "é²",
]
NUMBERS = [0, 0.0, -3, 1e-320, 1e-12, 1e300, 10**200, -1e300, 0.1, 7]


def odd(record: dict, rng: random.Random) -> dict:
    record = copy.deepcopy(record)
    for _ in range(rng.randint(1, 6)):
        value = rng.choice(ODD)
        match rng.randrange(8):
            case 0:
                record[rng.choice(["params", "knobs", "budget", "tuning", "prepared"])] = {rng.choice(["a", "", "<b>"]): value}
            case 1:
                record["notes"] = [value]
            case 2:
                record["curve"] = {name: [rng.choice(ODD) for _ in range(3)] for name in ("steps", "loss", "flops", "x")}
            case 3:
                name = rng.choice(["serve.latency", "build.time", "quality.q", "serve.flops", "", "size.bytes", "a.ratio"])
                reading = {"value": rng.choice(NUMBERS), "unit": rng.choice(["s", "B", "", "µ", "x/y/z"]), "how": value}
                record["readings"][name] = reading | {end: rng.choice(NUMBERS) for end in rng.sample(["low", "high", "n"], 2)}
            case 4:
                name = rng.choice(["method", "case", "data", "environment", "backend", "baseline", "time", "reason", "size"])
                record[name] = value if isinstance(value, str) else record.get(name, "")
            case 5:
                record["samples"] = {"serve.latency.ratio": [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]}
            case 6:
                record["role"] = rng.choice(["tuning", "prepared", "measure"])
            case 7:
                record["readings"] = {}
    return record


@pytest.mark.parametrize("seed", range(12))
def test_odd_records_are_published(seed):
    rng = random.Random(seed)
    made = [odd(record, rng) for record in synthetic.records(60)]
    made = [record for record in made if check(record) == []]
    assert len(made) > 20
    loaded = Loaded(
        tuple(made),
        {"k": {"a": rng.choice(ODD)}},
        suite={"title": rng.choice([3, [], {}]), "report": rng.choice([[], {"fronts": 3}, {"fronts": [[1, 2]]}])},
    )
    text = page_of([loaded])
    text.encode("utf-8")
    start = 0
    while (start := text.find('<script type="application/json"', start)) >= 0:
        body = text.index(">", start) + 1
        json.loads(text[body : text.index("</script>", body)], parse_constant=pytest.fail)
        start = body
    shown = tables.tables(loaded)
    assert tables.plain(shown).encode() and tables.markdown(shown).encode() and tables.csv_text(loaded).encode()


def test_one_failed_record_is_a_report():
    made = [record for record in synthetic.records(60) if record["status"] == "timeout"][:1]
    text = page_of([Loaded(tuple(made), {})])
    assert "No trial has a result here" in text and "timeout" in text
    assert len(text) < 100_000  # no figure, no plotly
