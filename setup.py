"""The compiled part of the package, which installs without it where there is no C++ compiler."""

from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "models._native",
            ["models/native.cpp"],
            depends=sorted(str(path) for path in Path("models/native_kernel").glob("*.h")),
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
