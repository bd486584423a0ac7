"""The pages in a real browser: what it complains of, what it asks for, who can read them, and how they sort."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import leave_run
from trustml_cli.results.report.page import write_comparison

pytestmark = pytest.mark.browser
PHONE = {"width": 360, "height": 740}


def test_a_browser_shows_every_page_whole_without_a_complaint_or_a_request(
    pages: dict[str, Path], browser: Any
) -> None:
    said: list[str] = []
    asked: list[str] = []
    with browser.new_context() as context:
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        for page in pages.values():
            tab.goto(page.as_uri())
            widths = tab.eval_on_selector_all(
                ".plots img, .natural img", "images => images.map(image => image.naturalWidth)"
            )
            assert widths, page
            assert all(width > 100 for width in widths), page
            tab.set_viewport_size(PHONE)
            assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page
    assert said == []
    assert [address for address in asked if not address.startswith("data:")] == [
        page.as_uri() for page in pages.values()
    ]


def test_a_slider_shows_the_images_at_one_epsilon_at_a_time(pages: dict[str, Path], browser: Any) -> None:
    with browser.new_context() as context:
        tab = context.new_page()
        tab.goto(pages["run"].as_uri())
        frames, slider = tab.locator(".frame"), tab.get_by_role("slider", name="epsilon")
        for number in range(frames.count()):
            slider.fill(str(number))
            assert [frames.nth(each).is_visible() for each in range(frames.count())] == [
                each == number for each in range(frames.count())
            ]
        assert frames.count() == 2
        curve, range_input = tab.locator(".natural figure").first.bounding_box(), slider.bounding_box()
        assert curve["y"] < range_input["y"], "the answer comes first"
        assert slider.get_attribute("aria-valuetext") == "0.1"


def test_every_page_is_accessible_in_light_and_dark(pages: dict[str, Path], browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    contrast = {"runOnly": ["color-contrast"]}  # the other rules know nothing of colours
    with browser.new_context(bypass_csp=True) as context:  # the policy keeps axe's own script out
        tab = context.new_page()
        for page in pages.values():
            tab.emulate_media(color_scheme="light")
            tab.goto(page.as_uri())
            tab.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            for scheme, options in (("light", None), ("dark", contrast)):
                tab.emulate_media(color_scheme=scheme)
                found = axe.run(tab, options=options).response
                problems = [(problem["id"], problem["nodes"][0]["html"]) for problem in found["violations"]]
                assert problems == [], (page, scheme)
                assert "color-contrast" in {rule["id"] for rule in found["passes"]}, (page, scheme)
            assert tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


def test_a_click_on_a_title_sorts_by_numbers_and_another_turns_it_round(tmp_path: Path, browser: Any) -> None:
    counts = ["9", "", "100", "2.5e-05", "-1", "10"]
    for number, count in enumerate(counts):
        leave_run(tmp_path / f"run{number}", f"count,name\n{count},x\n")
    rising = ["–", "-1", "2.5e-05", "9", "10", "100"]
    with browser.new_context() as context:
        tab = context.new_page()
        tab.goto(write_comparison([tmp_path], tmp_path / "comparison.html").as_uri())
        cells = tab.locator("table.sortable tbody tr td:nth-child(2)")
        assert cells.all_inner_texts() == [count or "–" for count in counts]
        for word, expected in (("ascending", rising), ("descending", rising[::-1])):
            tab.get_by_role("button", name="count").click()
            assert cells.all_inner_texts() == expected
            assert tab.locator(f"th[aria-sort={word}]").all_inner_texts() == ["count"]
