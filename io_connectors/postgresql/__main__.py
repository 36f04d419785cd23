"""`python -m io_connectors.postgresql ddl`: print the statements that create the sink's tables."""

import sys

from io_connectors.sql.ddl import main
from io_connectors.sql.dialects import POSTGRESQL

if __name__ == "__main__":
    sys.exit(main(POSTGRESQL, sys.argv[1:]))
