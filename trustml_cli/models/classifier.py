"""A classifier as this program calls it, around a network as people write it.

Networks return tuples with auxiliary logits in training mode, mappings or half precision, change their input in place,
or need contiguous images. `adapt` calls a network in the ways in which it will be used and sets what it needs.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from trustml_cli.models.inference import gives_gradients
from trustml_cli.system.errors import one_line
from trustml_cli.system.hardware import is_out_of_memory, seeded

SAME_LOGITS = 2e-3  # tolerance for logits in another memory format, relative to the largest; larger than rounding
SAME_ALONE = 2e-2  # tolerance for logits of another call, relative to the largest; larger than rounding to bf16
SUM = 1e-4  # tolerance for a sum of probabilities
NOT_LOGITS = (
    "not logits: training and attacks apply a softmax to them, which weakens the gradients; return what comes before it"
)

SEVERAL = "returns several tensors that may be its logits; the first is taken"

CHANGES = "answers the same images differently from call to call (dropout in eval mode?), so its figures change, too"
MIXES = (
    "gives an image another answer among other images (a GRU without batch_first, BatchNorm without running "
    "statistics, a mean over the batch?), so its figures depend on the batches"
)


class NoLogits(ValueError):
    """The network returned something from which no logits can be taken."""


@dataclass(frozen=True)
class Rehearsal:
    """How a network behaves in training mode; `error` says why it failed and is empty otherwise."""

    error: str = ""
    image_gradient: bool = True
    """Whether its logits have a gradient by the images in training mode."""
    weight_gradient: bool = True
    """Whether its logits have a gradient by a trainable weight."""


class Classifier(nn.Sequential):
    """The layers `normalize` and `network`, from pixels [N, *shape] to logits [N, classes] of the same precision."""

    classes: int = 0
    contiguous: bool = False
    """Whether images and weights must be contiguous in memory rather than channels last."""
    copies: bool = False
    """Whether the network changes its input in place, and is given a copy."""
    converts: bool = False
    """Whether the network returns anything but float32 logits [N, classes]."""
    image_gradient: bool = True
    """Whether its logits have a gradient by the images in eval mode."""
    rehearsal: Rehearsal = Rehearsal()
    recurrent: bool = False
    """Whether it has an RNN. In eval mode cuDNN's pass no gradients, so that torch's own are used for these."""
    remarks: tuple[str, ...] = ()
    """What the user should know of how the network is used, each the rest of a sentence on it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.contiguous:  # x.contiguous() would keep the strides of one channel, from which convolutions guess
            x = x.clone(memory_format=torch.contiguous_format)
        elif self.copies:
            x = x.clone()
        by_torch = self.recurrent and not self.training and torch.is_grad_enabled()
        with cudnn.flags(enabled=False) if by_torch else nullcontext():
            output = super().forward(x)  # type: ignore[no-untyped-call]
        return as_logits(output, len(x), self.classes).to(x.dtype) if self.converts else output


def memory_format(network: nn.Module) -> torch.memory_format:
    """The memory format for images and weights: channels last, unless a classifier in `network` needs contiguous."""
    contiguous = any(isinstance(part, Classifier) and part.contiguous for part in network.modules())
    return torch.contiguous_format if contiguous else torch.channels_last


def adapt(network: Classifier, shape: tuple[int, ...], trains: bool) -> None:
    """Set what the network needs, from its answers to random inputs of `shape`; it is left in eval mode.

    It is called in eval mode, contiguous and channels last, on several inputs and on one, and, if it `trains`, in
    training mode with gradients, on a copy. Raises what it raises, and NoLogits if it gives none in eval mode.
    """
    images = 3 if network.classes == 2 else 2  # [images, classes] must not be mistaken for [classes, images]
    x = torch.rand(images, *shape, generator=torch.Generator().manual_seed(0))
    x = x * torch.linspace(0.2, 1, images).view(-1, *(1,) * len(shape))  # inputs that differ in contrast, too
    network.eval()
    network.recurrent = any(isinstance(layer, nn.RNNBase) for layer in network.modules())
    with torch.no_grad():
        logits = first_logits(network, x)
    if (logits >= 0).all() and ((logits.sum(1) - 1).abs() <= SUM).all():
        network.remarks += (f"returns probabilities, {NOT_LOGITS}",)
    with seeded(0):  # leaves the state of the random generators unchanged
        last = channels_last(network, x, logits, trains) if len(shape) == 3 else None
        network.contiguous = len(shape) == 3 and last is None
        with torch.no_grad():
            network.remarks += tuple(inconstancies(network, x, logits))
        network.image_gradient = gives_gradients(network, x[:1])
        network.rehearsal = last or (rehearse(network, x) if trains else Rehearsal())


def inconstancies(network: Classifier, x: Tensor, logits: Tensor) -> Iterator[str]:
    """What the logits of an input depend on beside it: the call, or the other inputs of a batch x; `logits` are x's."""
    again = ask(network, x)
    alone = torch.cat([ask(network, one) for one in torch.split(x, 1)])
    tolerance = SAME_ALONE * float(logits.abs().max())
    if not torch.allclose(again, logits, rtol=0, atol=tolerance, equal_nan=True):
        yield CHANGES
    elif not torch.allclose(alone, logits, rtol=0, atol=tolerance, equal_nan=True):
        yield MIXES


def first_logits(network: Classifier, x: Tensor) -> Tensor:
    """The logits of x; if that fails because the weights have another precision, they are converted to float32."""
    try:
        return ask(network, x)
    except Exception as error:
        types = {weight.dtype for weight in network.parameters() if weight.is_floating_point()} - {torch.float32}
        if isinstance(error, NoLogits) or is_out_of_memory(error) or not types:
            raise
    network.remarks += (f"has weights in {', '.join(map(str, types))}; they are converted to float32",)
    return ask(network.float(), x)


def channels_last(network: Classifier, x: Tensor, logits: Tensor, trains: bool) -> Rehearsal | None:
    """The rehearsal with images x and weights channels last; None unless the network works so and answers `logits`."""
    network.to(memory_format=torch.channels_last)
    x = x.clone(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            same = torch.allclose(ask(network, x), logits, rtol=0, atol=SAME_LOGITS * float(logits.abs().max()))
        rehearsal = rehearse(network, x) if trains else Rehearsal()
        return rehearsal if same and not rehearsal.error else None
    except Exception as error:  # whatever a layer raises
        if is_out_of_memory(error):
            raise
        return None
    finally:
        network.to(memory_format=torch.contiguous_format)


def rehearse(network: Classifier, x: Tensor) -> Rehearsal:
    """Call a copy of the network in training mode on images x, with gradients; sets what the network needs there."""
    try:
        trained = copy.deepcopy(network).train()
    except Exception:  # a network may hold anything that cannot be copied
        return Rehearsal()
    x, weights = x.detach().clone().requires_grad_(True), [one for one in trained.parameters() if one.requires_grad]
    try:
        with torch.enable_grad():
            logits = ask(trained, x)
            gradients = (
                torch.autograd.grad(logits.sum(), [x, *weights], allow_unused=True) if logits.requires_grad else [None]
            )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return Rehearsal(error=one_line(error))
    network.copies, network.converts, network.remarks = trained.copies, trained.converts, trained.remarks
    if type(logits.grad_fn).__name__ == "SigmoidBackward0":
        network.remarks += (f"ends in a sigmoid; it returns probabilities, {NOT_LOGITS}",)
    return Rehearsal("", gradients[0] is not None, any(one is not None for one in gradients[1:]))


def ask(network: Classifier, x: Tensor) -> Tensor:
    """The logits of x; sets whether the network needs a copy of its input and its output converted."""
    given = x.clone()
    version = given._version
    output = nn.Sequential.forward(network, given)  # type: ignore[no-untyped-call]
    network.copies |= given._version != version
    network.converts |= not (is_plain(output, len(x)) and output.dtype is torch.float32)
    if len(candidates(output, len(x), network.classes)) > 1 and SEVERAL not in network.remarks:
        network.remarks += (SEVERAL,)
    logits = as_logits(output, len(x), network.classes).to(x.dtype)
    if logits.shape[1] != network.classes:
        raise refusal(output, len(x), network.classes)
    return logits


def as_logits(output: object, images: int, classes: int) -> Tensor:
    """The logits [images, classes] in what a network returned.

    A tensor may have other dimensions of size 1, or lack those of size 1. Of a mapping or object the entry `logits` is
    taken, of a tuple or list the first tensor of that shape: auxiliary logits follow the main ones. Raises NoLogits
    where there is none, or where a mapping has several and none is called `logits`.
    """
    if is_plain(output, images):
        return output
    found = candidates(output, images, classes)
    if isinstance(output, Mapping) and len(found) > 1:
        raise NoLogits(f"returns several tensors that may be its logits ({', '.join(found)}); call one 'logits'")
    if not found:
        raise refusal(output, images, classes)
    return next(iter(found.values())).reshape(images, classes)


def candidates(output: object, images: int, classes: int) -> dict[str, Tensor]:
    """The tensors in what a network returned that may be its logits, by the names or numbers of their entries."""
    return {name: each for name, each in tensors(output) if fits(each, images, classes)}


def is_plain(output: Any, images: int) -> TypeGuard[Tensor]:
    """Whether it is a tensor [images, anything] of real numbers."""
    return isinstance(output, Tensor) and output.dim() == 2 and len(output) == images and not output.is_complex()


def fits(tensor: Tensor, images: int, classes: int) -> bool:
    """Whether it holds real numbers in the shape [images, classes], not counting dimensions of size 1."""
    shape, wanted = ([size for size in sizes if size != 1] for sizes in (tensor.shape, (images, classes)))
    return shape == wanted and not tensor.is_complex()


def tensors(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a network returned, by the names or numbers of their entries."""
    entries: Mapping[Any, Any] = {}
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        entries = {"logits": output["logits"]} if "logits" in output else output
    elif hasattr(output, "logits"):
        entries = {"logits": output.logits}
    elif isinstance(output, tuple | list):
        entries = dict(enumerate(output))
    for key, value in entries.items():
        yield from tensors(value, f"{name}.{key}" if name else str(key))


def refusal(output: object, images: int, classes: int) -> NoLogits:
    """The error for a network that returned `output` for this number of images."""
    shapes = [f"{name} {list(each.shape)}".strip() for name, each in tensors(output)]
    kind = "" if isinstance(output, Tensor) else f"{type(output).__name__} of "
    one = classes == 2 and isinstance(output, Tensor) and output.numel() == images
    return NoLogits(
        f"returns {kind}{', '.join(shapes) or 'no tensor'} for {images} images; logits of shape [{images}, {classes}] "
        f"are needed{'; where z says how likely the second class is, return [-z/2, z/2]' if one else ''}"
    )
