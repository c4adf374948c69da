"""From a run on real measurements of a TPU to the best configurations of a program's HLO.

The commands that a user runs, on the two public raw files.
"""

import json
import pathlib

import numpy as np
import pytest

from tests import testdata
from tests.helpers import commands
from tpugraphs_rank import metrics
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

pytestmark = [testdata.required, pytest.mark.slow]


def _run(command: str, *arguments: object) -> str:
  done = commands.run(command, *arguments)
  assert done.returncode == 0, done.stderr
  return done.stdout


def _trained(folder: pathlib.Path, raw: str, kind: str, *settings: str) -> pathlib.Path:
  """The directory of a run that was trained on a raw file's measurements."""
  npz = folder / f"{kind}_npz"
  _run("featurize", "--input", testdata.path("tpu_raw") / raw, "--output", npz)
  _run("make-collection", "--npz", npz, "--name", f"{kind}:mine", "--kind", kind, "--target",
       "tpu_v3")
  _run("train", "--collection", npz / "collection.json", "--run_dir", folder / kind,
       "--split_by=configuration", "--min_configs=16", "--notensorboard", *settings)
  return folder / kind


def _ranked(folder: pathlib.Path, hlo: pathlib.Path, *arguments: object):
  """The output of rank for the only program: JSON, and the raw data read back."""
  _run("rank", "--hlo", hlo, "--output", folder, *arguments)
  [program] = json.loads((folder / f"{hlo.stem}.ranked.json").read_text())["programs"]
  [data] = reading.read_raw(folder / f"{hlo.stem}.ranked.pb").modules
  return program, data


def test_tiles_of_a_kernel(tmp_path):
  raw = testdata.path("tpu_raw") / "op_tuning_data.pb"
  run_dir = _trained(
      tmp_path, raw.name, "tile", "--epochs=15", "--validate_every=5", "--lists_per_graph=16",
      "--hidden_width=32", "--learning_rate=0.003")
  [kernel] = [data for data in reading.read_raw(raw).modules if data.module.name == "fusion.191"]
  common = ("--run_dir", run_dir, "--target=tpu_v3", "--strict")
  program, _ = _ranked(tmp_path / "runs", raw, *common, "--module=fusion.191", "--top_k=1000")
  assert program["candidates"]["source"] == "runs" and program["rank_of_default"]
  # Three quarters of these configurations were trained on.
  runtimes, scores = np.array([
      (kernel.runs[entry["candidate"]].profile.compute_time_ns, entry["score"])
      for entry in program["configurations"]
      if kernel.runs[entry["candidate"]].profile.compute_time_ns > 1]).T
  assert len(runtimes) > 500 and metrics.kendall_tau(runtimes, scores) > 0.6
  earlier = {entry["candidate"]: entry["score"] for entry in program["configurations"]}
  # The bare HLO of the kernel, as it comes from a compiler, without any configuration.
  bare = tmp_path / "bare.pb"
  bare.write_bytes(kernel.module.SerializeToString())
  program, data = _ranked(
      tmp_path / "auto", bare, *common, "--candidates=auto", "--max_candidates=100000",
      "--top_k=100000")
  space = tile_spaces.tile_space(kernel.module, "tpu")
  assert program["candidates"] == {
      "count": space.combinations, "source": "auto", "tiling": "tpu", "legal": space.combinations,
      "seed": 0}
  assert len(data.runs) == space.combinations and data.module == kernel.module
  # Every measured tile is among the generated ones, with the score of the measured run.
  generated = dict(zip((run.op_config.SerializeToString() for run in data.runs),
                     (entry["score"] for entry in program["configurations"])))
  for index, score in earlier.items():
    assert generated[kernel.runs[index].op_config.SerializeToString()] == pytest.approx(
        score, rel=1e-4, abs=1e-5)


def test_layouts_of_a_program(tmp_path):
  raw = testdata.path("tpu_raw") / "module_tuning_data_layout.pb"
  run_dir = _trained(tmp_path, raw.name, "layout", "--epochs=1", "--batch_size=1",
                     "--max_configs=8", "--hidden_width=16", "--segment_mode=drop")
  common = ("--run_dir", run_dir, "--target=tpu_v3", "--strict", "--max_candidates=200")
  program, data = _ranked(tmp_path / "runs", raw, *common)
  original = tuning_pb2.ModuleTuningData.FromString(raw.read_bytes())
  assert program["candidates"]["given"] == 122
  configs = {run.module_config.SerializeToString() for run in original.runs}
  assert {run.module_config.SerializeToString() for run in data.runs} <= configs
  assert data.config_index_to_node == original.config_index_to_node
  program, data = _ranked(tmp_path / "auto", raw, *common, "--candidates=auto")
  assert program["candidates"]["count"] == 200 and program["nodes"] == list(
      original.config_index_to_node)
  assert sum(run.is_default for run in data.runs) == 1 and len(data.runs) in (10, 11)
