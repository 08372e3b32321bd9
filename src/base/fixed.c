/* 2^x and log2(x) as functions, for niti.h. */
#include "base/fixed.h"

uint32_t niti_exp2_frac(uint32_t f) { return f >> 16 ? 0 : niti_exp2_frac_inline(f); }

int64_t niti_log2(uint64_t v) { return v == 0 || v >> 47 ? 0 : niti_log2_inline(v); }
