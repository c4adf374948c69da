"""The predict command."""

import shutil

import pytest

from tests.helpers import commands
from tests.training import small_runs
from tpugraphs_rank import submission
from tpugraphs_rank.data import npz


def _predict(*arguments):
  return commands.run("predict", *arguments)


@pytest.fixture(scope="module")
def trained(tiny_tile_run, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp("trained") / "run"
  return tiny_tile_run.descriptor, shutil.copytree(tiny_tile_run.path, run_dir)


def test_a_part_of_a_submission(trained):
  descriptor, run_dir = trained
  done = _predict("--run_dir", run_dir)
  assert done.returncode == 0, done.stderr
  part = run_dir / "submission_part.csv"
  assert done.stdout.splitlines() == [
      f"scores:  {run_dir}/predictions/test.npz", f"ranking: {part} (2 rows)"]
  assert submission.validate(
      part.read_bytes(), submission.from_data([str(descriptor)], "test")) == []
  assert [len(scores) for scores in npz.read_arrays(run_dir / "predictions" / "test.npz").values()
          ] == [configs for _, configs in small_runs.SIZES["test"]]


def test_another_split_and_place(trained, tmp_path):
  _, run_dir = trained
  done = _predict("--run_dir", run_dir, "--split=valid", "--output", tmp_path / "p.csv")
  assert done.returncode == 0 and len(submission.read(tmp_path / "p.csv")) == 2


@pytest.mark.parametrize("arguments, status, message", [
    ([], 2, "error: "),
    (["--run_dir", "{run}", "--split=tst"], 2, "error: flag --split=tst: "),
    (["--run_dir", "/gone"], 1, "error: /gone is not a run directory"),
    (["--run_dir", "{run}", "--split=all"], 1, "error: collection tile:tiny has no split 'all'"),
    (["--run_dir", "{run}", "test"], 2, "error: unexpected argument 'test'"),
])
def test_a_mistake_is_one_line(trained, arguments, status, message):
  done = _predict(*(argument.format(run=trained[1]) for argument in arguments))
  assert done.returncode == status and done.stdout == ""
  assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
