"""MLflow's tables, made once: it takes seconds."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with MLflow's tables and no runs."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def mlflow_tables(empty_database: Path, tmp_path: Path) -> None:
    """The file that MLflow looks for in the test's folder and in its outputs."""
    (tmp_path / "outputs").mkdir()
    for folder in (tmp_path, tmp_path / "outputs"):
        shutil.copy(empty_database, folder)
