"""Copies finished runs into the package as bundled models, named `bundled:NAME`.

  tpugraphs-rank train --config tile_xla_cpu --run_dir build/tile_xla_cpu
  tpugraphs-rank evaluate --run_dir build/tile_xla_cpu --split test
  python -m experiments.bundle_models --runs build/tile_xla_cpu
  python -m experiments.bundle_models --calibrate

--calibrate computes the figures and the calibration of all bundled models again, from their weights
and the bundled collections, and changes nothing else.

A bundled model keeps what scoring and reports need, its calibration, and the results on the test
split. It drops the checkpoint to resume from, the logs and the TensorBoard events. Its `model.json`
names the recipe, the commands, and the SHA-256 of the collection that it was trained on.
"""

import dataclasses
import hashlib
import pathlib
import shutil

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import element_types
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import splits
from tpugraphs_rank.evaluation import calibrating
from tpugraphs_rank.metrics import evidence
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import prior_trees
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory
from tpugraphs_rank.training import tile_prior
from tpugraphs_rank.training import tree_member

_KEPT = ("config.json", "normalizer.npz", "history.csv", "metrics.json", "status.json",
         "calibration.json", "checkpoints/best.npz")
# What a run has if its settings ask for it.
_OPTIONAL = (tile_prior.FILE, prior_trees.FILE, tree_member.FILE, tree_member.ARRAYS)
_RESULTS = "evaluation/test/metrics.json"
_FOLDER = pathlib.Path(run_directory.__file__).resolve().parents[1] / "bundled" / "models"


def collection_digest(collection: registry.Collection) -> str:
  """SHA-256 over the relative paths and contents of a collection's graph files, in sorted order."""
  folder = collection.location()
  listed = collection.files
  paths = folder.rglob("*.npz") if listed is None else (
      folder / name for of_split in listed.values() for name in of_split)
  digest = hashlib.sha256()
  for path in sorted(paths):
    digest.update(path.relative_to(folder).as_posix().encode())
    digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()


def bundle(run_dir: pathlib.Path, folder: pathlib.Path = _FOLDER) -> pathlib.Path:
  """Copies a finished, evaluated run into `folder/<name of the run directory>`.

  Raises:
    RunDirectoryError: the run is not finished or was not evaluated on the test split.
  """
  directory = run_directory.RunDirectory(run_dir)
  name = run_dir.resolve().name
  if directory.read_status().get("state") not in ("finished", "stopped_early"):
    raise errors.RunDirectoryError(f"{run_dir} is not finished; resume its training first")
  if not (directory / _RESULTS).exists() or not (directory / evidence.FILE).exists():
    raise errors.RunDirectoryError(
        f"{run_dir} has no test results or no calibration; run "
        + commands.command("evaluate", "--run_dir", str(run_dir), "--split", "test"))
  if directory.read_config().model.kinds:
    raise errors.RunDirectoryError(
        f"{run_dir} has further kinds of networks, which cannot be bundled")
  environment = files.read_json(directory / "environment.json")
  about = directory.read_about()
  collection = registry.get_collection(directory.read_config().data.collection)
  target = folder / name
  shutil.rmtree(target, ignore_errors=True)
  optional = [name for name in _OPTIONAL if (directory / name).exists()]
  for kept in (*_KEPT, *optional, _RESULTS):
    (target / kept).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(directory / kept, target / kept)
  train = f"{commands.NAME} train --config {name} --run_dir {name}"
  files.write_json(target / "environment.json", {**environment, "command": train})
  files.write_json(target / "model.json", {
      "recipe": name, "commands": [
          train, f"{commands.NAME} evaluate --run_dir {name} --split test"],
      "collection": collection.name, "target": about.get("target"),
      "collection_sha256": collection_digest(collection)})
  return target


def calibrate(name: str) -> pathlib.Path:
  """Computes what a bundled model stores about its predictions; its weights stay.

  Returns:
    The file of the calibration.
  """
  run = run_lib.load_run(f"{run_directory.BUNDLED}{name}")
  config = dataclasses.replace(run.config.data, duplicates="keep")
  train = splits.load_programs(config, "train", run.config.training.seed)
  path = run.directory / "config.json"
  stored = files.read_json(path)
  stored["about"]["element_types"] = element_types.of_all(program.graph for program in train)
  files.write_json(path, stored)
  evidence_files.write(run.directory, calibrating.of_run(run))
  return run.directory / evidence.FILE


def define_flags() -> None:
  flags.DEFINE_list("runs", [], "Run directories to copy, each named after its recipe.")
  flags.DEFINE_bool("calibrate", False, "Calibrate all bundled models again.")


def main(_) -> None:
  for run_dir in flags.FLAGS.runs:
    print(bundle(pathlib.Path(run_dir)))
  if flags.FLAGS.calibrate:
    for name in run_directory.bundled_names():
      print(calibrate(name))


if __name__ == "__main__":
  app.run(main, define_flags)
