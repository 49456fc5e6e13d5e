import pytest
from support.results import made_result
from support.rows import make

__all__ = ["make", "result"]


@pytest.fixture
def result():
    return made_result()
