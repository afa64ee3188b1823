"""service.gateway_stages: whatever changes, no route ever leads to a cluster that is not there, nor to no version."""

import functools
import itertools
from pathlib import Path

import pytest
import yaml

from service.deployment import Deployment, Endpoint, Version
from service.gateway import render
from service.gateway_stages import join_deployments, plan_stages
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
