"""The error tree: every class has an HTTP status, a stable type and a message safe to send.

CamserveError
├── RequestError            one row's fault; its neighbours are answered
│   ├── InvalidOption   400 an option, its name or its value
│   ├── InvalidRequest  400 a body we cannot read: JSON, base64, too many instances
│   ├── MissingImage    400 no picture in the request
│   ├── TooLarge        413 more pixels, a longer side, a narrower shape or more parts than the limits
│   ├── UnsupportedFormat 415 not an image format we read
│   ├── Undecodable     422 the right format, but broken
│   └── InternalError   500 our fault; the details are in the log
├── SetupError              the model must not be served; stops the worker with one sentence
├── NetworkLost             it computes no more; ends the worker, so that another is started
└── StackError              the processes around it could not be started, or ended
"""

from __future__ import annotations

from typing import Self


class CamserveError(Exception):
    """Root of everything camserve raises on purpose."""


class RequestError(CamserveError):
    """One row cannot be answered; `str(error)` is sent to the client."""

    status = 400
    phrase = "Bad Request"

    @property
    def type(self) -> str:
        """The stable name clients may switch on."""
        return type(self).__name__

    def bare(self) -> Self:
        """Itself as a value: without the frames that raised it, which hold the picture and its whole batch."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class InvalidOption(RequestError):
    """An unknown option, or a value that is not allowed."""


class InvalidRequest(RequestError):
    """A body that cannot be read."""


class MissingImage(RequestError):
    """There is no picture in the request."""


class TooLarge(RequestError):
    """The picture passes a size limit."""

    status = 413
    phrase = "Content Too Large"


class UnsupportedFormat(RequestError):
    """The bytes are not an image format we read."""

    status = 415
    phrase = "Unsupported Media Type"


class Undecodable(RequestError):
    """The format is known, the picture is broken."""

    status = 422
    phrase = "Unprocessable Content"


class InternalError(RequestError):
    """A fault of ours. The message carries no detail; the log does."""

    status = 500
    phrase = "Internal Server Error"

    def __init__(self) -> None:
        super().__init__("The request could not be answered; the server's log has the reason.")


class SetupError(CamserveError):
    """The model or its settings would give wrong answers, so the worker does not start."""


class NetworkLost(CamserveError):
    """The network fails at whatever it is given, as after a fault of the GPU."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The network fails at whatever it is given ({reason}); start anew and look at the GPU.")


class StackError(CamserveError):
    """One plain sentence: why the processes could not be started, did not get ready, or ended."""


def quoted(value: object, limit: int = 60) -> str:
    """A client's value for an error text: printable ASCII, at most `limit` characters."""
    try:
        text = ascii(value[:limit] if isinstance(value, str | bytes) else value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
