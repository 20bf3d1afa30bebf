"""The page in a real browser: nothing injected runs, nothing is requested, tables and figures work by mouse and keyboard."""

import os
import shutil

import pytest

from effbench.publish.report import report

pytestmark = pytest.mark.browser
LIMIT_MS = 20_000


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
    """open(file, **context) -> page; afterwards its console must have stayed silent and no request may have left."""
    contexts, complaints = [], []

    def go(file, *, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None if request.url == file.as_uri() or request.url[:5] in ("blob:", "data:") else complaints.append(request.url)
            ),
        )
        page.goto(file.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return report(run, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def bad_file(hostile, tmp_path_factory):
    return report(hostile, tmp_path_factory.mktemp("page") / "report.html")


def until(page, expression):
    """Wait from outside: the page's own policy forbids the evaluation of strings that playwright's waiting needs."""
    for _ in range(LIMIT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def draw_all(page):
    figures = page.locator(".figure")
    for index in range(figures.count()):
        figures.nth(index).scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.figure')].every(f => f.dataset.drawn === 'done')")
    return figures.count()


def column(page, index):
    return page.eval_on_selector_all("#g1-table tbody tr", f"rows => rows.map(r => r.cells[{index}].dataset.v)")


def test_every_figure_is_drawn(opened, file):
    page = opened(file)
    count = draw_all(page)
    assert count > 8 and page.locator(".figure svg.main-svg").count() >= count
    assert page.evaluate("[...document.querySelectorAll('.figure')].every(f => f.querySelectorAll('.trace').length > 0)")


def test_only_figures_near_the_view_are_drawn_first(opened, file):
    page = opened(file)
    page.wait_for_selector("#theme:visible")
    drawn = page.locator(".figure[data-drawn]").count()
    assert drawn < page.locator(".figure").count()


def test_injected_strings_do_nothing(opened, bad_file):
    page = opened(bad_file)
    draw_all(page)
    for index in range(min(5, page.locator("tbody th button").count())):
        page.locator("tbody th button").nth(index).click()
        page.wait_for_selector("dialog[open]")
        page.keyboard.press("Escape")
    page.mouse.move(400, 300)
    assert page.evaluate("window.injected") is None
    assert page.locator("img").count() == 0
    assert page.locator(".figure a[href*=javascript], .figure script:not([type])").count() == 0


def test_injected_strings_do_nothing_on_hover(opened, bad_file):
    page = opened(bad_file)
    figure = page.locator(".figure").first
    figure.scroll_into_view_if_needed()
    until(page, "document.querySelector('.figure').dataset.drawn === 'done'")
    box = figure.bounding_box()
    for step in range(12):
        page.mouse.move(box["x"] + box["width"] * step / 12, box["y"] + 150)
    assert page.evaluate("window.injected") is None and page.locator("img").count() == 0


def test_policy_stops_a_foreign_script(browser, file, tmp_path):
    """The policy itself, were escaping ever to fail: the same page with a script put into its body."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        file.read_text("utf-8").replace("<h1>", "<script>window.injected=1</script><img src=x onerror='window.injected=1'><h1>"),
        "utf-8",
    )
    page = browser.new_page()
    page.goto(bad.as_uri())
    assert page.evaluate("window.injected") is None
    page.close()


def test_sorting_puts_the_best_first_and_the_missing_last(opened, file):
    page = opened(file)
    heads = page.locator("#g1-table thead th").all_inner_texts()
    throughput, ratio = heads.index("throughput"), heads.index("latency / exact")
    page.locator("#g1-table thead button").nth(throughput).click()
    values = [float(value) for value in column(page, throughput)]
    assert values == sorted(values, reverse=True)
    page.locator("#g1-table thead button").nth(throughput).press("Enter")
    assert [float(value) for value in column(page, throughput)] == sorted(values)
    assert page.locator("#g1-table thead th").nth(throughput).get_attribute("aria-sort") == "ascending"
    page.evaluate(f"document.querySelector('#g1-table tbody tr').cells[{ratio}].dataset.v = ''")
    for _ in range(2):
        page.locator("#g1-table thead button").nth(ratio).click()
        assert column(page, ratio)[-1] == ""


def test_filter_counts_rows(opened, file):
    page = opened(file)
    total = page.locator("#g1-table tbody tr").count()
    page.fill("#g1-filter", "GRAPH leaves=16")
    shown = page.locator("#g1-table tbody tr:visible").count()
    assert 0 < shown < total and page.inner_text("#g1-count") == f"{shown} of {total} rows"


def test_row_opens_everything_recorded_by_keyboard(opened, file):
    page = opened(file)
    button = page.locator("#g1-table tbody th button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    text = page.inner_text("dialog")
    assert "serve.energy" in text and "no energy sensor" in text and "data_digest" in text
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert button.evaluate("node => node === document.activeElement")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(opened, file, scheme):
    page = opened(file, scheme=scheme)
    light = "rgb(255, 255, 255)"
    first = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (first == light) == (scheme == "light")
    figure = page.locator(".figure").first
    figure.scroll_into_view_if_needed()
    until(page, "document.querySelector('.figure').dataset.drawn === 'done'")
    page.click("#theme")
    second = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (second == light) == (scheme == "dark")
    until(
        page,
        """() => document.querySelector('.figure')._fullLayout.paper_bgcolor ===
        getComputedStyle(document.documentElement).getPropertyValue('--page').trim()""",
    )


def test_phone_has_no_sideways_scroll(opened, file):
    page = opened(file, width=390)
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(
        "[...document.querySelectorAll('.figure svg.main-svg')].every(s => s.getBoundingClientRect().right <= 391)"
    )
