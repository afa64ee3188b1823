"""A deployment that cannot be is refused with a text that says what was expected."""

import pytest

from service.deployment import (
    Deployment,
    DeploymentError,
    Endpoint,
    Version,
    assign_weights,
    cluster_name,
    parse_weights,
    runtime_key,
)

ONE, TWO = Endpoint("127.0.0.1", 8001), Endpoint("127.0.0.1", 8002)


def deploy(models=None, **options):
    """A deployment of `digits` in two versions, or of `models`."""
    defaults = {"gateway": Endpoint("127.0.0.1", 8443), "operator": Endpoint("127.0.0.1", 9443), "certificates": None}
    return Deployment(
        models={"digits": {2: Version(10, (TWO, ONE)), 1: Version(90, (ONE,))}} if models is None else models,
        **{**defaults, **options},
    )


@pytest.mark.parametrize("name", ["digits", "Digits-2.0_b", "_x", "7", "a" * 128])
def test_deployment_with_safe_name_is_accepted(name):
    """Names of letters, digits, dots, dashes and underscores pass."""
    assert list(deploy({name: {1: Version(1, (ONE,))}}).models) == [name]


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".x", "a/b", "a@1", "a:1", "a b", "a\n", "é", "a" * 129, "a%41"])
def test_deployment_with_unsafe_name_is_refused(name):
    """A name that could be read as anything else, in a path or a key, does not pass."""
    with pytest.raises(DeploymentError, match="expected a name"):
        deploy({name: {1: Version(1, (ONE,))}})


@pytest.mark.parametrize("weight", [-1, 1_000_001, 1.0, "1", True, None])
def test_deployment_with_weight_that_is_none_is_refused(weight):
    """A weight is a whole number from 0 on."""
    with pytest.raises(DeploymentError, match=r"model 'digits' version 1: expected as weight a whole number"):
        deploy({"digits": {1: Version(weight, (ONE,)), 2: Version(1, (ONE,))}})


@pytest.mark.parametrize("number", [0, -1, 10**18, "1", 1.0, True])
def test_deployment_with_version_that_is_none_is_refused(number):
    """A version is a whole number above 0."""
    with pytest.raises(DeploymentError, match="expected a version number"):
        deploy({"digits": {number: Version(1, (ONE,))}})


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({}, "at least one model"),
        ({"digits": {}}, "at least one version"),
        ({"digits": {1: Version(0, (ONE,)), 2: Version(0, (ONE,))}}, "above 0 for at least one version"),
        ({"digits": {1: Version(1, ())}}, "at least one endpoint and each once, given none"),
        ({"digits": {1: Version(1, (ONE, ONE))}}, "each once, given 127.0.0.1:8001, 127.0.0.1:8001"),
    ],
)
def test_deployment_that_leads_nowhere_is_refused(models, words):
    """There is always somewhere to send a call."""
    with pytest.raises(DeploymentError, match=words):
        deploy(models)


def test_deployment_with_both_listeners_in_one_place_is_refused():
    """Clients and operators come in by different doors."""
    with pytest.raises(DeploymentError, match=r"two endpoints, given 127\.0\.0\.1:8001 for both"):
        deploy(gateway=ONE, operator=ONE)


@pytest.mark.parametrize(("host", "port"), [("", 1), ("127.0.0.1", 0), ("127.0.0.1", 65536)])
def test_endpoint_that_is_none_is_refused(host, port):
    """An endpoint has a host and a port."""
    with pytest.raises(DeploymentError, match="endpoint"):
        Endpoint(host, port)


def test_deployment_cannot_be_changed_from_outside():
    """What was given may change later; the deployment does not."""
    versions = {1: Version(1, (ONE,))}
    deployment = deploy({"digits": versions})
    versions[2] = Version(1, (ONE,))
    assert list(deployment.versions("digits")) == [1]
    with pytest.raises(TypeError):
        deployment.models["digits"][1] = Version(2, (ONE,))


def test_deployment_lists_versions_in_order_and_each_endpoint_once():
    """The order in which they were given does not matter."""
    assert deploy().weights("digits") == {1: 90, 2: 10}
    assert deploy().endpoints == (ONE, TWO)


def test_with_weights_changes_only_the_named():
    """The others stay, and so does the original."""
    deployment = deploy()
    assert deployment.with_weights("digits", {2: 30}).weights("digits") == {1: 90, 2: 30}
    assert deployment.weights("digits") == {1: 90, 2: 10}


@pytest.mark.parametrize(("model", "weights"), [("letters", {1: 1}), ("digits", {3: 1}), ("digits", {1: 0, 2: 0})])
def test_with_weights_that_cannot_be_is_refused(model, weights):
    """The same rules hold for a change."""
    with pytest.raises(DeploymentError):
        deploy().with_weights(model, weights)


def test_assign_weights_gives_all_to_the_highest_number():
    """By number, not by the order given."""
    assert assign_weights([10, 9, 1]) == {1: 0, 9: 0, 10: 100}


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("digits:1=90,2=10", ("digits", {1: 90, 2: 10})), ("a.b-c: 3 = 0 , 4=1", ("a.b-c", {3: 0, 4: 1}))],
)
def test_parse_weights_reads_what_is_typed(text, parsed):
    """Model, then versions with their weights."""
    assert parse_weights(text) == parsed


@pytest.mark.parametrize("text", ["", "digits", "digits:", "1=2", "digits:1", "digits:1=-1", "digits:1=1,1=2", "d:1=½"])
def test_parse_weights_of_anything_else_is_refused(text):
    """The text that was given is shown."""
    with pytest.raises(DeploymentError, match="weights: expected"):
        parse_weights(text)


def test_names_of_clusters_and_keys_cannot_meet():
    """Model `a` version 11 and model `a@1` version 1 would, if the latter were a name."""
    names = {cluster_name(model, number) for model in ("a", "a.1", "a-1") for number in (1, 11)}
    assert len(names) == 6
    assert runtime_key("digits", 1) == "sluice.weights.digits.digits@1"
