"""Pages of real runs and of runs written by hand, read as text."""

import json
import re
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pandas
import pytest

from tests.helpers import leave_run, metrics
from trustml_cli.metrics.numbers import in_percent
from trustml_cli.results.aggregate import answers_of, read_runs, sweep_table
from trustml_cli.results.report.page import PNG, told_apart, write_comparison, write_run, write_sweep
from trustml_cli.sweeps.callback import finish_sweep

BEST = '<span class="mark" title="the best of this column under equal conditions">★ best</span> '


def table(page: str, number: int) -> list[list[str]]:
    """The rows of one of a page's sortable tables, what is in their cells as it stands there; titles first."""
    whole = re.findall(r'<table class="sortable">.*?</table>', page, re.DOTALL)[number]
    rows = [re.findall(r"<(?:td|th)[ >].*?</(?:td|th)>", row, re.DOTALL) for row in whole.split("</tr>")]
    cells = [[re.sub(r"^<(td|th)[^>]*>|</(td|th)>$|</?button[^>]*>", "", cell) for cell in row] for row in rows]
    return [row for row in cells if row]


def interval(row: dict[str, float]) -> str:
    """The interval and n of the robust accuracy in a row, as a page has them."""
    low, high = (in_percent(row[f"robust_accuracy_ci_{end}"]) for end in ("low", "high"))
    return f"{low.removesuffix(' %')} to {high}, n = 450"


def test_a_run_that_computed_has_a_page_and_one_that_was_refused_has_none(sweep: Path) -> None:
    assert [(run.folder / "report.html").exists() for run in read_runs(sweep)] == [True, False] * 2


def test_the_page_of_a_run_says_what_was_measured_and_how_to_do_it_again(sweep: Path) -> None:
    run = read_runs(sweep)[0]
    page = unescape((run.folder / "report.html").read_text())
    for words in (
        "logistic on digits", "gradients are not zero", run.facts.trustml or "",
        "trustml task=fgsm model=logistic trainer=smoke seed=0 'task.epsilon=[0.05,0.1]' task.check_images=0",
        "<code>task.epsilon</code>", "<del>[0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3]</del>", "<ins>[0.05, 0.1]</ins>",
    ):  # fmt: skip
        assert words in page, words
    assert len(run.metrics) == 2
    for row in run.metrics.to_dict("records"):
        assert f"<b>{in_percent(row['robust_accuracy'])}</b><small>{interval(row)}</small>" in page
        clean = in_percent(row["clean_accuracy"]).replace(" ", "\u00a0")  # which no line break takes apart
        assert f"<small>clean {clean}</small>" in page
    titles, first, second = table(page, 0)
    column = titles.index("robust accuracy")
    assert column == titles.index("epsilon") + 1, "the headline follows the conditions"
    for cells, row in zip((first, second), run.metrics.to_dict("records"), strict=True):
        assert cells[column] == f"{in_percent(row['robust_accuracy'])}<small>{interval(row)}</small>"
    pictures = len(list((run.folder / "plots").iterdir()))
    assert page.count("data:image/png;base64,") == pictures + len(run.metrics), "and a frame for each epsilon"
    assert page.index('alt="robustness"') < page.index('alt="examples"'), "the curve before the examples"
    assert page.count('<figure class="frame"') == 2
    judged = [check for check in run.facts.checks if check["passed"] is not None]
    assert f"of {len(judged)} checks passed" in page
    assert "In every row: attack fgsm, norm linf." in page
    assert page.count("<ins>") == 2  # of what was changed, nothing else
    assert "<code>trainer=smoke</code>" in page
    assert "<code>launcher=" not in page


def test_a_failed_check_is_listed_and_not_told_again_in_the_verdict(tmp_path: Path) -> None:
    failed = {"name": "gradients are not zero", "passed": False, "figure": "76.0 % of images (n = 320) have none"}
    verdict = f"not trustworthy: masking (failed: {failed['name']}: {failed['figure']}). Run `task=attack` again"
    run = tmp_path / "run"
    leave_run(run, "epsilon,f\n0.1,1\n", conditions=["epsilon"], headline="f", checks=[failed], verdict=verdict)
    page = unescape(write_run(run).read_text())
    assert '<p class="verdict">Not trustworthy: masking. Run <code>task=attack</code> again</p>' in page
    assert page.count("76.0 % of images") == 1


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a=1,b=2", "a=1,b=3"], [["b=2"], ["b=3"]]),
        (["a=1,b=2"], [["a=1", "b=2"]]),  # a single job
        (["item", "item,a=1"], [["item"], ["a=1"]]),  # nothing of its own
    ],
)
def test_jobs_are_named_by_what_tells_them_apart(names: list[str], words: list[list[str]]) -> None:
    assert told_apart(names) == words


def test_the_page_of_a_sweep_names_what_failed_and_leads_to_every_job(sweep: Path) -> None:
    page = (sweep / "index.html").read_text()
    assert "2 of 4 completed" in page
    assert page.count("task.epsilon: must be a number of at least 0, got -1") == 2
    links = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith("data:")]
    assert [(sweep / unquote(link)).exists() for link in links] == [True, True]
    assert "task=fgsm model=logistic" in page
    summary = pandas.read_csv(sweep / "summary.csv")
    means = summary.robust_accuracy
    (verdict,) = {run.facts.verdict for run in read_runs(sweep) if run.status == "completed"}
    assert set(summary.verdict) == {verdict}
    assert verdict is not None
    words = re.sub(r"`(.*?)`", r"<code>\1</code>", verdict[:1].upper() + verdict[1:])
    assert page.count(f'class="long">{words}</td>') == page.count("<polyline") == 2
    titles, *rows = table(page, 0)
    assert titles[:3] == ["epsilon", "seeds", "robust accuracy"]
    for mean, cells in zip(means, rows, strict=True):
        assert cells[titles.index("robust accuracy")].startswith(f"{in_percent(mean)}<small>")


def test_a_comparison_begins_with_what_differs_and_marks_the_best(pages: dict[str, Path], sweep: Path) -> None:
    page = pages["comparison"].read_text()
    differing = re.findall(r"<code>([\w.]+)</code></th>", page)
    assert differing == ["seed", "task.epsilon"]
    assert page.index("What differs") < page.index("Results")
    runs = [run for run in read_runs(sweep) if run.status == "completed"]
    titles, *rows = table(page, 0)
    for name, best in (("robust_accuracy", max), ("attack_success_rate", min)):
        for number, epsilon in enumerate((0.05, 0.1)):
            values = [metrics(run.folder).set_index("epsilon")[name][epsilon] for run in runs]
            cells = [row[titles.index(name.replace("_", " "))] for row in rows[2 * number : 2 * number + 2]]
            assert values[0] != values[1]
            parts = [metrics(run.folder).set_index("epsilon").loc[epsilon] for run in runs]
            apart = max(part[f"{name}_ci_low"] for part in parts) > min(part[f"{name}_ci_high"] for part in parts)
            assert [cell.startswith(BEST) for cell in cells] == [apart and value == best(values) for value in values]


def test_the_best_is_what_the_runs_say_is_better_and_nothing_where_they_do_not_agree(tmp_path: Path) -> None:
    ways = ({"up": "higher", "down": "lower", "each": "higher"}, {"up": "higher", "down": "lower", "each": "lower"})
    for number, better in enumerate(ways):
        leave_run(
            tmp_path / f"run{number}", f"up,down,each,other\n{number},{number},{number},{number}\n", better=better
        )
    leave_run(tmp_path / "older", "up,down,each,other\n3,-3,3,3\n")  # by a version that said nothing
    titles, *rows = table(write_comparison([tmp_path], tmp_path / "comparison.html").read_text(), 0)
    assert titles == ["run", "up", "down", "each", "other"]
    assert rows == [["1", "0", "0", "0", "0"], ["2", "1", "1", "1", "1"], ["3", f"{BEST}3", f"{BEST}-3", "3", "3"]]


@pytest.mark.renders  # as the sweep itself does
def test_pages_can_be_written_again_from_what_lies_there(sweep: Path) -> None:
    for page, again in (
        (sweep / "index.html", lambda: finish_sweep(sweep, read_runs(sweep))),
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
        (plots / "curve.png").write_bytes(PNG)
        (plots.parent / "run.json").write_text(json.dumps({"status": "completed", "started": f"{number:02}"}))
    page = write_comparison([tmp_path], tmp_path / "comparison.html").read_text()
    assert page.count("data:image/png") == 12
    assert "first 12 of 15 runs" in page


def test_many_runs_are_rows_of_what_differs_and_each_task_has_its_own_results(tmp_path: Path) -> None:
    for number in range(6):
        facts = {"task": "fgsm" if number % 2 else "ood", "choices": {"attack": f"kind{number}"}}
        leave_run(tmp_path / f"run{number}", f"figure\n{number}\n", **facts)
    page = write_comparison([tmp_path], tmp_path / "comparison.html").read_text()
    titles, *rows = table(page, 0)
    assert titles == ["run", "<code>task</code>", "<code>attack</code>"]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 7)]
    assert {row[2] for row in rows} == {f"kind{number}" for number in range(6)}
    assert [len(table(page, number)) for number in (1, 2)] == [1 + 3, 1 + 3]


def test_more_headlines_than_fit_on_cards_are_a_table(tmp_path: Path) -> None:
    for count, cards in ((12, 12), (13, 0)):
        folder = tmp_path / str(count)
        values = "".join(f"{number},{number / 20}\n" for number in range(count))
        leave_run(folder, f"epsilon,robust_accuracy\n{values}", headline="robust_accuracy", conditions=["epsilon"])
        page = write_run(folder).read_text()
        assert page.count("<dd><b>") == cards
        assert len(table(page, 0)) == 1 + count


@pytest.mark.parametrize("text", ["", "[]", "[1", '{"condition": "x", "frames": [{"value": 1, "png": "#"}]}'])
def test_a_slider_that_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    leave_run(tmp_path / "run", "figure\n1\n")
    (tmp_path / "run" / "artifacts").mkdir()
    (tmp_path / "run" / "artifacts" / "slider.json").write_text(text)
    assert 'class="frame"' not in write_run(tmp_path / "run").read_text()


def test_names_from_strangers_are_shown_and_not_run(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    for status in ("failed", "completed"):
        folder = tmp_path / f"<script>{status}"
        facts = {"status": status, "task": evil, "dataset": evil, "model": evil, "seed": evil, "error": evil,
                 "command": ["trustml", evil], "headline": "accuracy", "conditions": [evil],
                 "checks": [{"name": evil, "passed": False, "figure": evil}], "verdict": evil,
                 "changed": {evil: {"default": evil, "value": evil}}}  # fmt: skip
        leave_run(folder, "", f"task: {evil}\nonly_{status}: {evil}\n", **facts)
        rows = [{"task": evil, evil: f"{evil}{number}", "accuracy": number / 2, "note": evil} for number in (0, 1)]
        pandas.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
        (folder / "plots").mkdir()
        (folder / "plots" / "<script>.png").write_bytes(PNG)
    runs = read_runs(tmp_path)
    for page, shown in (
        (write_run(folder), 20),
        (write_comparison([tmp_path], tmp_path / "comparison.html"), 20),
        (write_sweep(tmp_path, runs, answers_of(runs, sweep_table(runs)), [evil]), 8),
    ):
        text = page.read_text()
        assert text.count("<script") == 1, page  # ours alone
        assert text.count("&lt;script&gt;") >= shown, page


def test_a_page_says_what_was_remarked_and_whether_the_seed_repeats_the_numbers(tmp_path: Path) -> None:
    remark, noise = "show the class & no person", "noise comes from the operating system and is not recorded"
    pages = []
    for passed in (False, True):
        checks = [{"name": noise, "passed": passed, "figure": "seeded"}]
        leave_run(tmp_path / str(passed), remarks=[remark], checks=checks)
        pages.append(write_run(tmp_path / str(passed)).read_text())
    assert all("Show the class &amp; no person." in page for page in pages)
    assert ["The same seed on the same machine gives the same numbers" in page for page in pages] == [True, False]
    assert "Another run draws other noise" in pages[1]


def test_choices_that_are_not_the_usual_ones_are_not_called_defaults(tmp_path: Path) -> None:
    leave_run(tmp_path / "run", choices={"task": "fgsm", "defence": "pgd", "attack@references.exact": "linear"})
    page = write_run(tmp_path / "run").read_text()
    assert "Choices: <code>task=fgsm</code>, <code>defence=pgd</code>." in page
    assert "Every value is that of the choices." in page


def test_a_run_that_was_killed_at_its_first_word_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    assert "killed" in write_run(tmp_path).read_text()
