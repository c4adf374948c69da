"""The distributed program of the tutorial on traces, which JAX writes."""

import os
import subprocess

import pytest

from tests.docs import pages
from tests.helpers import commands
from tpugraphs_rank.collect import environment

PAGE = pages.ROOT / "docs" / "tutorials" / "chakra_traces.md"


@pytest.mark.skipif(
    not environment.is_ready(), reason="the collector's environment does not exist")
@pytest.mark.slow
def test_the_distributed_program_has_the_traces_that_the_tutorial_states(tmp_path):
  [code] = [block.text for block in pages.blocks(PAGE) if block.note == "executed with JAX"]
  subprocess.run(
      [str(environment.python()), "-c", code], cwd=tmp_path, check=True,
      env={"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu"})
  done = commands.run("chakra convert", "--input", tmp_path / "data_parallel.txt", "--output",
                      tmp_path / "traces")
  assert done.returncode == 0, done.stderr
  assert "4 ranks, 5 operations each (4 compute, 1 all-reduce)" in done.stdout
