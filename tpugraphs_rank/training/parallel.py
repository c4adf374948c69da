"""Several training runs in parallel, each in its own process."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import threading
import time

import tqdm

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank import termination
from tpugraphs_rank.training import run_directory

# Seconds between two looks at how far the runs are.
_POLL_SECONDS = 1.0
# Seconds that an ended process has to leave by itself.
_PATIENCE = 10.0


def train_all(configs: Mapping[str, run_config.RunConfig], folder: pathlib.Path, jobs: int = 0
              ) -> dict[str, pathlib.Path]:
  """Trains runs in parallel. Finished runs are kept, and interrupted ones resume.

  Ctrl-C, SIGTERM and errors end all processes that this call started.

  Args:
    configs: the configuration of each run, by name.
    folder: run directories are `folder/<name>`.
    jobs: number of processes at a time; 0: one per core.

  Returns:
    The run directories, by name.

  Raises:
    TrainingError: a run failed; the message ends with the last lines of its output.
    RunDirectoryError: a directory holds a run with other settings.
  """
  waiting = {name: config for name, config in configs.items()
             if not _is_done(folder / name, config)}
  processes = Processes()
  trained = {name: _epochs(folder / name) if name in waiting else config.training.epochs
             for name, config in configs.items()}
  with tqdm.tqdm(total=sum(config.training.epochs for config in configs.values()),
                 initial=sum(trained.values()), unit="epoch", desc=f"training {len(configs)} runs",
                 disable=None) as bar, termination.sigterm_raises():
    with concurrent.futures.ThreadPoolExecutor(jobs or _cores()) as pool:
      futures = {pool.submit(_train, folder / name, config, processes): name
                 for name, config in waiting.items()}
      try:
        pending = set(futures)
        while pending:
          done, pending = concurrent.futures.wait(
              pending, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
          trained.update((futures[future], _epochs(folder / futures[future]))
                         for future in pending)
          for future in done:
            seconds, name = future.result(), futures[future]
            trained[name] = configs[name].training.epochs  # It may have stopped early.
            tqdm.tqdm.write(f"trained {name} in {seconds:.0f} s", file=sys.stderr)
          bar.update(sum(trained.values()) - bar.n)
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end()
        raise
  return {name: folder / name for name in configs}


def _cores() -> int:
  """The number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


class Processes:
  """The child processes, which can be ended together."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._running: set[subprocess.Popen[str]] = set()
    self._ended = False

  def run(self, command: Sequence[str]) -> tuple[int, str]:
    """Runs a command to its end; returns its exit status and output.

    Raises:
      TrainingError: `end` was called before it started.
    """
    with self._lock:
      if self._ended:
        raise errors.TrainingError("not started, because another training was ended")
      process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
      self._running.add(process)
    try:
      output, messages = process.communicate()
    finally:
      with self._lock:
        self._running.discard(process)
    return process.returncode, messages or output

  def end(self) -> None:
    """Ends all running commands, and starts no others."""
    with self._lock:
      self._ended = True
      running = list(self._running)
    for process in running:
      process.terminate()
    deadline = time.monotonic() + _PATIENCE
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
      time.sleep(0.05)
    for process in running:
      if process.poll() is None:
        process.kill()


def _is_done(path: pathlib.Path, config: run_config.RunConfig) -> bool:
  directory = run_directory.RunDirectory(path)
  if not (directory / "config.json").exists():
    return False
  directory.open(config, {})
  return directory.read_status().get("state") in run_directory.DONE


def _epochs(path: pathlib.Path) -> int:
  """The number of epochs that a run has been trained for, as far as its directory tells."""
  try:
    return int(run_directory.RunDirectory(path).read_status().get("epoch", 0))
  except (errors.TpuGraphsRankError, TypeError, ValueError):
    return 0


def _train(path: pathlib.Path, config: run_config.RunConfig, processes: Processes) -> float:
  """Trains one run in its own process; returns the seconds it took."""
  started = time.monotonic()
  settings = path.parent / f".{path.name}.settings.json"
  files.write_json(settings, config_lib.to_dict(config))
  try:
    status, output = processes.run([
        sys.executable, "-m", "tpugraphs_rank.cli", "train", "--run_dir", str(path),
        "--config", str(settings)])
  finally:
    settings.unlink(missing_ok=True)
  if status:
    tail = "\n".join(output.strip().splitlines()[-8:])
    raise errors.TrainingError(f"training {path} failed (exit status {status}):\n{tail}")
  return time.monotonic() - started


def grid(base: run_config.RunConfig, models: Sequence[str], seeds: Sequence[int]
         ) -> dict[str, run_config.RunConfig]:
  """One configuration for each model and seed, named `<model>-seed<seed>`."""
  runs: dict[str, run_config.RunConfig] = {}
  for seed in seeds:
    for model in models:
      runs[f"{model}-seed{seed}"] = config_lib.override(
          base, {"model.model": model, "training.seed": seed}, source="grid of runs")
  return runs
