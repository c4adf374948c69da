"""Chosen configurations are compiled and timed. Needs the collector's JAX."""

import pathlib

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank.collect import remeasure
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import measure as layout_measure
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

pytest.importorskip(
    "jax", reason="needs JAX: run in an environment with tpugraphs_rank/collect/requirements.txt")

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def modules_of_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
  """The passes are separate processes."""
  monkeypatch.setenv("PYTHONPATH", str(ROOT))


def _passes(folder: pathlib.Path):
  return [reading.read_raw(folder / f"pass{number}.pb").modules[0] for number in (1, 2)]


def test_tiles(tmp_path: pathlib.Path) -> None:
  sides = [(16, 64, 32), (64, 8, 8)]
  data = small_programs.data_of(small_programs.matmul(64, 64, 32, "matmul.64x64x32.f32"), [
      modules.tile_run(None, output=(rows, columns), kernel=(depth,))
      for rows, columns, depth in sides])
  path = tmp_path / "f.pb"
  path.write_bytes(tuning_pb2.TuningData(modules=[data]).SerializeToString())
  remeasure.remeasure(path, tmp_path / "out", budget_ms=1)
  for measured in _passes(tmp_path / "out"):
    tiles = [run.op_config.tile_size_config for run in measured.runs]
    assert [(*tile.output_bounds, *tile.kernel_bounds) for tile in tiles][1:] == sides
    assert [run.is_default for run in measured.runs] == [True, False, False]
    assert all(run.profile.compute_time_ns > 0 for run in measured.runs)


def test_layouts(tmp_path: pathlib.Path) -> None:
  stem = "autoencoder.6x8x3.forward"
  bench = layout_measure.Bench(catalogue.parse_stem(stem), 0)
  module = hlo_pb2.HloModuleProto.FromString(bench.module)
  module.name = stem
  rng = np.random.default_rng(0)
  chosen = [configurations.random(bench.sites, rng) for _ in range(3)]
  data = small_programs.data_of(module, [modules.layout_run(one, None) for one in chosen],
                      [site.node for site in bench.sites])
  path = tmp_path / "f.pb"
  path.write_bytes(data.SerializeToString())
  remeasure.remeasure(path, tmp_path / "out", budget_ms=1)
  for measured in _passes(tmp_path / "out"):
    assert measured.runs[0].is_default and 2 <= len(measured.runs) <= 4
    assert list(measured.config_index_to_node) == [site.node for site in bench.sites]
    texts = [configurations.to_text(tuple(tuple(tuple(tensor.dims) for tensor in node.tensors)
                                    for node in run.module_config.layout_config.nodes))
             for run in measured.runs]
    assert set(texts[1:]) <= {configurations.to_text(one) for one in chosen}
    assert all(run.profile.compute_time_ns > 0 for run in measured.runs)
  # The first pass rejects nodes that differ from the collector's.
  del data.config_index_to_node[-1]
  for run in data.runs:
    del run.module_config.layout_config.nodes[-1]
  path.write_bytes(data.SerializeToString())
  with pytest.raises(remeasure.errors.OutputError, match=f"pass 1 over {stem} ended with status 1"):
    remeasure.remeasure(path, tmp_path / "other", budget_ms=1)
