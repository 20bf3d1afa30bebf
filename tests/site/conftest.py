"""Sites of synthetic records; one of them hostile in every string that a record's author controls."""

import pytest

from effbench.publish.site.build import publish
from effbench.study import synthetic

HOSTILE = (
    "</script><script>window.injected=1</script>",
    '<img src=x onerror="window.injected=1">',
    "javascript:window.injected=1",
    '" autofocus onfocus="window.injected=1',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "../../../../etc/passwd",
    "a\x00b\x1b[31mc\x7f\u202e\u2028",
    "=HYPERLINK(1)",
    "'; rm -rf ~; '$(id)`id`",
)
MACHINES = ("alpha", "beta")
MARK = 'data-v="'


def judge(loaded, registry):
    environments = sorted({record["environment"] for record in loaded.records})
    task = sorted({record["task"] for record in loaded.records})[0]
    one = {"task": task, "method": "tree", "text": "Four times faster", "source": "Doe et al. 2020", "device": "cpu"}
    found = [
        {**one, "promised": 4.0, "measured": 3.1, "low": 2.8, "high": 3.5, "verdict": "not reproduced", "environment": e}
        for e in environments
    ]
    return [*found, {**one, "verdict": "not testable here", "reason": "no energy sensor", "text": "Half the energy"}]


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    return synthetic.write(tmp_path_factory.mktemp("some"), synthetic.records(400, machines=MACHINES), machines=MACHINES)


@pytest.fixture(scope="session")
def site(records, tmp_path_factory):
    return publish([records], tmp_path_factory.mktemp("site"), judge=judge).index.parent


@pytest.fixture(scope="session")
def hostile_records(tmp_path_factory):
    made = synthetic.records(160)
    for index, record in enumerate(made):
        text = HOSTILE[index % len(HOSTILE)]
        record |= {
            "method": HOSTILE[sum(map(ord, record["method"])) % len(HOSTILE)] + record["method"],
            "backend": text,
            "suite": text,
        }
        record |= {
            "params": {text: text},
            "knobs": {**record["knobs"], text: text},
            "task": HOSTILE[0] + record["task"],
            "area": HOSTILE[1],
        }
        record |= {
            "data": HOSTILE[6] + record["data"],
            "case": record["case"] and HOSTILE[1] + record["case"],
            "commit": text,
            "notes": [text, {"a": text}],
        }
        record["baseline"] = HOSTILE[sum(map(ord, "exact")) % len(HOSTILE)] + "exact"
        record["reason"] = record["reason"] and text
        record["readings"] = {**record["readings"], "quality." + HOSTILE[0]: {"value": 0.5, "unit": text, "how": text}}
        if "curve" in record:
            record["curve"] = {name: column[:8] for name, column in record["curve"].items()} | {
                HOSTILE[0]: record["curve"]["loss"][:8]
            }
    folder = synthetic.write(tmp_path_factory.mktemp("hostile"), made)
    key = synthetic.environment_key("alpha")
    import json

    (folder / "environment.json").write_text(
        json.dumps({key: {"name": HOSTILE[0], "cpu": {"model": HOSTILE[1], "flags": list(HOSTILE)}}})
    )
    return folder


@pytest.fixture(scope="session")
def hostile_site(hostile_records, tmp_path_factory):
    def bad(loaded, registry):
        return [{"task": r["task"], "method": r["method"], "text": HOSTILE[0], "source": HOSTILE[2], "verdict": HOSTILE[1], "reason": HOSTILE[3],
                 "promised": 2.0, "measured": 3.0, "low": 1.0, "high": 4.0, "device": HOSTILE[4], "environment": r["environment"]} for r in loaded.records[:8]]  # fmt: skip

    return publish([hostile_records], tmp_path_factory.mktemp("hostile-site"), judge=bad).index.parent
