"""Pages of real runs, read as text and opened in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest

from trustml_cli.report.page import write_comparison, write_run
from trustml_cli.summary import read_runs
from trustml_cli.sweep import add_up

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = ["run", "sweep", "comparison"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A sweep over two seeds and three epsilons, of which one cannot be."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["task=fgsm", "model=logistic", "trainer=smoke", "seed=0,1", "task.epsilon=0.05,0.1,-1"]
    environment = {**os.environ, "TRUSTML_CACHE_DIR": str(cache_dir)}
    command = [sys.executable, "-m", "trustml_cli", "-m", *words]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    (found,) = (folder / "outputs" / "multirun").iterdir()
    return found


@pytest.fixture(scope="module")
def pages(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    run = next(run for run in read_runs(sweep) if run.status == "completed")
    comparison = write_comparison([sweep], tmp_path_factory.mktemp("pages") / "comparison.html")
    return {"run": run.folder / "report.html", "sweep": sweep / "index.html", "comparison": comparison}


def test_a_run_that_computed_has_a_page_and_one_that_was_refused_has_none(sweep: Path) -> None:
    assert [(run.folder / "report.html").exists() for run in read_runs(sweep)] == [True, True, False] * 2


def test_the_page_of_a_run_says_what_was_measured_and_how_to_do_it_again(sweep: Path) -> None:
    run = read_runs(sweep)[0]
    page = (run.folder / "report.html").read_text()
    row = pandas.read_csv(run.folder / "metrics.csv").iloc[0]
    for words in (
        "logistic on digits", f"<b>{row.robust_accuracy:.4g}</b>", "n = 450", "gradients are not zero",
        "trustml task=fgsm model=logistic trainer=smoke seed=0 task.epsilon=0.05", run.facts["trustml"],
        "<code>task.epsilon</code>", "<del>[0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3]</del>", "<ins>0.05</ins>",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("data:image/png;base64,") == len(list((run.folder / "plots").iterdir()))
    assert "<del>" not in page.split("task.epsilon</code>")[1].partition("</tr>")[2]  # nothing else was changed


def test_the_page_of_a_sweep_names_what_failed_and_leads_to_every_job(sweep: Path) -> None:
    page = (sweep / "index.html").read_text()
    assert "4 of 6 completed" in page
    assert page.count("task.epsilon: must be a number of at least 0, got -1") == 2
    links = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith("data:")]
    assert len(links) == 4
    assert "task=fgsm model=logistic" in page


def test_a_comparison_begins_with_what_differs_and_marks_the_best(pages: dict[str, Path]) -> None:
    page = pages["comparison"].read_text()
    differing = re.findall(r"<code>([\w.]+)</code></th>", page)
    assert differing == ["seed", "task.epsilon"]
    assert page.index("What differs") < page.index("Results")
    assert "★ best" in page


def test_pages_can_be_written_again_from_what_lies_there(sweep: Path) -> None:
    for page, again in (
        (sweep / "index.html", lambda: add_up(sweep)),
        (read_runs(sweep)[0].folder / "report.html", lambda: write_run(read_runs(sweep)[0].folder)),
    ):
        before = page.read_text()
        page.unlink()
        again()
        assert page.read_text() == before


def test_a_comparison_of_many_runs_shows_the_pictures_of_the_first(tmp_path: Path) -> None:
    for number in range(15):
        plots = tmp_path / f"run{number:02}" / "plots"
        plots.mkdir(parents=True)
        (plots / "curve.png").write_bytes(b"png")
        (plots.parent / "run.json").write_text(json.dumps({"status": "completed", "started": f"{number:02}"}))
    page = write_comparison([tmp_path], tmp_path / "comparison.html").read_text()
    assert page.count("data:image/png") == 12
    assert "first 12 of 15 runs" in page


def test_names_from_strangers_are_shown_and_not_run(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    facts = {"status": "failed", "task": evil, "dataset": evil, "model": evil, "seed": 0, "error": evil,
             "command": ["trustml", evil], "headline": "accuracy", "conditions": [evil],
             "checks": [{"name": evil, "passed": False, "figure": evil}],
             "changed": {evil: {"default": evil, "value": evil}}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(facts))
    pandas.DataFrame([{evil: evil, "accuracy": 0.5, "note": evil}]).to_csv(tmp_path / "metrics.csv", index=False)
    (tmp_path / "config.yaml").write_text(f"task: {evil}")
    for page in (write_run(tmp_path), write_comparison([tmp_path], tmp_path / "comparison.html")):
        text = page.read_text()
        assert evil not in text
        assert text.count("&lt;script&gt;") > 5


def test_a_run_that_was_killed_at_its_first_word_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    assert "killed" in write_run(tmp_path).read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_browser_shows_the_page_without_a_complaint_or_a_request(
    page: str, pages: dict[str, Path], browser: Any
) -> None:
    tab = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(pages[page].as_uri())
    assert said == []
    assert [address for address in asked if not address.startswith("data:")] == [pages[page].as_uri()]
    widths = tab.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) >= 1
    assert all(width > 100 for width in widths)
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_accessible_in_both_schemes(page: str, scheme: str, pages: dict[str, Path], browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = browser.new_page(color_scheme=scheme, bypass_csp=True)  # the policy keeps axe's own script out
    tab.goto(pages[page].as_uri())
    tab.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    found = axe.run(tab).response
    assert [(problem["id"], problem["nodes"][0]["html"]) for problem in found["violations"]] == []
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}
    tab.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_does_not_have_to_scroll_sideways(page: str, pages: dict[str, Path], browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 740})
    tab.goto(pages[page].as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.close()


def test_a_click_on_a_title_sorts_by_numbers_and_another_turns_it_round(pages: dict[str, Path], browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(pages["comparison"].as_uri())
    button = tab.get_by_role("button", name="robust_accuracy")
    column = """rows => rows.map(row => {
        const sorted = row.closest("table").querySelector("th[aria-sort$=ing]");
        return Number(row.cells[sorted.cellIndex].dataset.sort);
    })"""
    for reverse, word in ((False, "ascending"), (True, "descending")):
        button.click()
        values = tab.eval_on_selector_all("table.sortable tbody tr", column)
        assert values == sorted(values, reverse=reverse)
        assert len(set(values)) > 2
        assert tab.locator(f"th[aria-sort={word}]").count() == 1
    tab.close()
