"""Flink's REST interface, as far as jobs are submitted, watched, saved and stopped."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transforms.errors import UserError

_TIMEOUT = 30.0
_COUNTER = "beam:metric:user:sum_int64:v1"
_BOUNDARY = "fraud-detection-job-jar"
#: States in which a job is over for good.
ENDED = frozenset(("FINISHED", "CANCELED", "FAILED"))


class FlinkError(UserError):
    """Flink refused, or did not answer."""


@dataclass(frozen=True)
class FlinkRest:
    """A cluster by its REST address.

    Attributes:
        address: `host:port`, or a URL.
    """

    address: str

    @property
    def url(self) -> str:
        """Of the cluster, for people and for requests."""
        return self.address if "://" in self.address else f"http://{self.address}"

    def get(self, path: str) -> Any:
        """The answer to a GET, decoded.

        Raises:
            FlinkError: there was none, or it is an error.
        """
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(  # noqa: S310 - http(s), to where the user said Flink is
            f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - likewise
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise FlinkError(f"Flink at {self.url} refused {method} {path}: {_reason(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise FlinkError(
                f"no Flink answers at {self.url}: {getattr(error, 'reason', error)}; `python -m runners.flink up` "
                "starts one on this machine, --flink_master=HOST:PORT names another"
            ) from error
        return json.loads(content) if content else None

    def is_ready(self) -> bool:
        """Whether a JobManager answers and leads."""
        try:
            return bool(self.get("/overview"))
        except FlinkError:
            return False

    def taskmanagers(self) -> set[str]:
        """The identities of the TaskManagers that have registered; none where nobody answers."""
        try:
            return {each["id"] for each in self.get("/taskmanagers")["taskmanagers"]}
        except FlinkError:
            return set()

    def class_path(self) -> list[str]:
        """Of the JobManager's JVM: jars that need not come with a job."""
        found: list[str] = self.get("/jobmanager/environment")["classpath"]
        return found

    def slots(self) -> tuple[int, int]:
        """How many slots there are, and how many of them are free."""
        overview = self.get("/overview")
        return overview["slots-total"], overview["slots-available"]

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs the cluster knows, newest first: `jid`, `name`, `state`, `start-time`, `duration`."""
        found: list[dict[str, Any]] = self.get("/jobs/overview")["jobs"]
        return sorted(found, key=lambda job: -int(job["start-time"]))

    def job(self, job: str) -> dict[str, Any]:
        """A job: `state`, and its `vertices` with theirs."""
        found: dict[str, Any] = self.get(f"/jobs/{job}")
        return found

    def checkpoints(self, job: str) -> dict[str, Any]:
        """What is known of a job's checkpoints: `counts`, `summary`, `latest`, `history`."""
        found: dict[str, Any] = self.get(f"/jobs/{job}/checkpoints")
        return found

    def root_cause(self, job: str) -> str:
        """Why a job failed last, from the end of the chain of its causes; empty when it did not."""
        history = self.get(f"/jobs/{job}/exceptions?maxExceptions=1").get("exceptionHistory", {})
        entries = history.get("entries") or []
        return root_cause(entries[0]["stacktrace"]) if entries else ""

    def counters(self, job: str) -> dict[str, int]:
        """What Beam's user counters have come to: `namespace.name` to count, of a job that has ended."""
        found = self.get(f"/jobs/{job}/accumulators?includeSerializedValue=false")
        texts = [each["value"] for each in found["user-task-accumulators"] if each["name"] == "__metricscontainers"]
        return beam_counters(texts[0]) if texts else {}

    def upload(self, jar: Path) -> str:
        """Send a job jar; its id on the cluster.

        Raises:
            FlinkError: the cluster does not take it.
        """
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="jarfile"; filename="{jar.name}"\r\n'
            "Content-Type: application/java-archive\r\n\r\n"
        ).encode()
        tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
        scheme, _, place = self.url.partition("://")
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = kind(place.rstrip("/"), timeout=10 * _TIMEOUT)
        try:
            with jar.open("rb") as content:
                connection.putrequest("POST", "/jars/upload")
                connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
                connection.putheader("Content-Length", str(len(head) + jar.stat().st_size + len(tail)))
                connection.endheaders(head)
                connection.send(content)
                connection.send(tail)
                answer = connection.getresponse()
                text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise FlinkError(f"Flink at {self.url} did not take {jar}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise FlinkError(f"Flink at {self.url} did not take {jar}: {root_cause(text)}")
        return str(json.loads(text)["filename"]).rpartition("/")[2]

    def run(
        self,
        jar: str,
        configuration: Mapping[str, str],
        savepoint: str | None = None,
        allow_non_restored_state: bool = False,
    ) -> str:
        """Start the job of an uploaded jar; the job's id.

        Args:
            jar: as `upload` named it.
            configuration: Flink settings of this job.
            savepoint: a savepoint or a retained checkpoint it goes on from.
            allow_non_restored_state: whether state that no transform of the job has may be dropped.

        Raises:
            FlinkError: the job cannot be started.
        """
        body: dict[str, Any] = {"flinkConfiguration": dict(configuration)}
        if savepoint:
            body |= {"savepointPath": savepoint, "allowNonRestoredState": allow_non_restored_state}
        return str(self._ask("POST", f"/jars/{jar}/run", body)["jobid"])

    def delete(self, jar: str) -> None:
        """Remove an uploaded jar; a job that runs keeps its own copy."""
        self._ask("DELETE", f"/jars/{jar}")

    def cancel(self, job: str) -> None:
        """End a job at once, without a savepoint."""
        self._ask("PATCH", f"/jobs/{job}?mode=cancel")

    def savepoint(self, job: str, directory: str | None = None, stop: bool = False, patience: float = 300.0) -> str:
        """Write a savepoint and wait for it; where it is.

        Args:
            job: its id.
            directory: a URL that the cluster can write to; None for the configured one.
            stop: whether the job ends with it. Its sources are not drained: what they had not read, the next job reads.
            patience: seconds.

        Raises:
            FlinkError: it failed, or was not done in time.
        """
        where = {"target-directory" if not stop else "targetDirectory": directory} if directory else {}
        path, body = ("stop", {"drain": False, **where}) if stop else ("savepoints", {"cancel-job": False, **where})
        trigger = self._ask("POST", f"/jobs/{job}/{path}", body)["request-id"]

        def done() -> Any:
            answer = self.get(f"/jobs/{job}/savepoints/{trigger}")
            return answer["operation"] if answer["status"]["id"] == "COMPLETED" else None

        operation = wait_for(done, patience, f"a savepoint of job {job}")
        if "failure-cause" in operation:
            raise FlinkError(f"the savepoint failed: {root_cause(operation['failure-cause']['stack-trace'])}")
        return str(operation["location"])


def wait_for(ask: Callable[[], Any], patience: float, what: str, pause: float = 0.2) -> Any:
    """What `ask` returns as soon as it is something.

    Raises:
        FlinkError: it was nothing all the time.
    """
    deadline = time.monotonic() + patience
    while not (found := ask()):
        if time.monotonic() > deadline:
            raise FlinkError(f"{what} was not there after {patience:.0f} s")
        time.sleep(pause)
    return found


def root_cause(trace: str) -> str:
    r"""The last cause that a Java stack trace names, with what Python said if it came from there.

    Example:
        >>> root_cause("java.lang.RuntimeException: no\n\tat a.B\nCaused by: java.io.IOException: disk full\n\tat c.D")
        'java.io.IOException: disk full'
    """
    causes = trace.split("Caused by: ")
    lines = [line for line in causes[-1].splitlines() if not line.startswith(("\tat ", "\t... "))]
    return "\n".join(line for line in lines if line.strip()).strip() or trace.strip()


def beam_counters(text: str) -> dict[str, int]:
    """The user counters in the text that Beam's Flink runner makes of its metrics: monitoring information as JSON.

    Example:
        >>> one = {"urn": "beam:metric:user:sum_int64:v1", "payload": "rAI=", "labels": {"NAMESPACE": "a", "NAME": "b"}}
        >>> beam_counters(json.dumps({"metrics": {"attempted": [one, one]}}))
        {'a.b': 600}
    """
    found: dict[str, int] = {}
    for info in json.loads(text).get("metrics", {}).get("attempted", ()):
        if info["urn"] == _COUNTER:  # one for each transform that counts under the name
            name = f"{info['labels']['NAMESPACE']}.{info['labels']['NAME']}"
            found[name] = found.get(name, 0) + _varint(base64.b64decode(info["payload"]))
    return found


def _varint(payload: bytes) -> int:
    return sum((byte & 0x7F) << (7 * at) for at, byte in enumerate(payload))


def _reason(error: urllib.error.HTTPError) -> str:
    text = error.read().decode("utf-8", "replace")
    try:
        errors = json.loads(text)["errors"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {text[:500]}".strip()
    return root_cause("\n".join(errors))
