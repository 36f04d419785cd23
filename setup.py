"""The package: what it holds, what it needs, what it is called."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGES = ("io_connectors", "model_artifacts", "pipelines", "runners", "transforms")


def _requirements(name: str) -> list[str]:
    """The ranges that a file names. requirements.txt is the lock of the product's for an installation of its own."""
    lines = (HERE / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="fraud-detection-beam",
    version="0.1.0",
    description="Real-time card-fraud detection on Apache Beam: features, scores, decisions and alerts",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    install_requires=_requirements("requirements.in"),
    extras_require={
        "neural": _requirements("requirements-neural.in"),
        "mlflow": _requirements("requirements-mlflow.in"),
    },
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={
        "": ["py.typed"],
        "transforms": ["schemas/*.toml", "feature_sets/*.toml"],
        "runners": ["flink/*.java", "local/*.java"],
        "model_artifacts": ["*/model.onnx", "*/manifest.json", "*/reference.json", "*/MODEL_CARD.md", "*/plots/*"],
    },
    entry_points={"console_scripts": ["fraud-detection = pipelines.fraud:command"]},
    classifiers=[
        "Intended Audience :: Financial and Insurance Industry",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Office/Business :: Financial",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
