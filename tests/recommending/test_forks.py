"""Servers that load a model and then fork, as gunicorn --preload and Celery do: the children rank."""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np
import pytest
import torch

from mmrec.recommending.recommender import Recommender

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")


def rank(model: Recommender) -> np.ndarray:
    return model.recommend(model.user_ids, k=5)[0]


def test_a_model_used_before_the_fork_ranks_in_the_child(model: Recommender) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        (torch.rand(512, 512) @ torch.rand(512, 512)).sort()  # wakes the threads that the child will not have
        expected = rank(model)
        context = multiprocessing.get_context("fork")
        answers = context.SimpleQueue()
        child = context.Process(target=lambda: answers.put((torch.get_num_threads(), rank(model).tolist())))
        child.start()
        limit = time.monotonic() + 60
        while answers.empty() and child.is_alive() and time.monotonic() < limit:
            time.sleep(0.05)
        assert not answers.empty(), "the child hangs"
        assert answers.get() == (1, expected.tolist())
        assert torch.get_num_threads() == 4
    finally:
        child.kill()
        child.join()
        torch.set_num_threads(before)
