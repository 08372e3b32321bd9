/* Grouped convolutions by AVX-512. */
enum { NITI_GROUPED_PIXELS = 8, NITI_GROUPED_TERMS = 9 };
#include "backend/cpu/grouped_vector.h"

const NitiGroupedKernels niti_grouped_kernels_avx512 = {.name = "avx512vnni grouped", .sums = sums, .products = products};
