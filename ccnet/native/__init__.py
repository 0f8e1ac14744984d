"""Native CPU kernels: the discrete form of a CC layer in C++, with vector instructions and threads.

Built with the package where a C++ compiler is at hand. `library` loads them; `ccnet.backends.native` is the backend.
"""

from ccnet.native.library import Kernels, kernels, why_missing

__all__ = ["Kernels", "kernels", "why_missing"]
