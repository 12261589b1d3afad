from pathlib import Path

import pytest
from run_folders import write_all


@pytest.fixture(scope="session")
def runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three tasks, made once; tests read them only."""
    return write_all(tmp_path_factory.mktemp("runs"))
