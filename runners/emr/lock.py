"""The lock as the nodes of a cluster need it: for their Python and processor, not those of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.requirements import Requirement

from transforms.errors import UserError

#: EMR 7 is Amazon Linux 2023, whose own package of Python 3.11 stands beside the one its tools use.
PYTHON = "3.11"
ARCHITECTURES = ("x86_64", "aarch64")
#: glibc 2.34 and older ones, by the names that wheels have for them.
_GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")


def platforms(architecture: str) -> list[str]:
    """The names of platforms whose wheels run on Amazon Linux 2023.

    Example:
        >>> platforms("x86_64")[0], platforms("aarch64")[-1]
        ('manylinux_2_34_x86_64', 'manylinux2014_aarch64')
    """
    return [*(f"manylinux_{glibc}_{architecture}" for glibc in _GLIBC), f"manylinux2014_{architecture}"]


def node_requirements(lock: str, architecture: str) -> str:
    r"""The pins of a lock that count on a node, with their hashes and without their conditions.

    Args:
        lock: the text of `requirements.txt`.
        architecture: one of `ARCHITECTURES`.

    Raises:
        UserError: a pin has no hash, or the lock holds none.

    Example:
        >>> hashed = "--hash=sha256:00"
        >>> lock = f"a==1 ; sys_platform == 'linux' \\\n    {hashed}\nb==2 ; sys_platform != 'linux' \\\n    {hashed}\n"
        >>> print(node_requirements(lock, "x86_64"), end="")
        a==1 --hash=sha256:00
    """
    environment = _environment(architecture)
    kept = []
    for line in lock.replace("\\\n", " ").splitlines():
        if not re.match(r"\w", line):
            continue  # a comment, an option
        pin, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        requirement = Requirement(pin)
        if not hashes:
            raise UserError(f"the lock pins {requirement.name} without a hash: make it with `make lock`")
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            kept.append(" ".join([f"{requirement.name}{requirement.specifier}", *hashes]))
    if not kept:
        raise UserError("the lock pins nothing: it is requirements.txt of the project's checkout, made by `make lock`")
    return "".join(f"{line}\n" for line in kept)


def _environment(architecture: str) -> Mapping[str, str]:
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": architecture,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
        "extra": "",
    }
