"""Executes the notebooks, and writes them with their outputs.

  ./run python -m tests.notebooks.execute                 # All notebooks.
  ./run python -m tests.notebooks.execute quickstart

The tests execute the same notebooks with smaller parameters, and write nothing.
"""

from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import sys
import tempfile
from typing import Any

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("quickstart", "explore_data", "analyse_runs", "rank_my_program", "synthetic_graphs")
TIMEOUT = 600  # Seconds per cell, on a busy machine.


@contextlib.contextmanager
def kernel(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Sets up a kernel of this Python, without any settings of the user.

  Args:
    folder: an empty folder for the kernel's files.

  Yields:
    An empty folder in which notebooks can run.
  """
  spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
  spec.parent.mkdir(parents=True)
  spec.write_text(json.dumps({
      "argv": [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f",
               "{connection_file}"],
      "display_name": "Python 3", "language": "python"}))
  variables = {"JUPYTER_PATH": "jupyter", "JUPYTER_CONFIG_DIR": "config", "IPYTHONDIR": "ipython",
               "JUPYTER_RUNTIME_DIR": "runtime", "TMPDIR": "temporary"}
  changed = {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(ROOT)}
  for variable, name in variables.items():
    (folder / name).mkdir(exist_ok=True)
    changed[variable] = str(folder / name)
  removed = ("TPUGRAPHS_RANK_RUNS", "MPLBACKEND")
  before = {name: os.environ.get(name) for name in (*changed, *removed)}
  os.environ.update(changed)
  for name in removed:
    os.environ.pop(name, None)
  (folder / "somewhere").mkdir()
  try:
    yield folder / "somewhere"
  finally:
    for name, value in before.items():
      if value is None:
        os.environ.pop(name, None)
      else:
        os.environ[name] = value


def read(name: str) -> nbformat.NotebookNode:
  """A notebook of the repository."""
  return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: pathlib.Path, checks: str = "", **parameters: Any
            ) -> nbformat.NotebookNode:
  """Executes a notebook in a folder.

  Args:
    name: of the notebook.
    folder: the current folder of the kernel.
    checks: code of an additional last cell; "": none.
    **parameters: set after the notebook's own parameters.
  """
  notebook = read(name)
  if parameters:
    place = next(index for index, cell in enumerate(notebook.cells)
                 if "parameters" in cell["metadata"].get("tags", ()))
    lines = [f"{key} = {value!r}" for key, value in parameters.items()]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
  if checks:
    notebook.cells.append(nbformat.v4.new_code_cell(checks))
  nbclient.NotebookClient(
      notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False,
      resources={"metadata": {"path": str(folder)}}).execute()
  return notebook


def main(names: list[str]) -> None:
  """Executes notebooks and writes them."""
  for name in names or NAMES:
    with tempfile.TemporaryDirectory() as folder, kernel(pathlib.Path(folder)) as somewhere:
      notebook = execute(name, somewhere)
    nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
    print(f"wrote notebooks/{name}.ipynb")


if __name__ == "__main__":
  main(sys.argv[1:])
