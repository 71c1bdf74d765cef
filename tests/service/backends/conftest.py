"""Bundles that all tests of backends share: writing their graphs takes longer than the tests."""

from dataclasses import replace

import pytest

from models.bundle import Bundle
from models.config import ReuseConfig
from models.profiles import PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles
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
def many_classes(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three exits, of 40 classes; profiled, with a temperature of its own for each. No graphs."""
    config = replace(tiny_config(), labels=tuple(f"class {number}" for number in range(40)))
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "many", config, with_graphs=False)
    exits = tuple(ExitProfile(stage.grid, 0.0, 0.0, 0.5 + k) for k, stage in enumerate(config.stages))
    named = dict.fromkeys(PROFILE_NAMES, OperatingPoint((None, None), 0.0, 0.0, None))
    profiles = Profiles(bundle.weights_sha256, bundle.config_sha256, "entropy", exits, (), (), named)
    return replace(bundle, profiles=profiles)


@pytest.fixture(scope="session")
def relations_only(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two exits; the features are not handed on."""
    reuse = ReuseConfig(features=False, relation_expansion=1)
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "relations", tiny_config(2, reuse))
