"""Pretrained classifiers as they were published: own head, own preprocessing, and classes matched by their names."""

import logging
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from trustml_cli.models.classifier import Classifier
from trustml_cli.models.model import InputSpec, Model
from trustml_cli.system.recipe import CHANGES_NOTHING

log = logging.getLogger(__name__)

SHOWN = 3  # names of classes from each side in a message


class RepeatGrey(nn.Module):
    """Repeats one grey channel [N, 1, H, W] as three equal ones; three channels are not changed."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


class SelectClasses(nn.Module):
    """The logits [N, len(groups)] of groups of outputs, from logits [N, K].

    The logit of a group is the logsumexp of its outputs, so that softmax gives the sum of their probabilities, relative
    to all groups. A group of one keeps its logit.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.groups = groups
        self.single = all(len(group) == 1 for group in groups)

    def forward(self, logits: Tensor) -> Tensor:
        if self.single:
            return logits[:, [group[0] for group in self.groups]]
        return torch.stack([logits[:, group].logsumexp(1) for group in map(list, self.groups)], dim=1)


@dataclass(frozen=True)
class Published:
    """A pretrained classifier: `network` maps images that went through `preprocessing` to a logit for each class.

    `preprocessing` takes pixels in [0, 1] of any size; None where it is not known. `classes` holds the names of each
    output, several if there are synonyms, none if they are not known. `channels` is what the network takes, 1 or 3.
    """

    network: nn.Module
    preprocessing: nn.Module | None
    classes: Sequence[Sequence[str]]
    channels: int = 3


@dataclass(frozen=True, kw_only=True)
class Pretrained(Model):
    """A network with published weights, which is trained with a new head, or taken as it is with `trainer=none`.

    With `preprocess`, the first layer of the trained network is the weights' own preprocessing (resize, crop,
    normalisation) instead of `normalization`; as it is, a network always has its own. `classes` gives the network's
    class, by name or number, or several of them, for a class of the data set where the names differ.
    """

    preprocess: bool
    classes: dict[Any, Any] | None

    @property
    @abstractmethod
    def has_weights(self) -> bool:
        """Whether published weights are asked for, instead of random ones."""

    @abstractmethod
    def published(self) -> Published:
        """The network with its published weights and its own head.

        Raises ValueError where the weights are neither on this machine nor can be downloaded.
        """

    @abstractmethod
    def preprocessing(self) -> nn.Module | None:
        """What the published weights expect to be done with pixels in [0, 1]; None where it is not known."""

    def build(self, inputs: InputSpec) -> Classifier:
        try:
            return super().build(inputs)
        except ValueError as error:
            if self.preprocess or not str(error).startswith("cannot take inputs"):
                raise
            raise ValueError(f"{error}; model.preprocess=true scales images as the network expects them") from error

    def normalize(self, inputs: InputSpec) -> nn.Module:
        preprocessing = self.preprocessing() if self.preprocess else None
        return super().normalize(inputs) if preprocessing is None else nn.Sequential(RepeatGrey(), preprocessing)


@dataclass(frozen=True, kw_only=True)
class AsPublished(Model):
    """The network of `model` as it was `published`, with its logits in the order of the data set's classes."""

    model: Pretrained
    published: Published = field(metadata=CHANGES_NOTHING)  # `model` determines it

    @property
    def trains(self) -> bool:
        return False

    def fresh(self) -> Model:
        return self.model

    def normalize(self, inputs: InputSpec) -> nn.Module:
        layers = [self.published.preprocessing or super().normalize(inputs)]
        if self.published.channels == 3:  # a mean and a deviation are of the channels that are there
            layers.insert(0 if self.published.preprocessing else 1, RepeatGrey())
        return nn.Sequential(*layers)

    def network(self, inputs: InputSpec) -> nn.Module:
        names = self.published.classes
        given = {str(name): output for name, output in (self.model.classes or {}).items()}  # a digit is an int in YAML
        groups = match_classes(inputs.names, names, given)
        if groups == [[number] for number in range(len(names))]:
            return self.published.network
        return nn.Sequential(self.published.network, SelectClasses(groups))


def as_published(model: Model) -> Model:
    """`model` as it was published, where it has published weights; any other model is not changed."""
    if not isinstance(model, Pretrained) or not model.has_weights or model.checkpoint is not None:
        return model
    own = {each.name: getattr(model, each.name) for each in fields(Model)}
    published = model.published()
    if published.preprocessing is None:
        told = "is not known: pixels are normalised by model.normalization=%s and scaled to its size, if it has one"
        log.info(f"model: the preprocessing that its weights expect {told}", model.normalization.value)
    if not any(published.classes) and not model.classes:
        log.info("model: its %d outputs have no names, and are taken in the data set's order", len(published.classes))
    return AsPublished(**own, model=model, published=published)


def match_classes(wanted: Sequence[str], offered: Sequence[Sequence[str]], given: Mapping[str, Any]) -> list[list[int]]:
    """For each class of the data set, `wanted`, the numbers of the network's outputs that stand for it.

    `offered` are the names of each output, and `given` the names or numbers that the user gives for a class. Upper and
    lower case, hyphens and underscores make no difference. Outputs without names are taken in the data set's order.
    Raises ValueError where a class has no output, or several that the user has not given.
    """
    synonyms = [set().union(*map(spellings, names)) for names in offered]
    known: dict[str, list[int]] = {}
    for number, names in enumerate(synonyms):
        for name in names:
            known.setdefault(name, []).append(number)
    if unknown := [name for name in given if name not in wanted]:
        raise ValueError(f"classes: the data set has no class {unknown[0]!r}; it has {examples(wanted)}")
    alike = len(offered) == len(wanted)
    if not known and not given and not alike:
        raise ValueError(
            f"classes: the network has {len(offered)} outputs without names, and the data set {len(wanted)} "
            "classes; say which output is which by number, as in model.classes={cat:3,dog:5}"
        )
    pairs = zip(wanted, synonyms, strict=False)
    if not given and alike and (not known or all(spellings(name) & names for name, names in pairs)):
        return [[number] for number in range(len(offered))]
    groups = [outputs(given[name], known, len(offered)) if name in given else named(name, known) for name in wanted]
    absent = [name for name, group in zip(wanted, groups, strict=True) if not group]
    twice = [name for name, group in zip(wanted, groups, strict=True) if len(group) > 1 and name not in given]
    uses = Counter(number for group in groups for number in group)
    shared = [name for name, group in zip(wanted, groups, strict=True) if any(uses[number] > 1 for number in group)]
    if wrong := absent or twice or shared:
        what = (
            f"does not know {len(absent)} of the {len(wanted)} classes" if absent else "has several outputs for a class"
        )
        what = what if absent or twice else "has one output for several classes"
        raise ValueError(
            f"classes: the network {what} ({examples(wrong)}); it knows "
            f"{examples([names[0] for names in offered if names])}; say which is which, as in "
            f"'model.classes={{{wrong[0]}:[NAME,NAME]}}'"
        )
    return groups


def spellings(name: str) -> set[str]:
    """A class name in plain spelling, and the synonyms in it: 'tench, Tinca tinca' is tench and tinca tinca, too."""
    return {plain(part) for part in (name, *name.split(","))}


def named(name: str, known: Mapping[str, list[int]]) -> list[int]:
    """The outputs of that name, or else of its synonyms."""
    return known.get(plain(name)) or sorted({number for part in spellings(name) for number in known.get(part, ())})


def outputs(given: Any, known: Mapping[str, list[int]], count: int) -> list[int]:
    """The numbers of the outputs that the user gives for a class, by name or number, alone or in a list."""
    found: list[int] = []
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, int) and 0 <= each < count:
            found.append(each)
        elif plain(str(each)) in known:
            found += known[plain(str(each))]
        else:
            near = get_close_matches(plain(str(each)), known, n=SHOWN)
            raise ValueError(f"classes: the network has no class {each!r}; near it are {', '.join(near) or 'none'}")
    return list(dict.fromkeys(found))


def plain(name: str) -> str:
    """A class name without what differs between spellings: case, hyphens, underscores and repeated blanks."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def examples(names: Sequence[str]) -> str:
    """The first few names for a message."""
    return ", ".join([*islice(names, SHOWN), *(["…"] if len(names) > SHOWN else [])])
