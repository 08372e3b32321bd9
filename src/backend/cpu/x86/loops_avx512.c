/* The loops by AVX-512. */
#define NITI_LOOPS niti_loops_avx512
#include "backend/cpu/loops_vector.h"
