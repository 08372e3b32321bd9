/* Grouped convolutions by AVX2. */
enum { NITI_GROUPED_PIXELS = 4, NITI_GROUPED_TERMS = 3 };
#include "backend/cpu/grouped_vector.h"

const NitiGroupedKernels niti_grouped_kernels_avx2 = {.name = "avx2 grouped", .sums = sums, .products = products};
