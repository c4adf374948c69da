"""Facts about the hardware, as descriptors state them."""

import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import registry


def test_defaults():
  assert targets.default("tpu_v3") == targets.TPU
  assert targets.default("xla_cpu:some processor") == targets.default("my_chip") == targets.CPU


def test_descriptor_overrides_some_facts(tmp_path):
  values = {"name": "tile:mine", "kind": "tile", "target": "tpu_v9", "splits": {"train": 1},
            "target_facts": {"cache_bytes": [1024, 4096]}}
  facts = registry.collection_from_dict(values, tmp_path).facts
  assert facts == targets.TargetFacts((1024, 4096), 4096, (8, 128))
  del values["target_facts"]
  assert registry.collection_from_dict(values, tmp_path).facts == targets.TPU


@pytest.mark.parametrize("values, problem", [
    ([1], r"target_facts is \[1\]; expected an object"),
    ({"cache_byte": [1]}, r"unknown key 'cache_byte'.*cache_bytes"),
    ({"cache_bytes": []}, "cache_bytes is .*; expected 1 to 4 rising sizes"),
    ({"cache_bytes": [2, 1]}, "cache_bytes is .*; expected 1 to 4 rising sizes"),
    ({"cache_bytes": [True]}, "cache_bytes is .*; expected 1 to 4 rising sizes"),
    ({"vector_bytes": 0}, "vector_bytes is 0; expected a positive number"),
    ({"vector_bytes": 10 ** 400}, "vector_bytes is 10+.*; expected a positive number"),
    ({"register_tile": [8]}, r"register_tile is \[8\]; expected two positive numbers"),
])
def test_wrong_facts(values, problem):
  with pytest.raises(errors.DataError, match=problem):
    targets.from_dict(values, "tpu_v3")
