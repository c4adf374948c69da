"""What needs no TensorFlow works under newer Pythons and NumPy 2.

The tests use the newest Python from 3.12 on that they find. Its environment is created once, in
.venv-newer, and again when the requirements change.
"""

import configparser
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow  # Its environment takes a minute to create.

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-newer"
VERSIONS = ("3.12", "3.13", "3.14")
# Figures and boosted trees work there as well, but take long to install.
_NOT_INSTALLED = ("matplotlib", "scikit-learn")
_FOLDERS = ("tests/metrics", "tests/submission", "tests/hlo", "tests/data", "tests/candidates")

_SMOKE = """
import sys
import numpy as np
import tpugraphs_rank as tgr
from tpugraphs_rank import metrics
from tpugraphs_rank.data import labels, normalize, registry
from tpugraphs_rank.hlo import convert

assert sys.version_info >= (3, 12) and int(np.__version__.split(".")[0]) >= 2
for name in ("tile:xla_cpu", "layout:xla_cpu:mixed"):
  graph = tgr.load_collection(name, "valid")[0]
  runtimes = graph.relative_runtime
  assert metrics.kendall_tau(runtimes, -runtimes) == 1
  assert metrics.topk_slowdown(runtimes, -runtimes, 1) == 0
  assert labels.make_labels(runtimes).relevance.max() == 1
  assert np.isfinite(normalize.node_rows(graph)).all()
hlo, = convert.convert_file(sys.argv[1]).graphs
assert hlo.arrays["node_feat"].shape[1] == 140
assert "tensorflow" not in sys.modules
"""


def _python() -> str | None:
  """A newer Python that can create environments."""
  home = pathlib.Path.home()
  for version in VERSIONS:
    candidates = [shutil.which(f"python{version}"),
                  *(home / ".pyenv" / "versions").glob(f"{version}*/bin/python3"),
                  *(home / ".local/share/uv/python").glob(f"cpython-{version}.*/bin/python3")]
    for candidate in filter(None, candidates):
      probe = subprocess.run([candidate, "-c", "import ensurepip, venv"], capture_output=True,
                             check=False)
      if probe.returncode == 0:
        return str(candidate)
  return None


def _requirements() -> list[str]:
  """What the package requires on that Python, and the tools of its tests."""
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")
  lines = [line.strip() for line in config["options"]["install_requires"].splitlines()]
  return [line for line in lines if line and not line.startswith(("#", *_NOT_INSTALLED))] + [
      "pytest>=8", "hypothesis"]


@pytest.fixture(scope="module", name="python")
def _environment():
  """The Python of the environment; skips where it cannot be created."""
  base = _python()
  if base is None:
    pytest.skip(f"no Python {', '.join(VERSIONS)} on this machine")
  requirements = _requirements()
  key = hashlib.sha256("\n".join([base, *requirements]).encode()).hexdigest()
  complete = ENVIRONMENT / "complete"
  python = ENVIRONMENT / "bin" / "python"
  if not (complete.exists() and complete.read_text() == key):
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    subprocess.run([base, "-m", "venv", str(ENVIRONMENT)], check=True, capture_output=True)
    result = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
        capture_output=True, text=True, check=False)
    if result.returncode != 0:
      shutil.rmtree(ENVIRONMENT)
      reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
      pytest.skip(f"pip cannot install the requirements: {reason}")
    complete.write_text(key)
  return str(python)


def _run(python: str, *arguments: str, **options) -> subprocess.CompletedProcess:
  return subprocess.run(
      [python, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
      env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


def test_reading_metrics_and_features(python):
  program = ROOT / "tests" / "hlo" / "data" / "jax_row_sums.pb"
  result = _run(python, "-c", _SMOKE, str(program))
  assert result.returncode == 0, result.stderr


def test_commands_without_tensorflow(python, tmp_path):
  program = ROOT / "tests" / "hlo" / "data" / "jax_row_sums.pb"
  command = ("-m", "tpugraphs_rank.cli")
  result = _run(python, *command, "featurize", "--input", str(program), "--output", str(tmp_path))
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "jax_row_sums.npz").exists()
  result = _run(python, *command, "describe", "--collection", "tile:xla_cpu", "--splits", "test")
  assert result.returncode == 0 and "configurations" in result.stdout, result.stderr
  for words in (["submission", "--help"], ["download", "--help"], []):
    result = _run(python, *command, *words)
    assert result.returncode == 0, result.stderr


def test_commands_with_tensorflow_name_the_remedy(python, tmp_path):
  result = _run(python, "-m", "tpugraphs_rank.cli", "train", "--run_dir", str(tmp_path / "run"),
                "--collection", "tile:xla_cpu")
  assert result.returncode != 0
  assert "Python 3.10 or 3.11" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_tests_of_what_needs_no_tensorflow(python):
  # The workers that download tests fork are covered under the other Pythons.
  result = _run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow",
                "--ignore=tests/data/test_download.py", *_FOLDERS, timeout=1200)
  assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
  assert " passed" in result.stdout
