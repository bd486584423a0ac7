"""The state of a Python process that a command changes, and that a notebook wants back."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock
from typing import Any

import matplotlib
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from omegaconf.basecontainer import BaseContainer
from PIL import Image

from trustml_cli.config.groups import register_resolvers
from trustml_cli.system.hardware import random_state_kept

OF_AN_APPLICATION = (GlobalHydra, HydraConfig, JobRuntime)  # Hydra's other singletons know its plugins and sources
AT_WORK = Lock()  # a second command of this process waits for the first


@contextmanager
def surroundings_kept() -> Iterator[None]:
    """Run one command inside, with the settings of a process of its own; everything is as before afterwards.

    Kept are the random states, warning filters, log handlers and levels, the environment, the current directory, the
    arguments and the module search path, matplotlib's parameters, torch's threads and determinism, OmegaConf's
    resolvers and Hydra's global state. Signal handlers are not touched by a command that is called from Python.
    """
    with AT_WORK, ExitStack() as stack:
        for kept in KEPT:
            stack.enter_context(kept())
        yield


@contextmanager
def process_kept() -> Iterator[None]:
    """Keep the environment, the arguments, the module search path and the current directory."""
    environment, arguments, path, here = dict(os.environ), sys.argv[:], sys.path[:], os.curdir
    with suppress(FileNotFoundError):  # it was deleted; the command says so
        here = os.getcwd()  # noqa: PTH109
    try:
        yield
    finally:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        sys.argv[:], sys.path[:] = arguments, path
        with suppress(FileNotFoundError):
            os.chdir(here)


@contextmanager
def warnings_kept() -> Iterator[None]:
    """Keep the warning filters; inside, images of too many pixels are an error, as in a process of trustml's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def figures_kept() -> Iterator[None]:
    """Keep matplotlib's parameters; inside they are those of the user's matplotlibrc, not of the notebook's style."""
    with matplotlib.rc_context():
        own = {name: value for name, value in matplotlib.rcParamsOrig.items() if not name.startswith("backend")}
        matplotlib.rcParams.update({**own, "text.parse_math": False})
        yield


@contextmanager
def logging_kept() -> Iterator[None]:
    """Keep the root logger's handlers and level, and keep Python's `dictConfig` from closing any other handler."""
    root, ours, known = logging.getLogger(), logging.getLogger("trustml_cli"), vars(logging)
    handlers, levels, raises = root.handlers[:], (root.level, ours.level), logging.raiseExceptions
    every, by_name = known["_handlerList"][:], dict(known["_handlers"])
    known["_handlerList"].clear()  # dictConfig closes those that are listed
    logging.raiseExceptions = False
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                with suppress(OSError):  # of a disk that is full
                    handler.close()
        known["_handlerList"][:] = every
        known["_handlers"].update(by_name)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        logging.raiseExceptions = raises


@contextmanager
def hydra_kept() -> Iterator[None]:
    """Keep OmegaConf's resolvers and Hydra's singletons: a notebook may use both itself."""
    theirs, resolvers = Singleton._instances, dict(BaseContainer._resolvers)
    Singleton._instances = {kind: one for kind, one in theirs.items() if kind not in OF_AN_APPLICATION}
    register_resolvers()
    try:
        yield
    finally:
        Singleton._instances = theirs
        BaseContainer._resolvers = resolvers


@contextmanager
def torch_kept() -> Iterator[None]:
    """Keep torch's number of threads and its switches for determinism."""

    def switches() -> tuple[Any, ...]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        return deterministic, warn_only, torch.backends.cudnn.allow_tf32, torch.get_num_threads()

    before = switches()
    try:
        yield
    finally:
        if switches() != before:  # to set them again takes a second: it imports torch's compiler
            deterministic, warn_only, tf32, threads = before
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.allow_tf32 = tf32
            torch.set_num_threads(threads)


KEPT = (process_kept, warnings_kept, figures_kept, logging_kept, hydra_kept, random_state_kept, torch_kept)
