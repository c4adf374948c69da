"""The tutorial on tuning: from a JAX and a TensorFlow model to tuned programs, at a small size."""

import os
import subprocess
import sys

import pytest

from tests.docs import pages
from tests.helpers import commands
from tpugraphs_rank import files
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.hlo import reading

PAGE = pages.ROOT / "docs" / "tutorials" / "tune_your_program.md"
SMALL = {"tune": ("--measurements=3",), "train": ("--epochs=1", "--min_configs=2")}


def _python(python: str, code: str, folder) -> None:
  subprocess.run([python, "-c", code], cwd=folder, check=True,
                 env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu",
                      "TF_CPP_MIN_LOG_LEVEL": "3"})


def _printed(words: list[str]) -> str:
  """What a Python command prints, in this Python, which need not have the package installed."""
  return subprocess.run(
      [sys.executable, *words], check=True, capture_output=True, text=True,
      env={**os.environ, "PYTHONPATH": str(pages.ROOT)}).stdout.strip()


@pytest.mark.skipif(
    not environment.is_ready(), reason="the collector's environment does not exist")
@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch) -> None:
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(tune, "PROCESSES", 2)
  # The model, which later blocks use.
  model = next(block.text for block in pages.blocks(PAGE)
               if block.language == "python" and block.note == "executed with JAX")
  with_jax = ""
  for block in pages.blocks(PAGE):
    if block.language == "python" and block.note == "executed with JAX":
      _python(with_jax, f"{model}\n{block.text}", tmp_path)
    elif block.language == "python":
      _python(sys.executable, block.text, tmp_path)
    elif block.language == "sh":
      for words in pages.command_lines(block.text):
        if words[0] == "python":  # It prints the Python that has JAX and the package.
          with_jax = _printed(words[1:])
          continue
        done = commands.run(*words[1:], *SMALL[words[1]])
        assert done.returncode == 0, done.stderr[-3000:]
  for name in ("tuned_transport", "tuned_lstm"):
    result = files.read_json(tmp_path / name / "tuned.json")
    assert result["finished"] and result["measurements"] == 3
    assert len((tmp_path / name / "measurements.jsonl").read_text().splitlines()) == 3
    assert reading.read_raw(tmp_path / name / "tuned.hlo.pb").kind == "HloModuleProto"
    assert reading.read_raw(tmp_path / name / "measured.pb").modules[0].runs[0].is_default
  assert len(list((tmp_path / "my_programs").glob("*.npz"))) == 2
  assert (tmp_path / "runs" / "mine" / "checkpoints" / "best.npz").exists()
