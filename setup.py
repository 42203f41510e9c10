"""The compiled part of the package, which installs without it where there is no C++ compiler."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

# The folder models/ is imported as search_models: a user's own models.py beside a script, or in the
# folder that a search runs in, would stand in the way of a package with that name.
models = ["search_models", *(f"search_models.{name}" for name in find_packages("models"))]

setup(
    packages=[*find_packages(include=["search*"]), *models],
    package_dir={"search_models": "models"},
    ext_modules=[
        Extension(
            "search_models.native._native",
            ["models/native/native.cpp"],
            depends=sorted(str(path) for path in Path("models/native/kernel").glob("*.h")),
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno", "-Wall", "-Wextra"],
            optional=True,
        )
    ],
)
