"""TorchServe and the gateway as local processes: start, wait until a model answers, start again what ends, stop.

Only the standard library and psutil are imported here, so that the command line's first line appears at once.
"""

from camserve.stack.commands import serve, start, stop
from camserve.stack.ports import Ports
from camserve.stack.processes import Stack

__all__ = ["Ports", "Stack", "serve", "start", "stop"]
