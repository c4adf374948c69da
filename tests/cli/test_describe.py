"""The command that describes a collection."""

import json

import pytest

from tests import synthetic
from tests.helpers import commands
from tpugraphs_rank.data import describe
from tpugraphs_rank.data import describe_tables


def _describe(*arguments):
  return commands.run("describe", *arguments)


@pytest.fixture
def collection(tmp_path):
  return synthetic.write_collection(tmp_path / "data", counts=(3, 2, 1))


def test_a_whole_collection(collection, tmp_path):
  output = tmp_path / "out" / "described.json"
  done = _describe("--collection", collection, "--output", output, "--max_configs", 13)
  assert done.returncode == 0 and done.stderr == ""  # No progress bar without a terminal.
  description = describe.describe(str(collection), list_size=13)
  assert done.stdout == f"{describe_tables.text(description)}\nnumbers: {output}\n"
  assert json.loads(output.read_text(encoding="utf-8")) == description.summary()
  assert "fewer than 13 configurations" in done.stdout


def test_some_splits(collection):
  done = _describe("--collection", collection, "--splits", "valid,test")
  assert done.returncode == 0 and done.stdout == describe_tables.text(
      describe.describe(str(collection), ["valid", "test"])) + "\n"


def test_damage_and_missing_graphs_end_in_status_1_after_the_table(collection, tmp_path):
  first, second, _ = sorted((collection.parent / "npz" / "train").glob("*.npz"))
  first.write_bytes(first.read_bytes()[:-30])
  second.unlink()
  output = tmp_path / "described.json"
  done = _describe("--collection", collection, "--output", output)
  assert done.returncode == 1
  assert "graph files" in done.stdout and f"damaged: {first} " in done.stdout
  assert done.stderr.startswith(
      "error: tile:synthetic: train has 2 of 3 graphs; train has 1 damaged file; move away the "
      "damaged files of train; the descriptor of collection tile:synthetic is in ")
  assert done.stderr.count("\n") == 1
  assert json.loads(output.read_text(encoding="utf-8"))["problems"] == [
      "train has 2 of 3 graphs", "train has 1 damaged file"]
  assert _describe("--collection", collection, "--splits", "valid").returncode == 0


def test_missing_graphs_are_no_problem_if_partial(collection, tmp_path):
  first, second, _ = sorted((collection.parent / "npz" / "train").glob("*.npz"))
  second.unlink()
  for path in (collection.parent / "npz" / "test").iterdir():
    path.unlink()
  refused = _describe("--collection", collection)
  assert refused.returncode == 1 and refused.stderr.endswith(
      "; or describe the graphs that exist: --partial\n")
  output = tmp_path / "described.json"
  done = _describe("--collection", collection, "--partial", "--output", output)
  assert done.returncode == 0 and done.stderr == ""
  missing = ["train has 2 of 3 graphs", "test has 0 of 1 graph"]
  assert f"\nMissing: {'; '.join(missing)}.\n" in done.stdout
  stored = json.loads(output.read_text(encoding="utf-8"))
  assert stored["missing"] == missing and stored["problems"] == []
  first.write_bytes(first.read_bytes()[:-30])
  damaged = _describe("--collection", collection, "--partial")
  assert damaged.returncode == 1 and damaged.stderr.startswith(
      "error: tile:synthetic: train has 1 damaged file; move away the damaged files of train; ")


@pytest.mark.parametrize("arguments, status, message", [
    (["--collection", "tile:xls"], 1, "error: no collection 'tile:xls' (did you mean 'tile:xla'?)"),
    (["--collection", "tile:xla_cpu", "--splits", "vaild"], 1,
     "error: collection tile:xla_cpu has no split 'vaild' (did you mean 'valid'?)"),
    (["--collection", "tile:xla_cpu", "--splits="], 1,
     "error: no splits of tile:xla_cpu were requested; expected some of: train, valid, test\n"),
    (["--collection", "tile:xla", "--data_root", "/nowhere"], 1,
     "error: no data of tile:xla train at /nowhere/npz/tile/xla/train; download it with `tpu"),
    ([], 2, "error: --collection is required (`tpugraphs-rank "),
    (["--collection", "tile:xla_cpu", "--max_configs", "0"], 2, "error: flag --max_configs=0: "),
])
def test_a_mistake_is_one_line(arguments, status, message):
  done = _describe(*arguments)
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
