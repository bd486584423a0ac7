import torch
from matplotlib.figure import Figure

from tests.helpers import line, texts
from trustml_cli.ood.measure import Judged, judge
from trustml_cli.plots.ood import roc_curves, score_histograms


def results() -> dict[str, Judged]:
    inliers, outliers = torch.arange(100).double(), torch.arange(80, 120).double()
    return {
        name: judge(scale * inliers, scale * inliers, scale * outliers, 0.95) for name, scale in (("a", 1), ("b", 2))
    }


def words(figure: Figure) -> str:
    return texts(figure) + "".join(text.get_text() for legend in figure.legends for text in legend.get_texts())


def test_histograms_show_both_kinds_of_images_and_the_threshold() -> None:
    figure = score_histograms(results(), "cnn on digits")
    assert len(figure.axes) == 2
    for axes, threshold in zip(figure.axes, (94, 188), strict=True):
        assert list(axes.lines[0].get_xdata()) == [threshold, threshold]
        inliers, outliers = (patch.get_path().vertices for patch in axes.patches)  # corners of the steps, [n, 2]
        assert inliers[inliers[:, 1] > 0, 0].min() < threshold / 2 < outliers[outliers[:, 1] > 0, 0].min()
    for text in ("cnn on digits", "a: 95.0% of inliers", "37.5% of outliers pass", "inliers (n = 100)", "threshold"):
        assert text in words(figure)


def test_roc_curves_show_every_score_with_its_measures() -> None:
    figure = roc_curves(results(), "cnn on digits")
    judged = results()["a"]
    assert line(figure.axes[0], 0) == judged.separation.tpr
    assert len(figure.axes[0].lines) == 4  # two scores, chance, and the 95 % that the last column speaks of
    for text in ("a: AUROC 0.950, FPR at 95 % TPR 18.0%", "b:", "chance", "cnn on digits", "false positives"):
        assert text in words(figure)
