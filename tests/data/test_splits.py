"""The programs and configurations of train, valid and test."""

import logging

import numpy as np
import pytest

from tests import synthetic
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import splits


def _data(path, **settings):
  return run_config.DataConfig(collection=str(path), **settings)


def _names(programs):
  return [program.graph.name for program in programs]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
  return synthetic.write_collection(tmp_path_factory.mktemp("divided"), counts=(4, 2, 1))


@pytest.fixture
def whole(tmp_path):
  """A collection that is not divided, with repeated configurations."""
  for seed in range(3):
    graph = synthetic.tile_graph(seed, num_configs=30)
    npz.save_graph(tmp_path / f"k{seed}.npz", graph)
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:whole", "kind": "tile", "target": "t", "splits": {"all": 3}}')
  return path


def test_by_program(divided):
  for split, count in (("train", 4), ("valid", 2), ("test", 1)):
    programs = splits.load_programs(_data(divided), split)
    assert len(programs) == count and all(program.choice is None for program in programs)


def test_by_configuration_each_distinct_configuration_is_on_one_side(whole):
  sides = {split: splits.load_programs(_data(whole, split_by="configuration"), split, seed=3)
           for split in ("train", "valid", "test")}
  for members in zip(*sides.values()):
    assert len({member.graph.name for member in members}) == 1
    keys = members[0].graph.config_keys()
    assert len(np.unique(keys)) < len(keys)  # There are repeats to be kept together.
    held = [set(keys[member.choice].tolist()) for member in members]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
    assert sorted(np.concatenate([member.choice for member in members])) == list(range(len(keys)))
    assert len(held[0]) == round(0.6 * len(np.unique(keys)))


def test_by_configuration_of_a_divided_collection_uses_its_training_programs(divided):
  programs = splits.load_programs(_data(divided, split_by="configuration"), "test")
  assert _names(programs) == _names(splits.load_programs(_data(divided), "train"))


def test_the_seed_divides(whole):
  choose = lambda seed: [program.choice.tolist() for program in splits.load_programs(
      _data(whole, split_by="configuration"), "train", seed)]
  assert choose(1) == choose(1) and choose(1) != choose(2)


def test_a_collection_that_is_not_divided_says_how_to_train(whole):
  with pytest.raises(errors.ConfigError, match=(
      "tile:whole is not divided by program; train with --split_by=configuration, or divide it "
      "with `python -m experiments.make_collection`")):
    splits.load_programs(_data(whole), "train")


@pytest.mark.parametrize("split_by", ["program", "configuration"])
def test_an_unknown_split(divided, split_by):
  with pytest.raises(errors.UnknownNameError, match="train, valid, test"):
    splits.load_programs(_data(divided, split_by=split_by), "dev")


def test_small_programs_are_left_out_and_counted(divided, caplog):
  counts = {program.graph.name: len(np.unique(program.graph.config_keys()))
            for program in splits.load_programs(_data(divided), "train")}
  limit = sorted(counts.values())[-2]
  with caplog.at_level(logging.INFO, "tpugraphs_rank"):
    kept = splits.load_programs(_data(divided, min_configs=limit), "train")
  assert _names(kept) == [name for name, count in counts.items() if count >= limit]
  assert f"left out {len(counts) - len(kept)} of 4 programs" in caplog.text
  with pytest.raises(errors.DataError, match="no program has 99 distinct .*lower --min_configs"):
    splits.load_programs(_data(divided, min_configs=99), "train")


def test_every_side_of_every_program_has_a_configuration(tmp_path):
  # Two distinct configurations cannot train, validate and test.
  for seed, count in enumerate((2, 3, 4)):
    graph = synthetic.tile_graph(seed, num_configs=count,
                                 config_feat=np.diag(np.arange(1, 25))[:count])
    npz.save_graph(tmp_path / f"k{count}.npz", graph)
  path = tmp_path / "c.json"
  path.write_text('{"name": "tile:c", "kind": "tile", "target": "t", "splits": {"all": null}}')
  for split in ("train", "valid", "test"):
    programs = splits.load_programs(_data(path, split_by="configuration"), split)
    assert _names(programs) == ["k3", "k4"]
    assert all(len(program.choice) for program in programs)


def test_zero_runtimes_do_not_train(tmp_path):
  path = synthetic.write_collection(tmp_path, counts=(2, 1, 1))
  folder = tmp_path / "npz" / "train"
  name = sorted(folder.glob("*.npz"))[0].stem
  npz.save_graph(folder / f"{name}.npz", synthetic.tile_graph(
      0, config_runtime=np.zeros(12), config_runtime_normalizers=np.zeros(12)))
  with pytest.raises(errors.DataError, match=f"{name}.npz: config_runtime is all zero.*no meas"):
    splits.load_programs(_data(path), "train")


def test_max_graphs_draws_training_programs_by_the_seed(divided):
  draw = lambda seed, split="train": _names(
      splits.load_programs(_data(divided, max_graphs=2), split, seed))
  everything = _names(splits.load_programs(_data(divided), "train"))
  drawn = {tuple(draw(seed)) for seed in range(8)}
  assert draw(1) == draw(1) and len(drawn) > 1
  for names in drawn:
    assert len(names) == 2 and list(names) == [name for name in everything if name in names]
  assert len(draw(0, "valid")) == 2  # Of 2: only training programs are drawn.
