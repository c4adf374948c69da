"""From a download to a competition score with the commands, on one small collection.

test_public_pipeline.py does the same with all five collections at their number of files.
"""

import functools
import http.server
import json
import threading

import pytest

from tests import public_tree
from tests.helpers import commands
from tpugraphs_rank.data import registry

NAME = "layout:xla:random"
QUICK = ("--max_graphs=12", "--lists_per_graph=6", "--hidden_width=16", "--warmup_steps=5",
         "--learning_rate=0.01", "--epochs=1", "--notensorboard", "--segment_mode=full")


def _run(command, *arguments) -> str:
  done = commands.run(command, *arguments)
  assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
  return done.stdout


class _Quiet(http.server.SimpleHTTPRequestHandler):

  def log_message(self, *_):
    pass


@pytest.fixture(name="mirror")
def fixture_mirror(tmp_path):
  """The address of a server with the collection's archives."""
  public_tree.write_tree(tmp_path / "source", collections=[NAME])
  (tmp_path / "packed").mkdir()
  public_tree.archives(tmp_path / "source", tmp_path / "packed")
  server = http.server.ThreadingHTTPServer(
      ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path / "packed")))
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f"http://127.0.0.1:{server.server_port}/"
  server.shutdown()
  thread.join()
  server.server_close()


def test_from_a_download_to_a_score(mirror, tmp_path, monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  root, run_dir = tmp_path / "root", tmp_path / "run"
  counts = registry.get_collection(NAME).splits
  _run("download", "--collections", NAME, "--data_root", root, "--base_url", mirror)
  (tmp_path / "source" / "eval_indices").rename(root / "eval_indices")
  described = tmp_path / "described.json"
  _run("describe", "--collection", NAME, "--data_root", root, "--output", described)
  splits = json.loads(described.read_text())["splits"]
  assert {split: facts["graphs"] for split, facts in splits.items()} == counts
  assert splits["test"]["runtimes"]["graphs"] == 0
  output = _run("train", "--config", NAME.replace(":", "_"), "--run_dir", run_dir, "--data_root",
                root, *QUICK)
  assert output.endswith(f"next: `tpugraphs-rank evaluate --run_dir {run_dir} --split valid`\n")
  _run("evaluate", "--run_dir", run_dir, "--split", "valid", "--baselines", "random")
  metrics = json.loads((run_dir / "evaluation" / "valid" / "metrics.json").read_text())
  rankers = metrics["rankers"]
  assert rankers["residual_gnn"]["mean"]["kendall_tau"] > rankers["random"]["mean"]["kendall_tau"]
  only = ("--collections", NAME, "--data_root", root)
  for split in ("test", "valid"):
    part, submission = tmp_path / f"{split}_part.csv", tmp_path / f"{split}.csv"
    _run("predict", "--run_dir", run_dir, "--split", split, "--output", part)
    _run("submission merge", "--parts", part, "--output", submission, "--split", split, *only)
    assert f"valid: {counts[split]} rows" in _run(
        "submission validate", "--submission", submission, "--split", split, *only)
  _run("submission score", "--submission", tmp_path / "valid.csv", "--output", tmp_path / "score",
       *only)
  score = json.loads((tmp_path / "score" / "score.json").read_text())
  assert score["missing"] == [] and -1 <= score["score"] <= 1
