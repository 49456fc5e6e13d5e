"""The list of an artifact's files, which is complete and closed: every file is named with its size and checksum.

    manifest: id, {name: size, SHA-256}  --names--> none more or less  --sizes--> none cut  --hashes--> none altered

The id is the SHA-256 over the names and checksums of all files but `metrics.json`, `README.md` and the manifest: equal
ids score equally. A file that the manifest does not name could change scores under the same id, so it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pydantic import Field

from lifelong.config import Record
from lifelong.errors import ArtifactError

FORMAT = "lifelong-artifact"
FORMAT_VERSION = 1
MANIFEST, METRICS, CARD = "manifest.json", "metrics.json", "README.md"
AGAIN = "copy the whole folder again, or train again"
"""What to do about a damaged artifact."""


class FileEntry(Record):
    """One file of an artifact."""

    size: int = Field(ge=0)
    sha256: str


class ArtifactManifest(Record):
    """The content of `manifest.json`."""

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    id: str
    files: dict[str, FileEntry]
    """Path below the folder, with `/` -> its size and checksum."""


def make_manifest(folder: Path) -> ArtifactManifest:
    """The manifest of the files below a folder."""
    files = {
        name: FileEntry(size=(folder / name).stat().st_size, sha256=file_checksum(folder / name))
        for name in sorted(_names(folder))
    }
    return ArtifactManifest(id=artifact_id(files), files=files)


def _instead(folder: Path) -> str:
    """What is where an artifact was expected."""
    if (folder / "dataset.json").is_file():
        return "is a dataset"
    if folder.is_dir():
        return "has no manifest.json"
    return "is a file" if folder.exists() else "does not exist"


def read_manifest(folder: Path) -> ArtifactManifest:
    """The manifest of an artifact.

    Raises:
        ArtifactError: there is none, it is not of an artifact, or of another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} {_instead(folder)}",
            expected="an artifact folder",
            fix="give the folder that `lifelong train --out` wrote",
        )
    try:
        # Format and version are looked at before the fields: another version may have other fields.
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ArtifactError(f"{path} is not of an artifact", expected=f'"format": "{FORMAT}"', fix="check the path")
        if document.get("format_version") != FORMAT_VERSION:
            raise ArtifactError(
                f"{folder} has artifact format {document.get('format_version')}",
                expected=f"{FORMAT_VERSION}, the format of this release",
                fix="train again with this release, or install the one that wrote it",
            )
        return ArtifactManifest.model_validate(document)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=AGAIN) from error


def check_files(folder: Path, manifest: ArtifactManifest, *, full: bool) -> None:
    """Compare the files of a folder with its manifest.

    Args:
        folder: the artifact's.
        manifest: its list.
        full: whether the content is compared too, which takes as long as reading all files and hashing them.

    Raises:
        ArtifactError: one is missing, truncated or altered, one is there that the manifest does not name, or the
            manifest itself was altered.
    """
    # First the list itself: what follows trusts its sizes and checksums.
    if artifact_id(manifest.files) != manifest.id:
        raise ArtifactError(f"{folder / MANIFEST} was altered: its id does not fit its checksums", fix=AGAIN)
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry, full=full)
    if foreign := sorted(_names(folder) - set(manifest.files)):
        raise ArtifactError(
            f"{folder / foreign[0]} is not in the manifest of its artifact"
            + (f", and neither are {len(foreign) - 1} more files" if foreign[1:] else ""),
            expected="the files that training wrote, and no other",
            fix="move it out of the folder, or copy the artifact again",
        )


def _check_file(folder: Path, name: str, entry: FileEntry, *, full: bool) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which is outside of the folder", fix=AGAIN)
    # The id is made of lines of names: one name of two lines would be two files.
    if relative.as_posix() != name or not name.isprintable():
        raise ArtifactError(f"{folder / MANIFEST} names {name!r}, which is not a file name", fix=AGAIN)
    path = folder / relative
    if not path.is_file() or name == MANIFEST:
        raise ArtifactError(f"{path} is missing", fix=AGAIN)
    # Before the checksum: it costs nothing, and says that a copy was cut off.
    size = path.stat().st_size
    if size != entry.size:
        what = "truncated" if size < entry.size else "altered"
        raise ArtifactError(f"{path} is {what}: {size} bytes", expected=f"{entry.size} bytes", fix=AGAIN)
    if full and file_checksum(path) != entry.sha256:
        raise ArtifactError(f"{path} was altered: its checksum differs from the manifest's", fix=AGAIN)


def _names(folder: Path) -> set[str]:
    """All files below an artifact's folder but the manifest; a link to a folder counts as a file."""
    return set(_below(folder)) - {MANIFEST}


def _below(folder: Path) -> Iterator[str]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from (f"{path.name}/{name}" for name in _below(path))
        else:
            yield path.name


def artifact_id(files: Mapping[str, FileEntry]) -> str:
    """SHA-256 over the names and checksums of the files, except metrics and model card.

    >>> entry = FileEntry(size=1, sha256="00")
    >>> artifact_id({"a": entry}) == artifact_id({"a": entry, "metrics.json": entry, "README.md": entry})
    True
    """
    # Sorted: the id must not depend on the order in which a file system lists names.
    lines = [f"{name} {entry.sha256}\n" for name, entry in sorted(files.items()) if name not in (METRICS, CARD)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
