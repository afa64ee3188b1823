"""Writes ensembles into model repositories: chains of models from `input` to `output`."""

TENSOR = 'name: "{name}" data_type: TYPE_{datatype} dims: {columns}'


def describe_step(model, source, target, version=-1):
    """A step of a model from `input` to `output`."""
    return f"""step {{ model_name: "{model}" model_version: {version}
        input_map {{ key: "input" value: "{source}" }} output_map {{ key: "output" value: "{target}" }} }}"""


def describe_tensor(name, datatype="FP32", columns=4):
    """A tensor, but for the batch."""
    return TENSOR.format(name=name, datatype=datatype, columns=columns)


def describe_chain(*models, max_batch_size=8, datatype="FP32", columns=4, more=""):
    """The configuration of an ensemble of models, one after the other."""
    tensors = ["input", *(f"between_{index}" for index in range(1, len(models))), "output"]
    steps = [describe_step(model, tensors[index], tensors[index + 1]) for index, model in enumerate(models)]
    return f"""platform: "ensemble" max_batch_size: {max_batch_size} {more}
        input {{ {describe_tensor("input", datatype, columns)} }}
        output {{ {describe_tensor("output", datatype, columns)} }}
        ensemble_scheduling {{ {" ".join(steps)} }}"""


def save_ensemble(repository, name, config, version=1):
    """An ensemble's folder: its configuration, and the empty folder of a version."""
    (repository / name / str(version)).mkdir(parents=True, exist_ok=True)
    (repository / name / "config.pbtxt").write_text(config)
