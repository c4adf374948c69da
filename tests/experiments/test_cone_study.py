"""The study of cones: halves that share no program, and its table."""

import numpy as np

from experiments import cone_study
from tpugraphs_rank.synthesis.dags import dags as dags_lib


def _cones(count: int) -> dags_lib.Dags:
  """Chains of two to five nodes; four consecutive ones come from one program."""
  chains = [np.stack([np.arange(size), np.arange(size) + 1], axis=1)
            for size in (np.arange(count) % 4 + 1).tolist()]
  return dags_lib.canonical(
      [(edges, np.zeros([len(edges) + 1, 1], int)) for edges in chains], ("opcode",),
      y=np.arange(count) // 4, y_names=("program",))


def test_halves_by_program_share_no_program():
  graphs = _cones(40)
  learned, others = cone_study.halves(graphs, "program", 12, 0)
  assert len(learned) == len(others) == 12
  assert not set(learned.label("program")) & set(others.label("program"))


def test_random_halves_share_no_cone():
  graphs = _cones(41).with_labels(np.arange(41), ("program",))
  learned, others = cone_study.halves(graphs, "random", 100, 0)
  assert sorted([*learned.label("program"), *others.label("program")]) == list(range(41))


def test_the_table_has_a_row_for_each_quantity():
  names = ("types", "type_pairs", "depth", "width", "operands", "users")
  distances = {kind: dict.fromkeys(names, value) for kind, value in (
      ("real", 0.5), ("synthetic", 0.25), ("random", 2.0))}
  result = {"halves": {"program": {
      "distances": distances, "ratios": dict.fromkeys(names, 0.5)}}}
  rows = cone_study.readme_table(result).strip().splitlines()
  assert len(rows) == 2 + len(names)
  assert rows[2] == "| opcodes | 0.5 | 0.25 | 2 | 0.5 |"
