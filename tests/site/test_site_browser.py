"""The site in a real Chromium, from file:// and below a sub-path: silent, confined, usable by mouse, keyboard and screen reader."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest

from effbench.publish.site.build import publish
from effbench.study import synthetic

pytestmark = pytest.mark.browser
LIMIT_MS = 30_000


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    path = os.environ.get("EFFBENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("no Chromium found; set EFFBENCH_CHROMIUM")
    with api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def opened(browser):
    """open(site, path, ...) -> page; afterwards nothing may have been said on the console or asked for outside the site."""
    contexts, complaints = [], []

    def go(site, path="index.html", *, width=1280, scheme="light", base=""):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        start = base or site.as_uri()
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed {request.url}"))
        page.on(
            "request", lambda request: None if request.url.startswith((start, "blob:", "data:")) else complaints.append(request.url)
        )
        page.goto(f"{start}/{path}")
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


def until(page, expression):
    """Wait from outside: the page's own policy forbids the evaluation of strings that playwright's waiting needs."""
    for _ in range(LIMIT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def draw_all(page):
    figures = page.locator(".figure, .figure-live")
    for index in range(figures.count()):
        figures.nth(index).scroll_into_view_if_needed()
        page.wait_for_timeout(30)
    until(page, "[...document.querySelectorAll('.figure, .figure-live')].every(f => f.dataset.drawn === 'done')")
    return figures.count()


def setting(site, task="search", machine="alpha"):
    """A page of one task on one machine, relative to the site."""
    found = [
        p for p in sorted(site.glob(f"tasks/*{task}*/*.html")) if machine in p.read_text("utf-8").split("About this machine")[0]
    ]
    return found[0].relative_to(site).as_posix()


def every_kind(site):
    one = lambda pattern: next(iter(sorted(site.glob(pattern)))).relative_to(site).as_posix()  # noqa: E731
    found = [
        one("areas/*.html"),
        one("tasks/*.html"),
        one("methods/*/*.html"),
        *(p.relative_to(site).as_posix() for p in sorted(site.glob("tasks/*/*.html"))),
    ]
    return ["index.html", "claims.html", "machines.html", *found[:5], found[-1]]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_kind_of_page_is_silent_and_fits(opened, site, width, scheme):
    for path in every_kind(site):
        page = opened(site, path, width=width, scheme=scheme)
        draw_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_sorting_ranks_and_filtering(opened, site):
    page = opened(site, setting(site))
    heads = page.locator("#board table thead th").all_inner_texts()
    latency = heads.index("latency")
    page.locator("#board table thead th button").nth(latency).click()
    values = page.eval_on_selector_all("#board table tbody tr", f"rows => rows.map(r => Number(r.cells[{latency}].dataset.v))")
    assert values == sorted(values)
    assert "rank by latency" in page.locator("#board table thead th.rank").inner_text()
    ranks = page.eval_on_selector_all("#board table tbody tr", "rows => rows.map(r => r.cells[1].textContent)")
    assert any("–" in rank for rank in ranks) and ranks[0].startswith("1")
    total = len(values)
    page.locator("#board [data-filter]").fill("GRAPH leaves=16")
    assert 0 < page.locator("#board table tbody tr").count() < total
    page.locator("#board [data-filter]").fill("")
    page.locator("#board [data-front]").check()
    assert 0 < page.locator("#board table tbody tr").count() < total


def test_the_plot_follows_axes_and_filters(opened, site):
    page = opened(site, setting(site))
    draw_all(page)
    count = "document.getElementById('explore').data.filter(t => t.mode && t.mode.includes('markers')).length"
    before = page.evaluate(count)
    page.locator("[data-axis=x]").select_option(label="serve.latency")
    until(page, "document.getElementById('explore').layout.xaxis.title.text.startsWith('latency')")
    page.locator("#board [data-filter]").fill("tree")
    until(page, f"{count} === 1")
    assert before > 1
    assert page.evaluate("document.getElementById('explore').data.some(t => t.fill === 'toself')")


def test_a_row_opens_its_records_by_keyboard(opened, site):
    page = opened(site, setting(site))
    button = page.locator("#board table tbody th button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    until(page, "document.getElementById('window-body').dataset.ready")
    text = page.inner_text("dialog")
    assert "effbench run synthetic --task made-up-search --method" in text and "no energy sensor" in text and "data digest" in text
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert button.evaluate("node => node === document.activeElement")


def test_nothing_injected_runs(opened, hostile_site):
    for path in every_kind(hostile_site):
        page = opened(hostile_site, path)
        draw_all(page)
        for index in range(min(3, page.locator("table.board tbody th button").count())):
            page.locator("table.board tbody th button").nth(index).click()
            until(page, "document.getElementById('window-body').dataset.ready")
            page.evaluate("document.querySelectorAll('dialog details').forEach(d => { d.open = true; })")
            page.keyboard.press("Escape")
            page.evaluate("delete document.getElementById('window-body').dataset.ready")
        box = page.locator(".figure, .figure-live").first.bounding_box() if page.locator(".figure, .figure-live").count() else None
        for step in range(8 if box else 0):
            page.mouse.move(box["x"] + box["width"] * step / 8, box["y"] + 80)
        assert page.evaluate("window.injected") is None and page.locator("img").count() == 0
        assert page.locator("a[href^=javascript], svg a").count() == 0


def test_policy_stops_what_escaping_would_miss(browser, site, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    path = copy / "index.html"
    path.write_text(
        path.read_text("utf-8").replace("<h1>", "<script>window.injected=1</script><img src=x onerror='window.injected=1'><h1>"),
        "utf-8",
    )
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("window.injected") is None
    page.close()


def test_works_below_a_sub_path(opened, site, tmp_path):
    (tmp_path / "deep/below").mkdir(parents=True)
    shutil.copytree(site, tmp_path / "deep/below/board")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = opened(site, setting(site), base=f"http://127.0.0.1:{server.server_port}/deep/below/board")
        draw_all(page)
        page.locator("#board table tbody th button").first.click()
        until(page, "document.getElementById('window-body').dataset.ready")
        assert page.locator("dialog details").count() > 0
        page.keyboard.press("Escape")
        page.locator("a.brand").click()
        page.wait_for_url("**/deep/below/board/index.html")
    finally:
        server.shutdown()


def test_axe_finds_nothing_serious(opened, site):
    path = os.environ.get("EFFBENCH_AXE")
    if not path:
        pytest.skip("set EFFBENCH_AXE to axe.min.js of the npm package axe-core")
    source = Path(path).read_text("utf-8")
    for name in every_kind(site):
        for scheme in ("light", "dark"):
            page = opened(site, name, scheme=scheme)
            draw_all(page)
            page.evaluate(source)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
            serious = [
                (v["id"], v["nodes"][0]["html"][:160]) for v in found["violations"] if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{name}, {scheme}"


@pytest.mark.slow
def test_a_large_table_sorts_and_filters_at_once(opened, tmp_path):
    made = synthetic.many(10_000)
    folder = synthetic.write(tmp_path / "many", made, machines=[synthetic.machine_name(i) for i in range(6)])
    site = publish([folder], tmp_path / "site", judge=lambda *_: []).index.parent
    page = opened(site, setting(site, machine="machine-0"))
    until(page, "window.effbench && effbench.boards.get('board')")
    took = page.evaluate(
        """() => { const board = effbench.boards.get('board'), times = [];
        for (let turn = 0; turn < 9; turn++) { const start = performance.now(); board.sort(5 + turn % 4); board.table.offsetHeight; times.push(performance.now() - start); }
        for (const word of ['method-01', 'leaves=16', '']) { const start = performance.now(); board.words = word ? [word] : []; board.draw(); board.table.offsetHeight; times.push(performance.now() - start); }
        return times; }"""
    )
    # The median: one pause of a shared machine is not the page's.
    assert sorted(took)[len(took) // 2] < 100, took
