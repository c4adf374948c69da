"""The page on extending: its files are written, its commands and examples are run."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.helpers import commands
from tests.helpers import registrations

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "extending.md"
# Flags that make a command small; they come last, and the last one counts.
COLLECTION = ("--collection", "my_collection/collection.json")
SMALL = {"train": (*COLLECTION, "--epochs=2", "--hidden_width=4", "--num_convolutions=1",
                   "--opcode_width=2", "--max_configs=6", "--lists_per_graph=1", "--notensorboard"),
         "evaluate": ("--baselines=random",),
         "rank": ("--max_candidates=8",)}
_BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
                    re.MULTILINE | re.DOTALL)


def _blocks():
  return [(match["language"], match["title"], match["text"])
          for match in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module", name="folder")
def fixture_folder(tmp_path_factory):
  """A user's folder with the files of the page, its collection and a program to rank."""
  folder = tmp_path_factory.mktemp("extending")
  for _, title, text in _blocks():
    if title:
      (folder / title).write_text(text, encoding="utf-8")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    exec(compile((folder / "my_collection.py").read_text(), "my_collection.py", "exec"), {})
  small_programs.write(folder / "my_kernel.pb", small_programs.matmul(64, 64, 32))
  with registrations.undone():
    yield folder


def test_every_file_is_short():
  titles = {title: text for _, title, text in _blocks() if title}
  assert {"graph_sage.py", "top1_loss.py", "hit_rate.py", "my_collection.py"} <= set(titles)
  for title, text in titles.items():
    assert len(text.splitlines()) < 40, title


@pytest.mark.slow
def test_the_page_works(folder, monkeypatch):
  monkeypatch.chdir(folder)
  monkeypatch.syspath_prepend(folder)
  for language, title, text in _blocks():
    if language == "sh":
      for line in text.splitlines():
        _, name, *arguments = shlex.split(line)
        result = commands.run(name, *arguments, *SMALL.get(name, ()))
        assert result.returncode == 0, f"{line}\n{result.stderr[-3000:]}"
    elif not title:
      exec(compile(text, str(PAGE), "exec"), {"__name__": "example"})
  assert "hit_rate" in (folder / "runs" / "hits" / "history.csv").read_text().splitlines()[0]
  assert (folder / "runs" / "sage3" / "predictions" / "my_kernel.ranked.json").exists()


@pytest.mark.slow
def test_a_custom_model_resumes_and_is_scored_by_the_plain_path(folder, monkeypatch):
  from tests.training import small_runs
  import tpugraphs_rank as tgr
  from tpugraphs_rank.data import batches
  from tpugraphs_rank.data import splits
  from tpugraphs_rank.models import inputs

  monkeypatch.chdir(folder)
  settings = {"model": "graph_sage", "plugin": ["graph_sage.py"], "hidden_width": 4,
              "num_convolutions": 2, "epochs": 3, "max_configs": 6, "eval_batch_configs": 4,
              "lists_per_graph": 1, "tensorboard": False}
  whole = tgr.train(COLLECTION[1], folder / "whole", **settings)
  tgr.train(COLLECTION[1], folder / "halves", stop_after=1, **settings)
  resumed = tgr.train(COLLECTION[1], folder / "halves", **settings)
  for name, values in small_runs.checkpoint(folder / "whole/checkpoints/latest.npz").items():
    np.testing.assert_array_equal(
        small_runs.checkpoint(folder / "halves/checkpoints/latest.npz")[name], values)
  monkeypatch.chdir("/")  # The run directory knows where the plugin is.
  assert tgr.load_run(folder / "halves").config.training.plugin == (
      str(folder / "graph_sage.py"),)
  graph = tgr.load_collection(str(folder / COLLECTION[1]), "test")[0]
  scores = resumed.score(graph)
  np.testing.assert_array_equal(scores, whole.score(graph))
  prepared = batches.prepare(splits.ProgramView(graph), resumed.normalizer)
  ((batch, ((_, picked),)),) = batches.scoring_batches([prepared], 10 ** 6, 0)
  model = resumed._networks._model
  plain = model(inputs.select(batch, model.required_inputs())).numpy()[0]
  np.testing.assert_allclose(plain, scores[picked], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(resumed.rank(graph, k=3), np.argsort(-scores, kind="stable")[:3])
