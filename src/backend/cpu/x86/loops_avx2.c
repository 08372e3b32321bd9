/* The loops by AVX2. */
#define NITI_LOOPS niti_loops_avx2
#include "backend/cpu/loops_vector.h"
