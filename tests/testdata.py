"""Real data outside the repository, in the folder that TPUGRAPHS_TESTDATA names."""

import os
import pathlib

import pytest

_FOLDER = os.environ.get("TPUGRAPHS_TESTDATA")

required = pytest.mark.skipif(
    not _FOLDER, reason="TPUGRAPHS_TESTDATA does not name the folder of the real data")


def path(name: str) -> pathlib.Path:
  """A file or folder of the real data; for tests marked `required`."""
  return pathlib.Path(_FOLDER or "") / name
