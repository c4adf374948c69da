"""Copies finished runs into the package as bundled models, named `bundled:NAME`.

  tpugraphs-rank train --config tile_xla_cpu --run_dir build/tile_xla_cpu
  tpugraphs-rank evaluate --run_dir build/tile_xla_cpu --split test
  python -m experiments.bundle_models --runs build/tile_xla_cpu

A bundled model keeps what scoring and reports need, and the results on the test split. It drops the
checkpoint to resume from, the logs and the TensorBoard events. Its `model.json` names the recipe,
the commands, and the SHA-256 of the collection that it was trained on.
"""

import hashlib
import pathlib
import shutil

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import registry
from tpugraphs_rank.training import run_directory

_KEPT = ("config.json", "normalizer.npz", "history.csv", "metrics.json", "status.json",
         "checkpoints/best.npz")
_RESULTS = "evaluation/test/metrics.json"
_FOLDER = pathlib.Path(run_directory.__file__).resolve().parents[1] / "bundled" / "models"


def collection_digest(folder: pathlib.Path) -> str:
  """SHA-256 over the relative paths and contents of a collection's graph files, in sorted order."""
  digest = hashlib.sha256()
  for path in sorted(folder.rglob("*.npz")):
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
  if not (directory / _RESULTS).exists():
    raise errors.RunDirectoryError(
        f"{run_dir} has no test results; run "
        + commands.command("evaluate", "--run_dir", str(run_dir), "--split", "test"))
  environment = files.read_json(directory / "environment.json")
  about = directory.read_about()
  collection = registry.get_collection(directory.read_config().data.collection)
  target = folder / name
  shutil.rmtree(target, ignore_errors=True)
  for kept in (*_KEPT, _RESULTS):
    (target / kept).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(directory / kept, target / kept)
  train = f"{commands.NAME} train --config {name} --run_dir {name}"
  files.write_json(target / "environment.json", {**environment, "command": train})
  files.write_json(target / "model.json", {
      "recipe": name, "commands": [
          train, f"{commands.NAME} evaluate --run_dir {name} --split test"],
      "collection": collection.name, "target": about.get("target"),
      "collection_sha256": collection_digest(collection.location())})
  return target


def define_flags() -> None:
  flags.DEFINE_list("runs", None, "Run directories, each named after its recipe.", required=True)


def main(_) -> None:
  for run_dir in flags.FLAGS.runs:
    print(bundle(pathlib.Path(run_dir)))


if __name__ == "__main__":
  app.run(main, define_flags)
