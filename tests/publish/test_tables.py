"""One table a group; marks respect intervals; failures keep their reasons; every form of the table is safe to paste."""

import csv
import io
import re

import pytest
from rich.console import Console

from effbench.publish import tables
from effbench.publish.fronts import MAYBE, SURE, best, front, pairs
from effbench.publish.groups import direction, groups, median_ratio, natural
from effbench.study import synthetic
from effbench.study.records import Loaded


def rows_of(*points, names=("quality.q", "serve.latency")):
    """Rows of one group with these (quality, low, high, latency, low, high)."""
    template = next(r for r in synthetic.records(10) if r["task"] == "made-up-search")
    made = []
    for index, (q, q0, q1, t, t0, t1) in enumerate(points):
        readings = {names[0]: {"value": q, "unit": "1", "low": q0, "high": q1}}
        readings[names[1]] = {"value": t, "unit": "s", "low": t0, "high": t1}
        made.append(
            {
                **template,
                "method": f"m{index}",
                "key": f"{index:016x}",
                "readings": readings,
                "samples": {},
                "status": "ok",
                "reason": "",
            }
        )
    (group,) = groups(made)
    return group, {row.method: row for row in group.rows}


def test_front_says_yes_maybe_no():
    group, rows = rows_of(
        (0.9, 0.89, 0.91, 1, 1, 1),
        (0.8, 0.79, 0.81, 0.5, 0.5, 0.5),
        (0.89, 0.88, 0.905, 1.01, 0.9, 1.1),
        (0.5, 0.49, 0.51, 2, 2, 2),
    )
    marks = front(group.rows, ("quality.q", "serve.latency"), group.better)
    assert {name: marks.get(id(row)) for name, row in rows.items()} == {"m0": SURE, "m1": SURE, "m2": MAYBE, "m3": None}


def test_ratios_to_another_baseline_are_not_pooled():
    """A group of another seed that had to do without the baseline took its ratios to another method."""
    template = next(r for r in synthetic.records(10) if r["task"] == "made-up-search")

    def made(seed, method, baseline, ratio):
        readings = {"serve.latency": {"value": 1.0, "unit": "s"}, "serve.latency.ratio": {"value": ratio, "unit": "1"}}
        key = f"{seed}{method}".ljust(16, "0")
        more = {"readings": readings, "samples": {}, "status": "ok", "reason": ""}
        return {**template, "seed": seed, "method": method, "baseline": baseline, "key": key, **more}

    records = [made(1, "graph", "graph", 1.0), made(1, "tree", "graph", 3.0)]
    records += [made(0, "exact", "exact", 1.0), made(0, "graph", "exact", 0.1), made(0, "tree", "exact", 0.3)]
    (group,) = groups(records)
    assert group.baseline == "exact"
    assert {row.method: row.ratios["serve.latency"]["value"] for row in group.rows} == {"exact": 1.0, "graph": 0.1, "tree": 0.3}


def test_best_includes_what_is_not_told_apart():
    group, rows = rows_of((0.9, 0.88, 0.92, 1, 1, 1), (0.89, 0.87, 0.91, 2, 2, 2), (0.5, 0.4, 0.6, 3, 3, 3))
    assert best(group.rows, "quality.q", "higher") == {id(rows["m0"]), id(rows["m1"])}
    assert best(group.rows, "serve.latency", "lower") == {id(rows["m0"])}
    assert best(group.rows[:1], "quality.q", "higher") == set()


def test_rows_of_other_budgets_are_not_compared():
    made = [r for r in synthetic.records(100, failing=0) if r["task"] == "made-up-training" and r["data"].endswith("=20000)")]
    halved = [{**r, "budget": {"steps": 180}, "key": r["key"][::-1]} for r in made]
    (table,) = tables.tables_of(groups(made + halved))
    assert "budget" in [column.name for column in table.columns]
    assert sum(line.baseline for line in table.lines) == 2
    place = [column.name for column in table.columns].index("build.flops")
    assert [line.cells[place].best for line in table.lines].count(True) == 2  # one for each budget


def test_seeds_become_one_row_with_the_envelope():
    made = [r for r in synthetic.records(100, failing=0) if r["task"] == "made-up-training" and r["method"] == "exact"][:3]
    (group,) = groups(made)
    (row,) = group.rows
    readings = [r["readings"]["build.time"] for r in made]
    assert row.readings["build.time"]["seeds"] == 3
    assert row.readings["build.time"]["low"] == min(r["low"] for r in readings)
    assert row.readings["build.time"]["high"] == max(r["high"] for r in readings)
    assert row.value("build.time") == sorted(r["value"] for r in readings)[1]


def test_order_of_records_does_not_matter(run):
    assert tables.plain(tables.tables_of(groups(run.records))) == tables.plain(tables.tables_of(groups(run.records[::-1])))


def test_machines_are_not_mixed():
    made = synthetic.records(60, machines=("alpha", "beta"))
    assert all(len({r["environment"] for row in g.rows for r in row.records}) <= 1 for g in groups(made))
    titles = [g.title for g in groups(Loaded(tuple(made), synthetic.environments(("alpha", "beta"))))]
    assert len(set(titles)) == len(titles)


def test_titles_say_what_tells_groups_apart():
    made = [r for r in synthetic.records(20) if r["task"] == "made-up-training"]
    other = [{**r, "device": "cuda", "environment": "b"} for r in made]
    names = {made[0]["environment"]: {"cpu": "little"}, "b": {"gpu": "big", "cpu": "other"}}
    assert [g.apart for g in groups(Loaded(tuple(made + other), names))] == ["cpu, little", "cuda, big"]
    assert [g.apart for g in groups(Loaded(tuple(made), names))] == [""]


def test_failures_are_listed_with_reasons(run):
    made = tables.tables(run)
    failed = [line for table in made for line in table.failed]
    assert len(failed) == sum(r["status"] not in ("ok", "unstable") for r in run.records)
    assert all(line[-1].startswith("made-up reason") for line in failed)
    text = tables.plain(made)
    assert all(line[-1] in text for line in failed) and "serve.energy: no energy sensor" in text


def test_only_failures_still_give_a_table():
    made = [r for r in synthetic.records(200) if r["status"] == "timeout"][:1]
    text = tables.plain(tables.tables_of(groups(made)))
    assert "1 without a result" in text and "timeout" in text


def test_ratio_column(run):
    table = tables.tables(run)[0]
    place = [column.name for column in table.columns].index("serve.latency.ratio")
    assert table.columns[place].label == "latency / exact"
    assert {line.cells[place].text for line in table.lines if line.baseline} == {"1×"}
    assert all(line.cells[place].detail for line in table.lines if not line.baseline)


def test_median_ratio_interval_covers_what_it_promises():
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(0)
    for n in (6, 10, 20, 50):
        draws = [median_ratio(list(rng.normal(1, 0.1, n))) for _ in range(600)]
        covered = sum(d["low"] <= 1 <= d["high"] for d in draws) / len(draws)
        assert covered >= 0.93, (n, covered)


def test_default_front_and_asked_front(run):
    search, training = (next(g for g in groups(run.records) if g.key["task"] == f"made-up-{t}") for t in ("search", "training"))
    assert pairs(search) == [("quality.recall@10", "serve.throughput")]
    assert pairs(training) == [("quality.accuracy", "build.time")]
    assert pairs(search, [["quality.recall@10", "size.bytes"], ["none", "x"], 3]) == [("quality.recall@10", "size.bytes")]


def test_direction_by_name_and_by_request(run):
    assert direction("quality.loss") == direction("quality.zero_one_loss") == direction("serve.latency") == "lower"
    assert direction("quality.accuracy") == direction("serve.throughput") == "higher"
    assert groups(run.records, better={"quality.recall@10": "lower"})[0].better["quality.recall@10"] == "lower"


def test_natural_order():
    assert sorted(["batch-256", "batch-16", "batch-1", "²"], key=natural) == ["batch-1", "batch-16", "batch-256", "²"]


def test_plain_text_where_there_is_no_terminal(run):
    stream = io.StringIO()
    tables.show(tables.tables(run), Console(file=stream))
    assert stream.getvalue() == tables.plain(tables.tables(run))
    assert "\x1b" not in stream.getvalue() and "…" not in stream.getvalue()


def test_terminal_table_shows_hostile_text_as_text(hostile):
    stream = io.StringIO()
    tables.show(tables.tables(hostile), Console(file=stream, force_terminal=True, width=400))
    # Only rich's own colour codes, each a complete sequence.
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert "a␀b␛[31mc" in stream.getvalue()


def test_markdown_shows_hostile_text_as_text(hostile):
    text = tables.markdown(tables.tables(hostile))
    assert "<" not in text and "\x1b" not in text and not re.search(r"(?<!\\)\]\(", text)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_csv_is_flat_and_inert(run, hostile):
    rows = list(csv.DictReader(io.StringIO(tables.csv_text(run))))
    lines = [row for group in groups(run.records) for row in group.rows]
    assert len(rows) == len(lines) + sum(len(g.failed) for g in groups(run.records))
    first = next(row for row in rows if row["serve.latency"])
    assert float(first["serve.latency.low"]) < float(first["serve.latency"]) < float(first["serve.latency.high"])
    for row in csv.reader(io.StringIO(tables.csv_text(hostile))):
        assert not any(cell[:1] in ("=", "+", "-", "@") for cell in row if not re.fullmatch(r"[-+.0-9e]+", cell))
