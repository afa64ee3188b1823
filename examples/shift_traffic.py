"""Moves the demonstration's traffic from version 1 to version 2 in steps, as an operator, and shows who answers.

Run it beside `sluice demo`: python examples/shift_traffic.py
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from service.admin import OperatorListener
from service.client import Client, Credentials
from service.deployment import Endpoint
from service.plan import GATEWAY, OPERATOR, Plan, derive_deployment
from service.traffic import Traffic

STEPS = (90, 50, 10, 0)
REQUESTS = 500


def main() -> None:
    """Shift, send, count; again and again."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--state-dir", type=Path, default=Path(".sluice"))
    parser.add_argument("--gateway", default=str(GATEWAY))
    parser.add_argument("--operator-port", type=int, default=OPERATOR.port)
    arguments = parser.parse_args()
    state = arguments.state_dir.resolve()
    plan = Plan(model_repository=state / "models", state_folder=state)
    operator = OperatorListener.of_state(Endpoint(OPERATOR.host, arguments.operator_port), plan.certificates)
    traffic = Traffic(derive_deployment(plan), operator)
    scan = np.load(state / "samples" / "digit.npy")
    with Client(arguments.gateway, Credentials.of_state(state)) as client:
        for weight in STEPS:
            traffic.shift("digits", {1: weight, 2: 100 - weight})
            counts = Counter(client.infer("digits", {"input": scan}).version for _ in range(REQUESTS))
            print(f"weights {weight}/{100 - weight}: version 1 answered {counts['1']}, version 2 {counts['2']}")


if __name__ == "__main__":
    main()
