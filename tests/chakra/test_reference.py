"""The reference implementation reads what we write; see `reference.check`."""

import pytest

from tests.chakra.reference import check


@pytest.mark.slow
@pytest.mark.skipif(not check.is_ready(), reason="./run check-chakra has not made its environment")
def test_the_reference_reads_our_traces(tmp_path):
  paths = check.write_samples(tmp_path / "samples")
  assert len(paths) >= 6
  assert not check.differences(paths, tmp_path)
  generated = check.generate(tmp_path / "generated")
  assert len(generated) >= 20
  assert not check.reader_differences(generated)
