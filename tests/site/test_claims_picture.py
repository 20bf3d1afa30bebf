"""The picture of claims shows all verdicts, not the pleasant ones."""

from effbench.publish.site import claims as claiming


def made(verdict, number, *values):
    parts = [
        {
            "promised": f"quality.m{i} >= 1",
            "op": ">=",
            "bound": 1.0,
            "value": value,
            "low": value * 0.9,
            "high": value * 1.1,
            "text": "",
        }
        for i, value in enumerate(values)
    ]
    own = {"method": f"method-{number:03}", "task": "t", "text": "better", "verdict": verdict, "parts": parts}
    return dict.fromkeys(claiming.FIELDS, "") | own


def test_a_claim_is_drawn_by_the_part_that_was_kept_least():
    ((_, part),) = claiming.weakest([made("partly", 0, 1.5, 0.4, 1.1)])
    assert part["value"] == 0.4
    lower = made("partly", 1, 0.5)
    lower["parts"].append({"promised": "x <= 1", "op": "<=", "bound": 1.0, "value": 4.0, "low": 3.0, "high": 5.0, "text": ""})
    ((_, part),) = claiming.weakest([lower])
    assert part["op"] == "<="
    assert claiming.weakest([made("not tested", 2)]) == []


def test_where_there_are_too_many_each_verdict_keeps_its_share():
    claims = [made("reproduced", i, 1.2) for i in range(60)] + [made("not reproduced", i, 0.5) for i in range(60, 90)]
    claims += [made("partly", 90, 0.9)]
    drawn = claiming.sample(claiming.weakest(claims), 30)
    counts = {
        verdict: sum(claim["verdict"] == verdict for claim, _ in drawn) for verdict in ("reproduced", "not reproduced", "partly")
    }
    assert counts == {"reproduced": 20, "not reproduced": 10, "partly": 1}
    assert len({claim["method"] for claim, _ in drawn}) == len(drawn)
    plot = claiming.picture(claims, lambda environment: environment, 30)
    assert "31 of 91" in plot.note and len(plot.rows) == 31
    assert "of 91" not in claiming.picture(claims, lambda environment: environment, 400).note


def test_all_verdicts_have_marks_in_the_picture():
    claims = [made(verdict, i, 1.0 + i / 10) for i, verdict in enumerate(claiming.MARKS)]
    traces = claiming.picture(claims, lambda environment: environment).figures[0]["data"]
    assert {trace["name"] for trace in traces} == {"as promised", *claiming.MARKS}
