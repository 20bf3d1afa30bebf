"""The page: self-contained, escaped, with a policy that names exactly its scripts, and the same bytes for the same records."""

import base64
import dataclasses
import hashlib
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from effbench.api.errors import RecordError
from effbench.plan.registry import Registry
from effbench.publish import page, plots
from effbench.publish.groups import groups
from effbench.publish.report import page_of, report
from effbench.study import synthetic
from effbench.study.records import Loaded


class Reader(HTMLParser):
    """Tags, attributes and the text of scripts, as a parser that is not the writer sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.texts, self._script = [], [], [], [], None
        # The parser takes seconds for plotly, and plotly's own test is that its hash is in the policy.
        self.feed(text.replace(page.asset(page.PLOTLY), "PLOTLY"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag == "script":
            self._script = (dict(attributes).get("type", ""), [])

    def handle_endtag(self, tag):
        if tag == "script":
            self.scripts.append((self._script[0], "".join(self._script[1])))
            self._script = None

    def handle_data(self, data):
        (self._script[1] if self._script else self.texts).append(data)


def test_same_records_same_bytes(run, tmp_path):
    shuffled = list(run.records)
    random.Random(1).shuffle(shuffled)
    one = report(run, tmp_path / "a.html").read_bytes()
    two = report([dataclasses.replace(run, records=tuple(shuffled))], tmp_path / "deep" / "b.html").read_bytes()
    assert one == two
    assert str(tmp_path).encode() not in one
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.html"]


def test_order_of_runs_does_not_matter():
    runs = [Loaded(tuple(synthetic.records(30, machines=(m,))), synthetic.environments((m,))) for m in ("alpha", "beta")]
    assert page_of(runs) == page_of(runs[::-1])


def test_policy_names_exactly_the_scripts(run_page):
    reader = Reader(run_page)
    (policy,) = [value for tag, name, value in reader.attributes if tag == "meta" and name == "content" and "default-src" in value]
    scripts = [text.replace("PLOTLY", page.asset(page.PLOTLY)) for kind, text in reader.scripts if kind == ""]
    assert all(f"<script>{text}</script>" in run_page for text in scripts) and len(scripts) == 3
    assert {kind for kind, _ in reader.scripts} == {"", "application/json"}
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
    assert policy.split("script-src ")[1].split(";")[0].split() == hashes
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy


def test_nothing_is_loaded_from_elsewhere(run_page):
    reader = Reader(run_page)
    assert not {"link", "iframe", "img", "object", "embed", "base"} & set(reader.tags)
    assert not [a for a in reader.attributes if a[1] in ("src", "srcset", "action", "formaction", "background", "poster")]
    assert all(value.startswith("#") for _, name, value in reader.attributes if name == "href")


def test_hostile_strings_make_no_tag_and_no_attribute(run_page, hostile_page):
    plain, reader = Reader(run_page), Reader(hostile_page)
    assert set(reader.tags) <= set(plain.tags) | {"ul", "li", "details", "summary"}
    assert not [a for a in reader.attributes if a[1].startswith("on") or a[1] == "autofocus"]
    assert "<img src=x" in "".join(reader.texts)  # shown, as text
    assert "49" not in {text.strip() for text in reader.texts}  # {{ 7 * 7 }} was not evaluated
    assert reader.tags.count("script") == len(reader.scripts)
    for kind, text in reader.scripts:
        if kind:
            json.loads(text)
            assert not set("<>&\u2028") & set(text)


def test_hostile_text_in_figures_is_escaped_twice(hostile):
    group = next(g for g in groups(hostile.records) if any("curve" in r for row in g.rows for r in row.records))
    style = plots.Style([row.method for row in group.rows])
    for plot in plots.plots(group, style, fronts=None):
        for figure in plot.figures:
            assert "<img" not in json.dumps(figure) and "<a " not in json.dumps(figure) and "<script" not in json.dumps(figure)


def test_no_control_character_reaches_the_page(hostile_page):
    foreign = re.sub(r"<script>.*?</script>", "", hostile_page, flags=re.S)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", foreign)


def test_plots_of_every_kind_with_their_numbers(run):
    made = [plot for group in groups(run.records) for plot in plots.plots(group, plots.Style([r.method for r in group.rows]))]
    assert {plot.kind for plot in made} == {"front", "scaling", "curve", "ratio"}
    for plot in made:
        assert plot.rows and all(len(row) == len(plot.head) for row in plot.rows)
        assert all(trace["x"] and len(trace["x"]) == len(trace["y"]) for figure in plot.figures for trace in figure["data"])
    curve = next(plot for plot in made if plot.kind == "curve")
    assert len(curve.figures) == 3 and curve.title == "loss over steps, FLOPs and time"
    scaling = next(plot for plot in made if plot.kind == "scaling")
    assert [figure["layout"]["yaxis"]["title"]["text"].split()[0] for figure in scaling.figures] == ["serve.latency", "serve.flops"]
    assert scaling.head[2:] == ("serve.latency", "serve.flops")


def test_a_method_without_flops_has_no_line_on_their_axis(run):
    """Nothing has no place on a logarithm: the axis would become linear, and all others lie on its bottom."""
    group = next(g for g in groups(run.records) if plots.scaling_plot(g, plots.Style([r.method for r in g.rows])))
    name = group.rows[-1].method
    for row in group.rows:
        if row.method == name:
            row.readings["serve.flops"] = {**row.readings["serve.flops"], "value": 0}
    seconds, flops = plots.scaling_plot(group, plots.Style([r.method for r in group.rows])).figures
    assert name in {trace["name"] for trace in seconds["data"]} - {trace["name"] for trace in flops["data"]}
    assert min(min(trace["y"]) for trace in flops["data"]) > 0


def test_synthetic_records_are_called_so(run, run_page):
    assert "Nothing on this page was measured" in run_page
    real = tuple({**record, "suite": "x"} for record in run.records)
    assert "Nothing on this page was measured" not in page_of([dataclasses.replace(run, records=real, suite={})])


def test_every_method_looks_different():
    style = plots.Style([f"m{i:02}" for i in range(50)])
    assert len({(style.colour(f"m{i:02}"), style.symbol(f"m{i:02}")) for i in range(50)}) == 50
    assert len({(style.colour(f"m{i:02}"), style.dash(f"m{i:02}")) for i in range(50)}) == 50  # lines without symbols


def test_no_records_is_an_error(tmp_path):
    with pytest.raises(RecordError):
        report([Loaded((), {})], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_vendored_script_is_the_named_version():
    text = page.asset(page.PLOTLY)
    assert "plotly.js (cartesian - minified) v4.1.1" in text[:200] and "MIT license" in text[:300]


def test_publishing_needs_neither_pandas_nor_plotly():
    code = "import sys, effbench.publish.report; assert not {'pandas', 'plotly', 'torch', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_task_is_about_is_shown_first(run):
    """The order of the task's own metrics, its objective before them; others by name. Directions are those of the task."""
    found = groups(run.records)
    task = found[0].key["task"]
    plain = [name for name in found[0].names if name.startswith("quality.")]
    added = "quality.zz"
    for row in found[0].rows:
        for record in row.records:
            record["readings"][added] = {"unit": "1", "value": 1.0, "low": 0.5, "high": 1.5}
    told = {("another task", added): "lower", (task, added): "higher", **{(task, name): "lower" for name in plain}}
    group = groups(run.records, better=told)[0]
    assert [name for name in group.names if name.startswith("quality.")] == [added, *plain]
    assert group.better[added] == "higher"
    assert plots.pairs(group)[0][0] == added


def test_directions_of_the_registry_begin_with_the_objective():
    told = Registry.read().directions()
    assert next(name for task, name in told if task == "sparse-mlp") == "quality.relative-error"
    assert next(name for task, name in told if task == "activation-sparsity") == "quality.perplexity"
    assert told["sparse-mlp", "quality.relative-error"] == "lower"


def test_a_row_pools_seeds_and_not_what_older_sources_measured(run):
    old = next(record for record in run.records if record["status"] == "ok")
    new = {**old, "key": "newer", "time": "2999-01-01T00:00:00Z"}
    pooled = [record for group in groups((*run.records, new)) for row in group.rows for record in row.records]
    assert new in pooled and old not in pooled and len(pooled) == sum(len(r.records) for g in groups(run.records) for r in g.rows)
