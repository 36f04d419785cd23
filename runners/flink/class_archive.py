"""Archives of a JVM's classes: what one JVM has loaded and verified, the next maps into memory instead.

Java calls it class data sharing (JEP 350). Flink and Beam load some fifteen thousand classes before a job's first
record; an archive halves the processor time of that. It is made by the first process of its kind that ends in peace,
beside its log, and kept in the cache of servers by whoever stopped it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from runners.local.cache import cache_directory

_SUFFIX = ".classes.jsa"


def with_class_archive(argv: Sequence[str], name: str, directory: Path) -> tuple[str, ...]:
    """A JVM's command line that uses the archive of such JVMs or, where there is none yet, has one written.

    An archive belongs to one Java and one class path. A JVM that cannot use one starts without.

    Args:
        argv: the JVM, then all that it gets.
        name: of the kind of process.
        directory: of this process, for the archive that it writes when it ends.
    """
    java = os.path.realpath(argv[0])
    path = argv[argv.index("-cp") + 1]
    belongs_to = f"{java} {os.stat(java).st_mtime_ns} {path}"
    file = f"{name}-{hashlib.sha256(belongs_to.encode()).hexdigest()[:12]}{_SUFFIX}"
    kept = cache_directory() / file
    use = f"-XX:SharedArchiveFile={kept}" if kept.exists() else f"-XX:ArchiveClassesAtExit={directory / file}"
    # Java 11 cannot write one; and every class that does not fit into an archive would be a warning.
    return (argv[0], "-XX:+IgnoreUnrecognizedVMOptions", use, "-Xlog:cds*=off", *argv[1:])


def keep_class_archives(directory: Path) -> None:
    """Keep what an ended process has written for those that come after it; the first of a kind is kept.

    Where the cache cannot be written the next ones start without, as this one did.
    """
    for written in directory.glob(f"*{_SUFFIX}"):
        kept = cache_directory() / written.name
        if _is_whole(written) and not kept.exists():
            aside = kept.with_name(f".{kept.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(OSError):
                shutil.move(written, aside)  # the cache may be on another disk
                aside.replace(kept)
            aside.unlink(missing_ok=True)
        written.unlink(missing_ok=True)


def _is_whole(archive: Path) -> bool:
    """Whether the JVM came to its end with it: it writes the head last."""
    with archive.open("rb") as file:
        return any(file.read(4))
