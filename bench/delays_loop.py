"""A process with an engine whose models wait, sampled beside bare timers."""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from bench.loops import answer_commands, read_settings
from bench.processes import Loop

WINDOW = 64
BUSY_REQUESTS = 512
INSTANCES = 64


class DelaysLoop(Loop):
    """Loads `tiny` once for each delay, once without and once where it is skipped, and a model that is kept busy."""

    def __init__(self, models: dict[str, str], *, delays_us: Sequence[int], skipped_us: int):
        super().__init__(__name__, {"models": models, "delays_us": list(delays_us), "skipped_us": skipped_us})

    def sample(self, kind: str, delay_us: int, times: int) -> dict[str, list[int]]:
        """Nanoseconds of ours (`late`) and of what it is compared with (`bare`), taken in turn."""
        return self.run(kind=kind, delay_us=delay_us, times=times)


def main() -> None:
    """Load the models, then sample what is asked for."""
    from bench.models import encode_rows
    from kernels.bare_timer import expire_request, fire_timerfd
    from kernels.closed_loop import drive_engine
    from kernels.engine import Engine
    from kernels.queue_options import QueueOptions
    from kernels.runtime import configure_runtime
    from kernels.session import Session
    from service.pb.open_inference_pb2 import ModelInferRequest, ModelInferResponse

    settings = read_settings()
    configure_runtime(intra_op_threads=1)
    engine = Engine()
    tiny, busy = (Session(settings["models"][name]) for name in ("tiny", "busy"))
    for delay_us in (0, *settings["delays_us"]):
        engine.load(f"tiny{delay_us}", 1, tiny, max_batch_size=8, queue_delay_us=delay_us)
    alone = QueueOptions(skips_delay_alone=True)
    engine.load("alone", 1, tiny, max_batch_size=8, queue_delay_us=settings["skipped_us"], queueing=alone)
    # What would be late is to wait here, and to expire.
    patient = QueueOptions(refuses_late=False)
    engine.load("busy", 1, busy, max_batch_size=1, instance_count=INSTANCES, queueing=patient)

    def wait_in_queue(name: str) -> int:
        """How long a request that comes alone is in the queue."""
        request = ModelInferRequest.FromString(encode_rows(name, (1, 16)))
        request.parameters["server_timing"].bool_param = True
        reply = ModelInferResponse.FromString(engine.infer(request.SerializeToString()))
        return reply.parameters["server_timing.queue_ns"].int64_param

    def sample(ours: Callable[[], int], theirs: Callable[[], int], times: int) -> dict[str, list[int]]:
        pairs = [(ours(), theirs()) for _ in range(times)]
        return {"late": [late for late, _ in pairs], "bare": [bare for _, bare in pairs]}

    def run(*, kind: str, delay_us: int, times: int) -> dict[str, Any]:
        if kind == "delay":
            name = f"tiny{delay_us}"
            return sample(lambda: wait_in_queue(name) - delay_us * 1000, lambda: fire_timerfd(delay_us), times)
        if kind == "alone":
            return sample(lambda: wait_in_queue("alone"), lambda: wait_in_queue("tiny0"), times)
        message, is_over = encode_rows("busy", (1, 4)), []

        def expire() -> int:
            while True:
                try:
                    return expire_request(engine, message, delay_us)
                except RuntimeError:
                    # It was answered: the load had come to the end of a round.
                    continue

        def drive() -> None:
            drive_engine(engine, [message], BUSY_REQUESTS, WINDOW)

        rounds = Thread(target=keep_busy, args=(drive, is_over))
        rounds.start()
        try:
            return sample(expire, lambda: fire_timerfd(delay_us), times)
        finally:
            is_over.append(True)
            rounds.join()

    answer_commands(run)
    engine.close()


def keep_busy(drive: Callable[[], object], is_over: list[bool]) -> None:
    """Drive until something is in the list."""
    while not is_over:
        drive()


if __name__ == "__main__":
    main()
