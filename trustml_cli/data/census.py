"""A synthetic table of incomes with a known bias."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

from trustml_cli.data.table import Columns, Table, TableSource, tabulate
from trustml_cli.system.ranges import require

MEANING = Columns(label="income", positive="high", sensitive=["origin", "sex"])
JOBS = ["craft", "transport", "technical", "office", "sales", "care"]
JOBS_BY_SEX = {"male": [0.35, 0.3, 0.2, 0.06, 0.06, 0.03], "female": [0.03, 0.03, 0.09, 0.25, 0.25, 0.35]}
DISTRICTS = ["north", "east", "centre", "harbour"]
DISTRICTS_BY_ORIGIN = {"native": [0.4, 0.35, 0.22, 0.03], "migrant": [0.03, 0.07, 0.3, 0.6]}
MIGRANTS = 0.3  # their share of the rows


@dataclass(frozen=True, kw_only=True)
class Census(TableSource):
    """`rows` synthetic people, generated with a fixed seed, whose favourable label is a high income.

    Merit depends on education, hours and age, whose distributions are the same in all groups, and the best 40 % by
    merit deserve a high income. Of these, a share `origin_bias` of the migrants and a share `sex_bias` of the women
    are denied it at random. So the p-rule of the labels is 100·(1 − origin_bias) by origin and 100·(1 − sex_bias) by
    sex, up to sampling. Origin and sex are not features, but correlate with district and job.
    """

    rows: int
    origin_bias: float
    sex_bias: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "rows", at_least=100)
        require(self, "origin_bias", "sex_bias", at_least=0, at_most=1)

    def read(self, cache_dir: Path) -> Table:
        people = make_people(self.rows, self.origin_bias, self.sex_bias)
        train, test = self.divide(people, MEANING)
        return tabulate(train, test, MEANING, self.bins, source="made up by trustml", key="dataset")


def make_people(rows: int, origin_bias: float, sex_bias: float) -> pandas.DataFrame:
    """Generate the whole table, always with seed 0."""
    random = np.random.default_rng(0)
    origin = np.where(random.random(rows) < MIGRANTS, "migrant", "native")
    sex = np.where(random.random(rows) < 0.5, "female", "male")
    education = random.integers(8, 19, rows)
    hours = random.normal(38, 8, rows).clip(10, 70).round()
    age = random.integers(20, 66, rows)
    merit = 0.8 * (education - 13) / 3 + 0.5 * (hours - 38) / 8 + 0.6 * np.sqrt((age - 20) / 15)
    merit += random.normal(0, 0.25, rows)
    deserved = merit > np.quantile(merit, 0.6)
    denied = (origin == "migrant") & (random.random(rows) < origin_bias)
    denied |= (sex == "female") & (random.random(rows) < sex_bias)
    return pandas.DataFrame(
        {
            "age": age,
            "education_years": education,
            "hours_per_week": hours,
            "job": [random.choice(JOBS, p=JOBS_BY_SEX[who]) for who in sex],
            "district": [random.choice(DISTRICTS, p=DISTRICTS_BY_ORIGIN[who]) for who in origin],
            "origin": origin,
            "sex": sex,
            "income": np.where(deserved & ~denied, "high", "low"),
        }
    )
