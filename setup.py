"""The compiled part of the package, which installs without it where there is no C++ compiler."""

from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "models.native._native",
            ["models/native/native.cpp"],
            depends=sorted(str(path) for path in Path("models/native/kernel").glob("*.h")),
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
