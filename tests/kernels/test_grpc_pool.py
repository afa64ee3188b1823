"""A pool of threads with a bound on what waits for one."""

import threading

from kernels.grpc_pool import BoundedPool

WAIT_S = 30


def test_pool_runs_queues_and_then_refuses():
    """As many as it has threads and places; a place that comes free is taken again."""
    pool = BoundedPool(2, 3, "test")
    opened, done = threading.Event(), threading.Semaphore(0)

    def wait():
        opened.wait(WAIT_S)
        done.release()

    assert [pool.submit(wait) for _ in range(6)] == [True] * 5 + [False]
    opened.set()
    for _ in range(5):
        assert done.acquire(timeout=WAIT_S)
    ran = threading.Event()
    while not pool.submit(ran.set):
        pass  # the last place is given back just after the function has ended
    assert ran.wait(WAIT_S)
    pool.close()


def test_closed_pool_drops_what_waits():
    """What runs ends in its own time."""
    pool = BoundedPool(1, 3, "test")
    entered, opened, ran = threading.Event(), threading.Event(), []

    def wait():
        entered.set()
        opened.wait(WAIT_S)
        ran.append("first")

    pool.submit(wait)
    assert entered.wait(WAIT_S)
    pool.submit(ran.append, "second")
    pool.close()
    opened.set()
    pool._threads.shutdown(wait=True)
    assert ran == ["first"]
