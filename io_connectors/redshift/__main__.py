"""`python -m io_connectors.redshift ddl`: print the statements that create the sink's tables."""

import sys

from io_connectors.sql.ddl import main
from io_connectors.sql.dialects import REDSHIFT

if __name__ == "__main__":
    sys.exit(main(REDSHIFT, sys.argv[1:]))
