"""One table or figure for a paper: chosen without doubt, and foreign strings are text in LaTeX too."""

import json
import re

import pytest

from effbench.api.errors import EffbenchError
from effbench.publish import paper
from effbench.publish.groups import groups
from effbench.study import synthetic
from effbench.study.records import Loaded

MACHINES = ("alpha", "beta")


@pytest.fixture(scope="module")
def made():
    return groups(Loaded(tuple(synthetic.records(300, machines=MACHINES)), synthetic.environments(MACHINES)))


@pytest.fixture
def group(made):
    return paper.narrowed(paper.choose(made, task="made-up-search", data="clustered(rows=20000)", machine="alpha"), "batch-16")


def test_several_tables_are_a_question_not_a_guess(made):
    with pytest.raises(EffbenchError, match="--machine"):
        paper.choose(made, task="made-up-search", data="clustered(rows=20000)")
    with pytest.raises(EffbenchError, match="made-up-search"):
        paper.choose(made, task="made-up-serach")


def test_latex_has_one_row_a_line(group):
    text = paper.table_text(group, "latex", columns=["serve.latency", "quality.recall@10"])
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == len(group.rows) and all(line.endswith(r"\\") and line.count("&") == body[0].count("&") for line in body)
    assert "\\textbf{" in text and "\\scriptsize" in text


def test_latex_commands_in_names_are_text():
    text = paper.tex("\\input{/etc/passwd} 100% $x$ a_b ^~ #1 {\n} \u202e")
    assert not re.search(r"\\(input|write|def)", text) and "\n" not in text
    assert not re.search(r"(?<!\\)[%$#_]", text.replace("$\\times$", ""))


def test_markdown_and_csv(group):
    assert paper.table_text(group, "markdown").count("\n") == len(group.rows) + 2
    rows = paper.table_text(group, "csv").splitlines()
    assert len(rows) == len(group.rows) + 1 and rows[0].startswith("method")
    with pytest.raises(EffbenchError, match="latency"):
        paper.table_text(group, "latex", columns=["serve.latecny"])


@pytest.mark.parametrize("kind", ["front", "ratio"])
def test_figures_are_plain_data(group, tmp_path, kind):
    out = paper.draw(paper.figure(group, kind, x="serve.latency", y="quality.recall@10"), tmp_path / "a.json")
    assert json.loads(out.read_text())["data"]


def test_what_cannot_be_drawn_says_why(group, tmp_path, monkeypatch):
    import sys

    with pytest.raises(EffbenchError, match="nothing for a figure"):
        paper.figure(group, "curve")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(EffbenchError, match=r"effbench\[figures\]"):
        paper.draw(paper.figure(group, "ratio"), tmp_path / "a.pdf")
    with pytest.raises(EffbenchError, match="unknown kind of file"):
        paper.draw(paper.figure(group, "ratio"), tmp_path / "a.exe")
