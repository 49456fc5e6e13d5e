"""A shop's page behind which the service runs: events go in as they happen, and every page is ranked by them.

python examples/service_behind_an_app.py
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import uvicorn

import lifelong


class Shop:
    """What an app does with the service: two calls of HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def bought(self, user: str, item: str, number: int) -> None:
        """Tell the service at once; the id makes a repeated message harmless."""
        event = {"user": user, "item": item, "time": int(time.time()), "event_id": f"order-{number}"}
        self._post("/v1/events", {"events": [event]})

    def page(self, user: str, candidates: list[str]) -> dict[str, float]:
        """The candidates and their scores, best first."""
        scores = self._post("/v1/score", {"user": user, "items": candidates})["scores"]
        best_first = sorted(scores, key=lambda score: -score["score"])
        return {score["item"]: round(score["score"], 3) for score in best_first}

    def _post(self, path: str, body: Any) -> Any:
        headers = {"content-type": "application/json"}
        with urlopen(Request(self.address + path, json.dumps(body).encode(), headers), timeout=10) as reply:
            return json.load(reply)


@contextmanager
def served(artifact: lifelong.Artifact) -> Iterator[str]:
    """The service in a thread, for this example alone: in production it is `lifelong serve`."""
    store = lifelong.open_store("memory://")
    config = uvicorn.Config(lifelong.create_app(artifact, store), port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        store.close()


def main() -> None:
    """Train, serve, buy, look: the scores change at once; how much, and the order, is what the model has learned."""
    dataset = lifelong.prepare("synthetic", out="data", world="lag", users=60, overwrite=True)
    artifact = lifelong.train(dataset, "hpmn", epochs=1, progress=False, overwrite=True)
    candidates = ["i1", "i2", "i3", "i4"]
    with served(artifact) as address:
        shop = Shop(address)
        print("before:", shop.page("new customer", candidates))
        for number, item in enumerate(["i3", "i4", "i3"]):
            shop.bought("new customer", item, number)
        print("after: ", shop.page("new customer", candidates))


if __name__ == "__main__":
    main()
