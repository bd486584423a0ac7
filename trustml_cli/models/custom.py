"""A user's own network, given by the function that builds it."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from trustml_cli.models.model import InputSpec, Model
from trustml_cli.system.errors import with_kind
from trustml_cli.system.user_code import current_directory_first


@dataclass(frozen=True, kw_only=True)
class Custom(Model):
    """The network returned by `factory`, given as package.module:function; the working directory is searched first.

    The function is called with `arguments` and, if it has parameters of these names, with `shape` (of one example,
    [C, H, W]) and `num_classes`.
    """

    names_code: ClassVar = ("factory",)

    factory: str
    arguments: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.function()

    def function(self) -> Callable[..., nn.Module]:
        """Import the function; raises ValueError where that fails or there is none of that name."""
        module_name, _, function_name = self.factory.partition(":")
        if not function_name:
            raise ValueError(f"factory: must be package.module:function, got {self.factory!r}")
        try:
            with current_directory_first(module_name):
                module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # importing a user's module may raise anything
            raise ValueError(f"factory: cannot import {module_name} ({with_kind(error)})") from error
        function = getattr(module, function_name, None)
        if not callable(function):
            raise ValueError(f"factory: {module_name} has no function {function_name!r}")
        return function  # type: ignore[no-any-return]

    def network(self, inputs: InputSpec) -> nn.Module:
        function = self.function()
        offered = {"shape": inputs.shape, "num_classes": inputs.classes}
        try:
            wanted = inspect.signature(function).parameters
            network = function(**{key: offered[key] for key in offered.keys() & wanted.keys()} | self.arguments)
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise ValueError(f"factory: {self.factory} failed ({with_kind(error)})") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"factory: {self.factory} returned {type(network).__name__}, not a torch.nn.Module")
        return network
