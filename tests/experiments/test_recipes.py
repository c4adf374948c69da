"""Every recipe names its command, and trains on data in the format of its collection."""

import dataclasses
import pathlib
import shlex

import pytest

from tests import public_tree
from tpugraphs_rank import config as config_lib
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.layerdag import settings
from tpugraphs_rank.training import trainer
from tpugraphs_rank.training import training_data

FOLDER = pathlib.Path(recipes.__file__).resolve().parent
# Recipes of rankers, and recipes of graph generators.
RECIPES = sorted(set(FOLDER.glob("*.json")) - set(FOLDER.glob("layerdag_*.json")))
GENERATORS = sorted(FOLDER.glob("layerdag_*.json"))
PUBLIC = {name: FOLDER / f"{name.replace(':', '_')}.json" for name in public_tree.COLLECTIONS}


def _config(path: pathlib.Path) -> run_config.RunConfig:
  return config_lib.from_dict(run_config.RunConfig, recipes.read(path), source=path)


def test_every_public_collection_has_a_recipe():
  assert set(PUBLIC.values()) <= set(RECIPES)
  for name, path in PUBLIC.items():
    config = _config(path)
    assert config.data.collection == name
    # The competition's metrics: the best of the first five tiles, the ranking of all layouts.
    kind = registry.get_collection(name).kind
    assert config.training.validation_metric == (
        "top5_slowdown" if kind == "tile" else "kendall_tau")
    # Whole programs one by one: the study of training rules by CPU second.
    assert (config.batch.segment_mode, config.batch.batch_size == 1) == ("full", kind == "layout")


def _assert_names_its_command(path: pathlib.Path, command: str, *flags: str) -> None:
  first, second = path.read_text(encoding="utf-8").splitlines()[:2]
  assert first == "{" and second.startswith('  "comment": "')
  words = shlex.split(second.partition('": "')[2].rstrip('",'))
  start = ["tpugraphs-rank", *command.split(), "--config", path.stem]
  assert words[:len(start)] == start
  assert words[len(start)::2] == list(flags) and len(words) == len(start) + 2 * len(flags)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_its_command(path):
  _assert_names_its_command(path, "train", "--run_dir")
  training_data.check(_config(path))


@pytest.mark.parametrize("path", GENERATORS, ids=lambda path: path.stem)
def test_the_recipe_of_a_generator_names_its_command(path):
  dataflow = path.stem.startswith("layerdag_dataflow")
  collection = ("--collection",) if path.stem.endswith("_layout") else ()
  if dataflow:
    _assert_names_its_command(path, "synthesize", *collection, "--output")
  else:
    _assert_names_its_command(path, "layerdag train", "--graphs", "--run_dir")
  config = config_lib.from_dict(
      settings.LayerDagConfig, recipes.read(path), source=str(path))
  assert ("root" if dataflow else "runtime") in config.data.conditions


# The recipes of layouts differ in few settings, and the public tile collection is large.
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] if name != "layout:xla:random" else [])
    for name in PUBLIC])
def test_a_recipe_takes_its_first_step(tmp_path, name):
  public_tree.write_tree(tmp_path, collections=[name], splits=["train", "valid"])
  config = _config(PUBLIC[name])
  config = dataclasses.replace(config, data=dataclasses.replace(
      config.data, data_root=str(tmp_path), max_graphs=24))
  training = trainer.Trainer(config)
  plan = training.plan()
  assert plan["collection"] == name
  assert plan["train_programs"] == 24
  assert plan["valid_programs"] == registry.get_collection(name).splits["valid"]
  assert plan["steps_per_epoch"] == -(
      -24 * config.batch.lists_per_graph // config.batch.batch_size)
  outcome = training.one_step()
  assert outcome["loss"] > 0 and outcome["gradient_norm"] > 0
