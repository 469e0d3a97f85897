import pytest
from environments import build


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    return build("wheel", tmp_path_factory.mktemp("wheel"))
