"""The site as files: links resolve, nothing foreign is live, damage is named and costs only itself, same records give same bytes."""

import csv
import hashlib
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from effbench.api.errors import EffbenchError, RecordError
from effbench.publish.site import links
from effbench.publish.site.build import publish
from effbench.study import synthetic
from effbench.study.replay import commands, remark

from .conftest import HOSTILE, judge

VOID = {"meta", "link", "input", "br", "img", "hr"}
OPTIONAL = {"th", "td", "tr", "thead", "tbody", "p", "option"}  # end tags that HTML lets be left out


class Page(HTMLParser):
    """Elements, links and ids of a page; `open` is what is left unclosed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.open, self.handlers, self.wrong = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids += [value for name, value in attrs if name == "id"]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open[-1] != tag and self.open[-1] in OPTIONAL:
            self.open.pop()
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append(tag)


def pages(site):
    return {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def digests(site):
    return {
        p.relative_to(site).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(site.rglob("*")) if p.is_file()
    }


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_every_link_resolves_inside_the_site(request, which):
    site = request.getfixturevalue(which)
    found = pages(site)
    for path, page in found.items():
        for link in page.links:
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file() and target.is_relative_to(site.resolve()), f"{path}: {link}"
            if anchor:
                assert anchor in found[target].ids, f"{path}: {link}"


@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_pages_are_well_formed_and_carry_the_policy(request, which):
    for path, page in pages(request.getfixturevalue(which)).items():
        assert not page.wrong and not [tag for tag in page.open if tag not in OPTIONAL], f"{path}: {page.wrong} {page.open}"
        assert len(page.ids) == len(set(page.ids)), path
        assert sum(tag == "h1" for tag, _ in page.tags) == 1
        policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
        assert "script-src 'self';" in policy and "default-src 'none'" in policy and "unsafe-eval" not in policy


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("VNU_JAR"), reason="VNU_JAR names the Nu Html Checker (npm install vnu-jar), run by java")
@pytest.mark.parametrize("which", ["site", "hostile_site"])
def test_the_nu_html_checker_finds_no_error(request, which):
    found = [str(path) for path in sorted(request.getfixturevalue(which).rglob("*.html"))]
    command = ["java", "-jar", os.environ["VNU_JAR"], "--errors-only", *found]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_hostile_strings_are_text(hostile_site):
    for path, page in pages(hostile_site).items():
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert all("src" in attrs or attrs.get("type") == "application/json" for attrs in scripts), path
        assert not page.handlers and not any(tag in ("img", "iframe", "object", "embed", "base") for tag, _ in page.tags), path
        assert not any(":" in link.split("#")[0] for link in page.links), path
    for path in hostile_site.rglob("records/*.js"):
        assert not re.search(r"[<>&\u2028\u2029\x00-\x09]", path.read_text("utf-8")), path
    names = [path.relative_to(hostile_site).as_posix() for path in hostile_site.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9./-]+", name) for name in names)


def test_spreadsheets_take_no_formula(hostile_site):
    for path in hostile_site.rglob("*.csv"):
        for row in csv.reader(path.open(newline="")):
            for cell in row:
                if cell[:1] in ("=", "+", "@") or (cell[:1] == "-" and cell != "-"):
                    float(cell)


def test_same_records_give_the_same_bytes(records, site, tmp_path):
    lines = (records / "records.jsonl").read_text().splitlines()
    turned = tmp_path / "turned"
    turned.mkdir()
    for name in ("environment.json", "suite.toml"):
        (turned / name).write_bytes((records / name).read_bytes())
    (turned / "records.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    again = publish([turned], tmp_path / "again", judge=judge).index.parent
    assert digests(again) == digests(site)


def test_unlike_machines_share_no_page(site):
    for path in (site / "data/tasks").rglob("*-board.json"):
        table = json.loads(path.read_text())
        assert ("alpha" in table["caption"]) != ("beta" in table["caption"])


def test_ranks_are_ties_where_intervals_overlap(site):
    text = next((site / "tasks").glob("*/*.html")).read_text()
    assert re.search(r'data-r="\d+–\d+"', text)


def test_csv_and_json_hold_what_the_page_shows(site):
    path = next((site / "data/tasks").rglob("*-board.json"))
    table, rows = json.loads(path.read_text()), list(csv.reader(path.with_suffix(".csv").open(newline="")))
    assert rows[0] == table["columns"] and len(rows) == 1 + len(table["rows"])
    assert "serve.latency.low" in rows[0] or "build.time.low" in rows[0]


def test_replay_names_everything_and_quotes():
    record = synthetic.records(60, failing=0)[59] | {"commit": "a" * 40, "method": "x; rm -rf ~", "suite": "quick"}
    checkout, run = commands(record)
    assert checkout == f"git checkout {'a' * 40}"
    assert run.startswith("effbench run quick --task ") and "--method 'x; rm -rf ~'" in run and f"--seeds {record['seed']}" in run
    assert "differed" in remark(record | {"commit": "a" * 40 + "-dirty"})
    assert commands(record | {"commit": "--upload-pack=x"})[0].startswith("effbench run")


def test_slugs_stay_apart_and_inside():
    names = ["a b", "a-b", "A-b", "../x", "..", "", "ä", "a" * 300, "con", *HOSTILE]
    made = [links.slug(name) for name in names]
    assert len({slug.lower() for slug in made}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]{1,60}", slug) for slug in made)


def test_an_earlier_site_is_replaced_and_nothing_else(records, tmp_path):
    out = tmp_path / "out"
    publish([records], out, judge=judge)
    (out / "mine.txt").write_text("kept")
    few = synthetic.write(tmp_path / "few", synthetic.records(13))
    publish([few], out, judge=judge)
    fresh = publish([few], tmp_path / "fresh", judge=judge).index.parent
    assert (out / "mine.txt").read_text() == "kept"
    assert {k: v for k, v in digests(out).items() if k != "mine.txt"} == digests(fresh)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(EffbenchError, match="no site build made"):
        publish([few], other)


# -- damage -------------------------------------------------------------------------------------------------------------------


def damaged(kind: str, folder: Path, lines: list[str]) -> None:
    file = folder / "records.jsonl"
    folder.mkdir()
    (folder / "environment.json").write_text("{}")
    match kind:
        case "truncated":
            file.write_text("\n".join(lines)[: len("\n".join(lines)) - 40 - len(lines[-1]) // 2] + "\n")
        case "schema":
            file.write_text(lines[0].replace('"schema":1', '"schema":99') + "\n")
        case "nan":
            file.write_text(re.sub(r'"seed":\d+', '"seed":NaN', lines[0]) + "\n" + lines[1] + "\n")
        case "infinity":
            file.write_text(re.sub(r'"seed":\d+', '"seed":1e999', lines[0]) + "\n" + lines[1] + "\n")
        case "long":
            with file.open("wb") as stream:  # sparse: costs no disk
                stream.write(lines[0].encode() + b"\n")
                stream.seek(64 << 20, 1)
                stream.write(b"x\n")
        case "link":
            outside = folder.parent / "outside.jsonl"
            outside.write_text(lines[0] + "\n")
            file.symlink_to(outside)
        case "empty":
            (folder / "environment.json").unlink()
        case "binary":
            file.write_bytes(bytes(range(256)) * 50 + b"\n")


@pytest.mark.parametrize("kind", ["truncated", "schema", "nan", "infinity", "long", "link", "empty", "binary"])
def test_damage_is_named_and_costs_only_itself(records, tmp_path, kind):
    lines = (records / "records.jsonl").read_text().splitlines()[:20]
    good = synthetic.write(tmp_path / "good", synthetic.records(26))
    damaged(kind, tmp_path / "bad", lines)
    made = publish([good, tmp_path / "bad"], tmp_path / "site", judge=judge)
    assert made.code == 1 and any("bad" in problem for problem in made.problems)
    assert (tmp_path / "site/index.html").is_file() and made.records >= 26
    assert str(tmp_path) not in (tmp_path / "site/index.html").read_text()


def test_only_failures_are_published_and_said(tmp_path):
    made = [r for r in synthetic.records(200) if r["status"] not in ("ok", "unstable")]
    found = publish([synthetic.write(tmp_path / "run", made)], tmp_path / "site", judge=judge)
    assert found.code == 1 and any("only failures" in problem for problem in found.problems)


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="no records"):
        publish([tmp_path / "empty"], tmp_path / "site")


def test_a_judge_that_fails_is_named(records, tmp_path):
    def broken(loaded, registry):
        raise ZeroDivisionError("x")

    made = publish([records], tmp_path / "site", judge=broken)
    assert made.code == 1 and any("claims could not be judged" in problem for problem in made.problems)


def test_front_page_is_small(site):
    assert (site / "index.html").stat().st_size + sum(
        (site / "assets" / n).stat().st_size
        for n in ("page.css", "site.css", "page.js", "site.js", "explore.js", "drawer.js", "plots.js")
    ) < 500_000
