import pytest

from tests.edge_agent.slots.shop import Shop, make_factory


@pytest.fixture(scope="session")
def factory(tmp_path_factory):
    return make_factory(tmp_path_factory.mktemp("factory") / "bundle")


@pytest.fixture(scope="module")
def shop(factory, tmp_path_factory):
    return Shop(factory, tmp_path_factory.mktemp("shop"))
