"""The built site, as a reader meets it: in a browser, on a desk and on a phone, by day and by night, without a network.

python -m sphinx -W docs site && python -m pytest docs/tests
"""

import inspect
import itertools
import shutil
import sys
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from playwright.sync_api import sync_playwright

from minicnn import layers

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
PAGES = sorted(SITE.glob("*.html")) + sorted(SITE.glob("reference/*.html"))
CHAPTERS = [page for page in PAGES if page.parent == SITE and 'class="beside' in page.read_text()]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SETTLED = "window.MathJax === undefined || (MathJax.startup.promise.then(() => true))"


@pytest.fixture(scope="session")
def browser():
    assert PAGES, "there is no site. Build it first: python -m sphinx -W docs site"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser):
    """Give a function that opens a page in a window of its own; what the page complained of must be nothing."""
    contexts, complaints = [], []

    def opened(page, viewport=DESK, scheme="light", query=""):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else 0)
        tab.on("requestfailed", lambda request: complaints.append(f"not found: {request.url}"))
        tab.goto(page.as_uri() + query)
        tab.wait_for_function(SETTLED)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def name(page):
    return str(page.relative_to(SITE))


def test_every_chapter_has_its_source_beside_it():
    assert len(CHAPTERS) == 16


@pytest.mark.parametrize("page", PAGES, ids=name)
@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_formulas_and_figures_are_seen_and_nothing_sticks_out(visit, page, viewport, scheme):
    tab = visit(page, viewport, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    seen = tab.evaluate(
        """() => ({
            written: document.querySelectorAll('.math').length,
            drawn: [...document.querySelectorAll('.math mjx-container')]
                .filter(formula => formula.getBoundingClientRect().height > 5).length,
            hidden: [...document.querySelectorAll('details .math mjx-container')].length,
            wrong: document.querySelectorAll('mjx-merror').length,
        })"""
    )
    assert seen["wrong"] == 0
    assert seen["drawn"] + seen["hidden"] >= seen["written"]
    cut = """() => [...document.querySelectorAll('article .math, article mjx-container, article pre')]
        .filter(part => part.offsetParent && part.scrollWidth > part.clientWidth + 1).map(part => part.textContent)"""
    assert tab.evaluate(cut) == []
    images = tab.evaluate(
        """async () => { const all = [...document.querySelectorAll('article img')];
            for (const image of all) { image.loading = 'eager'; await image.decode(); }
            return all.map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt]); }"""
    )
    for natural, shown, alt in images:
        assert natural > 0
        assert 200 <= shown <= viewport["width"]
        assert len(alt) >= 30 or page.stem == "notebook"  # there the cells' own figures are shown


@pytest.mark.parametrize("page", CHAPTERS, ids=name)
def test_derivation_and_source_stand_side_by_side_on_a_desk_and_stacked_on_a_phone(visit, page):
    boxes = """() => [...document.querySelectorAll('.beside')].map(beside => {
        const box = part => { const r = beside.querySelector(part).getBoundingClientRect();
            return [r.left, r.top, r.width, r.bottom]; };
        const code = getComputedStyle(beside.querySelector('pre'));
        return [box('.beside-prose'), box('.beside-source'), parseFloat(code.fontSize)]; })"""
    for prose, source, size in visit(page, DESK).evaluate(boxes):
        assert prose[0] + prose[2] <= source[0]  # left of it
        assert abs(prose[1] - source[1]) < 20
        assert source[2] >= 480
        assert prose[2] >= 300
        assert size >= 11.5
    for prose, source, size in visit(page, PHONE).evaluate(boxes):
        assert source[1] >= prose[3] - 1  # below it
        assert source[2] >= 320
        assert size >= 11.5


@pytest.mark.parametrize("page", CHAPTERS, ids=name)
def test_the_source_on_the_page_is_the_files(visit, page):
    shown = visit(page).evaluate("[...document.querySelectorAll('.beside-source pre')].map(pre => pre.textContent)")
    files = "\n".join(
        "\n".join(line.strip() for line in path.read_text().splitlines())
        for folder in ("minicnn", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert shown
    for source in shown:
        assert "\n".join(line.strip() for line in source.strip().splitlines()) in files


def test_a_method_is_shown_whole(visit):
    shown = visit(SITE / "conv.html").evaluate(
        "[...document.querySelectorAll('.beside-source pre')].map(pre => pre.textContent.trim())"
    )
    assert textwrap.dedent(inspect.getsource(layers.Conv2D.backward)).strip() in shown


@pytest.mark.parametrize("page", CHAPTERS, ids=name)
def test_the_check_ran_on_the_page(visit, page):
    tab = visit(page)
    check = tab.locator("section#the-check, span#the-check").first
    assert check.locator("xpath=ancestor-or-self::section[1]//div[contains(@class, 'cell_output')]").first.is_visible()


@pytest.mark.parametrize("page", CHAPTERS, ids=name)
def test_a_solution_is_folded_until_asked_for(visit, page):
    tab = visit(page)
    for fold in tab.locator("details:has(> summary:text-is('Solution'))").all():
        assert fold.bounding_box()["height"] < 60
        fold.locator("summary").click()
        assert fold.bounding_box()["height"] > 80


def test_code_is_copied_as_it_is_written(visit):
    tab = visit(SITE / "optimizers.html")
    cell = tab.locator(".cell_input pre").first
    text = cell.evaluate("pre => { getSelection().selectAllChildren(pre); return getSelection().toString(); }")
    assert "\n\n\ndef loss_and_gradient(w):\n    z = " in text
    assert text.strip() + "\n" in (ROOT / "docs" / "optimizers.md").read_text()


def test_what_was_printed_keeps_its_columns(visit):
    tab = visit(SITE / "batch_normalization.html")
    left = """word => { const walk = document.createTreeWalker(
            document.querySelector('#the-check .cell_output pre'), NodeFilter.SHOW_TEXT);
        const range = document.createRange();
        for (let text = walk.nextNode(); text; text = walk.nextNode()) {
            const at = text.data.indexOf(word);
            if (at < 0) continue;
            range.setStart(text, at); range.setEnd(text, at + 1);
            return range.getBoundingClientRect().left; } }"""
    columns = [tab.evaluate(left, word) for word in ("dx", "dgamma", "dbeta")]
    assert max(columns) - min(columns) < 1


def test_search_finds_im2col(visit):
    tab = visit(SITE / "index.html")
    tab.locator("input[name=q]").first.fill("im2col")
    tab.locator("input[name=q]").first.press("Enter")
    tab.wait_for_selector("ul.search li a")
    links = tab.evaluate("[...document.querySelectorAll('ul.search li a')].map(a => a.href)")
    found = {urlparse(link).path.rsplit("/", 1)[-1] for link in links}
    assert "conv.html" in found
    assert "kernels.html" in found


def test_the_night_is_dark(visit):
    colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    assert min(visit(SITE / "conv.html", scheme="light").evaluate(colour)) > 230
    assert max(visit(SITE / "conv.html", scheme="dark").evaluate(colour)) < 50


def test_from_the_index_every_layer_is_a_click_away(visit):
    tab = visit(SITE / "index.html")
    rows = tab.evaluate(
        """[...document.querySelectorAll('table tbody tr')].map(row => [
            [...row.querySelectorAll('code')].map(code => code.textContent),
            [...row.querySelectorAll('a')].map(link => link.href)])"""
    )
    told = {layer for names, _ in rows for layer in names}
    assert told >= set(layers.__all__) - {"Activation", "InputLayer", "Layer", "Linear", "Node"}
    for _, (derivation, code, check, reference) in rows:
        assert derivation.split("#")[0] == code.split("#")[0] == check.split("#")[0]
        assert "#the-check" in check
        assert "/reference/" in reference


def test_a_pixels_terms_are_counted_as_im2col_counts_them(visit):
    sys.path.insert(0, str(ROOT / "docs" / "figures"))
    from conv import counts

    tab = visit(SITE / "conv.html")
    for padding, stride in itertools.product(("same", "valid"), (1, 2)):
        tab.get_by_role("button", name=f"{padding}, stride {stride}").click()
        expected = counts(stride, 1 if padding == "same" else 0)
        for h in range(5):
            for k in range(5):
                tab.get_by_role("button", name=f"pixel {h}, {k}").click()
                said = tab.locator(".explorer-sum").inner_text()
                assert said.count("dy[") == expected[h, k], (padding, stride, h, k)
                assert said.startswith(f"dx[{h},{k}]")
    tab.get_by_role("button", name="pixel 4, 4").press("ArrowLeft")
    assert tab.locator(".explorer-sum").inner_text().startswith("dx[4,3]")


class Links(HTMLParser):
    """Every place that a page points to, and every anchor that it has."""

    def __init__(self, page):
        super().__init__()
        self.targets, self.anchors = set(), {""}
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.targets |= {attributes[key] for key in ("href", "src") if attributes.get(key)}
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}


def test_every_internal_link_leads_somewhere():
    pages = {page.resolve(): Links(page) for page in SITE.rglob("*.html")}
    checked = 0
    for page, links in pages.items():
        for target in links.targets:
            if urlparse(target).scheme:
                assert urlparse(target).scheme in ("https", "http", "data", "mailto"), target
                continue
            path, anchor = urldefrag(target)
            goal = (page.parent / unquote(path.split("?")[0])).resolve() if path else page
            assert goal.exists(), f"{page.name}: {target}"
            if goal in pages and anchor:
                assert unquote(anchor) in pages[goal].anchors, f"{page.name}: {target}"
            checked += 1
    assert checked > 1000
