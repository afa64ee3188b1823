"""Makes plans: finds each step's version, and checks that the tensors fit between the versions that there are now.

What is wrong with an ensemble becomes the reason why it is unavailable. Under the GIL, whenever a route table is made.
"""

from cython cimport final
from libc.stdint cimport int32_t, int64_t

from kernels.datatype cimport datatype_name
from kernels.ensemble_plan cimport (
    FIT_AS_IS, FIT_WITH_BATCH, FIT_WITHOUT_BATCH, PlanHandle, create_plan, ensemble_plan, open_step, plan_step,
)
from kernels.parking cimport DormantModel
from kernels.session cimport tensor_spec
from kernels.signature cimport signature
from kernels.version_table cimport LoadedVersion

from kernels.ensemble import EnsembleError


cdef dict resolve_ensembles(dict versions):
    """Return {(name, version): PlanHandle, or the reason why it cannot run} for the ensembles among versions."""
    cdef list found = [key for key, entry in versions.items() if is_ensemble(entry)]
    if not found:
        return {}
    resolver = Resolver(versions)
    for key in found:
        resolver.resolve(key)
    return resolver.plans


cdef dict number_plans(dict plans, dict known, int64_t* latest):
    """Give plans their serial numbers, the same to one that leads to the same versions as one before.

    Returns {what a plan leads to: its number}, to be given as `known` the next time; `latest` is the last number that was used.
    """
    cdef PlanHandle handle
    cdef dict numbers = {}
    for plan in plans.values():
        if not isinstance(plan, PlanHandle):
            continue
        handle = plan
        if handle.serials not in known:
            latest[0] += 1
        numbers[handle.serials] = handle.plan.serial = known.get(handle.serials, latest[0])
    return numbers


cdef bint is_ensemble(object entry):
    return isinstance(entry, LoadedVersion) and (<LoadedVersion> entry).ensemble is not None


@final
cdef class Resolver:
    """Resolves the ensembles among some versions, those within others first."""

    cdef dict _versions
    cdef dict _by_name      # name -> versions, the highest first
    cdef list _under_way    # names of the ensembles that wait for the one that is resolved now
    cdef readonly dict plans

    def __cinit__(self, dict versions):
        self._versions = versions
        self._by_name = {}
        self._under_way = []
        self.plans = {}
        for name, version in sorted(versions, reverse=True):
            self._by_name.setdefault(name, []).append(version)

    def resolve(self, key):
        """Return the PlanHandle or the reason of an ensemble."""
        if key not in self.plans:
            self._under_way.append(key[0])
            try:
                self.plans[key] = self.make_plan(self._versions[key])
            except EnsembleError as error:
                self.plans[key] = str(error)
            finally:
                self._under_way.pop()
        return self.plans[key]

    cdef PlanHandle make_plan(self, LoadedVersion owner):
        cdef PlanHandle made = PlanHandle.__new__(PlanHandle)
        cdef list found = [self.find_step(step) for step in owner.ensemble.steps]
        cdef dict places = number_tensors(owner)
        made.plan = create_plan(&owner.queue, &owner.ensemble.core, len(places))
        if made.plan == NULL:
            raise MemoryError
        fill_plan(made.plan, owner, found, places)
        made.keepers = list_keepers(owner, found)
        made.plan.keeps_sequences = len(made.keepers) > 0
        made.serials = (owner.queue.serial, *[find_serials(loaded, inner) for loaded, inner in found])
        return made

    def find_step(self, step):
        """Return the LoadedVersion of a step, and its PlanHandle when it is an ensemble."""
        name = repr(step.model) + ("" if step.version == -1 else f" version {step.version}")
        versions = self._by_name.get(step.model, [])
        if step.version != -1:
            versions = [version for version in versions if version == step.version]
        if not versions:
            raise EnsembleError(f"its step {name} is unknown")
        reasons = []
        for version in versions:
            entry, plan = self._versions[step.model, version], None
            if is_ensemble(entry):
                plan = self.find_inner(step.model, version)
            if isinstance(entry, LoadedVersion) and not isinstance(plan, str):
                return entry, plan
            reasons.append(plan or ("it is not in memory" if isinstance(entry, DormantModel) else entry))
        raise EnsembleError(f"its step {name} is unavailable: {reasons[0]}")

    def find_inner(self, name, version):
        """As resolve, of an ensemble within the one that is resolved now."""
        if name in self._under_way:
            circle = self._under_way[self._under_way.index(name):]
            raise EnsembleError("ensembles contain each other: " + " → ".join(map(repr, [*circle, name])))
        return self.resolve((name, version))


cdef dict number_tensors(LoadedVersion owner):
    """Return {tensor: (its number, its step or -1, its place there)}; inputs of the ensemble come first."""
    cdef dict places = {}
    for place, spec in enumerate(owner.ensemble.inputs):
        places[spec.name] = (len(places), -1, place)
    for number, step in enumerate(owner.ensemble.steps):
        for place, tensor in enumerate(step.outputs.values()):
            places[tensor] = (len(places), number, place)
    return places


cdef int fill_plan(ensemble_plan* plan, LoadedVersion owner, list found, dict places) except -1:
    """Fill in every step and output; a tensor is described by who makes it before anybody reads it."""
    cdef LoadedVersion loaded
    cdef PlanHandle inner
    cdef int32_t index
    cdef dict made = {}
    cdef object steps = owner.ensemble.steps
    for number, step, place in places.values():
        plan.tensors[number].step, plan.tensors[number].place = step, place
    for index, spec in enumerate(owner.ensemble.inputs):
        made[spec.name] = describe(&owner.queue.accepted, &owner.queue.accepted.inputs[index])
    readers = list_readers(steps, places)
    for index, step in enumerate(steps):
        loaded, inner = found[index]
        check_batch_size(step, owner.queue.accepted.max_batch_size, loaded.queue.accepted.max_batch_size)
        plan.n_steps = index + 1
        if open_step(&plan.steps[index], &loaded.queue, inner.plan if inner is not None else NULL, len(step.inputs),
                     len(step.outputs), len(readers[index])) != 0:
            raise MemoryError
        plan.steps[index].version = step.version
        plan.steps[index].keeps_sequences = len(keepers_of(loaded, inner)) > 0
        for place, reader in enumerate(readers[index]):
            plan.steps[index].readers[place] = reader
        fill_inputs(&plan.steps[index], step, places, made)
        fill_outputs(&plan.steps[index], step, made)
    return fill_results(plan, owner, places, made)


cdef list list_readers(object steps, dict places):
    """Return for each step the numbers of those that read its tensors, once for each input."""
    readers = [[] for _ in steps]
    for number, step in enumerate(steps):
        for tensor in step.inputs.values():
            maker = places[tensor][1]
            if maker >= 0:
                readers[maker].append(number)
    return readers


cdef frozenset list_keepers(LoadedVersion owner, list found):
    """Return the versions that keep sequences, within ensembles too; EnsembleError where they cannot."""
    cdef set keepers = set()
    for step, (loaded, inner) in zip(owner.ensemble.steps, found):
        kept = keepers_of(loaded, inner)
        if kept and owner.ensemble.core.keeps_replies:
            raise EnsembleError(f"it has a response_cache, and its step {step.model!r} keeps sequences: an answer depends on "
                                "those before it")
        if not keepers.isdisjoint(kept):
            raise EnsembleError(f"two of its steps lead to {min(keepers & kept)[0]!r}, which keeps sequences: they would "
                                "share each of them")
        keepers |= kept
    return frozenset(keepers)


cdef frozenset keepers_of(LoadedVersion loaded, PlanHandle inner):
    if inner is not None:
        return inner.keepers
    if loaded.sequences is None:
        return frozenset()
    return frozenset([(loaded.queue.served.model.decode(), loaded.queue.version)])


cdef object find_serials(LoadedVersion loaded, PlanHandle inner):
    """Return what tells a step's version, with all that it leads to, from any other."""
    return loaded.queue.serial if inner is None else inner.serials


cdef int check_batch_size(object step, int wanted, int possible) except -1:
    if 0 < possible < wanted:
        raise EnsembleError(f"its max_batch_size is {wanted}, and that of its step {step.model!r} is {possible}")
    return 0


cdef int fill_inputs(plan_step* target, object step, dict places, dict made) except -1:
    """Link a step's inputs, in the order of its model, to the tensors that feed them."""
    cdef signature* accepted = &target.target.accepted
    cdef int32_t index, count = 0
    cdef dict left = dict(step.inputs)
    for index in range(accepted.core.n_inputs):
        if accepted.core.inputs[index].is_hidden:
            continue  # made of the step's batch
        name = accepted.inputs[index].name.decode()
        tensor = left.pop(name, None)
        if tensor is None:
            if not accepted.inputs[index].is_optional:
                raise EnsembleError(f"input {name!r} of its step {step.model!r} is fed by no tensor")
            continue
        target.inputs[count] = &accepted.inputs[index]
        target.links[count].tensor = places[tensor][0]
        target.links[count].fit = find_fit(made[tensor], describe(accepted, &accepted.inputs[index]),
                                           f"tensor {tensor!r} for input {name!r} of its step {step.model!r}")
        count += 1
    if left:
        raise EnsembleError(f"its step {step.model!r} has no input {next(iter(left))!r}")
    target.n_inputs = count
    return 0


cdef int fill_outputs(plan_step* target, object step, dict made) except -1:
    cdef signature* accepted = &target.target.accepted
    cdef dict known = {accepted.outputs[index].name.decode(): index for index in range(accepted.core.n_outputs)
                       if not accepted.core.outputs[index].is_hidden}
    cdef int32_t place, index
    for place, (name, tensor) in enumerate(step.outputs.items()):
        if name not in known:
            raise EnsembleError(f"its step {step.model!r} has no output {name!r}")
        index = known[name]
        target.outputs[place] = &accepted.outputs[index]
        made[tensor] = describe(accepted, &accepted.outputs[index])
    return 0


cdef int fill_results(ensemble_plan* plan, LoadedVersion owner, dict places, dict made) except -1:
    """Link the ensemble's outputs to the tensors of their names, and find their labels."""
    cdef signature* accepted = &owner.queue.accepted
    cdef signature* maker
    cdef int32_t index, number, step, output
    for index, spec in enumerate(owner.ensemble.outputs):
        number, step, place = places[spec.name]
        plan.outputs[index].tensor = number
        plan.outputs[index].fit = find_fit(made[spec.name], describe(accepted, &accepted.outputs[index]),
                                           f"output {spec.name!r}")
        maker = &plan.steps[step].target.accepted
        if accepted.labels != NULL and accepted.labels[index].count > 0:
            plan.labels[index] = accepted.labels[index]
        elif plan.steps[step].inner != NULL:
            output = <int32_t> (plan.steps[step].outputs[place] - maker.outputs)
            plan.labels[index] = plan.steps[step].inner.labels[output]
        elif maker.labels != NULL:
            output = <int32_t> (plan.steps[step].outputs[place] - maker.outputs)
            plan.labels[index] = maker.labels[output]
    return 0


cdef tuple describe(const signature* accepted, const tensor_spec* spec):
    """Return datatype, shape with the batch, and whether its first dimension is one."""
    shape = [spec.dims[axis] for axis in range(spec.rank)]
    if accepted.max_batch_size > 0 and shape:
        shape[0] = -1
    return datatype_name(spec.datatype).decode(), shape, accepted.max_batch_size > 0


cdef int find_fit(tuple made, tuple read, str what) except -1:
    """Return how a tensor becomes what its reader takes; EnsembleError when it cannot."""
    made_type, made_shape, made_batches = made
    read_type, read_shape, read_batches = read
    if made_type != read_type:
        raise EnsembleError(f"{what} has datatype {made_type}; expected {read_type}")
    if agree(made_shape, read_shape):
        return FIT_AS_IS
    if read_batches and not made_batches and agree(made_shape, read_shape[1:]):
        return FIT_WITH_BATCH
    if made_batches and not read_batches and agree(made_shape[1:], read_shape):
        return FIT_WITHOUT_BATCH
    raise EnsembleError(f"{what} has shape {made_shape}; expected {read_shape}")


cdef bint agree(list one, list other):
    """Tell whether a tensor may have both shapes; -1 is any dimension."""
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other))
