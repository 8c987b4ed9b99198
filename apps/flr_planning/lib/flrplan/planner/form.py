"""A form with files, written to the disk as it comes in: a CT has hundreds of files, more than belong into memory or open at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from flrplan.errors import FlrError, SettingsError
from flrplan.planner.upload import Upload, is_wanted

_LONGEST_FIELD_BYTES, _MOST_FIELDS = 1000, 20
_LONGEST_SILENCE_SECONDS = 300.0


async def read_form(request: Request, upload: Upload) -> dict[str, str]:
    """The fields of a multipart form; its files go into ``upload``.

    Raises: SettingsError for another kind of request, or one that is cut off or damaged; what ``upload`` raises, once the whole form was read:
        a browser shows no answer that comes before it has sent all.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise SettingsError(f"expected a form with files (multipart/form-data), got {kind.decode('latin-1') or 'nothing'}")
    stream = _in_time(request.stream())
    try:
        with closing(_Form(boundary, upload)) as form:
            async for chunk in stream:
                await run_in_threadpool(form.parser.write, chunk)
    except FlrError:
        async for _ in stream:
            pass
        raise
    except FormParserError as error:
        raise SettingsError("the upload did not arrive whole; send it again") from error
    if not form.is_whole:
        raise SettingsError("the upload did not arrive whole; send it again")
    return {name: value.decode("utf-8", "replace").strip() for name, value in form.fields.items()}


async def _in_time(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What comes in. Raises: SettingsError where nothing does for long: of a browser that lost its network, no end is ever told."""
    while True:
        try:
            async with asyncio.timeout(_LONGEST_SILENCE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise SettingsError(
                f"nothing more of the upload arrived for {_LONGEST_SILENCE_SECONDS / 60:g} minutes; send it again"
            ) from None
        yield chunk


class _Form:
    def __init__(self, boundary: bytes, upload: Upload) -> None:
        self.fields: dict[str, bytearray] = {}
        self.is_whole = False
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self.close,
                "on_end": self._end,
            },
        )
        self._upload = upload
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._opened = ExitStack()
        self._field: bytearray | None = None
        self._file: IO[bytes] | None = None

    def close(self) -> None:
        """Ends the part that is being read."""
        self._field = self._file = None
        self._opened.close()

    def _begin(self) -> None:
        self._disposition = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        for part in self._header:
            part.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            self._field = self.fields.setdefault(options.get(b"name", b"").decode("utf-8", "replace"), bytearray())
            self._require_few()
        elif is_wanted(name := options[b"filename"].decode("utf-8", "replace")):
            self._file = self._opened.enter_context(self._upload.new_file(name))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._upload.write(self._file, data[start:end])
        elif self._field is not None:
            self._field.extend(data[start:end])
            self._require_few()

    def _require_few(self) -> None:
        if len(self._field or b"") > _LONGEST_FIELD_BYTES or len(self.fields) > _MOST_FIELDS:
            raise SettingsError(
                f"expected at most {_MOST_FIELDS} fields of {_LONGEST_FIELD_BYTES} letters in the form, got more; use the page's own form"
            )

    def _end(self) -> None:
        self.is_whole = True
