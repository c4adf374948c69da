"""Train, sample and evaluate a LayerDAG in one short run.

  tpugraphs-rank layerdag demo
  tpugraphs-rank layerdag demo --collection my_collection.json --output runs/mine

Prints and runs four commands, one after the other, on the graphs of a collection: graphs, train,
sample, evaluate. Finished steps are kept; after an interruption, run it again to resume.
"""

import os
import pathlib
import shlex
import sys
import time
from typing import Any

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import folder_settings
from tpugraphs_rank.collect.common import processes


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", "tile:xla_cpu:v1", "Name of a collection, or path of its JSON "
                      "descriptor.")
  flags.DEFINE_string("output", "runs/layerdag_demo", "Folder of the graphs, the run and the "
                      "report.")
  flags.DEFINE_integer("epochs", 60, "Maximum epochs of training.", lower_bound=1)
  flags.DEFINE_integer("width", 64, "Width of the networks.", lower_bound=4)
  flags.DEFINE_integer("surrogate_epochs", 40, "Maximum epochs of a surrogate.", lower_bound=1)


def _run(name: str, *arguments: Any) -> None:
  """Prints a command of the `layerdag` group and runs it."""
  words = ["layerdag", name, *map(str, arguments)]
  print(f"\n$ {shlex.join([commands.NAME, *words])}", flush=True)
  status = processes.run([sys.executable, "-m", "tpugraphs_rank.cli", *words], os.environ)
  if status:
    raise errors.TrainingError(
        f"layerdag {name} failed with exit status {status}; its messages are above")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values, started = flags.FLAGS, time.monotonic()
  folder = pathlib.Path(values.output)
  folder_settings.check(folder, {name: values[name].value for name in (
      "collection", "epochs", "width", "surrogate_epochs")})
  parts = {split: folder / f"graphs_{split}.npz" for split in ("train", "valid", "test")}
  if not all(path.exists() for path in parts.values()):
    _run("graphs", "--collection", values.collection, "--divide", "--output",
         folder / "graphs.npz")
  _run("train", "--graphs", parts["train"], "--valid_graphs", parts["valid"],
       "--conditions=runtime,size", "--width", values.width, "--dropout=0.25",
       "--batch_graphs=16", "--epochs", values.epochs, "--run_dir", folder / "run")
  samples = folder / "synthetic.npz"
  if not samples.exists():
    _run("sample", "--run_dir", folder / "run", "--count=200", "--output", samples)
  _run("evaluate", *(f"--{split}={path}" for split, path in parts.items()),
       "--synthetic", samples, "--output", folder / "report", "--max_epochs",
       values.surrogate_epochs)
  print(f"\n{(time.monotonic() - started) / 60:.1f} minutes; report: {folder}/report/report.md")
