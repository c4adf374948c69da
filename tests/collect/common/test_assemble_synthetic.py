"""Synthetic programs, from the plan to a collection that the loaders read."""

import pathlib

import numpy as np
import pytest

from tests.synthesis.programs import small_programs
import tpugraphs_rank
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import assemble_synthetic
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import planned as layout_planned
from tpugraphs_rank.collect.tile import collect
from tpugraphs_rank.collect.tile import planned
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.programs import programs


def _write(path, written):
  files.write_json(path, {"programs": [program.to_json() for program in written]})


def test_a_plan_holds_the_programs(tmp_path):
  path = tmp_path / "programs.json"
  small = programs.RunnableProgram("hand_elementwise.9.f32", (
      programs.Node("parameter", (), "f32", (8,)),
      programs.Node("negate", (0,), "f32", (8,))))
  _write(path, [*small_programs.ALL, small])
  kernels = planned.read_kernels(path)
  plan = collect.make_plan(kernels, 5, 0, protocol.Protocol())
  # Programs with hardly any tiles are left out.
  assert [entry["stem"] for entry in plan["kernels"]] == [
      program.stem for program in small_programs.ALL[:6]]
  plans.store(tmp_path, plan, ("seed",), "kernels")
  stored = files.read_json(tmp_path / "plan.json")["kernels"]
  assert [planned.kernel_of(entry) for entry in stored] == kernels[:6]
  assert all(len(entry["tiles"]) == 5 for entry in stored)


def test_two_programs_of_one_name(tmp_path):
  path = tmp_path / "programs.json"
  _write(path, [small_programs.BIAS, small_programs.BIAS])
  with pytest.raises(errors.DataError, match="two programs are named hand_dot.2.f32"):
    plans.read_synthetic(path)


def test_a_layout_plan_holds_the_programs():
  plan = {"programs": [{"stem": small_programs.BIAS.stem, "program": small_programs.BIAS.to_json()},
                       {"stem": "unet.1x48x12x2.forward"}]}
  assert layout_planned.program_of(plan, small_programs.BIAS.stem) == small_programs.BIAS
  assert layout_planned.program_of(plan, "unet.1x48x12x2.forward").family == "unet"
  with pytest.raises(errors.UnknownNameError, match="hand_dot.0.f32"):
    layout_planned.program_of(plan, small_programs.MATMUL.stem)


def test_no_programs(tmp_path):
  with pytest.raises(errors.MissingDataError, match="programs.json"):
    plans.read_synthetic(tmp_path / "programs.json")


@pytest.fixture(name="measured")
def _measured(tmp_path):
  """Two featurized kernels; the passes agree about the first only."""
  kernels = list(collections.load_collection("tile:xla_cpu", "valid"))[:2]
  rng = np.random.default_rng(0)
  stems = ["made_dot.0.f32", "made_dot.1.f32"]
  for stem, graph in zip(stems, kernels):
    count = len(graph.config_runtime)
    first = np.linspace(1000, 3000, count).astype(np.int64)
    second = first if stem == stems[0] else rng.permutation(first)
    (tmp_path / "npz").mkdir(exist_ok=True)
    np.savez(tmp_path / "npz" / f"{stem}.npz", node_feat=graph.node_feat,
             node_opcode=graph.node_opcode, edge_index=graph.edge_index,
             config_feat=graph.config_feat, config_runtime=(first + second) // 2,
             config_runtime_normalizers=np.full(count, first[0]),
             config_runtime_passes=np.stack([first, second]))
  files.write_json(tmp_path / "measured" / "report.json", {
      "kernels": {stem: {"candidates": 20, "dropped": {}, "seconds": [2.0, 3.0]}
                  for stem in stems},
      "failed": {"made_dot.2.f32": "DataError: constant: the result is 2.0 throughout",
                 "made_dot.3.f32": "XlaRuntimeError: INTERNAL"},
      "unfinished": ["made_dot.4.f32"], "machine": {"cpu": "Some CPU"}, "versions": {},
      "dates": [], "seed": 0,
      "protocol": {}})
  return tmp_path


def test_programs_that_pass_the_gates_are_a_collection_to_train_on(measured):
  output = measured / "collection"
  measurement = assemble_synthetic.assemble(
      measured / "measured", measured / "npz", output, "tile:mine")
  assert measurement["gates"]["planned"] == 5 and measurement["gates"]["kept"] == 1
  assert measurement["gates"]["not_measured"] == 1 and measurement["gates"]["kept_share"] == 1 / 4
  assert measurement["gates"]["failed"] == {"XlaRuntimeError": 1, "constant": 1}
  assert measurement["gates"]["lost"] == {"configurations": 0, "tau": 1, "ratio": 0}
  assert measurement["seconds"] == 10.0
  described = registry.get_collection(str(output / "collection.json"))
  assert described.target == "xla_cpu:Some CPU" and list(described.splits) == ["train"]
  graphs = list(collections.load_collection(described, "train"))
  assert [graph.name for graph in graphs] == ["made_dot.0.f32"] and graphs[0].has_runtimes


def test_layout_programs_have_gates_of_their_own(measured):
  report = files.read_json(measured / "measured" / "report.json")
  report["programs"] = report.pop("kernels")
  files.write_json(measured / "measured" / "report.json", report)
  programs_read = list(collections.load_collection("layout:xla_cpu:mixed:v1", "valid"))[:2]
  for stem, graph in zip(report["programs"], programs_read):
    count = 26 if stem == "made_dot.0.f32" else 23
    times = np.linspace(1_000_000, 1_010_000, count).astype(np.int64)
    np.savez(measured / "npz" / f"{stem}.npz", node_feat=graph.node_feat,
             node_opcode=graph.node_opcode, edge_index=graph.edge_index,
             node_config_ids=graph.node_config_ids,
             node_config_feat=graph.node_config_feat[:count], config_runtime=times,
             config_runtime_normalizers=np.full(count, times[0]),
             config_runtime_passes=np.stack([times, times]))
  output = measured / "collection"
  measurement = assemble_synthetic.assemble(
      measured / "measured", measured / "npz", output, "layout:made")
  # One per cent between fastest and slowest is enough; 23 configurations are not.
  assert measurement["gates"]["lost"] == {"configurations": 1, "tau": 0, "ratio": 0}
  described = registry.get_collection(str(output / "collection.json"))
  graphs = list(collections.load_collection(described, "train"))
  assert described.kind == "layout" and [graph.name for graph in graphs] == ["made_dot.0.f32"]


def test_a_name_without_a_kind(measured):
  with pytest.raises(errors.UnknownNameError, match="tile or layout"):
    assemble_synthetic.assemble(
        measured / "measured", measured / "npz", measured / "collection", "made")


@pytest.mark.parametrize("source", ["layerdag", "random", "template"])
def test_the_bundled_layout_programs_are_consistent_with_their_readme(source):
  folder = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "synthetic_layout_xla_cpu"
  measurement = files.read_json(folder / source / "measurement.json")
  batches = files.read_json(folder / source / "realisation.json")["batches"]
  described = registry.get_collection(str(folder / source / "collection.json"))
  graphs = list(collections.load_collection(described, "train"))
  counts = [len(graph.config_runtime) for graph in graphs]
  gate = measurement["gates"]
  assert len(graphs) == gate["kept"] and sum(counts) == measurement["configurations"]
  assert gate["planned"] == sum(batch["realisation"]["programs"] for batch in batches)
  assert min(counts) >= gates.SYNTHETIC_LAYOUT.configurations
  assert described.target == registry.get_collection("layout:xla_cpu:mixed:v1").target
  row = next(line for line in (folder / "README.md").read_text().splitlines()
             if line.startswith(f"| `{source}` |"))
  assert row.endswith(f"| {gate['planned']} | {gate['kept']} | {sum(counts):,} |")


def test_nothing_passes(measured):
  (measured / "npz" / "made_dot.0.f32.npz").unlink()
  report = files.read_json(measured / "measured" / "report.json")
  del report["kernels"]["made_dot.0.f32"]
  files.write_json(measured / "measured" / "report.json", report)
  with pytest.raises(errors.DataError, match="none of the 1 programs"):
    assemble_synthetic.assemble(
        measured / "measured", measured / "npz", measured / "collection", "tile:mine")
