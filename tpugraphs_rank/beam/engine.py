"""Runs a task on many items as an Apache Beam pipeline, on any of its runners.

    inputs -> Reshuffle -> the task, which appends its results to files

The task, its inputs and its results are in a work folder, which this process and all workers share.
So a pipeline of a million programs is as small to submit as one of ten. What a task itself reads
and writes, such as graphs, must be in folders that the workers reach under the same paths.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging
import pathlib
from typing import Any

import apache_beam as beam

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.beam import elements
from tpugraphs_rank.beam import options as options_lib
from tpugraphs_rank.beam import running
from tpugraphs_rank.beam import scratch

# Workers of this machine that may end before their work is done, in one pipeline.
_MOST_DEATHS = 10

_logger = logging.getLogger(__name__)


class BeamEngine:
  """Runs tasks with Apache Beam. Any error of an item is an outcome and stops no other item."""

  in_process = False

  def __init__(self, runner: str, arguments: Sequence[str] = (),
               work_folder: files.PathLike | None = None):
    """Checks the options; nothing runs yet.

    Args:
      runner: the name of a runner, such as "DirectRunner".
      arguments: Beam's options, such as "--direct_num_workers=2".
      work_folder: a folder that this process and all workers share. Default: the system's folder
        for temporary files, which suits workers on this machine.

    Raises:
      ConfigError: there is no such runner or option.
    """
    self._name = runner
    self._options = options_lib.parse(arguments, runner)
    options_lib.check(runner, self._options)
    self._work_folder = work_folder

  def scratch(self) -> contextlib.AbstractContextManager[pathlib.Path | None]:
    """See `work.Engine`."""
    return scratch.folder(self._work_folder)

  def map(self, task: work.Task[work.Item, work.Value], items: Sequence[work.Item],
          cost: Callable[[work.Item], float] | None = None) -> Iterator[work.Outcome[work.Value]]:
    """See `work.Engine`. The first outcome appears once all items are processed.

    If a worker of this machine dies, the item that it was processing fails, and the others are
    processed by new workers.

    Raises:
      PipelineError: the pipeline failed as a whole.
      OutputError: the work folder cannot be written.
    """
    # Runners hand out inputs in turn, so the largest come first: it balances the work.
    order = list(range(len(items)))
    if cost is not None:
      costs = [cost(item) for item in items]
      order.sort(key=lambda index: -costs[index])
    with scratch.folder(self._work_folder) as folder:
      elements.write_task(folder, task)
      results = self._results(folder, items, order)
      for index in range(len(items)):
        result = results[index]
        yield (result.read() if isinstance(result, elements.Stored) else result).outcome()

  def _results(self, folder: pathlib.Path, items: Sequence[Any], order: Sequence[int]
               ) -> dict[int, elements.Stored | elements.Result]:
    lost: dict[int, elements.Result] = {}
    results: dict[int, elements.Stored] = {}
    for _ in range(_MOST_DEATHS + 1):
      waiting = [index for index in order if index not in results and index not in lost]
      if not waiting:
        return {**results, **lost}
      elements.write_inputs(folder, [(index, items[index]) for index in waiting])
      dead = self._run(folder)
      results = elements.find_results(folder)
      if not dead:
        break
      # What a dead worker was processing may have killed it, for instance by its size.
      suspects = [index for pid in dead for index in elements.unfinished_of(folder, pid)]
      for index in suspects:
        lost[index] = elements.Result(index, None, ("PipelineError", (
            f"the worker that processed {elements.shown(items[index])} was killed; if its memory "
            "ran out, use fewer workers, or a machine with more memory")), [])
      _logger.warning("%d worker(s) died; %d inputs are processed again by others", len(dead),
                      len(waiting) - len(suspects))
    missing = len(items) - len({**results, **lost})
    if missing:
      raise errors.PipelineError(
          f"the pipeline on {self._name} left {missing} of {len(items)} inputs without a result in "
          f"{folder}; check the logs of its workers, and pass --work_folder with a folder that "
          "all of them share with this process")
    return {**results, **lost}

  def _run(self, folder: pathlib.Path) -> list[int]:
    """Runs the pipeline to its end; returns the processes of its workers that died on the way."""
    runner = options_lib.runner_named(self._name, self._options, folder)
    try:
      pipeline = beam.Pipeline(runner=runner, options=self._options)
    except ValueError as error:  # The runner lacks options.
      reasons = "; ".join(line.strip(" .:") for line in str(error).splitlines())
      raise errors.ConfigError(f"--beam_args for {self._name}: {reasons}") from None
    _ = (pipeline
         | "Folder" >> beam.Create([str(folder)])
         | "Inputs" >> beam.FlatMap(elements.read_inputs)
         | "Spread" >> beam.Reshuffle()
         | "Process" >> beam.ParDo(elements.Process(str(folder))))
    return running.run(pipeline, self._name, folder)
