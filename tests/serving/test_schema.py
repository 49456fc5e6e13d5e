"""Random requests made from the OpenAPI document: no fault, only documented answers, wrong ones refused."""

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is of the dev extra")
from hypothesis import HealthCheck, given, settings  # noqa: E402

from lifelong.online.serving.settings import ServiceSettings  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.full]

PATHS = [
    ("POST", "/v1/events"),
    ("POST", "/v1/score"),
    ("POST", "/v1/explain"),
    ("PUT", "/v1/items"),
    ("DELETE", "/v1/items/{item}"),
    ("GET", "/v1/users/{user}/features"),
    ("GET", "/v1/users/{user}/memory"),
    ("GET", "/v1/users/{user}/history"),
    ("GET", "/v1/users/{user}/cells"),
    ("GET", "/v1/users/{user}/top"),
    ("GET", "/v1/users"),
    ("GET", "/v1/catalogue"),
    ("GET", "/v1/model"),
    ("DELETE", "/v1/users/{user}/memory"),
    ("GET", "/v1/admin/artifacts"),
    ("POST", "/v1/admin/artifacts"),
    ("DELETE", "/v1/admin/artifacts/{artifact}"),
    ("POST", "/v1/admin/switch"),
    ("GET", "/v1/admin/users/{user}"),
    ("DELETE", "/v1/admin/users/{user}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
]


@pytest.fixture
def client(make_client):
    # The document cannot say how far ahead of the clock an event may be: the clock moves.
    return make_client(settings=ServiceSettings(max_ahead=10_000_000))


@pytest.fixture
def operations(client):
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method.upper(), operation.path): operation for operation in found}


def test_every_operation_is_tried(operations):
    assert set(operations) == set(PATHS)


def test_operations_and_schemas_have_names_for_people(client):
    document = client.get("/openapi.json").json()
    named = {
        operation["operationId"]: (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert len(named) == len(PATHS) and all("v1" not in name and "__" not in name for name in named)
    assert named["score"] == ("POST", "/v1/score") and named["get_top"] == ("GET", "/v1/users/{user}/top")
    assert {"events", "explain", "switch", "add_artifact", "delete_user"} <= set(named)
    schemas = document["components"]["schemas"]
    assert {"ScoreRequestBody", "ScoreRequestsBody", "ScoreReply", "ScoreReplies", "EventsBody"} <= set(schemas)
    assert not [name for name in schemas if name.startswith(("One", "Many"))]


def keeps_to_its_document(client, operation, mode):
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        sent = case.as_transport_kwargs(base_url="http://service")
        del sent["cookies"]
        if isinstance(sent.get("data"), str | bytes):
            sent["content"] = sent.pop("data")
        answer = client.request(sent.pop("method"), sent.pop("url"), **sent)
        case.validate_response(schemathesis.Response.from_httpx(answer, verify=False))

    check()


@pytest.mark.parametrize("operation", PATHS, ids=" ".join)
def test_requests_that_fit_the_document_are_served(operation, operations, client):
    keeps_to_its_document(client, operations[operation], schemathesis.GenerationMode.POSITIVE)


# A request without body and parameters cannot be wrong.
TAKES_NOTHING = {("GET", "/v1/admin/artifacts"), ("GET", "/v1/model"), ("GET", "/v1/artifacts")}
TAKING = [path for path in PATHS if path[1].startswith("/v1/") and path not in TAKES_NOTHING]


@pytest.mark.parametrize("operation", TAKING, ids=" ".join)
def test_requests_that_do_not_fit_the_document_are_refused(operation, operations, client):
    keeps_to_its_document(client, operations[operation], schemathesis.GenerationMode.NEGATIVE)
