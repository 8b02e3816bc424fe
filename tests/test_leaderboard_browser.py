"""The leaderboard in a real browser, opened from a file, without a network."""

import pytest
from browser import chromium, watched
from test_leaderboard import BASE, CARD, hostile_runs, write_run

from eval.report.site import build_site

NAMES = (
    "[...document.querySelectorAll('#board tbody tr:not([hidden]) bdi')].map(e => e.textContent)"
)
BLUE, ORANGE = "0,114,178", "192,79,0"  # of the first two models
INK = """id => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let n = 0; n < data.length; n += 4) colours.add(data.slice(n, n + 3).join());
  return [...colours];
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    results = tmp_path_factory.mktemp("leaderboard") / "results"
    for step, factor in enumerate((0.9, 0.97, 1.02)):
        figures = {task: min(factor * value, 7) for task, value in BASE.items()}
        write_run(
            results / f"tune-{step}",
            figures,
            started=f"2026-0{step + 1}-01T12:00:00+00:00",
            checkpoint=f"/ckpt/tune/checkpoint-{step}",
        )
    write_run(results / "partial", BASE, samples=9, complete=False, name="partial")
    return build_site([results], results.parent / "site", CARD).parent


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def seen(browser, site):
    """A page; whatever a test does, nothing outside the site is asked for and nothing complains."""
    with watched(browser, bypass_csp=False) as watch:
        yield watch
        assert [] == watch.complaints
        assert [] == [url for url in watch.requests if not url.startswith((site.as_uri(), "data:"))]


def click_header(page, column):
    page.locator(f"button[data-column='{column}']").click()


def test_columns_sort_both_ways_and_what_does_not_rank_stays_last(seen, site):
    """By a click; figures that are not comparable and empty cells come last in either order."""
    page = seen.open(site / "index.html")
    header = page.locator("th[data-column='b0-3']")
    for direction, best in (("descending", 0), ("ascending", -1)):
        click_header(page, "b0-3")
        assert header.get_attribute("aria-sort") == direction
        shown = page.locator("#board tbody td[data-column='b0-3'] .figure").all_inner_texts()
        ranking = [float(text) for text in shown if "†" not in text]
        assert len(ranking) > 5
        assert ranking == sorted(ranking, reverse=direction == "descending")
        assert float(ranking[best]) == max(ranking)
        assert "†" in shown[-1]
        assert direction in page.locator("#status").inner_text()
    assert page.locator("[aria-sort]").count() == 1


def test_ranks_are_intervals_and_sort_by_themselves_at_first(seen, site):
    """The best model stands first, and every rank is an interval among so many."""
    page = seen.open(site / "index.html")
    assert page.evaluate(NAMES)[0] == "tune-2"
    ranks = page.locator("#board td[data-column='rank-all'] .figure").all_inner_texts()
    assert ranks
    assert all("–" in rank for rank in ranks)


def test_families_and_names_filter(seen, site):
    """A family shows its own columns and the models that have figures in it; a name, the models."""
    page = seen.open(site / "index.html")
    everything = len(page.evaluate(NAMES))
    page.select_option("#family", label="Text-oriented VQA")
    names = page.evaluate(NAMES)
    assert {"Pic2Struct-Large (1.3B)", "tune-2", "partial"} <= set(names)
    assert "Kosmos-1" not in names
    headers = page.locator("#board thead th:visible").all_inner_texts()
    assert "OCR-VQA" in " ".join(headers)
    assert "OK-VQA" not in " ".join(headers)
    page.fill("#search", "TUNE")
    assert ["tune-0", "tune-1", "tune-2"] == sorted(page.evaluate(NAMES))
    page.fill("#search", "(")
    page.fill("#search", "no such model")
    assert [] == page.evaluate(NAMES)
    assert page.locator("#status").inner_text().startswith(f"0 of {everything} models")
    page.fill("#search", "")
    page.select_option("#family", "")
    assert everything == len(page.evaluate(NAMES))


def test_the_keyboard_is_enough(seen, site):
    """Tab and Enter alone: past the navigation, filter, sort, tick, open a run's page and back."""
    page = seen.open(site / "index.html")
    keys = page.keyboard

    def tab_to(what, limit=120):
        for _ in range(limit):
            keys.press("Tab")
            if page.evaluate("what => document.activeElement.matches(what)", what):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", what
                return
        raise AssertionError(f"{what} cannot be reached")

    tab_to(".skip")
    tab_to("#family")
    keys.type("Referring")
    assert page.locator("#family").input_value() == "f2"
    tab_to("#search")
    keys.type("tune")
    tab_to("#board button[data-column='b2-0']")
    keys.press("Enter")
    assert page.evaluate(NAMES)[0] == "tune-2"
    keys.press("Space")
    assert page.evaluate(NAMES)[0] == "tune-0"
    tab_to("#board input[type=checkbox]")
    before = page.locator("#scores tr:visible").count()
    keys.press("Space")
    assert abs(page.locator("#scores tr:visible").count() - before) == 1
    tab_to("#board tbody a")
    keys.press("Enter")
    page.wait_for_url("**/run/tune-0.html")
    assert page.locator("h1").inner_text() == "tune-0"


def test_the_radar_shows_what_is_ticked_and_a_table_says_the_same(seen, site):
    """Drawn at all, drawn anew on a tick, and the text beside it has the same rows."""
    page = seen.open(site / "index.html")
    assert {BLUE, ORANGE} <= set(page.evaluate(INK, "radar"))
    rows = page.locator("#scores tbody tr:visible bdi")
    assert {"Qwen-VL (Qwen-7B)", "Qwen-VL-Chat", "tune-2"} <= set(rows.all_inner_texts())
    shown = "Chart.getChart('radar').data.datasets.map(d => d.label)"
    assert rows.all_inner_texts() == page.evaluate(shown)
    page.get_by_label("Show in the chart: Shikra-13B").check()
    page.get_by_label("Show in the chart: tune-2").uncheck()
    assert rows.all_inner_texts() == page.evaluate(shown)
    assert "Shikra-13B" in rows.all_inner_texts()
    assert "tune-2" not in rows.all_inner_texts()


def test_history_is_drawn_over_time(seen, site):
    """One model's runs in their order, for the measure that is chosen."""
    page = seen.open(site / "history.html")
    assert BLUE in page.evaluate(INK, "line")
    assert page.locator("#model option").all_inner_texts() == ["tune"]
    page.select_option("#measure", label="OK-VQA")
    points = page.evaluate("Chart.getChart('line').data.datasets[0].data.map(p => [p.name, p.y])")
    assert points == [["tune-0", 52.7], ["tune-1", 56.8], ["tune-2", 59.8]]
    cells = page.locator("section:visible tbody th").all_inner_texts()
    assert cells == ["tune-0", "tune-1", "tune-2"]


@pytest.mark.parametrize(
    "path", ["index.html", "history.html", "run/tune-2.html", "run/partial.html"]
)
def test_axe_finds_nothing(browser, site, path):
    """Contrast, names, alternatives, roles, order of headings: also where axe could not tell."""
    with watched(browser, bypass_csp=True) as watch:
        watch.open(site / path)
        assert [] == watch.violations()


def test_hostile_texts_do_not_run(browser, tmp_path):
    """Names, faults, signatures and manifests of an attacker: all pages open, nothing runs."""
    site = build_site([hostile_runs(tmp_path / "results")], tmp_path / "site", CARD).parent
    with watched(browser) as watch:
        for file in sorted(site.rglob("*.html")):
            page = watch.open(file)
            assert page.evaluate("window.ran") is None, file
            width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert width <= 0, f"{file}: {width} pixels too wide"
        page = watch.open(site / "index.html")
        page.fill("#search", "<script>")
        assert len(page.evaluate(NAMES)) == 2
        assert ([], []) == (watch.complaints, watch.dialogs)
        assert all(url.startswith((site.as_uri(), "data:")) for url in watch.requests)


def test_the_policy_bars_what_is_not_the_site_s_own(browser, site):
    """Even if markup got in: no inline script, no handler, no style, no request."""
    with watched(browser) as watch:
        page = watch.open(site / "index.html")
        barred = {}
        page.on("requestfailed", lambda request: barred.update({request.url: request.failure}))
        page.evaluate(
            """() => {
              document.body.insertAdjacentHTML("beforeend",
                "<img src=x onerror='window.ran=1'><p id=p style='color: rgb(1, 2, 3)'>x</p>");
              for (const src of ["", "https://example.org/x.js", "data:text/javascript,ran=1"]) {
                const script = document.createElement("script");
                if (src) script.src = src; else script.textContent = "window.ran = 1";
                document.body.append(script);
              }
            }"""
        )
        page.wait_for_timeout(100)
        assert page.evaluate("window.ran") is None
        assert page.evaluate("getComputedStyle(p).color") != "rgb(1, 2, 3)"
        requested = [url for url in watch.requests if url.startswith("http")]
        assert {"csp"} == {barred[url] for url in requested}
        assert len(watch.complaints) >= 4


def test_pages_say_all_without_scripts(browser, site):
    """The table, the scores and the history are in the pages themselves."""
    with watched(browser, java_script_enabled=False) as watch:
        page = watch.open(site / "index.html")
        assert page.locator("#board tbody tr").count() == page.locator("#scores tbody tr").count()
        page = watch.open(site / "history.html")
        assert page.locator("section tbody tr").count() == 3


def test_pages_fit_a_phone(browser, site):
    """Only tables scroll sideways."""
    with watched(browser) as watch:
        watch.page.set_viewport_size({"width": 360, "height": 700})
        for path in ("index.html", "history.html", "run/tune-2.html"):
            page = watch.open(site / path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
