"""Neuronpedia's public bucket: anonymous S3 over HTTPS, listed page by page, downloaded into a cache, resumable.

The layout: <url>/v1/<model>/<sae_path>/explanations/*.jsonl.gz.
"""

import contextlib
import difflib
import hashlib
import json
import os
import time
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from src.artifacts import disk_errors, write_json
from src.artifacts.files import make_folder
from src.artifacts.locks import locked
from src.errors import StrataError
from src.features.explaining.web import PassingError, Patience, WebError, fetch, open_url, persistently, reading

VERSION = "v1"
_BLOCK = 2**20
_MOST_PAGES = 10_000
_MOST_FILE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class RemoteFile:
    """A file of the bucket. etag: without quotes; the MD5 of a file that was uploaded in one piece."""

    key: str
    size: int
    etag: str

    @property
    def cached_name(self) -> str:
        """Its name in the cache folder."""
        return self.key.replace("/", "_")

    @property
    def md5(self) -> str | None:
        """MD5 of the contents, where the etag tells it."""
        return self.etag if len(self.etag) == 32 and "-" not in self.etag else None


@dataclass(frozen=True)
class Bucket:
    """A public bucket that is read without credentials. sleep: for tests."""

    url: str
    patience: Patience
    sleep: Callable[[float], None] = time.sleep

    def files(self, prefix: str) -> list[RemoteFile]:
        """All files whose key begins with the prefix, in the bucket's order (ListObjectsV2, all its pages).

        Raises WebError if the bucket can't be reached, StrataError if its answer is no listing.
        """
        return self._list(prefix, "")[0]

    def folders(self, prefix: str) -> list[str]:
        """The names that follow a prefix, up to the next slash."""
        return [path.removeprefix(prefix).rstrip("/") for path in self._list(prefix, "/")[1]]

    def _list(self, prefix: str, delimiter: str) -> tuple[list[RemoteFile], list[str]]:
        files: list[RemoteFile] = []
        folders: list[str] = []
        token = None
        for _ in range(_MOST_PAGES):
            query = {"list-type": "2", "prefix": prefix}
            query |= {"delimiter": delimiter} if delimiter else {}
            query |= {"continuation-token": token} if token else {}
            address = f"{self.url.rstrip('/')}/?{urllib.parse.urlencode(query)}"
            page = _read_listing(fetch(urllib.request.Request(address), self.patience, sleep=self.sleep), address)
            files += page.files
            folders += page.folders
            if page.next_token is None:
                return files, folders
            if page.next_token == token:
                break
            token = page.next_token
        raise StrataError(f"{self.url} lists {prefix} without an end: is it the right neuronpedia.url?")

    def download(self, file: RemoteFile, folder: Path, advance: Callable[[int], None] = lambda _: None) -> Path:
        """A file in the cache folder, whole and checked; what is there already is not downloaded again.

        What a broken connection or a killed process left is continued. advance: is told the bytes as they come.

        Raises WebError when all attempts fail, StrataError for contents that are not what the listing says.
        """
        if file.size > _MOST_FILE_BYTES:
            raise StrataError(f"{self.url}/{file.key} has {file.size:,} bytes: explanations are smaller")
        make_folder(folder)
        path = folder / file.cached_name
        # processes that share a cache take turns
        with disk_errors(path), locked(folder):
            if is_cached(file, folder):
                advance(file.size)
                return path
            part = folder / f"{file.cached_name}.part"
            _keep_only_own_part(part, file.etag)
            address = f"{self.url.rstrip('/')}/{urllib.parse.quote(file.key)}"
            persistently(lambda: self._go_on(address, file, part, advance), address, self.patience, self.sleep)
            os.replace(part, path)
            _etag_note(path).write_text(file.etag, encoding="utf-8")
            _etag_note(part).unlink(missing_ok=True)
        return path

    def _go_on(self, address: str, file: RemoteFile, part: Path, advance: Callable[[int], None]) -> None:
        """Download what a partial file lacks."""
        begun = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(address)
        if begun:
            request.add_header("Range", f"bytes={begun}-")
            request.add_header("If-Range", f'"{file.etag}"')
        if begun < file.size or file.size == 0:
            try:
                response = open_url(request, self.patience)
            except WebError as error:
                if error.status == 416:
                    part.unlink()
                    raise PassingError("the server can't go on where the download broke off") from None
                raise
            with response:
                is_rest = response.status == 206 and _starts_at(response.headers.get("Content-Range", ""), begun)
                if response.status == 206 and not is_rest:
                    part.unlink()
                    raise PassingError("the server sent another part than was asked for")
                with part.open("ab" if is_rest else "wb") as target:
                    while block := reading(lambda: response.read(_BLOCK)):
                        target.write(block)
                        advance(len(block))
                        if target.tell() > file.size:
                            break
        _refuse_other_contents(part, file)


def is_cached(file: RemoteFile, folder: Path) -> bool:
    """Whether a file lies in the cache as the listing has it: by size, and by MD5 or by the etag that it came with."""
    path = folder / file.cached_name
    try:
        if path.stat().st_size != file.size:
            return False
        if file.md5 is not None:
            return _md5(path) == file.md5
        return _etag_note(path).read_text(encoding="utf-8") == file.etag
    except OSError:
        return False


def listed_files(bucket: Bucket, model: str, sae_path: str, folder: Path) -> tuple[list[RemoteFile], bool]:
    """The explanation files of an SAE, and whether the listing comes from the cache for want of a network.

    Raises StrataError if Neuronpedia has none (with the nearest names that it has), or it is out of reach and neither
    the listing nor all of its files are in the cache.
    """
    prefix = f"{VERSION}/{model}/{sae_path}/explanations/"
    kept = folder / f"{prefix.replace('/', '_')}listing.json"
    try:
        files = [file for file in bucket.files(prefix) if file.key.endswith(".jsonl.gz")]
    except WebError as error:
        files = _kept_listing(kept)
        if error.status is None and files and all(is_cached(file, folder) for file in files):
            return files, True
        raise StrataError(
            f"Neuronpedia's bucket can't be read: {error}. Check the network (HTTPS_PROXY is heeded) and "
            f"neuronpedia.url; what was downloaded so far stays in {folder}. Without explanations: sae_path=null"
        ) from None
    if not files:
        raise StrataError(_nothing_there(bucket, model, sae_path, prefix))
    make_folder(folder)
    with disk_errors(kept):
        write_json(kept, [asdict(file) for file in files])
    return files, False


def _kept_listing(path: Path) -> list[RemoteFile]:
    try:
        return [RemoteFile(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _nothing_there(bucket: Bucket, model: str, sae_path: str, prefix: str) -> str:
    """The message for a prefix without files, with the names that come nearest."""
    for place, name, key in ((VERSION, model, "neuronpedia.model"), (f"{VERSION}/{model}", sae_path, "sae_path")):
        there = bucket.folders(f"{place}/")
        if name not in there:
            near = difflib.get_close_matches(name, there, n=4, cutoff=0.3) or there[:4]
            has = f"among the {len(there)} there are {', '.join(near)}" if there else f"there is no {place}"
            return f"Neuronpedia has no {place}/{name} (key {key}): {has}"
    return f"Neuronpedia has no explanations of {model}/{sae_path}: there is no .jsonl.gz under {prefix}"


@dataclass(frozen=True)
class _Page:
    files: list[RemoteFile]
    folders: list[str]
    next_token: str | None


def _read_listing(content: bytes, address: str) -> _Page:
    try:
        # entities could blow a few bytes up to gigabytes, and S3 uses none
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it has a document type")
        root = ElementTree.fromstring(content)
        if _local(root.tag) != "ListBucketResult":
            raise ValueError(f"it is a {_local(root.tag)}")
        contents = [_texts(item) for item in root if _local(item.tag) == "Contents"]
        files = [RemoteFile(item["Key"], int(item["Size"]), item["ETag"].strip('"')) for item in contents]
        folders = [_texts(item)["Prefix"] for item in root if _local(item.tag) == "CommonPrefixes"]
        whole = _texts(root)
        more = whole.get("IsTruncated", "false") == "true"
        return _Page(files, folders, whole["NextContinuationToken"] if more else None)
    except (ElementTree.ParseError, ValueError, KeyError) as error:
        raise StrataError(
            f"{address} answers with something else than the listing of a bucket ({type(error).__name__}: {error}): "
            "check neuronpedia.url, and whether a proxy or a login page stands in between"
        ) from None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _texts(element: ElementTree.Element) -> dict[str, str]:
    return {_local(child.tag): child.text or "" for child in element}


def _etag_note(path: Path) -> Path:
    return path.with_name(f"{path.name}.etag")


def _keep_only_own_part(part: Path, etag: str) -> None:
    """What was begun of another version of a file is of no use."""
    note = _etag_note(part)
    with contextlib.suppress(OSError):
        if note.read_text(encoding="utf-8") == etag:
            return
    part.unlink(missing_ok=True)
    note.write_text(etag, encoding="utf-8")


def _starts_at(content_range: str, begun: int) -> bool:
    return content_range.startswith(f"bytes {begun}-")


def _refuse_other_contents(part: Path, file: RemoteFile) -> None:
    size = part.stat().st_size
    if size < file.size:
        raise PassingError(f"the connection ended after {size:,} of {file.size:,} bytes")
    if size > file.size or (file.md5 is not None and _md5(part) != file.md5):
        part.unlink()
        found = f"{size:,} bytes or more" if size > file.size else "other contents"
        raise PassingError(f"the download has {found}, and the listing says {file.size:,} bytes with etag {file.etag}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
