"""Runs a pipeline's definition on this machine: buckets are directories, and each job is a process that finds /opt/ml.

It does what SageMaker promises of the definition: parameters, properties of steps, joins and values of JSON files are
put in, inputs are copied to where a container expects them, outputs are copied back, and the condition chooses a
branch. What /opt/ml is to a container is a directory of each job here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ROOT = Path(__file__).parents[1]


@dataclass
class Execution:
    """One execution of a pipeline.

    Attributes:
        definition: of the pipeline.
        buckets: the directory in which `s3://bucket/key` is `bucket/key`.
        scratch: for the jobs.
        parameters: over the definition's defaults.
        name: of the execution.
        done: names of the steps that have run.
        said: what each has written.
        failure: what a step of type Fail has said.
        registered: requests of CreateModelPackage.
    """

    definition: Json
    buckets: Path
    scratch: Path
    name: str
    parameters: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    registered: list[Json] = field(default_factory=list)
    _known: dict[str, Any] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)

    def run(self) -> Execution:
        """Run all steps; itself."""
        for parameter in self.definition["Parameters"]:
            name = parameter["Name"]
            self._known[f"Parameters.{name}"] = self.parameters.get(name, parameter["DefaultValue"])
        self._known["Execution.PipelineExecutionId"] = self.name
        for step in self.definition["Steps"]:
            self._step(step)
        return self

    def place(self, uri: str) -> Path:
        """Where on this machine an object or prefix is."""
        return self.buckets / uri.removeprefix("s3://")

    def _step(self, step: Json) -> None:
        name, kind = step["Name"], step["Type"]
        self.done.append(name)
        if kind == "Condition":
            (condition,) = step["Arguments"]["Conditions"]
            assert condition["Type"] == "Equals"
            holds = self.value(condition["LeftValue"]) == self.value(condition["RightValue"])
            for each in step["Arguments"]["IfSteps" if holds else "ElseSteps"]:
                self._step(each)
            return
        arguments = self.value(step["Arguments"])
        if kind == "Fail":
            self.failure = arguments["ErrorMessage"]
        elif kind == "RegisterModel":
            self.registered.append(arguments)
        elif kind == "Training":
            self._train(name, arguments)
        else:
            self._process(name, arguments)
            for file in step.get("PropertyFiles", ()):
                output = self._known[
                    f"Steps.{name}.ProcessingOutputConfig.Outputs['{file['OutputName']}'].S3Output.S3Uri"
                ]
                self._files[f"Steps.{name}.PropertyFiles.{file['PropertyFileName']}"] = (
                    self.place(output) / file["FilePath"]
                )

    def value(self, given: Any) -> Any:
        """What stands for a value of the definition."""
        if isinstance(given, list):
            return [self.value(each) for each in given]
        if not isinstance(given, dict):
            return given
        if set(given) == {"Get"}:
            return self._known[given["Get"]]
        if set(given) == {"Std:Join"}:
            return given["Std:Join"]["On"].join(str(self.value(each)) for each in given["Std:Join"]["Values"])
        if set(given) == {"Std:JsonGet"}:
            found = json.loads(self._files[given["Std:JsonGet"]["PropertyFile"]["Get"]].read_bytes())
            for part in given["Std:JsonGet"]["Path"].split("."):
                found = found[part]
            return found
        return {name: self.value(each) for name, each in given.items()}

    def _train(self, name: str, arguments: Json) -> None:
        base = self._container(name)
        for channel in arguments["InputDataConfig"]:
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            shutil.copytree(self.place(uri), base / "input" / "data" / channel["ChannelName"])
        (base / "model").mkdir()
        algorithm = arguments["AlgorithmSpecification"]
        self._run(name, base, [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]])
        uri = f"{arguments['OutputDataConfig']['S3OutputPath']}/{name}-{self.name}/output/model.tar.gz"
        self.place(uri).parent.mkdir(parents=True)
        with tarfile.open(self.place(uri), "w:gz") as tar:
            for path in sorted((base / "model").iterdir()):
                tar.add(path, path.name)
        self._known[f"Steps.{name}.ModelArtifacts.S3ModelArtifacts"] = uri

    def _process(self, name: str, arguments: Json) -> None:
        base = self._container(name)
        for each in arguments["ProcessingInputs"]:
            source, target = self.place(each["S3Input"]["S3Uri"]), self._here(base, each["S3Input"]["LocalPath"])
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                target.mkdir(parents=True)
                shutil.copy(source, target)
        outputs = arguments.get("ProcessingOutputConfig", {"Outputs": []})["Outputs"]
        for each in outputs:
            self._here(base, each["S3Output"]["LocalPath"]).mkdir(parents=True)
        application = arguments["AppSpecification"]
        self._run(name, base, [*application["ContainerEntrypoint"], *application["ContainerArguments"]])
        for each in outputs:
            uri = each["S3Output"]["S3Uri"]
            shutil.copytree(self._here(base, each["S3Output"]["LocalPath"]), self.place(uri))
            self._known[f"Steps.{name}.ProcessingOutputConfig.Outputs['{each['OutputName']}'].S3Output.S3Uri"] = uri

    def _container(self, name: str) -> Path:
        base = self.scratch / f"{name}-{self.name}" / "opt" / "ml"
        (base / "output").mkdir(parents=True)
        return base

    def _here(self, base: Path, text: str) -> Path:
        return Path(text.replace("/opt/ml", str(base), 1))

    def _run(self, name: str, base: Path, command: list[str]) -> None:
        """A job's process: of the image's python, with what a container has in /opt/ml."""
        assert command[0] == "python"
        words = [re.sub(r"^/opt/ml(?=/)", str(base), word) for word in command[1:]]
        words = [str(self.place(word)) if word.startswith("s3://") else word for word in words]
        variables = {
            "SAGEMAKER_BASE_DIR": str(base),
            "TRAINING_JOB_NAME": f"{name}-{self.name}",
            "PYTHONPATH": str(ROOT),
        }
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=base,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        self.said[name] = ended.stdout
        assert ended.returncode == 0, f"{name}: {ended.stderr}{ended.stdout}"
