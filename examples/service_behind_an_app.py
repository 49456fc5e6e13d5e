# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["lifelong[train,serve,client]"]
#
# [tool.uv.sources]
# lifelong = { path = ".." }
# ///
"""A shop's page behind which the service runs: events go in as they happen, and every page is ranked by them.

uv run examples/service_behind_an_app.py
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

import lifelong
from lifelong.client import Client


class Shop:
    """What an app does with the service: two calls."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def bought(self, user: str, item: str, number: int) -> None:
        """Tell the service at once; the id makes a repeated message harmless."""
        self.client.events([lifelong.UserEvent(user, item, int(time.time()), event_id=f"order-{number}")])

    def page(self, user: str, candidates: list[str]) -> dict[str, float]:
        """The candidates and their scores, best first."""
        scores = self.client.score(lifelong.ScoreRequest(user, candidates)).scores
        return {one.item: round(one.score, 3) for one in sorted(scores, key=lambda one: -one.score)}


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
    with served(artifact) as address, Client(address) as client:
        shop = Shop(client)
        print("before:", shop.page("new customer", candidates))
        for number, item in enumerate(["i3", "i4", "i3"]):
            shop.bought("new customer", item, number)
        print("after: ", shop.page("new customer", candidates))


if __name__ == "__main__":
    main()
