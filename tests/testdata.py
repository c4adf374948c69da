"""The real data that is not in the repository: where TPUGRAPHS_TESTDATA names its folder."""

import os
import pathlib

import pytest

_FOLDER = os.environ.get("TPUGRAPHS_TESTDATA")

required = pytest.mark.skipif(
    not _FOLDER, reason="TPUGRAPHS_TESTDATA does not name the folder of the real data")


def path(name: str) -> pathlib.Path:
  """A file or folder of the real data; for tests marked `required`."""
  return pathlib.Path(_FOLDER or "") / name
