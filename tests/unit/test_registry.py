"""The registry: versions never change, aliases move one at a time, and what was tampered with is not served."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from model_artifacts.__main__ import main
from model_artifacts.aliases import Move, current, history, promote, rollback, standing
from model_artifacts.artifact import load_model
from model_artifacts.registry import Registry, open_registry
from model_artifacts.registry_uri import parse_registered, pin
from model_artifacts.signing import read_public_key, read_signing_key
from tests.small_models import make_model
from transforms.errors import UserError

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(str(tmp_path / "registry"))


@pytest.fixture
def add(tmp_path: Path, registry: Registry) -> Callable[..., str]:
    """Makes a model and adds it; its version."""

    def make(name: str, intercept: float = -3.0, key: Ed25519PrivateKey | None = None, **changed: Any) -> str:
        make_model(tmp_path / name, name, intercept, **changed)
        return registry.add(tmp_path / name, "ann", NOW, key).version

    return make


def name_it(registry: Registry, version: str) -> None:
    """Make a version the champion."""
    promote(registry, "champion", move(version), history(registry, "champion"))


def move(version: str) -> Move:
    return Move(action="promote", version=version, at="2026-11-01T00:00:00+00:00", by="ann")


def root(registry: Registry) -> Path:
    return Path(registry.url)


def test_a_version_is_the_model_that_was_added(add: Callable[..., str], registry: Registry, tmp_path: Path) -> None:
    """By its version and by its alias the registry gives the model of the directory, file by file as it was."""
    version = add("one")
    name_it(registry, version)
    for uri in (f"registry:{registry.url}#{version}", f"registry:{registry.url}#champion", f"registry:{registry.url}"):
        assert load_model(uri).manifest == load_model(str(tmp_path / "one")).manifest
    for file in ("model.onnx", "manifest.json", "MODEL_CARD.md", "plots/roc.png"):
        assert (root(registry) / "versions" / version / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


def test_adding_again_changes_nothing(add: Callable[..., str], registry: Registry) -> None:
    """The same directory twice is one version, with the time of the first."""
    version = add("one")
    before = {path: path.stat().st_mtime_ns for path in root(registry).rglob("*")}
    assert add("one") == version
    assert {path: path.stat().st_mtime_ns for path in root(registry).rglob("*")} == before


def test_a_version_is_never_changed(add: Callable[..., str], tmp_path: Path, registry: Registry) -> None:
    """Another model card or other thresholds under the same name are refused, and name the file."""
    add("one")
    (tmp_path / "one" / "MODEL_CARD.md").write_text("better than it is")
    with pytest.raises(UserError, match=r"MODEL_CARD\.md is there already and another one"):
        registry.add(tmp_path / "one", "bob", NOW)


def test_what_an_add_left_half_done_is_no_version(add: Callable[..., str], registry: Registry) -> None:
    """Without its index, which is written last, a version is not there; adding it again completes it."""
    version = add("one")
    (root(registry) / "versions" / version / "version.json").unlink()
    assert registry.versions() == []
    assert add("one") == version
    assert registry.versions() == [version]


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json", "MODEL_CARD.md", "plots/roc.png"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_file_that_was_tampered_with_is_found(
    add: Callable[..., str], registry: Registry, file: str, damage: str
) -> None:
    """Every file of a version is checked: one that was changed or removed is named."""
    version = add("one")
    path = root(registry) / "versions" / version / file
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + b"!")
    with pytest.raises(UserError, match=rf"{file} of version {version} (was changed|is missing)"):
        registry.verify(version)


def test_an_index_cannot_lead_out_of_the_registry(add: Callable[..., str], registry: Registry) -> None:
    """Names of files come from the registry; one that points elsewhere is refused before it is read."""
    version = add("one")
    path = root(registry) / "versions" / version / "version.json"
    index = msgspec.json.decode(path.read_bytes())
    index["files"]["plots/../../../../secret.png"] = index["files"]["model.onnx"]
    path.unlink()
    path.write_bytes(msgspec.json.encode(index))
    with pytest.raises(UserError, match="is not of this version"):
        registry.verify(version)


def test_one_model_cannot_stand_in_for_another(add: Callable[..., str], registry: Registry) -> None:
    """A version copied whole to another's name, signature and all, is refused."""
    one, two = add("one"), add("two")
    versions = root(registry) / "versions"
    shutil.rmtree(versions / two)
    shutil.copytree(versions / one, versions / two)
    with pytest.raises(UserError, match=f"version.json of version {two} is not of this version"):
        registry.model(two)


def test_signatures(add: Callable[..., str], registry: Registry) -> None:
    """A key's owner signs; without a signature, or with another's, a model is refused where a key is given."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signed, unsigned, foreign = add("signed", key=key), add("unsigned"), add("foreign", key=other)
    assert registry.model(signed, public).manifest.model_id == signed
    assert registry.model(unsigned).manifest.model_id == unsigned
    with pytest.raises(UserError, match=f"version {unsigned} is not signed"):
        registry.model(unsigned, public)
    with pytest.raises(UserError, match=f"signature of version {foreign} is not of the public key's owner"):
        registry.model(foreign, public)
    registry.sign(unsigned, key)
    assert registry.model(unsigned, public).manifest.model_id == unsigned


def test_a_signature_covers_every_file(add: Callable[..., str], registry: Registry) -> None:
    """Who changes a file and its sum in the index has a signature that no longer holds."""
    key = Ed25519PrivateKey.generate()
    version = add("one", key=key)
    path = root(registry) / "versions" / version / "version.json"
    index = msgspec.json.decode(path.read_bytes())
    index["by"] = "mallory"
    path.unlink()
    path.write_bytes(msgspec.json.encode(index))
    with pytest.raises(UserError, match="is not of the public key's owner"):
        registry.model(version, key.public_key().public_bytes_raw())


def test_keys_are_read_from_pem_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By flag or by environment; another kind of key, or no key, is refused without a byte of it in the message."""
    key, other = Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())
    private, public, wrong = (tmp_path / name for name in ("private.pem", "public.pem", "wrong.pem"))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    wrong.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert read_public_key(str(public)) == key.public_key().public_bytes_raw()
    assert read_public_key(None) is None
    monkeypatch.setenv("FRAUD_MODEL_SIGNING_KEY", str(private))
    assert read_signing_key(None) is not None
    for read, file in ((read_signing_key, wrong), (read_signing_key, public), (read_public_key, private)):
        with pytest.raises(UserError, match=f"^{file} holds ") as caught:
            read(str(file))
        assert "PRIVATE" not in str(caught.value)


def test_an_alias_goes_forth_and_back(add: Callable[..., str], registry: Registry) -> None:
    """Rollback undoes the last promotion, again the one before, and the history keeps every move."""
    one, two, three = add("one"), add("two"), add("three")
    for version in (one, two, three):
        name_it(registry, version)
    assert rollback(registry, "champion", "bob", NOW, "alerts").version == two
    assert rollback(registry, "champion", "bob", NOW).version == one
    with pytest.raises(UserError, match=f"no champion before {one}"):
        rollback(registry, "champion", "bob", NOW)
    name_it(registry, three)
    assert standing(history(registry, "champion")) == [three, one]
    assert [(each.action, each.version) for each in history(registry, "champion")] == [
        ("promote", one),
        ("promote", two),
        ("promote", three),
        ("rollback", two),
        ("rollback", one),
        ("promote", three),
    ]


def test_of_two_who_promote_at_once_one_is_told(add: Callable[..., str], registry: Registry) -> None:
    """Sixteen at once, round after round: each round one move is made, and the others hear of it."""
    versions = [add(f"m{n}") for n in range(16)]
    for round_ in range(3):
        before = history(registry, "champion")
        rest = [version for version in versions if [version] != standing(before)[:1]]
        told = _at_once(registry, rest, before)
        assert len(history(registry, "champion")) == round_ + 1
        assert len(told) == len(rest) - 1
        assert all("somebody else moved champion" in each for each in told)


def _at_once(registry: Registry, versions: list[str], before: list[Move]) -> list[str]:
    """Promote all of them at one moment; what those are told who did not get through."""
    told: list[str] = []
    gate = threading.Barrier(len(versions))

    def run(version: str) -> None:
        gate.wait()
        try:
            promote(registry, "champion", move(version), before)
        except UserError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_what_is_pinned_stays(add: Callable[..., str], registry: Registry) -> None:
    """An alias is pinned to the version it names now; a move later does not change what was pinned."""
    one, two = add("one"), add("two")
    name_it(registry, one)
    pinned = pin(f"registry:{registry.url}#champion")
    name_it(registry, two)
    assert pinned == f"registry:{registry.url}#{one}"
    assert load_model(pinned).manifest.model_id == one
    assert current(registry, "champion") == two
    assert pin("handbook") == "handbook"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("registry:", "write registry:DIRECTORY#champion"),
        ("registry:models#chmpion", "neither a version nor an alias .*did you mean champion"),
        ("registry:models#champion", "has no champion yet"),
        ("registry:models#one-0123456789ab", "has no version one-0123456789ab"),
        ("registry:models#../../etc-0123456789ab", "is no version"),
        ("registry:s3://x#champion", "no name of a bucket"),
        ("registry:s3://user:hunter2@bucket/models#champion", "would end up in logs"),
        ("registry:kafka://broker/topic#champion", "unknown scheme 'kafka'"),
    ],
)
def test_a_uri_that_leads_nowhere_is_told(uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a registry's URI is said; no message repeats a password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        load_model(uri)
    assert "hunter2" not in str(caught.value)


def test_parameters_of_the_bucket_stay_with_it() -> None:
    """Region and endpoint stand before the name."""
    parsed = parse_registered("registry:s3://bucket/models?region=eu-west-1&endpoint=http://127.0.0.1:7070#challenger")
    assert parsed.url == "s3://bucket/models?region=eu-west-1&endpoint=http://127.0.0.1:7070"
    assert (parsed.name, parsed.alias) == ("challenger", "challenger")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Add, promote, list, show, verify and roll back, with tables; a mistake is one line and exit code 2."""
    url = str(tmp_path / "registry")

    def run(*words: str, code: int = 0) -> str:
        assert main([*words, "--registry", url]) == code
        return "".join(capsys.readouterr())

    names = [make_model(tmp_path / name, name) for name in ("one", "two")]
    assert "holds no versions yet" in run("list")
    assert [run("add", str(tmp_path / name)).strip() for name in ("one", "two")] == names
    assert run("promote", names[0]) == f"champion is {names[0]}\n"
    assert run("promote", names[1], "--alias", "challenger") == f"challenger is {names[1]}\n"
    listed = {line.split()[0]: line.split()[-1] for line in run("list").splitlines()[1:]}
    assert listed == {names[0]: "champion", names[1]: "challenger"}
    assert "average_precision" in run("show", names[1])
    assert run("show", "champion", "--card") == f"# {names[0]}\n\n"
    assert "already" in run("promote", names[0], code=2)
    assert "without --evidence nobody knows how it does" in run("promote", "challenger", code=2)
    assert run("promote", "challenger", "--override", "urgent") == f"champion is {names[1]}\n"
    assert "urgent; OVERRIDDEN: without --evidence" in run("show", "champion")
    assert run("rollback") == f"champion is {names[0]} again\n"
    assert "did you mean" in run("show", names[0][:-1] + ("0" if names[0][-1] != "0" else "1"), code=2)
    assert run("verify").count("ok ") == 2
    card = tmp_path / "registry" / "versions" / names[0] / "MODEL_CARD.md"
    card.unlink()
    card.write_text("better than it is")
    assert f"BAD  {names[0]}" in run("verify", code=2)
    assert "no registry" in _error(capsys, ["list"])
    assert "see --help" in _error(capsys, ["lst", "--registry", url])


def _error(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == 2
    return capsys.readouterr().err
