"""What every test and every executed example shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# The first example of a property may compile kernels or start a pipeline, so no example has a deadline.
settings.register_profile("local", deadline=None)
# A build must not fail by luck: there the examples are the same each time.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _no_downloads() -> Iterator[None]:
    """Beam's DirectRunner first tries to fetch another runner, Prism, from the network: here it may not.

    A test that names a Prism of this machine gets it.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "apache_beam" in sys.modules:  # tests of plain functions need not wait for its import
            from apache_beam.options.pipeline_options import PrismRunnerOptions
            from apache_beam.runners.portability.prism_runner import PrismRunner

            at_hand: Any = PrismRunner.default_job_server

            def only_at_hand(runner: Any, options: Any) -> Any:
                if options.view_as(PrismRunnerOptions).prism_location:
                    return at_hand(runner, options)
                raise RuntimeError("tests download nothing; the DirectRunner goes on to its next choice")

            patch.setattr(PrismRunner, "default_job_server", only_at_hand)
        yield
