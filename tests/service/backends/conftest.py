"""Bundles that all tests of backends share: writing their graphs takes longer than the tests."""

import pytest

from models.bundle import Bundle
from models.config import ReuseConfig
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three exits, features and relations reused."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def features_only(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two exits; the relations are not handed on."""
    reuse = ReuseConfig(relations=False, feature_hidden=8, feature_dim=4)
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "features", tiny_config(2, reuse))


@pytest.fixture(scope="session")
def relations_only(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two exits; the features are not handed on."""
    reuse = ReuseConfig(features=False, relation_expansion=1)
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "relations", tiny_config(2, reuse))
