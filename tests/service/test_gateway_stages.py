"""service.gateway_stages: whatever changes, no route ever leads to a cluster that is not there, nor to no version."""

import dataclasses
import functools
import itertools
from pathlib import Path

import pytest
import yaml

from service.access_policy import AccessPolicy, Grant, Issuer, RemoteKeys, Role, TokenCondition
from service.control_plan import Planner
from service.control_settings import ControlSettings
from service.deployment import Deployment, Endpoint, Version
from service.follower import CLIENT, GATEWAY, Place
from service.gateway import render
from service.gateway_stages import join_deployments, plan_stages
from service.limits import Limits, LimitService
from service.localities import Locality
from service.model_routing import CallKey, Routing, Shadow

HOST = "127.0.0.1"
ONE, TWO, THREE = (Endpoint(HOST, 8000 + number) for number in (1, 2, 3))


def deploy(routing=None, **models):
    """A deployment of models, each {version: (weight, endpoint)}, and what is said of `digits` besides."""
    return Deployment(
        routing={"digits": routing} if routing else {},
        localities={ONE: Locality("eu"), TWO: Locality("us")},
        models={
            model: {number: Version(weight, (endpoint,)) for number, (weight, endpoint) in versions.items()}
            for model, versions in models.items()
        },
        gateway=Endpoint(HOST, 8443),
        operator=Endpoint(HOST, 9443),
        certificates=Path("/certs"),
    )


DEPLOYMENTS = {
    "one version": deploy(digits={1: (100, ONE)}),
    "a second without weight": deploy(digits={1: (100, ONE), 2: (0, TWO)}),
    "split": deploy(digits={1: (90, ONE), 2: (10, TWO)}),
    "the second alone": deploy(digits={2: (1, TWO)}),
    "the other way round": deploy(digits={1: (0, ONE), 2: (7, TWO)}),
    "elsewhere": deploy(digits={1: (100, THREE)}),
    "another model": deploy(letters={1: (1, ONE)}),
    "two models": deploy(digits={2: (1, TWO), 3: (1, THREE)}, letters={1: (1, ONE)}),
}
# By every one of the others and all of them: what calls have besides weights comes, changes and goes.
ROUTED = {
    "shadow": deploy(Routing(shadow=Shadow(2, 5)), digits={1: (100, ONE), 2: (0, TWO)}),
    "another shadow": deploy(Routing(shadow=Shadow(1, 5)), digits={1: (0, ONE), 2: (10, TWO)}),
    "sticky": deploy(Routing(sticky=CallKey(header="x-user")), digits={1: (90, ONE), 2: (10, TWO)}),
    "sequences": deploy(Routing(affinity=CallKey(header="x-id")), digits={2: (60, TWO), 3: (40, THREE)}),
    "region": deploy(Routing(regions=("eu",)), digits={1: (7, ONE)}),
    "other region": deploy(Routing(regions=("us",)), digits={2: (7, TWO)}),
}
DEPLOYMENTS |= ROUTED


def make_access(name, **fields):
    """A policy that believes one issuer's tokens."""
    return AccessPolicy(
        issuers={name: Issuer(issuer=f"https://{name}.example.org", audiences=("sluice",), **fields)},
        roles={"user": Role(("*",), ("infer",))},
        grants=(Grant("user", token=TokenCondition(name)),),
    )


KEYS = RemoteKeys("https://127.0.0.1:9000/keys", Path("/certs/keys.pem"))
BY_CLAIM = {"digits": Routing(sticky=CallKey(claim="sub"))}
# Issuers, those who stay by their claims, and models that clients reach without a gateway come, change and go.
DEPLOYMENTS |= {
    "tokens": dataclasses.replace(DEPLOYMENTS["split"], access=make_access("login", keys=KEYS)),
    "sticky by claim": dataclasses.replace(
        DEPLOYMENTS["split"], routing=BY_CLAIM, access=make_access("login", keys=KEYS)
    ),
    "sticky by another's claim": dataclasses.replace(
        DEPLOYMENTS["split"], routing=BY_CLAIM, access=make_access("partner", keys='{"keys": []}')
    ),
    "direct": dataclasses.replace(deploy(digits={1: (1, ONE)}), control=ControlSettings(direct=("digits",))),
    "direct at a new version": dataclasses.replace(
        deploy(digits={2: (1, ONE)}), control=ControlSettings(direct=("digits",))
    ),
    "not direct": dataclasses.replace(deploy(digits={2: (1, ONE)}), control=ControlSettings()),
}
PAIRS = list(itertools.permutations(DEPLOYMENTS, 2))


def read_resources(files, name):
    """The resources of one file."""
    return parse(files[f"envoy/{name}.yaml"])["resources"]


@functools.cache
def parse(text):
    """A file's content; the same few texts come again and again."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def list_splits(files):
    """Of each route its model, None for those of no split, and its clusters by weight, as Envoy would draw."""
    layer = read_resources(files, "runtime")[0]["layer"]
    for route in read_resources(files, "routes")[0]["virtual_hosts"][0]["routes"]:
        target = route.get("route", {})
        if "cluster" in target:
            yield None, {target["cluster"]: 1}
        if split := target.get("weighted_clusters"):
            prefix = split["runtime_key_prefix"]
            weights = {c["name"]: layer.get(f"{prefix}.{c['name']}", c["weight"]) for c in split["clusters"]}
            yield prefix.rpartition(".")[2], weights


def list_changes(values):
    """Values without those that are the same as the one before."""
    return [value for value, _ in itertools.groupby(values)]


def list_states(old, new):
    """The files in force after each single file that is written, whenever Envoy takes it."""
    files = dict(render(old))
    yield dict(files)
    for stage in plan_stages(old, new):
        for path, content in stage.files.items():
            files[path] = content
            yield dict(files)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_every_moment_of_a_change_has_a_way_for_every_call(before, after):
    """Each cluster that a route names is there with its servers, and each split has a weight above 0."""
    for files in list_states(DEPLOYMENTS[before], DEPLOYMENTS[after]):
        clusters = {cluster["name"] for cluster in read_resources(files, "clusters")}
        for _, weights in list_splits(files):
            assert weights.keys() <= clusters
            assert sum(weights.values()) > 0
            assert all(has_servers(files, cluster) for cluster in weights)
        assert set(list_shadows(files)) <= clusters


def has_servers(files, cluster):
    """Whether any server is declared for a cluster."""
    [servers] = read_resources(files, f"endpoints/{cluster}")
    return any(locality["lb_endpoints"] for locality in servers["endpoints"])


def list_shadows(files):
    """The clusters that get copies."""
    for route in read_resources(files, "routes")[0]["virtual_hosts"][0]["routes"]:
        for policy in route.get("route", {}).get("request_mirror_policies", ()):
            yield policy["cluster"]


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if pair[1] in ROUTED])
def test_server_outside_a_models_regions_is_never_its_new_versions(before, after):
    """At no moment of a change."""
    new = DEPLOYMENTS[after]
    regions = new.routing_of("digits").regions
    for stage in plan_stages(DEPLOYMENTS[before], new):
        for number in new.models["digits"] if regions else ():
            path = f"envoy/endpoints/digits@{number}.yaml"
            if path in stage.files:
                [servers] = parse(stage.files[path])["resources"]
                assert {locality["locality"]["region"] for locality in servers["endpoints"]} <= set(regions)


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if "another model" not in pair])
def test_split_of_a_model_that_stays_changes_once(before, after):
    """From the old shares to the new ones, with none in between, whatever comes and goes."""
    old, new = DEPLOYMENTS[before], DEPLOYMENTS[after]
    seen = [
        {cluster: weight for cluster, weight in weights.items() if weight}
        for files in list_states(old, new)
        for model, weights in list_splits(files)
        if model == "digits"
    ]
    wanted = [
        {f"digits@{number}": weight for number, weight in one.weights("digits").items() if weight} for one in (old, new)
    ]
    assert list_changes(seen) == list_changes(wanted)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_change_ends_with_what_the_new_deployment_renders(before, after):
    """But for servers of what is gone, whose files are left over."""
    *_, last = list_states(DEPLOYMENTS[before], DEPLOYMENTS[after])
    wanted = render(DEPLOYMENTS[after])
    assert {path: last[path] for path in wanted} == wanted
    assert all(path.startswith("envoy/endpoints/") for path in last.keys() - wanted.keys())


def test_what_goes_is_waited_for():
    """The last stage names the clusters that must be idle first."""
    stages = plan_stages(DEPLOYMENTS["two models"], DEPLOYMENTS["the second alone"])
    assert [stage.idle_clusters for stage in stages] == [(), (), (), (), ("digits@3", "letters@1")]


def test_joined_deployments_have_the_new_servers_and_the_old_weights():
    """What is new in a model has weight 0; a new model has its own."""
    joined = join_deployments(DEPLOYMENTS["split"], DEPLOYMENTS["two models"])
    assert joined.models["digits"] == {1: Version(90, (ONE,)), 2: Version(10, (TWO,)), 3: Version(0, (THREE,))}
    assert joined.models["letters"] == {1: Version(1, (ONE,))}
    assert join_deployments(DEPLOYMENTS["split"], DEPLOYMENTS["elsewhere"]).models["digits"][1].endpoints == (THREE,)


def test_keys_of_an_issuer_stay_for_as_long_as_listeners_verify_its_tokens():
    """Their server is gone with what goes last."""
    stages = plan_stages(DEPLOYMENTS["tokens"], DEPLOYMENTS["split"])
    [first, last] = [stage for stage in stages if "envoy/clusters.yaml" in stage.files]
    assert list_names(first) - list_names(last) == {"jwks-login"}
    assert last is stages[-1]


@pytest.mark.parametrize("kind", [GATEWAY, CLIENT])
def test_follower_goes_both_ways_between_what_clients_reach_directly(kind):
    """A server may serve another version than before, which within one deployment it may not."""
    direct, other = DEPLOYMENTS["direct"], DEPLOYMENTS["direct at a new version"]
    for old, new in itertools.permutations((direct, other, DEPLOYMENTS["not direct"]), 2):
        way = Planner().plan(Place(kind), old, new)
        assert way.end.resources == Planner().read(Place(kind), new)


def test_limit_service_stays_for_as_long_as_listeners_ask_it():
    """Gone from the servers before that, every call would be one that cannot be counted."""
    limited = dataclasses.replace(DEPLOYMENTS["split"], limits=Limits(service=LimitService(endpoints=(THREE,))))
    stages = plan_stages(limited, DEPLOYMENTS["split"])
    [first, last] = [stage for stage in stages if "envoy/clusters.yaml" in stage.files]
    assert "envoy/endpoints/limits.yaml" in first.files
    assert list_names(first) - list_names(last) == {"limits"}
    assert [stage for stage in stages if "envoy/listeners.yaml" in stage.files] == [stages[-2]]


def list_names(stage):
    """The clusters that there are from a stage on."""
    return {cluster["name"] for cluster in parse(stage.files["envoy/clusters.yaml"])["resources"]}
