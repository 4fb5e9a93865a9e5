"""Workers that start at once: one process imports everything, and forks for each that is asked for.

Most of what a worker's start costs is imports. Whoever starts hundreds of them, as tests do, has them made here; each
is then a process of its own like any other, run by the same `rapport` command, and dies with the one that forked it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

from deploy.dev.broker import die_with_parent

ROOT = Path(__file__).parents[2]


class Running(Protocol):
    """A process that was started: what is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Launcher(Protocol):
    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        """Start `rapport ...` with exactly this environment; what it says is appended to `log`."""
        ...


class Spawning:
    """Starts each process as a user would."""

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Running:
        with open(log, "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "services", *arguments],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A process group of its own: Ctrl-C reaches us alone, and we stop them in order.
                process_group=0,
                preexec_fn=die_with_parent,
            )


class Forked:
    """A process that the preloaded one has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.over = threading.Event()

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        if not self.over.wait(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        assert self.code is not None
        return self.code

    def send_signal(self, sig: int) -> None:
        if self.code is None:
            # It may have ended, and nobody told us yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class Preloaded:
    """The process that forks. `with Preloaded() as launcher:`; `environment` is what it is itself started with."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()
        self._answered = threading.Condition()
        self._answers: list[int] = []
        self._forked: dict[int, Forked] = {}

    def __enter__(self) -> Preloaded:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.dev.preloaded"],
            cwd=ROOT,
            env=None if self._environment is None else dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=(self._process.stdout,), name="preloaded", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends what still runs, too."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        assert self._process is not None
        assert self._process.stdin is not None
        with self._asking:
            wish = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
            with self._answered:
                if not self._answered.wait_for(lambda: self._answers, 300):
                    raise RuntimeError("the process that forks does not answer.")
                return self._forked[self._answers.pop()]

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                said = json.loads(line)
                if "begun" in said:
                    with self._answered:
                        self._forked[said["begun"]] = Forked(said["begun"])
                        self._answers.append(said["begun"])
                        self._answered.notify()
                else:
                    self._end(said["ended"], said["code"])
        for pid in list(self._forked):
            self._end(pid, -signal.SIGKILL)

    def _end(self, pid: int, code: int) -> None:
        forked = self._forked.pop(pid)
        forked.code = code
        forked.over.set()


def main() -> None:
    _import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # or the children's collections would copy every page
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != 0:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(key.data, 0)
                    _say(ended=key.data, code=os.waitstatus_to_exitcode(status))
                    continue
                read = os.read(0, 1 << 20)
                if not read:
                    return
                *wishes, pending = (pending + read).split(b"\n")
                for wish in wishes:
                    pid = _fork(**json.loads(wish))
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                    _say(begun=pid)


def _import_everything() -> None:
    for name in ("services.__main__", "services.embedded", "shared.log.kafka"):
        importlib.import_module(name)


def _say(**what: int) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _fork(arguments: list[str], environment: dict[str, str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        _become(arguments, environment, log)
    return pid


def _become(arguments: list[str], environment: dict[str, str], log: str) -> NoReturn:
    code: Any = 1
    try:
        die_with_parent()
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGUSR1, _tell_where)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 4096)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["rapport", *arguments]
        from services.__main__ import app

        app(arguments, prog_name="rapport")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _tell_where(number: int, frame: Any) -> None:
    """Asked by SIGUSR1 what it waits for, a worker writes where each of its tasks stands."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
