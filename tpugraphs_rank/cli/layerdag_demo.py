"""LayerDAG from a collection to a report: trains briefly, samples, and compares with real graphs.

  python -m tpugraphs_rank.cli.layerdag_demo
  python -m tpugraphs_rank.cli.layerdag_demo --collection my_collection.json --output runs/mine

Runs the commands that it prints, one after the other, on the graphs of a collection. What is done
is kept: run it again to go on where it was interrupted.
"""

import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import folder_settings


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("collection", "tile:xla_cpu", "Name of a collection, or path of its JSON "
                      "descriptor.")
  flags.DEFINE_string("output", "runs/layerdag_demo", "Folder of files, run and report.")
  flags.DEFINE_integer("epochs", 60, "Epochs of training at most.", lower_bound=1)
  flags.DEFINE_integer("width", 64, "Of the networks.", lower_bound=4)
  flags.DEFINE_integer("surrogate_epochs", 40, "Epochs of a surrogate at most.", lower_bound=1)


def command(name: str, *arguments: Any) -> None:
  """Prints one of our commands and runs it."""
  words = ["layerdag", name, *map(str, arguments)]
  print(f"\n$ {shlex.join([commands.NAME, *words])}", flush=True)
  done = subprocess.run([sys.executable, "-m", "tpugraphs_rank.cli", *words],
                        stdin=subprocess.DEVNULL)
  if done.returncode:
    raise errors.TrainingError(f"{name} failed with exit status {done.returncode}; see above")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values, started = flags.FLAGS, time.monotonic()
  folder = pathlib.Path(values.output)
  folder_settings.check(folder, {name: values[name].value for name in (
      "collection", "epochs", "width", "surrogate_epochs")})
  parts = {split: folder / f"graphs_{split}.npz" for split in ("train", "valid", "test")}
  if not all(path.exists() for path in parts.values()):
    command("graphs", "--collection", values.collection, "--divide",
            "--output", folder / "graphs.npz")
  command("train", "--graphs", parts["train"], "--valid_graphs", parts["valid"],
          "--conditions=runtime,size", "--width", values.width, "--dropout=0.25",
          "--batch_graphs=16", "--epochs", values.epochs, "--run_dir", folder / "run")
  made = folder / "made.npz"
  if not made.exists():
    command("sample", "--run_dir", folder / "run", "--count=200", "--output", made)
  command("evaluate", *(f"--{split}={path}" for split, path in parts.items()),
          "--synthetic", made, "--output", folder / "report", "--max_epochs",
          values.surrogate_epochs)
  print(f"\n{(time.monotonic() - started) / 60:.1f} minutes; the report: {folder}/report/report.md")
