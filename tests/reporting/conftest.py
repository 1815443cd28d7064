import pytest

from tests.support.chromium import NoBrowserError, launched


@pytest.fixture(scope="module")
def browser():
    try:
        with launched() as running:
            yield running
    except NoBrowserError as error:
        pytest.skip(str(error))
