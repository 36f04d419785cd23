"""One Beam worker: a process that gets ready first and is told whom to work for later.

Loading Beam, the libraries and the pipeline's own modules takes seconds. A worker that waits with all that done takes
over at once when a job starts, or starts again. The pool tells it by one line of JSON on standard input; it says
`ready` on standard output before it connects.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

#: What a worker of the fraud pipeline runs. Importing it is all that a spare does ahead.
_PRELOADED = (
    "runners.flink.options",
    "pipelines.fraud",
    "pipelines.outputs",
    "transforms.history_kernels",
    "onnxruntime",
    "apache_beam.io",
)
READY = "ready"
#: The variable that says where to run, if anywhere in particular.
DIRECTORY = "WORKER_DIRECTORY"


def main() -> None:
    """Wait for the line, then work until the runner hangs up."""
    for module in _PRELOADED:
        import_module(module)
    from pipelines.warm_up import warm_up
    from runners.flink.state_cache import weigh_by_bytes

    warm_up()
    weigh_by_bytes()
    from apache_beam.runners.worker import sdk_worker_main

    line = sys.stdin.readline()
    if not line:
        return  # the pool has ended
    os.environ.update(json.loads(line))
    if os.environ[DIRECTORY]:
        os.chdir(os.environ[DIRECTORY])
    print(READY, flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads there any more; prints go to the pool's log
    sdk_worker_main.main([])


if __name__ == "__main__":
    main()
