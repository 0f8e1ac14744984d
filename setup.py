"""Builds the native kernels when there is g++; without it the package installs all the same.

The library is no Python module: it is loaded with ctypes (see `ccnet/native/library.py`), so that neither Python's nor
torch's headers are needed. OpenMP is compiled in but not linked: its symbols come from the OpenMP library that torch
brings, and both share one pool of threads.
"""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "ccnet.native._kernels",
            sources=["ccnet/native/kernels.cpp"],
            depends=sorted(glob("ccnet/native/*.h")),
            extra_compile_args=["-std=c++17", "-O3", "-fopenmp"],
            language="c++",
            optional=True,
            py_limited_api=True,
        )
    ]
)
