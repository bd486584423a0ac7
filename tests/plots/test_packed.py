from tests.helpers import texts
from trustml_cli.models.cost import Cost
from trustml_cli.plots.packed import packed_layers


def row(layer: str, bytes_: tuple[int, int], ms: tuple[float, float]) -> Cost:
    return Cost(
        layer=layer, kind="linear", computes_in="bits", shape="2 → 2", float32_bytes=bytes_[0], packed_bytes=bytes_[1],
        memory_ratio=bytes_[0] / bytes_[1], float32_activation_bytes=8, packed_activation_bytes=8, float32_ms=ms[0],
        packed_ms=ms[1], speedup=ms[0] / ms[1], n=15, batch=250, threads=1,
    )  # fmt: skip


def test_each_layer_stands_with_both_values_and_says_which_is_less() -> None:
    figure = packed_layers([row("1", (4096, 1024), (2.0, 8.0)), row("all", (2048, 64), (9.0, 3.0))], "cnn on digits")
    memory, time = figure.axes
    for panel, before, after in ((memory, [4.0, 2.0], [1.0, 0.0625]), (time, [2.0, 9.0], [8.0, 3.0])):
        assert [points.get_offsets()[:, 0].tolist() for points in panel.collections] == [before, after]
        ends = [line.get_xdata() for line in panel.lines]
        assert [list(pair) for pair in ends] == [list(pair) for pair in zip(before, after, strict=True)]
        assert min(after) > panel.get_xlim()[0]
    shown = [text.get_text() for axes in (memory, time) for text in axes.texts]
    assert shown == ["4× smaller", "32× smaller", "4× slower", "3× faster"]
    for word in ("cnn on digits", "KiB", "ms, median of 15", "250 images on 1 thread"):
        assert word in texts(figure)
