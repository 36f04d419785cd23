"""`python -m pipelines.sagemaker`: see `pipelines.sagemaker.command`."""

from __future__ import annotations

import sys

from pipelines.sagemaker.command import main

if __name__ == "__main__":
    sys.exit(main())
