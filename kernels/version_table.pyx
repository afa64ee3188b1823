"""What each version of each model leads to, and its publication: a loaded version, a dormant model, or why neither.

Published is an immutable route table, so that the data plane needs no lock; engine.pyx says when the old one is freed.
"""

from cython cimport final, no_gc_clear
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

from kernels.batcher cimport batcher, close_batcher
from kernels.dispatch cimport engine_core
from kernels.elders cimport elder_list
from kernels.ensemble_plan cimport PlanHandle, ensemble_plan
from kernels.parking cimport DormantModel
from kernels.routes cimport add_route, create_routes, free_routes, route_key, route_table
from kernels.sync cimport pointer_store, sections_wait


@final
@no_gc_clear
cdef class LoadedVersion:
    """Owns one batcher and keeps its sessions alive until the engine has retired it."""

    def __dealloc__(self):
        if self.queue.pool != NULL:
            close_batcher(&self.queue)


def check_batchable(session):
    """Raise ValueError unless every input and output has an open first dimension."""
    for kind, specs in (("input", session.inputs), ("output", session.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] != -1:
                raise ValueError(f"{kind} '{spec.name}' has shape {list(spec.shape)}; max_batch_size > 0 needs an open "
                                 "first dimension")


cdef list change_entries(dict versions, dict changes):
    """Change what the versions lead to, None being nothing; return what is replaced and has to be retired."""
    replaced = []
    for key, entry in changes.items():
        previous = versions.pop(key, None)
        if isinstance(previous, (LoadedVersion, DormantModel)):
            replaced.append(previous)
        if entry is not None:
            versions[key] = entry
    return replaced


cdef dict choose_labels(dict before, dict versions, dict changed):
    """Return the labels of the models that have versions, with what is changed of them."""
    names = {name for name, _ in versions}
    chosen = {name: labels for name, labels in {**before, **changed}.items() if name in names and labels}
    for name, labels in chosen.items():
        for label, version in labels.items():
            if (name, version) not in versions:
                raise ValueError(f"label {label!r} of model {name!r} stands for version {version}, which is not there")
    return chosen


cdef int publish_routes(engine_core* core, dict versions, dict labels, dict plans) except -1:
    """Make a table of the versions and put it in place; free the old one once nobody reads it.

    `plans` has for each ensemble a PlanHandle, or the reason why it cannot run, which makes it unavailable.
    """
    versions = {**versions, **{key: plan for key, plan in plans.items() if isinstance(plan, str)}}
    cdef route_table* made = create_routes(2 * len(versions) + sum(map(len, labels.values())) + 1)
    cdef route_table* old = <route_table*> core.table
    if made == NULL:
        raise MemoryError
    try:
        for (name, version), entry in versions.items():
            add_entry(made, name, version, b"", entry, plans.get((name, version)))
        for name, version in default_versions(versions).items():
            add_entry(made, name, 0, b"", versions[name, version], plans.get((name, version)))
        for name, named in labels.items():
            for label, version in named.items():
                add_entry(made, name, 0, label.encode(), versions[name, version], plans.get((name, version)))
    except BaseException:
        free_routes(made)
        raise
    pointer_store(&core.table, made)
    with nogil:
        sections_wait(&core.sections)
    free_routes(old)
    return 0


cdef int publish_elders(engine_core* core, list elders) except -1:
    """Have requests of sequences find these LoadedVersions, the latest last, beside the table; free the old list."""
    cdef elder_list* made = NULL
    cdef elder_list* old = <elder_list*> core.elders
    cdef int32_t index
    if elders:
        made = <elder_list*> malloc(sizeof(elder_list) + len(elders) * sizeof(batcher*))
        if made == NULL:
            raise MemoryError
        made.count = len(elders)
        made.members = <batcher**> (made + 1)
        for index, entry in enumerate(reversed(elders)):
            made.members[index] = &(<LoadedVersion> entry).queue
    pointer_store(&core.elders, made)
    with nogil:
        sections_wait(&core.sections)
    free(old)
    return 0


cdef int add_entry(route_table* table, str name, int64_t version, bytes label, object entry, object plan) except -1:
    cdef bytes encoded = name.encode()
    cdef bytes reason
    cdef route_key key
    cdef ensemble_plan* steps = (<PlanHandle> plan).plan if isinstance(plan, PlanHandle) else NULL
    cdef int failed
    key.name, key.name_size, key.version = encoded, len(encoded), version
    key.label, key.label_size = label, len(label)
    if isinstance(entry, LoadedVersion):
        failed = add_route(table, &key, &(<LoadedVersion> entry).queue, steps, NULL, NULL)
    elif isinstance(entry, DormantModel):
        failed = add_route(table, &key, NULL, NULL, &(<DormantModel> entry).core, NULL)
    else:
        reason = entry.encode()
        failed = add_route(table, &key, NULL, NULL, NULL, reason)
    if failed != 0:
        raise MemoryError
    return 0


def default_versions(versions):
    """Return {name: version} of what a request without a version gets: the highest that is not refused, else the highest."""
    chosen = {}
    for (name, version), entry in versions.items():
        rank = (not isinstance(entry, str), version)
        if name not in chosen or rank > chosen[name]:
            chosen[name] = rank
    return {name: version for name, (_, version) in chosen.items()}
