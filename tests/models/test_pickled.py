"""What torch.save writes is read; what would run, allocate or compute more than a state_dict needs is refused."""

import pickle
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.faults.whole import memory_up_to
from tests.helpers import Cli
from trustml_cli.models.checkpoint import read_states
from trustml_cli.models.pickled import NotWeights, check_pickled

OLD = {"_use_new_zipfile_serialization": False}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))


def with_optimizer() -> dict[str, Any]:
    state = {0: {"momentum_buffer": torch.rand(2, 3), "step": torch.tensor(3.0)}}  # as SGD's and Adam's
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 1]}]}
    return {"epoch": 3, "best": 0.5, "name": "é", "none": None, "flags": [True, False], "shape": torch.Size([1, 8, 8]),
            "state_dict": network().state_dict(), "optimizer": optimizer, "device": torch.device("cpu"),
            "type": torch.float16, "raw": b"\x00\xff"}  # fmt: skip


def shared() -> dict[str, Any]:
    weight = torch.rand(4, 4)
    return {"a": weight, "b": weight, "c": weight.T, "d": weight[1:3], "e": nn.Parameter(weight)}


CONTENTS: dict[str, Callable[[], Any]] = {
    "state_dict": lambda: network().state_dict(),
    "with an optimizer": with_optimizer,
    "shared storage": shared,
    "types": lambda: {
        str(t): torch.ones(3, dtype=t) for t in (torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64)
    },
    "new types": lambda: {str(t): torch.ones(3).to(t) for t in (torch.float8_e4m3fn, torch.uint16)},
    "nothing": OrderedDict,
}


@pytest.mark.parametrize(
    ("name", "how"), [*((name, {}) for name in CONTENTS), *((name, OLD) for name in CONTENTS if name != "new types")]
)
def test_what_torch_saves_is_no_harm(name: str, how: dict[str, Any], tmp_path: Path) -> None:
    torch.save(CONTENTS[name](), tmp_path / "file.pt", **how)
    check_pickled(tmp_path / "file.pt")
    assert torch.load(tmp_path / "file.pt", weights_only=True) is not None


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_other_protocols_are_told_apart(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "file.pt", pickle_protocol=4)
    with pytest.raises(NotWeights, match=r"of protocol 4; torch\.save writes 2"):
        check_pickled(tmp_path / "file.pt")


@pytest.mark.parametrize("how", [{}, OLD], ids=str)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Calls(bytearray, 4 * 10**9), "it calls builtins.bytearray: loading it could run code or fill the memory"),
        (Calls(torch.FloatStorage, 10**9), "it calls torch.FloatStorage"),
        (Calls(torch.empty, 10**9), "it calls"),
        (Calls(print, "run"), "it calls builtins.print"),
        (np.float64(0.5), "it calls numpy"),
        (Namespace(lr=1), "NEWOBJ|it calls copyreg|sets attributes"),
        ({1, 2}, "it calls builtins.set"),
        ({(1, 2): 3}, "a mapping with other keys than names and numbers"),
        ({"x" * 1001: torch.zeros(1)}, "a name of 1,001 characters"),
    ],
)
def test_what_a_state_dict_does_not_need_is_refused(
    content: Any, message: str, how: dict[str, Any], tmp_path: Path
) -> None:
    torch.save({"w": torch.zeros(2), "other": content}, tmp_path / "file.pt", **how)
    with memory_up_to(100), pytest.raises(ValueError, match=rf"file\.pt is not a weights-only file \(.*({message})"):
        read_states(tmp_path / "file.pt")


ODD: dict[str, Callable[[], torch.Tensor]] = {
    "on the device meta": lambda: torch.zeros(2, 3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("how", [{}, OLD], ids=str)
@pytest.mark.parametrize("odd", ODD)
def test_a_tensor_that_no_network_takes_is_named(odd: str, how: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(2), "1.weight": ODD[odd]()}, tmp_path / "file.pt", **how)
    with pytest.raises(ValueError, match=rf"file\.pt is not a weights-only file \(tensor 1\.weight is {odd}"):
        read_states(tmp_path / "file.pt")


def test_quantised_tensors_are_named(tmp_path: Path) -> None:
    values = torch.zeros(3)
    with warnings.catch_warnings():  # torch warns of quantisation once a process
        warnings.simplefilter("ignore")
        quantised = torch._empty_affine_quantized([3], scale=0.1, zero_point=0, dtype=torch.qint8).copy_(values)
    torch.save({"1.weight": quantised}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"tensor 1\.weight is quantised"):
        read_states(tmp_path / "file.pt")


def with_pickle(path: Path, content: bytes, twice: bool = False) -> None:
    """A file of torch.save whose pickle is this one."""
    torch.save({}, path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            is_pickle = name.endswith("data.pkl")
            archive.writestr(name, content if is_pickle else whole.read(name))
            if is_pickle and twice:
                archive.writestr(f"other/{name}", whole.read(name))


def doubled(levels: int) -> bytes:
    """A mapping whose key is a tuple of a tuple twice, so many levels deep; 2^levels steps to compute its hash."""
    parts = [b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(levels)]
    return b"\x80\x02}q\xffX\x01\x00\x00\x00aq\x00" + b"".join(parts) + b"h\xffh%cK\x01s." % levels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (doubled(45), "other keys than names"),
        (b"\x80\x02}(X\x01\x00\x00\x00a" + b"\x8e" + b"\xff" * 8 + b"u.", "cannot be read|opcode"),
        (b"\x80\x05\x96" + (4 * 10**9).to_bytes(8, "little") + b".", "of protocol 5"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "it calls os.system"),
        (b"\x80\x02ctorch\nFloatStorage\n)\x81.", "opcode that no state_dict needs .NEWOBJ"),
        (b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
         b"\x8a\x08\x00\x00\x00\x00\x00\x01\x00\x00tQ.", r"claims 4,398,046,511,104 bytes"),
        (b"\x80\x02}", "cannot be read"),
        (b"", "cannot be read"),
        (b"0000", "POP"),
    ],
)  # fmt: skip
def test_a_pickle_by_hand_does_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    with_pickle(tmp_path / "file.pt", content)
    with memory_up_to(100), pytest.raises(ValueError, match=rf"file\.pt .*({message})"):
        read_states(tmp_path / "file.pt")


def test_an_archive_that_two_readers_may_read_differently_is_refused(tmp_path: Path) -> None:
    with_pickle(tmp_path / "file.pt", pickle.dumps({}), twice=True)
    with pytest.raises(NotWeights, match=r"two parts of one name, or without data\.pkl"):
        check_pickled(tmp_path / "file.pt")


def test_a_command_names_the_tensor(trustml: Cli, tmp_path: Path) -> None:
    torch.save({"1.weight": torch.zeros(10, 64, device="meta"), "1.bias": torch.zeros(10)}, tmp_path / "file.pt")
    answer = trustml("task=train", "model=logistic", "trainer=smoke", "model.checkpoint=file.pt")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert (
        "model.checkpoint: file.pt is not a weights-only file (tensor 1.weight is on the device meta" in answer.stderr
    )
