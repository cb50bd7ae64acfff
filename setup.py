"""Compiles the CPU kernels, once for each instruction set; where that fails, PyTorch's own operations do the work."""

import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
X86 = {"avx512bf16": [*AVX512, "-mavx512bf16"], "avx512": AVX512, "avx2": ["-mfma", "-mavx2"]}
FLAGS = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-psabi"]
OPENMP = {"linux": ["-fopenmp"], "darwin": ["-Xpreprocessor", "-fopenmp"]}  # torch brings the runtime: not linked
SOURCES = "src/mixlab/kernels/cpu"
HEADERS = ("vector", "memory", "depthwise", "mixing", "product", "pointwise", "elementwise", "inference")


class BuildKernels(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"  # for ctypes: no module of one Python version


def kernels() -> list[Extension]:
    if sys.platform not in OPENMP:
        return []
    variants = {"baseline": []} | (X86 if platform.machine() == "x86_64" else {})
    return [
        Extension(
            f"mixlab.kernels._cpu_{name}",
            [f"{SOURCES}/kernels.cpp"],
            depends=[f"{SOURCES}/{header}.h" for header in HEADERS],
            extra_compile_args=FLAGS + OPENMP[sys.platform] + machine,
            language="c++",
            optional=True,
        )
        for name, machine in variants.items()
    ]


setup(ext_modules=kernels(), cmdclass={"build_ext": BuildKernels})
