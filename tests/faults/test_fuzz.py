"""Random and mutated command lines and YAML files: one line at most, 0, 1, 2 or 130, and no file where none belongs."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.configs import choices, composed
from tests.faults.whole import sized
from tests.helpers import Cli
from trustml_cli.config.groups import config_folder, flat
from trustml_cli.system.errors import RunFailed

TASKS = choices("task")
GROUPS = sorted(folder.name for folder in config_folder().iterdir() if folder.is_dir() and folder.name != "hydra")
FILES = sorted(file for group in GROUPS if group != "launcher" for file in (config_folder() / group).glob("*.yaml"))
CHOICES = sorted({file.stem for file in FILES})
WHERE = ("dir", "uri", "root", "path", "train", "test", "checkpoint", "image", "mask")  # a file may well be made there
LITERALS = [
    "nan", "inf", "-inf", "1e309", "-1", "0", "1", "2", "3.5", "9" * 30, "1e-400", "true", "null", "[]", "{}", "[1,2]",
    "[[1]]", "{a:1}", "[a,{b:[c]}]", "${seed}", "${nope}", "${oc.env:HOME}", "${oc.env:NOPE}", "${task}", "${a", "'",
    '"', "\\", "ü", "😀", "\u202e", "\udce9", "a b", "a=b", "1,2", "choice(1,2)", "range(1,3)", "glob(*)", "glob(f*)",
    "shuffle(1,2)", "tag(a,1)", "int(x)", "str([1])", "[1", "{a", "$", "???", "~", "-", "=", "..", "${.}", "${..seed}",
    "${oc.decode:x}", "${oc.select:x}", "${oc.create:{_target_: os.system}}", "${named:attack,seed}", "${token:}",
    "${described:nope}", "${folder_name:1}", "${share_of_cores:0}", "'a\nb'", "os.system", "trustml_cli.run.main",
]  # fmt: skip
FLAGS = [
    ["-m"], ["-m"], ["--multirun"], ["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "x"], ["--info"], ["--info", "all"],
    ["--info", "plugins"], ["--resolve"], ["--package", "task"], ["-p", "nope", "--cfg", "job"], ["--hydra-help"],
    ["-sc", "install=bash"], ["-sc", "query=bash"], ["--run"], ["--config-dir", "mine"], ["-cd", "nowhere"],
    ["--config-name", "x"], ["-cp", "x"], ["--experimental-rerun", "x"], ["-x"], ["--"], ["-"], ["--mult"], ["--cfg"],
    ["--help"], ["--version"],
]  # fmt: skip
COMMANDS = ["runs", "report", "show"]
ARGUMENTS = [
    "--sort", "--limit", "--csv", "-", "--reverse", "--output-dir", "outputs", "nowhere", "task=train", "status=failed",
    "1", "-1", "x", "attack", "attack=pgd", "pgd", "noise", "--config-dir", "mine", "--to", "mine", "", "=", "a=b=c",
    "\udce9", "😀", "..", "hydra", "--help", "--csv=-", "headline",
]  # fmt: skip
SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


@cache
def keys_of(task: str) -> list[str]:
    """The keys of a task's configuration; composed where they are drawn, not where tests are collected."""
    return sorted(flat(OmegaConf.to_container(composed(f"task={task}", "trainer=smoke"), resolve=False)))  # type: ignore[arg-type]


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """A text with a letter or two changed, or as it is."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(["", "x", ".", "_", "@", "ü", "-"])) + text[place + 1 :]
    return text


VALUES = st.one_of(
    st.sampled_from(LITERALS),
    st.sampled_from(CHOICES).flatmap(mutated),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    st.lists(st.sampled_from(["1", "0.5", "pgd", "nan", "a"]), max_size=3).map(lambda one: f"[{','.join(one)}]"),
    st.lists(st.sampled_from(["1", "0.5", "pgd", "nan", "fgsm"]), max_size=3).map(",".join),
)
KEYS = st.one_of(
    st.sampled_from(GROUPS),
    st.sampled_from([*TASKS, None]).flatmap(
        lambda task: st.sampled_from(keys_of(task) if task else ["hydra.verbose", "hydra.job.name", "hydra.mode"])
    ),
)
OVERRIDES = st.builds(
    lambda sign, key, equals, value: f"{sign}{key}{equals}{value}" if equals else f"{sign}{key}",
    st.sampled_from(["", "", "", "", "", "+", "++", "~"]),
    KEYS.flatmap(mutated),
    st.sampled_from(["=", "=", "=", "=", "=", "=", "", "=="]),
    VALUES,
)
ONE_KEY = st.sampled_from(TASKS).flatmap(  # which is right, with a value that is not
    lambda task: st.builds(
        lambda key, value, flags: [f"task={task}", "trainer=smoke", f"{key}={value}", *flags],
        st.sampled_from(keys_of(task)), VALUES, st.sampled_from([[], [], [], ["-m"]]),
    )
)  # fmt: skip
PARTS = ("task.", "trainer.", "model.", "attack.")
SMALL = st.builds(
    lambda task, key, value: [f"task={task}", "trainer=smoke", "model=logistic", "dataset.limit=60", f"{key}={value}"],
    st.sampled_from(["train", "fgsm"]),
    st.deferred(lambda: st.sampled_from([key for key in keys_of("fgsm") if key.startswith(PARTS)])),
    st.sampled_from(["0", "1", "2", "3.5", "0.001", "1e-400", "1e30", "nan", "true", "null", "[0,0.1]", "none", "l2"]),
)  # fmt: skip
LINES = st.one_of(
    ONE_KEY,
    st.builds(
        lambda task, words, flags: [*([f"task={task}"] if task else []), *words, *flags],
        st.sampled_from([*TASKS, None]),
        st.lists(OVERRIDES, min_size=1, max_size=4),
        st.one_of(st.just([]), st.just([]), st.sampled_from(FLAGS)),
    ),
    st.builds(lambda command, words: [command, *words], st.sampled_from(COMMANDS),
              st.lists(st.one_of(st.sampled_from(ARGUMENTS), OVERRIDES), max_size=3)),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """The group of a YAML file of ours, and its content with bytes or values changed."""
    file = draw(st.sampled_from(FILES))
    content = file.read_bytes()
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(content)))
            cut = draw(st.sampled_from([0, 1, 1, 5]))
            content = content[:place] + draw(st.binary(max_size=3)) + content[place + cut :]
    else:
        header = b"# @package _global_\n" if b"@package _global_" in content else b""
        node = yaml.safe_load(content) or {}
        for _ in range(draw(st.integers(1, 3))):
            key = draw(st.sampled_from([*node, "x", "_target_", "defaults", "allow", "hydra", "seed", "task"]))
            node[key] = draw(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(LITERALS),
                                       st.just({}), st.just([]), st.just([[1, {"a": None}]]),
                                       st.just({"_target_": "os.system"}), st.just({"a": {"b": "${x}"}})))  # fmt: skip
            if draw(st.integers(0, 3)) == 0:
                del node[key]
        content = header + yaml.safe_dump(node, allow_unicode=True).encode("utf-8", errors="surrogatepass")
    return file.parent.name, content


@pytest.fixture
def ended(trustml: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Runs a command, up to where computing would begin unless `real`, and looks how it ended."""
    codes: Counter[int] = Counter()
    places = {tmp_path / name for name in ("home", "tmp", "mine", "outputs", "cache")}
    for place in places:
        place.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("TRUSTML_DATA_DIR", str(tmp_path / "cache" / "data"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://localhost:1")

    def stop(*arguments: object) -> None:
        raise RunFailed("here the computing would begin")

    def run(*words: str, real: bool = False) -> None:
        if not real:
            monkeypatch.setattr("trustml_cli.tasks.context.Context", stop)
        answer = trustml(*words, env={"TRUSTML_CACHE_DIR": str(tmp_path / "cache")})
        codes[answer.returncode] += 1
        assert answer.returncode in (0, 1, 2), answer
        assert "Traceback" not in answer.stderr + answer.stdout, answer
        jobs = answer.stdout.count("\njob ")
        assert answer.stderr.count("\n") <= max(1, 2 * jobs + 1), answer
        assert answer.returncode == 0 or answer.stderr.startswith("trustml: "), answer
        strays = {path for place in (".", "home", "tmp") for path in (tmp_path / place).iterdir()} - places
        for path in strays:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert {path.name for path in strays} <= {"comparison.html"}, (strays, answer)

    yield run
    print("exit statuses:", dict(codes))  # noqa: T201, with pytest -s


def is_safe(words: list[str]) -> bool:
    """Whether a command line asks for no place of its own choice to write to, and for no processes."""
    keys = [re.split(r"[=@]", word.lstrip("+~-"))[0] for word in words]
    return not any(key.rpartition(".")[2].rpartition("_")[2] in WHERE or "launcher" in key for key in keys)


def try_line(ended: Callable[..., None], words: list[str]) -> None:
    if is_safe(words):
        ended(*words)


def try_file(ended: Callable[..., None], tmp_path: Path, damage: tuple[str, bytes]) -> None:
    group, content = damage
    (tmp_path / "mine" / group).mkdir(exist_ok=True)
    (tmp_path / "mine" / group / "damaged.yaml").write_bytes(content)
    task = {"attack": "attack", "detector": "ood", "trigger": "backdoor", "thief": "steal", "explainer": "explain"}
    words = [] if group == "task" else [f"task={task.get(group, group if group in TASKS else 'train')}"]
    ended("--config-dir", "mine", *words, f"{group}=damaged", "output_dir=outputs", f"cache_dir={tmp_path / 'cache'}")


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "mine", "task=fgsm", "task.foo=1", "task.bar=2"],
        ["task=universal", "others.mlp.normalization=x", "-m"],
        ["task=fgsm", "attack._target_='a\nb'"],
    ],
)
def test_command_lines_that_once_ended_otherwise(ended: Callable[..., None], words: list[str]) -> None:
    ended(*words)


@settings(max_examples=6, **SETTINGS)
@given(words=LINES)
def test_no_command_line_ends_otherwise(ended: Callable[..., None], words: list[str]) -> None:
    try_line(ended, words)


@settings(max_examples=4, **SETTINGS)
@given(damage=damaged())
def test_no_yaml_file_ends_otherwise(ended: Callable[..., None], tmp_path: Path, damage: tuple[str, bytes]) -> None:
    try_file(ended, tmp_path, damage)


@pytest.mark.faults
@settings(max_examples=sized(1500, 60), **SETTINGS)
@given(words=LINES)
def test_no_command_line_of_many_ends_otherwise(ended: Callable[..., None], words: list[str]) -> None:
    try_line(ended, words)


@pytest.mark.faults
@settings(max_examples=sized(150, 8), **SETTINGS)
@given(words=SMALL)
def test_no_small_run_of_many_ends_otherwise(ended: Callable[..., None], words: list[str]) -> None:
    if is_safe(words):
        ended(*words, real=True)


@pytest.mark.faults
@settings(max_examples=sized(700, 40), **SETTINGS)
@given(damage=damaged())
def test_no_yaml_file_of_many_ends_otherwise(
    ended: Callable[..., None], tmp_path: Path, damage: tuple[str, bytes]
) -> None:
    try_file(ended, tmp_path, damage)
