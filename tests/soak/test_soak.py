"""Inputs that once showed a fault, and a few new ones, for every reader.

`./run soak` tries many more, and kills commands.
"""

import pathlib

import pytest

from tests.soak import inputs
from tests.soak import kills
from tests.soak import readers
from tests.soak import warm

_CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
_KEPT = sorted(path.relative_to(_CORPUS).as_posix() for path in _CORPUS.glob("*/*"))
# Building the networks of a model takes too long for many of them.
_NEW = {name: 4 if name == "layerdag_model" else 25 for name in readers.READERS}


@pytest.mark.parametrize("kept", _KEPT)
def test_an_input_that_once_showed_a_fault(tmp_path, kept):
  reader = readers.READERS[kept.partition("/")[0]]
  outcome = inputs.attempt(reader, (_CORPUS / kept).read_bytes(), tmp_path)
  if outcome.kind == "slow":  # The first use of a reader imports modules.
    outcome = inputs.attempt(reader, (_CORPUS / kept).read_bytes(), tmp_path)
  assert outcome.kind in (inputs.ACCEPTED, inputs.REFUSED), outcome.detail


@pytest.mark.parametrize("name", readers.READERS)
def test_new_inputs(tmp_path, name):
  reader = readers.READERS[name]
  outcomes = [inputs.attempt(reader, content, tmp_path)
              for content in inputs.mutations(reader, 0, _NEW[name], tmp_path)]
  # The time depends on what else the machine does.
  faults = [outcome for outcome in outcomes
            if outcome.kind in inputs.FAULTS and outcome.kind != "slow"]
  assert not faults


@pytest.mark.parametrize("name", sorted(
    set(readers.READERS) - {"packed_index", "layerdag_model"}))
def test_sound_inputs_are_accepted(tmp_path, name):
  reader = readers.READERS[name]
  for content in reader.sound(tmp_path):
    assert inputs.attempt(reader, content, tmp_path) == (inputs.ACCEPTED, "")


def test_mutations_depend_on_the_seed_alone(tmp_path):
  reader = readers.READERS["hlo"]
  first, again, other = (list(inputs.mutations(reader, seed, 9, tmp_path)) for seed in (1, 1, 2))
  assert first == again != other
  assert len(set(first)) > 5


@pytest.mark.slow
def test_killed_packing_gives_the_same_files():
  with warm.Server(modules=()) as server, kills.Soak("pack", server) as soak:
    result = soak.trial(0, 3)
  assert result.kills >= 1 and result.trials == 1
  assert (result.lost, result.different, result.leftovers, result.faults) == (0, 0, 0, [])
