"""What a server's metrics port answers, by that port's address."""

import urllib.request

TIMEOUT_S = 60.0


def read_page(address):
    """The text of /metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
        return answer.read().decode()


def read_samples(address):
    """The samples of /metrics, as {name with its labels: value}."""
    lines = [line for line in read_page(address).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
