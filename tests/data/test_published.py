"""The published evaluation indices: read, checked, and the configurations that they choose."""

import json
import re

import numpy as np
import pytest

from tests import synthetic
from tests import testdata
from tpugraphs_rank import errors
from tpugraphs_rank.data import published
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits

COLLECTION = registry.get_collection("layout:xla:random")


def _write(root, values):
  path = root / "eval_indices" / "xla_random.json"
  path.parent.mkdir(exist_ok=True)
  path.write_text(values if isinstance(values, str) else json.dumps(values))
  return path


def _programs(*names, num_configs=12):
  return [splits.ProgramView(synthetic.layout_graph(seed, name=name, num_configs=num_configs))
          for seed, name in enumerate(names)]


def test_which_splits_have_published_indices():
  actual = {(name, split) for name in registry.collection_names() for split in registry.SPLITS
           if published.is_published(registry.get_collection(name), split)}
  assert actual == {(name, "valid") for name in published.COLLECTIONS}
  assert len(actual) == 4


def test_programs_are_restricted_to_their_indices_in_order_with_repeats(tmp_path):
  _write(tmp_path, {"b": [3, 3, 0], "a": [11], "not_there": [0]})
  restricted = published.restrict(_programs("a", "b"), COLLECTION, tmp_path)
  assert [program.graph.name for program in restricted] == ["a", "b"]
  assert [program.choice.tolist() for program in restricted] == [[11], [3, 3, 0]]


@pytest.mark.parametrize("values, message", [
    ([1, 2], "expected an object from graph names"),
    ({}, "expected an object from graph names"),
    ({"a": []}, "key 'a': expected a list of configuration indices"),
    ({"a": [1, -1]}, "key 'a': expected a list of configuration indices"),
    ({"a": [1.0]}, "key 'a': expected a list of configuration indices"),
    ({"a": [True]}, "key 'a': expected a list of configuration indices"),
    ({"a": [2 ** 80]}, "key 'a': expected a list of configuration indices"),
    ({"a": {"0": 1}}, "key 'a': expected a list of configuration indices"),
    ({"a": [12]}, "key 'a' lists configuration 12, but the graph has 12"),
    ({"b": [0]}, "no indices for graph a of layout:xla:random valid"),
    ("{", "xla_random.json"),
])
def test_bad_files_are_refused_by_name(tmp_path, values, message):
  path = _write(tmp_path, values)
  with pytest.raises(errors.DataError) as caught:
    published.restrict(_programs("a"), COLLECTION, tmp_path)
  assert message in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_names_the_download_command(tmp_path):
  with pytest.raises(errors.MissingDataError, match=(
      f"tpugraphs-rank download --collections= --extras --data_root {re.escape(str(tmp_path))}`")):
    published.restrict(_programs("a"), COLLECTION, tmp_path)


@testdata.required
def test_the_published_files_are_read():
  folder = testdata.path("eval_indices")
  graphs = {"xla_default": 7, "xla_random": 7, "nlp_default": 20, "nlp_random": 20}
  for stem, count in graphs.items():
    indices = published.read_indices(folder / f"{stem}.json")
    assert len(indices) == count == registry.get_collection(
        "layout:" + stem.replace("_", ":")).splits["valid"]
    assert all(len(chosen) == 1000 for chosen in indices.values())
  repeated = published.read_indices(folder / "xla_random.json")["unet_3d.4x4.bf16"]
  assert len(np.unique(repeated)) == 481 and repeated.max() == 480
