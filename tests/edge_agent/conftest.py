"""A small bundle with a convolution, and a local API over it."""

import pytest

from tests.edge_agent.api_stage import api_with_store
from tests.support.small_bundles import small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "bundle", rows=300)


@pytest.fixture
def api(bundle):
    return api_with_store(bundle)


@pytest.fixture
def port(api):
    with api.tcp() as port:
        yield port
