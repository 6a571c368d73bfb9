"""A process that measures one case after the other, and is replaced when a case takes it down."""

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

FATAL = ("CUDA error", "device-side assert", "illegal memory")  # the process is of no use after


class Worker:
    """Runs functions in another process; a crash, a hang or a lost device costs one case only."""

    def __init__(self) -> None:
        self._running: tuple[Any, Any] | None = None

    def run(self, function: Callable[..., Any], *args: Any, seconds: float) -> dict[str, Any]:
        """What the function returns, or {"error": ...}."""
        process, pipe = self._running = self._running or _start()
        pipe.send((function, args))
        try:
            if not pipe.poll(seconds):
                self.stop()
                return {"error": f"no answer in {seconds:.0f} s"}
            result = pipe.recv()
        except (EOFError, OSError):
            process.join(5)
            code = process.exitcode
            self.stop()
            return {"error": f"the process died with code {code}"}
        if any(word in result.get("error", "") for word in FATAL):
            self.stop()
        return result

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._running is not None:
            process, _ = self._running
            process.kill()
            process.join()
            self._running = None


def _start() -> tuple[Any, Any]:
    """A process that serves, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other,), daemon=True)
    process.start()
    other.close()
    return process, pipe


def _serve(pipe: Any) -> None:
    while True:
        function, args = pipe.recv()
        try:
            result = function(*args)
        except Exception as error:  # any error at all is this case's row
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = (str(error).strip() or "no message").splitlines()[0]
            result = {"error": f"{type(error).__name__}: {text} ({place.name})"}
        pipe.send(result)
