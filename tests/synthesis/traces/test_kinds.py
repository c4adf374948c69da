"""Joined attributes of trace nodes, and numbers that fit their kinds."""

import numpy as np
import pytest

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import kinds

_NAMES = ("type", "operator", "device", "duration", "bytes")
_WORDS = (np.array(["COMM_COLL_NODE", "COMP_NODE"]), np.array(["add", "all_reduce", "mul"]),
          np.array(["device", "host"]), np.array(["0", "1", "2-3"]), np.array(["8-15", "none"]))
_ROWS = np.array([[1, 0, 0, 1, 1], [0, 1, 0, 2, 0], [1, 2, 1, 1, 1], [1, 0, 0, 2, 1]])


def _dags():
  return dags_lib.canonical([(np.array([[1, 0], [2, 1], [3, 1]]), _ROWS)], _NAMES, _WORDS)


def test_joined_attributes_are_separated_again():
  dags = _dags()
  joined = kinds.join(dags)
  assert joined.x_names == ("kind", "duration", "bytes")
  assert len(joined.vocabularies[0]) == 3
  again = kinds.separate(joined, _NAMES)
  assert again.x_names == _NAMES
  for column in range(len(_NAMES)):
    np.testing.assert_array_equal(again.vocabularies[column][again.x[:, column]],
                                  dags.vocabularies[column][dags.x[:, column]])
  np.testing.assert_array_equal(again.src, dags.src)


def test_graphs_of_programs_are_refused():
  dags = dags_lib.canonical([(np.zeros([0, 2]), np.array([[1]]))], ("opcode",))
  with pytest.raises(errors.DataError, match="have the attributes opcode; expected graphs of trac"):
    kinds.join(dags)


def test_numbers_that_a_kind_never_has_are_drawn_from_its_nodes():
  training = kinds.join(_dags())
  # Every node becomes a collective; two of the numbers then contradict training.
  (collective,) = [index for index, word in enumerate(training.vocabularies[0])
                   if "COMM_COLL" in word]
  x = training.x.copy()
  x[:, 0] = collective
  generated = dags_lib.canonical(
      [(training.edges(0), x)], training.x_names, training.vocabularies)
  fixed, changed = kinds.consistent(generated, training, 0)
  assert changed == {"duration": 2, "bytes": 3}
  assert set(fixed.vocabularies[1][fixed.x[:, 1]]) == {"2-3"}
  assert set(fixed.vocabularies[2][fixed.x[:, 2]]) == {"8-15"}
  unchanged, changed = kinds.consistent(training, training, 0)
  assert not any(changed.values())
  np.testing.assert_array_equal(unchanged.x, training.x)
