"""The retraining pipeline's definition, and the calls for it, against AWS's own description of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from botocore.validate import ParamValidator

from pipelines.sagemaker.arguments import check_schedule, parse, retraining
from pipelines.sagemaker.command import main, schedule, upsert
from pipelines.sagemaker.definition import definition
from runners.emr.calls import Calls
from transforms.errors import UserError

REGION = "eu-west-1"
REQUIRED = {
    "--role": "arn:aws:iam::111122223333:role/fraud-training",
    "--image": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/fraud@sha256:" + "0" * 64,
    "--data": "s3://data/transactions",
    "--registry": "s3://models/registry",
    "--output": "s3://jobs/retraining",
    "--schema": "handbook",
    "--model": "xgboost",
}
FULL = {
    **REQUIRED,
    "--labels": "s3://data/labels",
    "--group": "fraud",
    "--kms_key": "alias/fraud",
    "--subnet": "subnet-0abc",
    "--security_group": "sg-0abc",
    "--gate_delay": "7d",
}
SCHEDULE = {"--schedule": "cron(0 3 ? * MON *)", "--scheduler_role": "arn:aws:iam::111122223333:role/fraud-scheduler"}


def words(flags: dict[str, str]) -> list[str]:
    return [word for pair in flags.items() for word in pair]


def made(flags: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(definition(retraining(*parse(["definition", *words(flags)]))))
    return found


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")


def steps_of(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from steps_of(step["Arguments"].get(branch, []))


def filled(value: Any) -> Any:
    """A definition's value with text for what an execution puts in."""
    if isinstance(value, list):
        return [filled(each) for each in value]
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("Get", "Std:Join", "Std:JsonGet"):
        return "s3://bucket/filled-in"
    return {name: filled(each) for name, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("flags", [REQUIRED, FULL], ids=["least", "full"])
def test_steps_are_requests_that_sagemaker_takes(flags: dict[str, str]) -> None:
    """The arguments of every step, against the service's model of the operation that it stands for."""
    operations = {
        "Training": ("CreateTrainingJob", {"TrainingJobName": "x"}),
        "Processing": ("CreateProcessingJob", {"ProcessingJobName": "x"}),
        "RegisterModel": ("CreateModelPackage", {}),
    }
    model = boto3.client("sagemaker", region_name=REGION).meta.service_model
    checked = []
    for step in steps_of(made(flags)["Steps"]):
        if step["Type"] in operations:
            operation, names = operations[step["Type"]]
            shape = model.operation_model(operation).input_shape
            report = ParamValidator().validate({**filled(step["Arguments"]), **names}, shape)
            assert not report.has_errors(), f"{step['Name']}: {report.generate_report()}"
            checked.append(step["Name"])
    assert checked == ["Train", "Evaluate", *(["Register"] if "--group" in flags else []), "Promote"]


@pytest.mark.parametrize("flags", [REQUIRED, FULL], ids=["least", "full"])
def test_what_a_definition_refers_to_is_there(flags: dict[str, str]) -> None:
    """Parameters, earlier steps, their outputs and property files; names are unique and what SageMaker calls names."""
    pipeline = made(flags)
    assert pipeline["Version"] == "2020-12-01"
    parameters = {each["Name"] for each in pipeline["Parameters"]}
    steps = {step["Name"]: step for step in steps_of(pipeline["Steps"])}
    assert len(steps) == len(list(steps_of(pipeline["Steps"])))

    def gets(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from [value["Get"]] if set(value) == {"Get"} else [g for each in value.values() for g in gets(each)]
        if isinstance(value, list):
            yield from (found for each in value for found in gets(each))

    seen = set(gets(pipeline))
    for found in seen:
        where, name, *rest = found.split(".")
        if where == "Parameters":
            assert name in parameters
        elif where == "Steps":
            assert name in steps
            if rest[0] == "PropertyFiles":
                assert rest[1] in {each["PropertyFileName"] for each in steps[name]["PropertyFiles"]}
        else:
            assert found == "Execution.PipelineExecutionId"
    assert {f"Parameters.{name}" for name in parameters} <= seen


def test_jobs_run_in_the_network_and_under_the_key_that_are_given() -> None:
    """Every job and everything that is written."""
    jobs = [step["Arguments"] for step in steps_of(made(FULL)["Steps"]) if step["Type"] in ("Training", "Processing")]
    network = {"Subnets": ["subnet-0abc"], "SecurityGroupIds": ["sg-0abc"]}
    assert [job.get("VpcConfig") or job["NetworkConfig"]["VpcConfig"] for job in jobs] == [network] * 3
    assert json.dumps(jobs).count('KmsKeyId": "alias/fraud"') == 5  # three disks, models, evaluations


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--role": "fraud"}, "--role must be a role's ARN"),
        ({"--image": "fraud"}, "--image must be REGISTRY/NAME:TAG"),
        ({"--data": "/tmp/data"}, "--data must be of the form s3://bucket/prefix"),  # noqa: S108 - is refused
        ({"--registry": "models"}, "--registry must be of the form s3://bucket/prefix"),
        ({"--instance_type": "m5.large"}, "--instance_type must be one of SageMaker's"),
        ({"--name": "a_b"}, "--name must be letters"),
        ({"--subnet": "subnet-0abc"}, "--subnet and --security_group go together"),
        ({"--hours": "0"}, "--hours: must be a whole number from 1 on"),
        ({"--gate_delay": "week"}, "'week' is not a duration"),
        ({"--source": "simulator:"}, "--source cannot be a hyperparameter"),
        ({"--model": "boosting"}, "--model: invalid choice"),
        ({"--features": "mine.toml"}, "--features mine.toml is a file of this machine"),
        ({"--schema": "/schemas/mine.toml"}, "--schema /schemas/mine.toml is a file of this machine"),
        ({"--test_dyas": "7"}, "unknown argument --test_dyas"),
    ],
)
def test_mistakes_are_found_before_a_call(
    changed: dict[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the pipeline, and those of training that its first job would end with."""
    assert main(["definition", *words({**REQUIRED, **changed})]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--schedule": "every monday"}, "--schedule must be"),
        ({"--schedule": "cron(0 3 * * 1)"}, "--schedule must be"),
        ({"--scheduler_role": "x"}, "--scheduler_role must be"),
        ({"--dead_letters": "queue"}, "--dead_letters must be"),
        ({"--parameter": "TrainingDta=s3://x/y"}, "--parameter TrainingDta: the pipeline has"),
        ({"--parameter": "TrainingData=data"}, "--parameter TrainingData must be of the form"),
        ({"--parameter": "ApprovalStatus=Yes"}, "must be one of PendingManualApproval"),
        ({"--model": "xgboost"}, "--model is no flag of schedule"),
    ],
)
def test_a_schedule_is_checked(changed: dict[str, str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before EventBridge refuses it in words that name no flag."""
    assert main(["schedule", *words({**SCHEDULE, **changed})]) == 2
    assert told in capsys.readouterr().err


def stubbed(*services: str) -> tuple[Calls, dict[str, Stubber]]:
    clients = {each: boto3.client(each, region_name=REGION) for each in services}
    stubs = {each: Stubber(client) for each, client in clients.items()}
    for stub in stubs.values():
        stub.activate()
    return Calls(REGION, connect=lambda service, region: clients[service]), stubs


ARN = "arn:aws:sagemaker:eu-west-1:111122223333:pipeline/fraud-retraining"


@pytest.mark.parametrize("there", [False, True])
def test_upsert_creates_or_updates(there: bool) -> None:
    """The group of model packages and the pipeline; each call is one that boto3 takes."""
    wish = retraining(*parse(["upsert", *words(FULL)]))
    calls, stubs = stubbed("sagemaker")
    stub = stubs["sagemaker"]
    body = {"PipelineName": "fraud-retraining", "PipelineDefinition": definition(wish), "RoleArn": wish.role}
    if there:
        group = {"ModelPackageGroupName": "fraud", "ModelPackageGroupArn": "arn:" + "x" * 20, "CreationTime": 0}
        stub.add_response(
            "describe_model_package_group",
            {**group, "CreatedBy": {}, "ModelPackageGroupStatus": "Completed"},
        )
        stub.add_response("describe_pipeline", {"PipelineArn": ARN})
        stub.add_response("update_pipeline", {"PipelineArn": ARN}, {**body, "PipelineDescription": ANY})
    else:
        missing = "ModelPackageGroup arn:... does not exist."
        stub.add_client_error("describe_model_package_group", "ValidationException", missing)
        stub.add_response("create_model_package_group", {"ModelPackageGroupArn": "arn:" + "x" * 20})
        stub.add_client_error("describe_pipeline", "ResourceNotFound")
        expected = {**body, "PipelineDescription": ANY, "ClientRequestToken": ANY}
        stub.add_response("create_pipeline", {"PipelineArn": ARN}, expected)
    assert upsert(calls, "fraud-retraining", wish) == ARN
    stub.assert_no_pending_responses()


@pytest.mark.parametrize("there", [False, True])
def test_a_schedule_is_created_or_updated(there: bool) -> None:
    """It starts the pipeline that there is, with the parameters given, and leaves what it gave up in a queue."""
    more = ["--parameter", "TrainingData=s3://data/lately", "--dead_letters", "arn:aws:sqs:eu-west-1:111122223333:dead"]
    given, _ = parse(["schedule", *words(SCHEDULE), *more])
    check_schedule(given)
    calls, stubs = stubbed("sagemaker", "scheduler")
    stubs["sagemaker"].add_response("describe_pipeline", {"PipelineArn": ARN})
    if there:
        stubs["scheduler"].add_response("get_schedule", {"Name": "fraud-retraining"})
    else:
        stubs["scheduler"].add_client_error("get_schedule", "ResourceNotFoundException")
    expected = {
        "Name": "fraud-retraining",
        "ScheduleExpression": "cron(0 3 ? * MON *)",
        "ScheduleExpressionTimezone": "UTC",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "ENABLED",
        "Description": ANY,
        "Target": {
            "Arn": ARN,
            "RoleArn": SCHEDULE["--scheduler_role"],
            "SageMakerPipelineParameters": {
                "PipelineParameterList": [{"Name": "TrainingData", "Value": "s3://data/lately"}]
            },
            "DeadLetterConfig": {"Arn": "arn:aws:sqs:eu-west-1:111122223333:dead"},
        },
    }
    answer = {"ScheduleArn": "arn:aws:scheduler:eu-west-1:111122223333:schedule/default/fraud-retraining"}
    stubs["scheduler"].add_response("update_schedule" if there else "create_schedule", answer, expected)
    assert schedule(calls, given) == answer["ScheduleArn"]
    for stub in stubs.values():
        stub.assert_no_pending_responses()


def test_a_schedule_needs_a_pipeline() -> None:
    """One that would start nothing is refused."""
    given, _ = parse(["schedule", *words(SCHEDULE)])
    calls, stubs = stubbed("sagemaker", "scheduler")
    stubs["sagemaker"].add_client_error("describe_pipeline", "ResourceNotFound")
    with pytest.raises(UserError, match=r"there is no pipeline fraud-retraining in eu-west-1: .* upsert"):
        schedule(calls, given)


def test_a_dry_run_prints_every_call_and_makes_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON each, checked against the services' models as if it were made."""
    assert main(["upsert", *words(FULL), "--dry_run", "--region", REGION]) == 0
    assert main(["schedule", *words(SCHEDULE), "--dry_run", "--region", REGION]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["operation"] for each in printed] == [
        "describe_model_package_group",
        "create_model_package_group",
        "describe_pipeline",
        "create_pipeline",
        "describe_pipeline",
        "get_schedule",
        "create_schedule",
    ]
    assert printed[-1]["parameters"]["Target"]["Arn"] == ARN
