"""PostgreSQL, as the machine's package manager installs it."""

from __future__ import annotations

import glob
import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg
from psycopg import sql

from runners.local.ports import HOST
from runners.local.processes import Command
from runners.local.server import Server
from runners.local.tools import run_program
from transforms.errors import UserError

DATABASE, USER, SUPERUSER = "fraud", "fraud", "postgres"
#: Where package managers put the server's programs without putting them on the PATH.
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
#: PostgreSQL refuses to run as root; these it may run as.
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Postgres(Server):
    """A PostgreSQL server with a database `fraud` that the user `fraud` owns, and passwords made for it.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "postgres"
    default_port: ClassVar[int] = 5432
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # ends it without waiting for its clients to leave

    @property
    def url(self) -> str:
        """Of the database, as the pipeline and every PostgreSQL client take it; the password is in `passfile`."""
        return f"postgresql://{USER}@{self.address}/{DATABASE}"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--sink", f"{self.url}/public/decisions?create=true")]

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PGPASSFILE": str(self.passfile)}

    @property
    def passfile(self) -> Path:
        """A file of passwords that PostgreSQL's clients read."""
        return self.directory / "pgpass"

    @property
    def password(self) -> str:
        """Of the user `fraud`."""
        return self._passwords()[USER]

    @property
    def data(self) -> Path:
        """The server's own directory."""
        return self.directory / "data"

    def connect(self, user: str = USER, database: str = DATABASE, **options: Any) -> psycopg.Connection[Any]:
        """A connection.

        Args:
            user: `fraud`, or `postgres` who may do everything.
            database: to work in.
            options: `psycopg.connect`'s own.

        Raises:
            psycopg.OperationalError: it does not run.
        """
        password = self._passwords()[user]
        return psycopg.connect(host=HOST, port=self.port, user=user, password=password, dbname=database, **options)

    def install(self) -> Path:
        return find_postgres()

    def command(self, installation: Path) -> Command:
        user = _account()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(installation, user)
        elif not self.passfile.exists():
            raise UserError(
                f"{self.passfile} is gone, and with it the passwords of the data beside it; "
                "bring it back, or begin anew: `down postgres --purge`"
            )
        self._write_passfile(self._passwords())
        settings = {"listen_addresses": HOST, "port": self.port, "unix_socket_directories": ""}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        data = self.data
        return Command((str(installation / "postgres"), "-D", str(data), *flags), data, user=user)

    def answers(self) -> bool:
        try:
            self.connect(SUPERUSER, "postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False  # not yet: it is asked again
        return True

    def prepare(self) -> None:
        with self.connect(SUPERUSER, "postgres", autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [USER]).fetchone():
                role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(role.format(sql.Identifier(USER), sql.Literal(self.password)))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                database = sql.SQL("CREATE DATABASE {} OWNER {}")
                connection.execute(database.format(sql.Identifier(DATABASE), sql.Identifier(USER)))

    def _initialise(self, installation: Path, user: str | None) -> None:
        """Make the data directory. What an attempt that was cut short has left is no data of anybody's."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if user is not None:
            shutil.chown(self.data, user)
            self._refuse_unreachable(user)
        passwords = {name: secrets.token_urlsafe(24) for name in (SUPERUSER, USER)}
        self._write_passfile(passwords)
        # initdb wants an empty directory, and its user must be able to read the password: so beside the data.
        password = self.directory / "initial-password"
        password.write_text(passwords[SUPERUSER] + "\n", "utf-8")
        password.chmod(0o600)
        if user is not None:
            shutil.chown(password, user)
        argv = [str(installation / "initdb"), "--pgdata", str(self.data), "--username", SUPERUSER]
        options = ["--no-locale", "--encoding", "UTF8", "--auth", "scram-sha-256", "--pwfile", str(password)]
        try:
            run_program([*argv, *options], "preparing PostgreSQL", self.data, user=user)
        finally:
            password.unlink()

    def _refuse_unreachable(self, user: str) -> None:
        try:
            run_program(["/bin/sh", "-c", 'cd -- "$0"', self.data], "", Path("/"), user=user)
        except UserError as error:
            raise UserError(
                f"PostgreSQL refuses to run as root, and the user {user} cannot reach {self.data}: "
                "name a --directory whose parents all may enter, or run this as another user"
            ) from error

    def _passwords(self) -> dict[str, str]:
        lines = self.passfile.read_text("utf-8").splitlines()
        return {user: password for _, _, _, user, password in (line.split(":") for line in lines)}

    def _write_passfile(self, passwords: Mapping[str, str]) -> None:
        aside = self.passfile.with_name(".pgpass")
        aside.touch(0o600)
        aside.write_text("".join(f"{HOST}:{self.port}:*:{user}:{word}\n" for user, word in passwords.items()), "utf-8")
        aside.replace(self.passfile)


def find_postgres() -> Path:
    """The directory with the server's programs, the newest when there are several and none is on the PATH.

    Raises:
        UserError: there is none.
    """
    on_path = shutil.which("initdb")
    if on_path is not None and _is_complete(Path(on_path).resolve().parent):
        return Path(on_path).resolve().parent
    found = [Path(path) for place in _PLACES for path in glob.glob(place) if _is_complete(Path(path))]
    if not found:
        raise UserError(
            "postgres needs the PostgreSQL server, whose initdb is neither on the PATH nor in "
            f"{', '.join(_PLACES)}: apt install postgresql, or brew install postgresql"
        )
    return max(found, key=_version)


def _is_complete(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("initdb", "postgres"))


def _version(directory: Path) -> int:
    """The major version that a path such as /usr/lib/postgresql/15/bin names."""
    digits = "".join(character for character in directory.parent.name if character.isdigit())
    return int(digits or 0)


def _account() -> str | None:
    """As whom the server has to run; None for ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return name
    raise UserError(f"PostgreSQL refuses to run as root, and there is no user {' or '.join(_UNPRIVILEGED)}: add one")
