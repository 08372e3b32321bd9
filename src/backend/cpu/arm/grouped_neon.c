/* Grouped convolutions by NEON. */
enum { NITI_GROUPED_PIXELS = 4, NITI_GROUPED_TERMS = 3 };
#include "backend/cpu/grouped_vector.h"

const NitiGroupedKernels niti_grouped_kernels_neon = {.name = "neon grouped", .sums = sums, .products = products};
