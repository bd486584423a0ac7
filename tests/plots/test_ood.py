import pytest
import torch
from matplotlib.figure import Figure

from tests.helpers import points, texts
from trustml_cli.ood.measure import DetectionResult, evaluate
from trustml_cli.plots.ood import roc_curves, score_histograms


def results() -> dict[str, DetectionResult]:
    """Two scores: of a, 37.5 % of outliers pass, of b none."""
    inliers = torch.arange(100).double()
    return {
        "a": evaluate(inliers, inliers, torch.arange(80, 120).double(), 0.95),
        "b": evaluate(2 * inliers, 2 * inliers, torch.arange(190, 230).double(), 0.95),
    }


def words(figure: Figure) -> str:
    return texts(figure) + "".join(text.get_text() for legend in figure.legends for text in legend.get_texts())


def test_histograms_show_both_kinds_of_images_and_the_threshold() -> None:
    figure = score_histograms({name: {"7": result} for name, result in results().items()}, "cnn on digits")
    assert len(figure.axes) == 2
    for axes, threshold in zip(figure.axes, (94, 188), strict=True):
        assert list(axes.lines[0].get_xdata()) == [threshold, threshold]
    means = [(49.5, 99.5), (99, 209.5)]
    for axes, expected in zip(figure.axes, means, strict=True):
        for patch, mean in zip(axes.patches, expected, strict=True):
            corners = patch.get_path().vertices  # (left, 0), then (left, share) and (right, share) of each bin
            count = (len(corners) - 1) // 4
            shares, edges = corners[1 : 2 * count + 1 : 2, 1], corners[: 2 * count + 1 : 2, 0]
            assert shares.sum() == pytest.approx(1)
            assert (shares * (edges[1:] + edges[:-1]) / 2).sum() == pytest.approx(mean, abs=2)
    for text in ("cnn on digits", "a: 95.0 % of inliers", "37.5 % of outliers pass", "b: 95.0 % of inliers",
                 "0 % of outliers pass", "inliers (n = 100)", "outliers (n = 40)", "threshold",
                 "share of images"):  # fmt: skip
        assert text in words(figure)


def test_roc_curves_show_every_score_with_its_measures() -> None:
    figure = roc_curves({"7": results()}, "cnn on digits")
    (panel,) = figure.axes
    for number, judged in enumerate(results().values()):
        found = judged.separation
        assert points(panel, number) == [(max(x, 0.005), y) for x, y in zip(found.fpr, found.tpr, strict=True)]
    assert len(panel.lines) == 4  # two scores, chance, and the 95 % that the last column speaks of
    assert all(x == y for x, y in points(panel, 2))
    assert {y for _, y in points(panel, 3)} == {0.95}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0].startswith("a: AUROC 0.950, FPR at 95 % TPR 18.0 %")
    assert names[1].startswith("b: AUROC 0.994, FPR at 95 % TPR 4.0 %")
    for text in ("chance", "cnn on digits", "false positives", "true positives"):
        assert text in words(figure)


def test_each_set_of_outliers_has_a_line_in_the_histograms_and_a_panel_of_roc_curves() -> None:
    near, far = results().values()
    figure = score_histograms({"a": {"near": near, "far": far}}, "cnn on digits")
    assert len(figure.axes[0].patches) == 3
    for text in ("near (n = 40)", "far (n = 40)", "0 % to 37.5 % of outliers pass"):
        assert text in words(figure)
    figure = roc_curves({"near": {"a": near}, "far": {"a": far}}, "cnn on digits")
    for panel, result in zip(figure.axes, (near, far), strict=False):
        assert [y for _, y in points(panel, 0)] == result.separation.tpr
    assert "outliers: near" in texts(figure)
    assert "a: AUROC 0.994" in texts(figure)
