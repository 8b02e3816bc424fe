"""Fetches a file over HTTP and resumes an interrupted download.

NAME.part beside the file's place holds the bytes received so far, and NAME.part.json what shows
whether the server still has the same file. The file appears in its place when it is whole, has the
pinned digest, and its content fits its name.
"""

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson
import pooch
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

from eval.data.files import read_bytes, read_json, read_jsonl
from eval.data.pictures import picture_fault
from eval.errors import DataError
from eval.storage.digests import sha256_file
from eval.storage.reading import parse_json
from eval.storage.writing import write_file

pooch.get_logger().setLevel("ERROR")  # our own messages say the same

PIECE = 1 << 20  # bytes
FILE_BYTES = 4_000_000_000  # limit of a file that is not an archive
TRIES = 5  # in a row that gain no byte
SAVED = 1.02  # free space that is required, as a multiple of the bytes to fetch
BUSY = (429, 500, 502, 503, 504)  # statuses that may change soon
TEXTS = (".csv", ".tsv", ".txt")
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all or None


@dataclass(frozen=True, slots=True)
class Begun:
    """What the server said about the file that NAME.part begins.

    validator  its strong ETag, or its date; empty without either
    bytes      of the whole file, or None
    """

    url: str
    validator: str
    bytes: int | None


class Fetcher:
    """Fetches files, over connections that are kept.

    backoff_s  seconds before the second retry, doubled for each further one
    timeout_s  seconds without a byte until a connection counts as broken
    threads    number of threads that may fetch at once
    """

    def __init__(
        self, *, backoff_s: float = 1.0, timeout_s: float = 60.0, threads: int = 1
    ) -> None:
        self._again = Retry(
            total=TRIES,
            backoff_factor=backoff_s,
            backoff_max=60,
            status_forcelist=BUSY,
            raise_on_status=False,  # the last answer is a better message than "too many"
            retry_after_max=60,
        )
        self._timeout_s = timeout_s
        self._session = _Session()
        self._session.headers["User-Agent"] = "qwen-vl-eval"
        self._session.headers["Accept-Encoding"] = "identity"  # the bytes of the file count
        self._session.max_redirects = 10
        adapter = HTTPAdapter(max_retries=self._again, pool_maxsize=threads)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def fetch(
        self,
        url: str,
        path: Path,
        *,
        sha256: str | None = None,
        limit: int = FILE_BYTES,
        progress: Progress | None = None,
    ) -> str:
        """Download the URL to `path`, where no file is yet. Returns its hexadecimal SHA-256.

        sha256  digest that the file must have
        limit   largest size in bytes

        Raises DataError, naming the URL, for every failure of network or server; bytes that are
        still valid are kept for the next try. Pillow may warn of a picture; see `quiet`.
        """
        part = path.with_name(f"{path.name}.part")

        def download(_url: str, place: str, _pooch: Any) -> None:
            Path(place).unlink()  # pooch's empty file would remain if we were killed
            self._receive_all(url, part, limit, progress)
            if sha256 is None:
                _check_content(part, path, url)
            # A second name: a kill while pooch reads the file for its digest loses nothing.
            try:
                Path(place).hardlink_to(part)
            except OSError:  # the file system has no hard links
                part.replace(place)

        try:
            pooch.retrieve(
                url,
                f"sha256:{sha256}" if sha256 else None,
                fname=path.name,
                path=path.parent,
                downloader=download,
            )
        except ValueError as error:  # only pooch's own: the digest is another
            _forget(part)
            raise DataError(
                f"{url}: not the file that was fetched before, and not kept: {error} If it was "
                "changed for a reason, delete its entry in the lock file"
            ) from None
        _forget(part)
        return sha256 or sha256_file(path, limit)

    def _receive_all(self, url: str, part: Path, limit: int, progress: Progress | None) -> None:
        """Receive until the part is the whole file; retry while each try gains bytes."""
        again, most = self._again, _size(part)
        while True:
            try:
                return self._receive(url, part, limit, progress)
            except (_Broken, requests.RequestException, HTTPError) as error:
                if _size(part) > most:
                    again, most = self._again, _size(part)
                try:
                    again = again.increment("GET", url, error=HTTPError(str(error)))
                except MaxRetryError:
                    kept = f" {_size(part):,} bytes are kept;" if _size(part) else ""
                    raise ServerUnreachable(
                        f"{url}: the connection broke {TRIES + 1} times ({error}).{kept} the same "
                        "command goes on"
                    ) from error
                again.sleep()

    def _receive(self, url: str, part: Path, limit: int, progress: Progress | None) -> None:
        """Receive the rest of the part, or the whole file if it cannot be continued."""
        begun = _read_notes(part)
        have = _size(part) if begun and begun.url == url else 0
        if begun and have and have == begun.bytes:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        if begun and have and begun.validator:
            headers["If-Range"] = begun.validator
        with self._open(url, headers) as answer:
            if have and not _continues(answer, have, begun):
                if answer.status_code != HTTPStatus.OK:
                    _forget(part)  # the server has another file now, or cannot send a part
                    raise _Broken(f"status {answer.status_code} to a request for the rest")
                have = 0
            total = _total(answer, have)
            encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
            _check_room(url, part, have, total, limit)
            if not have:
                _forget(part)
                if not encoded:  # a decoded body cannot be resumed
                    notes = Begun(url, _validator(answer), total)
                    content = orjson.dumps(asdict(notes))
                    write_file(_notes(part), content, error=DataError, durable=False)
            with part.open("ab") as file:
                for piece in _pieces(answer, encoded):
                    file.write(piece)
                    have += len(piece)
                    if have > limit:
                        _forget(part)
                        raise DataError(f"{url}: more than {limit:,} bytes; it was not kept")
                    if progress:
                        progress(have, total)
        if total is not None and have != total and not encoded:
            raise _Broken(f"{have:,} of {total:,} bytes came")

    def _open(self, url: str, headers: dict[str, str]) -> requests.Response:
        """The server's answer, if it is a file. Connecting is retried."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise DataError(f"{url}: an http or https URL expected")
        try:
            answer = self._session.get(
                url, headers=headers, stream=True, timeout=(20, self._timeout_s)
            )
        except requests.RequestException as error:
            raise ServerUnreachable(
                f"{url}: cannot be reached ({_reason(error)}). Is the network up? Try again later; "
                "what has come so far is kept"
            ) from error
        if answer.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) or (
            headers and answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        ):
            return answer
        answer.close()
        later = answer.status_code in BUSY
        advice = "Try again later" if later else "Has it moved? Then fetch it by hand"
        raise DataError(f"{url}: the server answers {answer.status_code} {answer.reason}. {advice}")


class ServerUnreachable(DataError):
    """A server that cannot be reached; other files of it will fail too."""


class _Broken(Exception):
    """A body that ended too soon, or an answer that does not continue the part."""


class _Session(requests.Session):
    """Follows a redirect only if it keeps the scheme or leads from http to https."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """The target of a redirect, or None."""
        target: str | None = super().get_redirect_target(resp)
        if target is not None:
            before, after = urlsplit(resp.url).scheme, urlsplit(urljoin(resp.url, target)).scheme
            if (before, after) not in (("http", "http"), ("http", "https"), ("https", "https")):
                raise DataError(f"{resp.url}: redirects to {target}, which is not https")
        return target


def _pieces(answer: requests.Response, encoded: bool) -> Iterator[bytes]:
    """The body as it arrives: waiting for a whole piece would lose it if the connection breaks."""
    if encoded:
        yield from answer.iter_content(PIECE)
        return
    while piece := answer.raw.read1(PIECE, decode_content=False):
        yield piece


def _continues(answer: requests.Response, have: int, begun: Begun | None) -> bool:
    """Whether an answer is the rest of the begun file."""
    stated = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""), re.ASCII
    )
    return (
        begun is not None
        and answer.status_code == HTTPStatus.PARTIAL_CONTENT
        and stated is not None
        and int(stated[1]) == have
        and (begun.bytes is None or stated[2] in ("*", str(begun.bytes)))
        and _validator(answer) in ("", begun.validator)
    )


def _total(answer: requests.Response, have: int) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return have + int(length) if re.fullmatch("[0-9]{1,18}", length, re.ASCII) else None


def _validator(answer: requests.Response) -> str:
    """A validator for If-Range, which takes no weak tags."""
    tag: str = answer.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    date: str = answer.headers.get("Last-Modified", "")
    return date


def _check_room(url: str, part: Path, have: int, total: int | None, limit: int) -> None:
    if total is None:
        return
    if total > limit:
        raise DataError(f"{url}: at most {limit:,} bytes expected, {total:,} offered")
    free = shutil.disk_usage(part.parent).free
    if (total - have) * SAVED > free:
        raise DataError(
            f"{url}: {total - have:,} bytes to fetch, {free:,} free below {part.parent}. Make room"
        )


def _check_content(part: Path, path: Path, url: str) -> None:
    """Check that the content fits the name: some servers send a page for a missing file."""
    kind = path.suffix.lower()
    try:
        if not _size(part):
            raise ValueError("nothing")
        if kind == ".json":
            parse_json(read_bytes(part), "its content", DataError)
        elif kind == ".jsonl":
            for _ in read_jsonl(part):
                pass
        elif kind in TEXTS:
            begun = False
            with part.open(encoding="utf-8-sig", newline="") as text:
                while piece := text.read(PIECE):
                    if not begun and piece.lstrip()[:1] == "<":
                        raise ValueError("a web page")
                    begun = begun or bool(piece.strip())
                if not begun:
                    raise ValueError("nothing but white space")
                if kind == ".csv":
                    text.seek(0)
                    for _ in csv.reader(text, strict=True):
                        pass
        elif kind in PICTURES and (fault := picture_fault(part)):
            raise ValueError(fault)
    except (DataError, ValueError, csv.Error) as error:
        _forget(part)
        raise DataError(
            f"{url}: a file {kind} expected, something else came and was not kept ({error}). "
            "Try again later, or fetch it by hand"
        ) from None


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path) -> Begun | None:
    """What is known of the part, or None if an interruption left nothing valid."""
    try:
        notes = read_json(_notes(part))
        total = notes.integer("bytes") if notes.has("bytes") else None
        return Begun(notes.text("url"), notes.text("validator"), total)
    except DataError:
        return None


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in one line; the outer ones only wrap it."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__
