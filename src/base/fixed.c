/* 2^x and log2(x) as functions, for niti.h. */
#include "base/fixed.h"

uint32_t niti_exp2_frac(uint32_t f) { return niti_exp2_frac_inline(f); }

int64_t niti_log2(uint64_t v) { return niti_log2_inline(v); }
