"""The proof's own reading: what other tools print, and how lines become rows and a figure."""

import ast
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import branches  # noqa: E402
import drawing  # noqa: E402
import peers  # noqa: E402
import tallies  # noqa: E402

from effbench.study.compare import Times  # noqa: E402

SLOWER = "Mean +- std dev: [base] 748 us +- 12 us -> [head] 786 us +- 20 us: 1.05x slower\n"
HIDDEN = "Benchmark hidden because not significant (1): matmul\n"
DOT = "collected 1 item\n\npytest_bench.py .                     [100%]\nSaved benchmark data in: store/0002_head.json\n"
FAILED = (
    "ERROR: Performance has regressed:\n\ttest_work - Field 'median' has failed PercentageRegressionCheck: 15.98 > 5.000000000\n"
)
ASV = """
All benchmarks:

| Change   | Before [8e227c2a] <base>   | After [ae99df83] <more>   |   Ratio | Benchmark (Parameter)   |
|----------|----------------------------|---------------------------|---------|-------------------------|
| {mark}        | 1.32±0.3ms                 | 1.22±0.2ms                |    {ratio} | asv_bench.time_loop     |

{word}
"""
SAME = ASV.format(mark=" ", ratio="0.92", word="BENCHMARKS NOT SIGNIFICANTLY CHANGED.")
WORSE = ASV.format(mark="+", ratio="1.15", word="SOME BENCHMARKS HAVE CHANGED SIGNIFICANTLY.\nPERFORMANCE DECREASED.")


def test_pyperf_is_read():
    assert peers.read_pyperf(SLOWER) == "SLOWER"
    assert peers.read_pyperf(SLOWER.replace("slower", "faster")) == "FASTER"
    assert peers.read_pyperf(HIDDEN) == "SAME"
    with pytest.raises(peers.PeerError):
        peers.read_pyperf("Traceback: no such file")


def test_pytest_benchmark_is_read_rule_by_rule():
    found = peers.read_pytest(1, DOT + FAILED)
    assert found == {"no fail rule (its default)": "SAME", "min:5%": "SAME", "median:5%": "SLOWER"}
    assert set(peers.read_pytest(0, DOT).values()) == {"SAME"}


@pytest.mark.parametrize(("code", "text"), [(1, DOT), (0, DOT + FAILED), (1, "pytest_bench.py F   [100%]\n"), (4, "ERROR: usage")])
def test_a_failure_of_pytest_is_no_verdict(code, text):
    with pytest.raises(peers.PeerError):
        peers.read_pytest(code, text)


def test_asv_is_read():
    assert peers.read_asv(0, SAME) == ("SAME", 0.92)
    assert peers.read_asv(1, WORSE) == ("SLOWER", 1.15)
    assert peers.read_asv(0, ASV.format(mark="-", ratio="0.80", word="PERFORMANCE INCREASED.")) == ("FASTER", 0.8)
    assert peers.read_asv(0, SAME.replace(" 0.92", "~1.12"))[0] == "SAME", "a tilde is not significant"


@pytest.mark.parametrize(("code", "text"), [(1, SAME), (0, WORSE), (2, ""), (0, "Build failed"), (0, SAME.replace("0.92", "n/a"))])
def test_a_failure_of_asv_is_no_verdict(code, text):
    with pytest.raises(peers.PeerError):
        peers.read_asv(code, text)


def test_asv_on_a_branch_is_one_line():
    assert "worse asv_bench.time_loop x1.15; some benchmarks" in branches.read_asv(WORSE)
    assert branches.read_asv(SAME) == "benchmarks not significantly changed."


def test_effbench_on_a_branch_is_one_line():
    row = {"verdict": "SLOWER", "bench": "vector-search/exact on digits", "metric": "serve.latency", "ratio": 1.05}
    broken = {**row, "verdict": "BROKEN", "metric": "status", "ratio": None, "note": "head error: lost"}
    text = json.dumps({"rows": [row, {**row, "ratio": 1.07}, broken], "verdicts": {"SAME": 4}, "notes": []})
    assert branches.read_effbench(text) == (
        "SLOWER vector-search/exact serve.latency x1.060 (2 settings); BROKEN vector-search/exact status (head error: lost); 4 SAME"
    )
    nothing = json.dumps({"rows": [], "verdicts": {}, "notes": ["no content key differs"]})
    assert branches.read_effbench(nothing) == "no content key differs; 0 SAME"


def test_a_command_that_fails_is_an_error(tmp_path):
    with pytest.raises(peers.PeerError, match="ended with 3"):
        peers.must([sys.executable, "-c", "import sys; print('lost'); sys.exit(3)"], tmp_path)
    done = peers.ran([sys.executable, "-c", "import sys; print(1); print(2, file=sys.stderr)"], tmp_path, apart=True)
    assert done.text.strip() == "1"
    assert done.cpu > 0


def constants(path: Path) -> dict:
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    names = [(target, node.value) for node in found for target in node.targets]
    pairs = [zip(t.elts, v.elts) if isinstance(t, ast.Tuple) else [(t, v)] for t, v in names]
    return {t.id: ast.literal_eval(v) for pair in pairs for t, v in pair if isinstance(v, ast.Constant)}


def test_the_peers_do_the_same_work():
    work = constants(HERE / "peer_files" / "peer_work.py")
    for name in ("matmul", "loop"):
        own = constants(HERE / "workloads" / "power" / f"{name}.py")
        assert own
        assert own.items() <= work.items()


# -- tables -----------------------------------------------------------------------------------------------------------


def pair(ratio: float, wobble: float = 0.001) -> Times:
    base = [1.0 + wobble * (turn % 3) for turn in range(8)]
    head = [ratio * (1.0 + wobble * ((turn + 1) % 3)) for turn in range(8)]
    return Times(base, head, base, head)


def test_a_suspicion_costs_a_second_look():
    found = tallies.comparisons([(pair(1.1), 2.0)] * 20, 10, 0.02)
    assert [(one.verdict, one.cpu) for one in found] == [("SLOWER", 30.0)], "half as many settle it"
    found = tallies.comparisons([(pair(1.0), 2.0)] * 20, 10, 0.02)
    assert [(one.verdict, one.cpu) for one in found] == [("SAME", 20.0)] * 2
    assert tallies.comparisons([(pair(1.1), None)] * 19, 10, 0.02) == [], "an unfinished second look is no comparison"
    assert tallies.comparisons([(pair(1.0), None)] * 10, 10, 0.02)[0].cpu is None


def columns(ratio: float, device: str) -> list:
    times = pair(ratio)
    zeros = [0.0] * 8
    cpu = [zeros, zeros] if device == "cuda" else [times.base_cpu, times.head_cpu]
    return [times.base_wall, times.head_wall, *cpu]


def records(folder: Path) -> None:
    def write(name, lines):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    own = {"digest": "d", "device": "cpu", "on": "a CPU", "backend": "numpy"}
    cost = {"start": 1.0, "loop+0": 0.5, "loop+5": 0.5}
    arms = {"loop+0": columns(1.0, "cpu"), "loop+5": columns(1.05, "cpu")}
    stale = {**own, "digest": "old", "arms": {"loop+0": columns(2.0, "cpu")}}
    write("pairs-quiet-1.jsonl", [stale] * 10 + [{**own, "cpu": cost, "arms": arms}] * 20)
    gpu = {
        **own,
        "digest": "g",
        "device": "cuda",
        "on": "a GPU",
        "arms": {"chain+0": columns(1.0, "cuda"), "chain+2": columns(1.02, "cuda")},
    }
    earlier = {**gpu, "digest": "d", "arms": {"chain+0": columns(2.0, "cuda")}}  # one context a pair
    write("pairs-quiet-2.jsonl", [earlier] * 10 + [gpu] * 10)
    peer = {
        "digest": "p",
        "on": "a CPU",
        "tool": "pyperf",
        "version": "2.10.0",
        "workload": "loop",
        "cpu": 30.0,
        "ratios": {"compare_to": 1.0},
    }
    said = [*["SAME"] * 3, "FASTER"]
    lines = [{**peer, "extra": 0, "verdicts": {"compare_to": verdict}} for verdict in said]
    write("peers-quiet-1.jsonl", [*lines, {**peer, "workload": "matmul", "extra": 0, "verdicts": {"compare_to": "SLOWER"}}])
    with (folder / "peers-quiet-1.jsonl").open("a") as file:
        file.write('{"digest": "p", "torn')
    write("branches-quiet-1.jsonl", [{"digest": "d"}])


def test_rows_of_all_records(tmp_path):
    records(tmp_path)
    rows = tallies.all_rows(tmp_path, {"pairs": "d", "pairs on a device": "g", "peers": "p"})
    by = {(row["host"], row["rule"], row["extra"], row["workload"]): row for row in rows}
    quiet = by["quiet, a CPU", "effbench", 0, "loop"]
    assert (quiet["n"], quiet["hits"], quiet["cpu"]) == (2, 0, 15.0)
    slower = by["quiet, a CPU", "effbench", 5, "loop"]
    assert (slower["n"], slower["hits"], slower["cpu"]) == (1, 1, 22.5)
    assert slower["ratio"] == pytest.approx(1.05, rel=0.01)
    pyperf = by["quiet, a CPU", "pyperf 2.10.0, compare_to", 0, "all"]
    assert (pyperf["n"], pyperf["hits"], pyperf["cpu"]) == (5, 2, 30.0), "in A/A, either way is a false alarm"
    assert pyperf["low"] == pytest.approx(0.0527, abs=1e-3)
    assert pyperf["high"] == pytest.approx(0.8534, abs=1e-3)
    assert by["quiet, a GPU", "effbench", 0, "chain"]["n"] == 2
    assert by["quiet, a GPU", "effbench", 2, "chain"]["hits"] == 1
    printed = tallies.markdown(rows)
    assert "| 5 | 2 | 40.0% [5.3%, 85.3%] |" in printed
    assert len({line.count("|") for line in printed.splitlines()}) == 1


def test_the_figure_is_drawn_from_rows(tmp_path):
    records(tmp_path)
    rows = tallies.all_rows(tmp_path, {"pairs": "d", "pairs on a device": "g", "peers": "p"})
    rows[0]["host"] = "quiet, <b> & a CPU"
    text = drawing.svg(rows)
    assert text == drawing.svg(list(reversed(rows)))
    tree = ET.fromstring(text)
    titles = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert any("pyperf 2.10.0, compare_to, no change: false alarms: 2 of 5" in title for title in titles), (
        "pooled, not per workload"
    )
    assert len(titles) == len(drawing.pooled(rows))
    for node in tree.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(node.get("cx")) <= drawing.WIDTH
    assert "No comparisons are recorded yet" in drawing.svg([])


def test_branches_are_printed_once_each():
    row = {"mode": "vector-search", "branch": "docs", "tool": "asv", "code": 0, "said": "a | b", "seconds": 30.2, "cpu": 12.0}
    text = branches.table([row, {**row, "code": 1}])
    assert text.count("asv") == 1
    assert "a \\| b" in text
    assert "| 1 |" in text
