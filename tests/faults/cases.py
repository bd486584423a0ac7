"""Cases for the fuzzers: command lines, YAML files, and run directories of strangers."""

import json
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.configs import choices, composed
from trustml_cli.config.groups import config_folder, flat

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
    "${described:nope}", "${folder_name:1}", "${share_of_cores:0}", "'a\nb'", "os.system", "trustml_cli.job.main",
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


NAMES = st.text(max_size=8) | st.sampled_from(
    ["\x1b[2J\x07", "\u202ea", "\x00", "\ud800", "a\nb", "'", "<b>", "=1+1", "x" * 10**5]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), NAMES,
    st.sampled_from([10**400, -(10**400), 2**63, 2**64, 1e308, -0.0, "", "x" * 10**6, "running", "completed", "lost"]),
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
FACTS: dict[str, Any] = {
    "status": "completed", "exit_code": 0, "error": "none", "task": "fgsm", "dataset": "digits", "model": "mlp",
    "seed": 0, "started": "2026-01-01T12:00:00.000+00:00", "seconds": 1.5, "device": "cpu", "headline": "f",
    "verdict": "good", "trustml": "0.1", "python": "3.11", "git_commit": "abc",
    "command": ["trustml", "task=fgsm", "seed=0"],
    "conditions": ["epsilon"], "better": {"f": "higher"}, "choices": {"attack": "pgd"}, "libraries": {"torch": "2"},
    "peak_memory_mb": {"cpu": 1.5}, "changed": {"seed": {"default": 0, "value": 1}}, "tracker": None, "platform": "x",
    "checks": [{"name": "a", "passed": True, "figure": "b"}], "data": {"notes": ["lossy"]}, "job": 3, "threads": 1,
}  # fmt: skip
TABLE = """\
task,dataset,model,seed,epsilon,f,f_ci_low,f_ci_high,f_n
fgsm,digits,mlp,0,0.1,0.5,0.4,0.6,10
fgsm,digits,mlp,0,0.2,0.3,0.2,0.4,10
"""
CONFIG = "seed: 0\ntask: {epsilon: [0.1, 0.2]}\n"


def within(value: Any) -> st.SearchStrategy[Any]:
    """The value with one part of it replaced by anything."""
    if isinstance(value, dict) and value:
        return st.sampled_from(sorted(value)).flatmap(
            lambda key: st.one_of(JSON, within(value[key])).map(lambda new: {**value, key: new})
        )
    if isinstance(value, list) and value:
        return st.integers(0, len(value) - 1).flatmap(
            lambda place: st.one_of(JSON, within(value[place])).map(
                lambda new: [*value[:place], new, *value[place + 1 :]]
            )
        )
    return JSON


PIECES = [b",", b"\n", b'"', b"[" * 5000, b"{", b"inf", b"*a", b"&a ", b": "]


@st.composite
def bent(draw: st.DrawFn, text: str) -> bytes:
    """A text with some of its bytes changed, cut off or repeated."""
    content = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(1, 3))):
        place, length = draw(st.integers(0, len(content))), draw(st.sampled_from([0, 1, 3, 40, 10**6]))
        new = draw(
            st.binary(max_size=4)
            | st.sampled_from([b",", b"\n", b'"', b"[" * 5000, b"{", b"inf", b"*a", b"&a ", b": "])
        )
        content = content[:place] + new + content[place + length :]
    return content


@st.composite
def strangers(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """The run.json, metrics.csv and config.yaml of a run directory: one fact or more is not as it should be."""
    facts: Any = FACTS
    for _ in range(draw(st.integers(1, 3))):
        facts = draw(within(facts)) if isinstance(facts, dict) else facts
    if isinstance(facts, dict) and draw(st.integers(0, 9)) == 0:
        facts = {key: value for key, value in facts.items() if key != draw(st.sampled_from(sorted(FACTS)))}
    text = json.dumps(facts)
    same = st.sampled_from([True] * 4 + [False])
    facts, table, config = (one.encode() if draw(same) else draw(bent(one)) for one in (text, TABLE, CONFIG))
    return facts, table, config
