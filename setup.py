"""Compiles the CPU kernels, once for each instruction set; where that fails, PyTorch's own operations do the work."""

import os
import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
AVX512BF16 = [*AVX512, "-mavx512bf16"]
X86 = {
    "avx512fp16": [*AVX512BF16, "-mavx512fp16"],
    "avx512bf16": AVX512BF16,
    "avx512": AVX512,
    "avx2": ["-mfma", "-mavx2"],
}
FLAGS = ["-std=c++17", "-O3", "-g0", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=hidden", "-Wno-psabi"]
OPENMP = {"linux": ["-fopenmp"], "darwin": ["-Xpreprocessor", "-fopenmp"]}  # torch brings the runtime: not linked
SOURCES = "src/mixlab/kernels/cpu"
HEADERS = ("vector", "memory", "depthwise", "mixing", "arithmetic", "product", "pointwise", "elementwise", "inference")


class BuildKernels(build_ext):
    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

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
