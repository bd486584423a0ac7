"""Random pixels: what they are, and in which shape."""

from tests.configs import choice
from tests.helpers import NO_CACHE
from trustml_cli.config.instantiate import build
from trustml_cli.data.dataset import InMemory
from trustml_cli.data.noise import Noise


def test_noise_has_the_shape_that_is_asked_for_and_the_moments_of_its_kind() -> None:
    source = build(choice("dataset", "noise", images=40), "dataset")
    assert isinstance(source, Noise)
    data = source.like((3, 30, 20)).load(NO_CACHE)
    assert data.shape == (3, 30, 20)
    assert (len(data.train), data.classes) == (40, ("uniform", "gaussian"))
    splits = [split.inputs.float() / 255 for split in (data.train, data.test) if isinstance(split, InMemory)]
    assert not splits[0].equal(splits[1])
    assert splits[0].equal(source.like((3, 30, 20)).load(NO_CACHE).train.inputs.float() / 255)
    uniform, gaussian = (splits[1][data.test.labels == kind] for kind in (0, 1))
    assert abs(uniform.std() - 12**-0.5) < 0.005
    assert ((uniform == 0) | (uniform == 1)).float().mean() < 0.01
    assert abs(((gaussian == 0) | (gaussian == 1)).float().mean() - 0.617) < 0.01  # beyond half a standard deviation
