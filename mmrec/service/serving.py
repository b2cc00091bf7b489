"""The processes of a service: one that starts the others and follows signals, and workers that answer.

Workers are forked after the models and their encoders of words were loaded, so that they share their memory, and take
requests from one socket.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.context import ForkProcess
from types import FrameType

import pyarrow as pa
import uvicorn
from threadpoolctl import threadpool_limits

from mmrec.errors import MMRecError, ServiceError
from mmrec.searching import RecordedEncoders
from mmrec.service.app import create_app
from mmrec.service.config import ServiceConfig
from mmrec.service.model_users import ServedModel
from mmrec.service.observing import SHARED_FOLDER
from mmrec.service.resources import Resources, load_models, load_word_encoders

logger = logging.getLogger(__name__)
SECONDS_TO_FINISH = 30
BACKLOG = 2048
CHECK_SECONDS = 0.5
STOPS = (signal.SIGTERM, signal.SIGINT)
CANNOT_START = 3
"""How a worker exits that would come to the same end again."""


def serve(config: ServiceConfig) -> None:
    """Answer requests until SIGTERM or SIGINT; those that began are finished first.

    Raises `MMRecError` where the store or a model cannot be read, and where the port is taken.
    """
    listening = listen(config)
    models = load_models(config)
    if config.workers == 1:
        _run_worker(config, models, RecordedEncoders(), listening)
        return
    encoders = load_word_encoders(config)
    with tempfile.TemporaryDirectory(prefix="mmrec-figures-") as figures:
        os.environ[SHARED_FOLDER] = figures
        gc.freeze()  # so that the memory that the workers share is not copied by being looked through
        _Workers(config, models, encoders, listening).run()


def listen(config: ServiceConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, so that asyncio sends small answers at once, and not after the 40 ms of a delayed acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((config.host, config.port))
        listening.listen(BACKLOG)
    except OSError as error:
        raise ServiceError(f"cannot listen on {config.host} port {config.port}: {error.strerror or error}") from None
    host, port = listening.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    return listening


def _run_worker(
    config: ServiceConfig, models: Mapping[str, ServedModel], encoders: RecordedEncoders, listening: socket.socket
) -> None:
    """Requests are many: each of them takes one thread."""
    import torch

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    for sign in STOPS:  # uvicorn raises them again once it has stopped, which is no failure
        signal.signal(sign, lambda sign, frame: None)
    with threadpool_limits(1):
        options = uvicorn.Config(
            create_app(config, Resources(config, models, encoders)),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        uvicorn.Server(options).run(sockets=[listening])


class _Workers:
    """The processes that answer; one that dies is started again."""

    def __init__(
        self,
        config: ServiceConfig,
        models: Mapping[str, ServedModel],
        encoders: RecordedEncoders,
        listening: socket.socket,
    ) -> None:
        self._config, self._models, self._encoders, self._listening = config, models, encoders, listening
        self._context = multiprocessing.get_context("fork")
        self._processes: list[ForkProcess] = []
        self._stopping = threading.Event()

    def run(self) -> None:
        for sign in STOPS:
            signal.signal(sign, self._stop)
        self._processes = [self._start() for _ in range(self._config.workers)]
        while not self._stopping.wait(CHECK_SECONDS):
            dead = [process for process in self._processes if not process.is_alive()]
            if any(process.exitcode == CANNOT_START for process in dead):
                self._end()
                raise ServiceError("the workers cannot start; the line above says why")
            for process in dead:
                logger.error("a worker died with exit code %s and is started again", process.exitcode)
                self._processes[self._processes.index(process)] = self._start()
        self._end()

    def _start(self) -> ForkProcess:
        process = self._context.Process(target=self._work, name="mmrec-worker")
        process.start()
        return process

    def _work(self) -> None:
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
        try:
            _run_worker(self._config, self._models, self._encoders, self._listening)
        except MMRecError as error:
            logger.error("%s", error)
            os._exit(CANNOT_START)

    def _stop(self, sign: int, frame: FrameType | None) -> None:
        self._stopping.set()

    def _end(self) -> None:
        """Let the workers finish what they are at."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(SECONDS_TO_FINISH + 5)
            if process.is_alive():
                process.kill()
                process.join()


def _exit_with_parent(parent: int) -> None:
    """Where the parent was killed, nobody would end its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
