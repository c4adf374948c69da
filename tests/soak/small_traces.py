"""`chakra synthesize` with a network that has no flags: as small as it gets, for the soak.

  python -m tests.soak.small_traces chakra synthesize ...
"""

import sys

from tests.synthesis.traces import test_synthesize_command
from tpugraphs_rank.cli import __main__ as dispatcher
from tpugraphs_rank.synthesis.traces import generation

if __name__ == "__main__":
  generation.DEFAULTS = {**generation.DEFAULTS, **test_synthesize_command._SMALL}
  sys.exit(dispatcher.main())
