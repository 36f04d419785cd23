"""The definition of a SageMaker pipeline that trains anew, compares with the champion, and promotes what is not worse.

    Train ─ Evaluate ─ Gate ─┬─ passed: Register (SageMaker's registry), Promote (ours)
                             └─ refused: Refuse, which fails the execution with the reason

The arguments of a step are the request of SageMaker's own operation (CreateTrainingJob, CreateProcessingJob,
CreateModelPackage) less the names of jobs; the form around them is the service's schema of 2020-12-01.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_artifacts.sagemaker_wire import ANSWER_TYPE, REQUEST_TYPE
from pipelines.sagemaker.evaluate import EVALUATION_FILE

Json = dict[str, Any]
_PROCESSING = "/opt/ml/processing"
#: The pipeline's parameters, which an execution or a schedule may set.
DATA, LABELS, INSTANCE, APPROVAL = "TrainingData", "Labels", "InstanceType", "ApprovalStatus"
APPROVALS = ("PendingManualApproval", "Approved", "Rejected")


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """What a pipeline does, and where.

    Attributes:
        role: ARN of the role that its jobs have.
        image: of every container, and of endpoints made of its models.
        data: `s3://bucket/prefix` of the transactions, files of one kind.
        labels: likewise of labels that arrive apart from them; None: the transactions carry theirs.
        registry: of models, `s3://bucket/prefix`.
        output: `s3://bucket/prefix` for models and evaluations of executions.
        training: flags of `python -m pipelines.training`.
        group: SageMaker's group of model packages; None: models are registered in our registry only.
        instance_type: of every job.
        volume_gb: of a job's disk.
        hours: after which a job is stopped.
        subnets, security_groups: where jobs run; none: in SageMaker's own network.
        kms_key: for disks and what is written; None: the service's own.
        gate_delay: until labels are known, for the gate; None: as the champion was trained.
    """

    role: str
    image: str
    data: str
    labels: str | None
    registry: str
    output: str
    training: tuple[str, ...]
    group: str | None
    instance_type: str
    volume_gb: int
    hours: int
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    kms_key: str | None
    gate_delay: str | None


def definition(wish: Retraining) -> str:
    """The pipeline as the text that CreatePipeline takes."""
    passed = [*([_register(wish)] if wish.group else []), _promote(wish)]
    gate = {
        "Conditions": [{"Type": "Equals", "LeftValue": _evaluated("gate.passed"), "RightValue": True}],
        "IfSteps": passed,
        "ElseSteps": [_step("Refuse", "Fail", {"ErrorMessage": _join(": ", "not promoted", _evaluated("gate.why"))})],
    }
    pipeline = {
        "Version": "2020-12-01",
        "Metadata": {},
        "Parameters": _parameters(wish),
        "Steps": [_train(wish), _evaluate(wish), _step("Gate", "Condition", gate)],
    }
    return json.dumps(pipeline, indent=2)


def _parameters(wish: Retraining) -> list[Json]:
    values = [(DATA, wish.data), (INSTANCE, wish.instance_type)]
    values += [(LABELS, wish.labels)] if wish.labels else []
    values += [(APPROVAL, APPROVALS[0])] if wish.group else []
    return [{"Name": name, "Type": "String", "DefaultValue": value} for name, value in values]


def _train(wish: Retraining) -> Json:
    channels = {"training": DATA, **({"labels": LABELS} if wish.labels else {})}
    arguments: Json = {
        "AlgorithmSpecification": {
            "TrainingImage": wish.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": _module("pipelines.sagemaker.train"),
            "ContainerArguments": list(wish.training),
        },
        "InputDataConfig": [
            {"ChannelName": name, "DataSource": {"S3DataSource": _prefix(_parameter(parameter))}}
            for name, parameter in channels.items()
        ],
        "OutputDataConfig": {"S3OutputPath": f"{wish.output}/models", **_kms(wish)},
        "ResourceConfig": _machine(wish),
        "StoppingCondition": {"MaxRuntimeInSeconds": wish.hours * 3600},
        "RoleArn": wish.role,
        **({"VpcConfig": _network(wish)} if wish.subnets else {}),
    }
    return _step("Train", "Training", arguments)


def _evaluate(wish: Retraining) -> Json:
    inputs: dict[str, Any] = {
        "model": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"},
        "data": _parameter(DATA),
        **({"labels": _parameter(LABELS)} if wish.labels else {}),
    }
    words = [word for name in inputs for word in (f"--{name}", f"{_PROCESSING}/{name}")]
    words += ["--registry", wish.registry, "--output", f"{_PROCESSING}/evaluation"]
    words += ["--label_delay", wish.gate_delay] if wish.gate_delay else []
    place = _join("/", wish.output, "evaluations", {"Get": "Execution.PipelineExecutionId"})
    output = {"S3Uri": place, "LocalPath": f"{_PROCESSING}/evaluation", "S3UploadMode": "EndOfJob"}
    arguments = {
        **_processing(wish, _module("pipelines.sagemaker.evaluate"), words, inputs),
        "ProcessingOutputConfig": {"Outputs": [{"OutputName": "evaluation", "S3Output": output}], **_kms(wish)},
    }
    files = [{"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": EVALUATION_FILE}]
    return {**_step("Evaluate", "Processing", arguments), "PropertyFiles": files}


def _register(wish: Retraining) -> Json:
    statistics = _join("/", _evaluation_place(), EVALUATION_FILE)
    container = {"Image": wish.image, "ModelDataUrl": {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}}
    arguments = {
        "ModelPackageGroupName": wish.group,
        "ModelApprovalStatus": _parameter(APPROVAL),
        "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": statistics}}},
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": [REQUEST_TYPE],
            "SupportedResponseMIMETypes": [ANSWER_TYPE],
        },
    }
    return _step("Register", "RegisterModel", arguments)


def _promote(wish: Retraining) -> Json:
    words = ["promote", "challenger", "--registry", wish.registry, "--evidence", f"{_PROCESSING}/evaluation"]
    words += ["--label_delay", wish.gate_delay] if wish.gate_delay else []
    reason = ["--reason", _join(" ", "pipeline execution", {"Get": "Execution.PipelineExecutionId"})]
    inputs = {"evaluation": _evaluation_place()}
    entry = _module("model_artifacts")
    return _step("Promote", "Processing", _processing(wish, entry, [*words, *reason], inputs))


def _processing(wish: Retraining, entry: list[str], words: Sequence[Any], inputs: dict[str, Any]) -> Json:
    return {
        "AppSpecification": {"ImageUri": wish.image, "ContainerEntrypoint": entry, "ContainerArguments": list(words)},
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"{_PROCESSING}/{name}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                },
            }
            for name, uri in inputs.items()
        ],
        "ProcessingResources": {"ClusterConfig": _machine(wish)},
        "StoppingCondition": {"MaxRuntimeInSeconds": wish.hours * 3600},
        "RoleArn": wish.role,
        **({"NetworkConfig": {"VpcConfig": _network(wish)}} if wish.subnets else {}),
    }


def _machine(wish: Retraining) -> Json:
    key = {"VolumeKmsKeyId": wish.kms_key} if wish.kms_key else {}
    return {"InstanceType": _parameter(INSTANCE), "InstanceCount": 1, "VolumeSizeInGB": wish.volume_gb, **key}


def _network(wish: Retraining) -> Json:
    return {"Subnets": list(wish.subnets), "SecurityGroupIds": list(wish.security_groups)}


def _kms(wish: Retraining) -> Json:
    return {"KmsKeyId": wish.kms_key} if wish.kms_key else {}


def _step(name: str, kind: str, arguments: Json) -> Json:
    return {"Name": name, "Type": kind, "Arguments": arguments}


def _module(name: str) -> list[str]:
    return ["python", "-m", name]


def _parameter(name: str) -> Json:
    return {"Get": f"Parameters.{name}"}


def _prefix(uri: Json) -> Json:
    return {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}


def _join(between: str, *values: Any) -> Json:
    return {"Std:Join": {"On": between, "Values": list(values)}}


def _evaluated(path: str) -> Json:
    """A value of `evaluation.json`."""
    return {"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"}, "Path": path}}


def _evaluation_place() -> Json:
    return {"Get": "Steps.Evaluate.ProcessingOutputConfig.Outputs['evaluation'].S3Output.S3Uri"}
