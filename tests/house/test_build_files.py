"""The BUILD files and the declared requirements agree with the imports."""

import configparser
import pathlib
import re

import pytest

from tools import build_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Needed only to regenerate files of the repository, in an environment made for it.
ELSEWHERE = {"grpcio-tools"}


def _declared() -> set:
  config = configparser.ConfigParser()
  config.read(ROOT / "setup.cfg")
  lines = config["options"]["install_requires"].splitlines()
  return {
      re.match(r"[A-Za-z0-9_.-]+", line)[0].lower()
      for line in lines if line.strip() and not line.strip().startswith("#")}


@pytest.mark.parametrize("folder", build_files.folders(), ids=str)
def test_build_files_agree_with_the_imports(folder):
  lines = build_files.differences(folder)
  assert not lines, "\n".join(["./run build-files would change:", *lines])


@pytest.mark.parametrize("tree", ["tpugraphs_rank", "experiments"])
def test_what_is_imported_is_declared(tree):
  missing = {
      name: files for name, files in build_files.third_party(tree).items()
      if name not in _declared() | ELSEWHERE}
  assert not missing, f"add to install_requires in setup.cfg, then ./run lock: {missing}"


def test_what_is_declared_is_locked():
  locked = {
      re.match(r"[A-Za-z0-9_.-]+", line)[0].lower()
      for line in (ROOT / "requirements.txt").read_text().splitlines()
      if line.strip() and not line.lstrip().startswith("#")}
  assert _declared() <= locked, "run ./run lock"


def test_the_lock_names_one_tensorflow_and_no_place():
  text = (ROOT / "requirements.txt").read_text()
  for pin in ("tensorflow==2.15.1", "tensorflow-gnn==1.0.3", "tensorflow-ranking==0.5.5"):
    assert f"\n{pin} " in text or f"\n{pin}\n" in text
  assert "tensorflow-cpu" not in text
  assert "://" not in text and "--" not in text


def _write(root: pathlib.Path, files: dict) -> None:
  for name, text in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path):
  _write(tmp_path, {
      "tpugraphs_rank/__init__.py": "",
      "tpugraphs_rank/errors.py": "import os\n",
      "tpugraphs_rank/data/__init__.py": "from tpugraphs_rank.data.graphs import Graph\n",
      "tpugraphs_rank/data/graphs.py": (
          "import numpy as np\nfrom tpugraphs_rank import errors\n"
          "def f():\n  from sklearn import tree\n  import google.protobuf\n"),
  })
  return tmp_path


def test_targets_follow_the_imports(tree):
  targets = build_files.expected_targets(pathlib.Path("tpugraphs_rank/data"), tree)
  assert targets == {
      "data": build_files.Target("__init__.py", ('":graphs"',)),
      "graphs": build_files.Target("graphs.py", (
          '"//tpugraphs_rank:errors"', 'requirement("numpy")', 'requirement("protobuf")',
          'requirement("scikit-learn")')),
  }
  _write(tree, {"tpugraphs_rank/data/BUILD": build_files.render(targets)})
  assert build_files.read_targets(tree / "tpugraphs_rank/data/BUILD") == targets
  assert build_files.differences(pathlib.Path("tpugraphs_rank/data"), tree) == []


def test_differences_name_file_target_and_line(tree):
  folder = pathlib.Path("tpugraphs_rank/data")
  _write(tree, {"tpugraphs_rank/data/BUILD": '''
py_library(
    name = "graphs",
    srcs = ["graphs.py"],
    deps = [
        ":gone",
        requirement("numpy"),
        requirement("protobuf"),
        requirement("scikit-learn"),
    ],
)
py_library(name = "gone", srcs = ["gone.py"])
'''})
  assert build_files.differences(folder, tree) == [
      "tpugraphs_rank/data/BUILD: add a target data for __init__.py",
      "tpugraphs_rank/data/BUILD: remove the target gone; there is no gone.py",
      'tpugraphs_rank/data/BUILD: graphs: add "//tpugraphs_rank:errors"',
      'tpugraphs_rank/data/BUILD: graphs: remove ":gone"',
  ]
