"""service.access_calls: no method of the server is forgotten."""

from service.access_calls import CALLS, SERVICE
from service.access_policy import ACTIONS


def test_every_method_is_there_with_fields_that_its_request_has():
    """A method that is added to the contract must be given an action first."""
    own = {path: call for path, call in CALLS.items() if path.startswith(f"/{SERVICE.full_name}/")}
    assert {path.rpartition("/")[2] for path in own} == {method.name for method in SERVICE.methods}
    for path, call in own.items():
        fields = SERVICE.methods_by_name[path.rpartition("/")[2]].input_type.fields_by_name
        assert {call.model_field, call.version_field} - {None} <= set(fields)


def test_requests_that_name_a_model_are_known_by_it():
    """Only the shared memory's `name` is none of a model."""
    for method in SERVICE.methods:
        fields = set(method.input_type.fields_by_name) & {"model_name", "name"}
        expected = None if "SharedMemory" in method.name else next(iter(fields), None)
        assert CALLS[f"/{SERVICE.full_name}/{method.name}"].model_field == expected


def test_actions_are_those_of_the_policy():
    """Others than these are decided on beside the method."""
    beside = {"pin", "load_override", "traffic", "admin"}
    assert {call.action for call in CALLS.values() if call.action} == set(ACTIONS) - beside
