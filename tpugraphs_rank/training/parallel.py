"""Several training runs at a time, each in a process of its own."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank.training import run_directory

_DONE = ("finished", "stopped_early")


def train_all(configs: Mapping[str, run_config.RunConfig], folder: pathlib.Path, jobs: int = 0
              ) -> dict[str, pathlib.Path]:
  """Trains runs side by side; those that are done already are kept, interrupted ones go on.

  Args:
    configs: for each name the run's configuration.
    folder: run directories are `folder/<name>`.
    jobs: how many at a time; 0: one a core.

  Returns:
    The run directories, by name.

  Raises:
    TrainingError: a run failed; the message ends with the last lines of its output.
    RunDirectoryError: a directory holds a run of another configuration.
  """
  jobs = jobs or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
      jobs or os.cpu_count() or 1)
  waiting = {name: config for name, config in configs.items()
             if not _is_done(folder / name, config)}
  with tqdm.tqdm(total=len(configs), initial=len(configs) - len(waiting), unit="run",
                 desc="training", disable=None) as bar:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
      futures = {pool.submit(_train, folder / name, config): name
                 for name, config in waiting.items()}
      try:
        for future in concurrent.futures.as_completed(futures):
          seconds = future.result()
          bar.update()
          tqdm.tqdm.write(f"trained {futures[future]} in {seconds:.0f} s", file=sys.stderr)
      except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
  return {name: folder / name for name in configs}


def _is_done(path: pathlib.Path, config: run_config.RunConfig) -> bool:
  directory = run_directory.RunDirectory(path)
  if not (directory / "config.json").exists():
    return False
  directory.open(config, {})
  return directory.read_status().get("state") in _DONE


def _train(path: pathlib.Path, config: run_config.RunConfig) -> float:
  """Trains one run in a process of its own; returns the seconds it took."""
  started = time.monotonic()
  settings = path.parent / f".{path.name}.settings.json"
  files.write_json(settings, config_lib.to_dict(config))
  command: list[str] = [sys.executable, "-m", "tpugraphs_rank.cli", "train", "--run_dir", str(path),
                        "--config", str(settings)]
  try:
    finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
  finally:
    settings.unlink(missing_ok=True)
  if finished.returncode:
    tail = "\n".join((finished.stderr or finished.stdout).strip().splitlines()[-8:])
    raise errors.TrainingError(
        f"training {path} failed (exit status {finished.returncode}):\n{tail}")
  return time.monotonic() - started


def grid(base: run_config.RunConfig, models: Sequence[str], seeds: Sequence[int]
         ) -> dict[str, run_config.RunConfig]:
  """One run for each model and seed, named `<model>-seed<seed>`."""
  runs: dict[str, Any] = {}
  for seed in seeds:
    for model in models:
      runs[f"{model}-seed{seed}"] = config_lib.override(
          base, {"model.model": model, "training.seed": seed}, source="grid of runs")
  return runs
