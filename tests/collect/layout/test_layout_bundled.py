"""The bundled layout collection is consistent with its README and its report."""

import pathlib
import re

import numpy as np
import pytest

import tpugraphs_rank
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.layout import assemble
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import opcodes

FOLDER = pathlib.Path(tpugraphs_rank.__file__).parent / "bundled" / "layout_xla_cpu_mixed"
Programs = dict[str, dict[str, graph_files.Arrays]]


@pytest.fixture(scope="module", name="programs")
def _programs() -> Programs:
  """split -> stem -> arrays."""
  return {split: {path.stem: graph_files.read(path, graph_files.LAYOUT_KEYS)
                  for path in sorted((FOLDER / "npz" / split).glob("*.npz"))}
          for split in graph_files.SPLITS}


def _each(programs: Programs):
  return [(stem, program) for by_stem in programs.values() for stem, program in by_stem.items()]


def test_the_registry_knows_it(programs: Programs) -> None:
  collection = registry.get_collection("layout:xla_cpu:mixed")
  assert collection.kind == "layout" and collection.hlo_stage == "before_optimization"
  assert collection.splits == {split: len(by_stem) for split, by_stem in programs.items()}
  assert sum(collection.splits.values()) >= 60
  assert collection.location() == FOLDER / "npz"
  families = {collection.family(stem) for stem, _ in _each(programs)}
  assert families == {name for members in collection.groups.values() for name in members}


def test_every_program_passes_the_gates(programs: Programs) -> None:
  for stem, program in _each(programs):
    passes, runtime = program["config_runtime_passes"], program["config_runtime"]
    assert gates.assess(passes, gates.LAYOUT).failed_gate == "", stem
    assert passes.min() > 0
    assert np.abs(runtime - passes.mean(axis=0)).max() <= 0.5, stem
    assert (program["config_runtime_normalizers"] == runtime[0]).all(), stem


def test_the_default_comes_first_and_occurs_once(programs: Programs) -> None:
  for stem, program in _each(programs):
    constrained = assemble.constraints(program)
    assert constrained[0] == 0 and (constrained[1:] > 0).all(), stem
    assert len(np.unique(program["node_config_feat"].reshape(len(constrained), -1), axis=0)) == len(
        constrained), stem


def test_layouts_are_permutations_of_their_instruction(programs: Programs) -> None:
  for stem, program in _each(programs):
    ids = program["node_config_ids"]
    assert (np.diff(ids) > 0).all(), stem
    names = [opcodes.opcode_name(int(number)) for number in program["node_opcode"][ids]]
    assert set(names) <= {"dot", "convolution", "reshape"}, stem
    feat = program["node_config_feat"]
    rows = feat.reshape(*feat.shape[:2], 3, 6).astype(int)
    ranks = (program["node_feat"][ids, 21:27] > 0).sum(axis=1)
    for node, name in enumerate(names):
      for tensor in range(3):
        layouts = rows[:, node, tensor]
        lengths = set((layouts >= 0).sum(axis=1)) - {0}
        assert len(lengths) <= 1, stem
        if tensor == 0:
          assert lengths <= {ranks[node]}, stem
        if name == "reshape" and tensor == 2:
          assert not lengths, stem
        for layout in layouts[layouts[:, 0] >= 0]:
          length = (layout >= 0).sum()
          assert sorted(layout[:length]) == list(range(length)), stem


def test_splits_are_by_family(programs: Programs) -> None:
  for split, by_stem in programs.items():
    for stem in by_stem:
      assert catalogue.parse_stem(stem).definition.split == split
  assemble.check_graphs(dict(_each(programs)))


def test_the_number_of_constraints_is_far_from_the_best(programs: Programs) -> None:
  for split, by_stem in programs.items():
    taus = [gates.kendall_tau_b(assemble.constraints(program), program["config_runtime"])
            for program in by_stem.values()]
    assert 0 < np.mean(taus) < 0.7, split


def test_the_report_matches_the_data(programs: Programs) -> None:
  measurement = files.read_json(FOLDER / "measurement.json")
  assert measurement["semantics"] == "relayout-copies"
  for split, by_stem in programs.items():
    summary = measurement["splits"][split]
    assert summary["programs"] == len(by_stem)
    taus = [gates.kendall_tau_b(*program["config_runtime_passes"]) for program in by_stem.values()]
    assert summary["tau_between_passes"]["mean"] == pytest.approx(np.mean(taus), abs=1e-4)
    assert summary["configurations"] == sum(
        len(program["config_runtime"]) for program in by_stem.values())
  assert sum(entry["share"] for entry in measurement["drawn"].values()) == pytest.approx(
      1, abs=1e-3)


def test_package_data_is_small_and_explained() -> None:
  assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 8e6
  text = (FOLDER / "README.md").read_text(encoding="utf-8")
  assert "relayout-copies" in text and "row-major" in text
  programs = sum(files.read_json(FOLDER / "collection.json")["splits"].values())
  assert re.search(rf"\b{programs} (real )?programs\b", text)
