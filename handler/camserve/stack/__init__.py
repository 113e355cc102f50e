"""TorchServe and the gateway as local processes: start, wait until a model answers, watch, stop.

Only the standard library and psutil are imported here, so that the command line's first line appears at once.
"""

from camserve.stack.commands import serve, start, stop
from camserve.stack.errors import StackError
from camserve.stack.ports import Ports
from camserve.stack.processes import Stack

__all__ = ["Ports", "Stack", "StackError", "serve", "start", "stop"]
