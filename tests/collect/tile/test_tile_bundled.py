"""The bundled tile collection is consistent with its README and its report."""

import pathlib
import re

import numpy as np
import pytest

import tpugraphs_rank
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.data import twins

FOLDER = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "tile_xla_cpu"


@pytest.fixture(scope="module", name="kernels")
def _kernels() -> dict[str, dict[str, graph_files.Arrays]]:
  """split -> stem -> arrays."""
  return {split: {path.stem: graph_files.read(path, graph_files.TILE_KEYS)
                  for path in sorted((FOLDER / "npz" / split).glob("*.npz"))}
          for split in graph_files.SPLITS}


def test_descriptor_counts_the_files(kernels: dict[str, dict[str, graph_files.Arrays]]) -> None:
  descriptor = files.read_json(FOLDER / "collection.json")
  assert descriptor["name"] == "tile:xla_cpu"
  assert descriptor["splits"] == {split: len(by_stem) for split, by_stem in kernels.items()}
  assert sum(descriptor["splits"].values()) >= 200
  families = {re.match(descriptor["family_regex"], stem)["family"]
              for by_stem in kernels.values() for stem in by_stem}
  assert families == {name for members in descriptor["groups"].values() for name in members}


def test_every_kernel_passes_the_gates(kernels: dict[str, dict[str, graph_files.Arrays]]) -> None:
  for by_stem in kernels.values():
    for stem, arrays in by_stem.items():
      passes, runtime = arrays["config_runtime_passes"], arrays["config_runtime"]
      assert gates.assess(passes, gates.TILE).failed_gate == "", stem
      assert 24 <= passes.shape[1] <= 64
      assert passes.min() > 0
      assert np.abs(runtime - passes.mean(axis=0)).max() <= 0.5, stem
      assert (arrays["config_runtime_normalizers"] == runtime[0]).all(), stem


def test_configurations_are_tiles_of_their_kernel(
    kernels: dict[str, dict[str, graph_files.Arrays]]) -> None:
  for by_stem in kernels.values():
    for stem, arrays in by_stem.items():
      kernel, rows = geometry.parse_stem(stem), arrays["config_feat"].astype(int)
      outputs, reductions = len(kernel.output_axes), len(kernel.reduction_axes)
      tiles = [geometry.Tile(tuple(row[8:8 + outputs]), tuple(row[:reductions])) for row in rows]
      assert len(set(tiles)) == len(tiles), stem
      assert set(tiles) <= set(configurations.admissible(kernel)), stem
      assert tiles[0] == configurations.default_tile(kernel), stem


def test_splits_share_no_shape_and_no_graph(
    kernels: dict[str, dict[str, graph_files.Arrays]]) -> None:
  graphs: dict[str, set] = {}
  shapes: dict[object, set] = {}
  for split, by_stem in kernels.items():
    for stem, arrays in by_stem.items():
      kernel = geometry.parse_stem(stem)
      digest = twins.graph_hash(arrays["node_opcode"], arrays["edge_index"],
                                arrays["node_feat"])
      graphs.setdefault(digest, set()).add(split)
      shapes.setdefault((kernel.family, kernel.shape), set()).add(split)
      if kernel.definition.group in catalogue.UNSEEN_GROUPS:
        assert split == "test"
  assert all(len(homes) == 1 for homes in graphs.values())
  assert all(len(homes) == 1 for homes in shapes.values())


def test_largest_tile_first_is_far_from_the_best(
    kernels: dict[str, dict[str, graph_files.Arrays]]) -> None:
  taus = [gates.kendall_tau_b(-arrays["config_feat"][:, 15], arrays["config_runtime"])
          for arrays in kernels["test"].values()]
  assert np.mean(taus) < 0.6


def test_package_data_is_small() -> None:
  assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 6e6
  for name in ("README.md", "measurement.json"):
    assert (FOLDER / name).exists()
