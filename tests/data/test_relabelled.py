import torch

from trustml_cli.data.dataset import Dataset, InMemory
from trustml_cli.data.relabelled import Relabelled, only_classes

CPU = torch.device("cpu")


def split(labels):
    """Images whose grey level is their number."""
    return InMemory(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))


def shown(split, order=None, batch_size=2):
    """(grey level, label) of every example, in batches."""
    order = torch.arange(len(split)) if order is None else torch.tensor(order)
    batches = split.stream(order, batch_size)
    return [list(zip(raw.flatten().tolist(), labels.tolist(), strict=True)) for raw, labels in batches]


def test_examples_come_with_their_new_labels_in_any_order():
    relabelled = Relabelled(split([0, 0, 0, 0]), torch.tensor([5, 6, 7, 8]))
    assert shown(relabelled, [3, 0, 2]) == [[(3, 8), (0, 5)], [(2, 7)]]
    assert shown(relabelled.subset(torch.tensor([2, 1])), [1, 0, 1]) == [[(1, 6), (2, 7)], [(1, 6)]]
    assert shown(relabelled.on(CPU)) == shown(relabelled)
    assert (len(relabelled), relabelled.shape) == (4, (1, 1, 1))


def test_parts_of_a_relabelled_split_keep_the_new_labels():
    relabelled = Relabelled(split([0] * 10), torch.arange(10) + 20)
    parts = relabelled.divide(0.3, seed=0)
    assert [len(part) for part in parts] == [7, 3]
    pairs = [pair for part in parts for batch in shown(part) for pair in batch]
    assert sorted(pairs) == [(number, number + 20) for number in range(10)]


def test_only_the_classes_asked_for_are_kept_and_numbered_anew():
    data = Dataset(split([2, 0, 1, 2, 0]), split([1, 2]), ("a", "b", "c"), fingerprint="abc", source="made up")
    kept = only_classes(data, [2, 0])
    assert kept.classes == ("c", "a")
    assert shown(kept.train, batch_size=9) == [[(0, 0), (1, 1), (3, 0), (4, 1)]]
    assert shown(kept.test) == [[(1, 0)]]
    assert len({data.fingerprint, kept.fingerprint, only_classes(data, [0, 2]).fingerprint}) == 3
    assert data.train.labels.tolist() == [2, 0, 1, 2, 0]
