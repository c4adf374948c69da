"""`python -m tpugraphs_rank.collect.layout`, in the collector's environment."""

import sys

from tpugraphs_rank.collect.layout import collect

if __name__ == "__main__":
  sys.exit(collect.main())
