"""What pyproject.toml cannot say: folders that are installed under another name, with their sub-packages found.

implementations/ becomes effbench_implementations, suites/ becomes effbench_suites, results/tuning becomes
effbench_results/tuning, so that no package with a bare generic name lands in a user's site-packages.
"""

from pathlib import Path

from setuptools import find_packages, setup

RENAMED = {"effbench_implementations": "implementations", "effbench_suites": "suites", "effbench_results": "results"}

folders = {name: folder for name, folder in RENAMED.items() if Path(folder).is_dir()}
packages = find_packages(include=["effbench", "effbench.*"])
for name, folder in folders.items():
    packages += [name, *(f"{name}.{inner}" for inner in find_packages(folder))]

setup(
    packages=packages,
    package_dir=folders,
    package_data={
        "effbench": [f"**/*.{ending}" for ending in ("j2", "html", "css", "js", "svg", "txt", "md", "json")],
        "effbench_suites": ["*.toml", "asv/*"],
        "effbench_results": ["tuning/**/*.jsonl", "tuning/*.jsonl"],
    },
)
