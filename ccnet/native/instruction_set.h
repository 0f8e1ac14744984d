// All kernels for one instruction set; the macros that describe it are gone afterwards.
#include "convolve.h"
#include "generate.h"
#include "gradients.h"
#undef VECTOR_BYTES
#undef REGISTERS
#undef MAX_ROWS
