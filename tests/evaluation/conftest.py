import pytest

from lifelong.testing.results import made_result


@pytest.fixture
def result():
    return made_result()
