/* Arithmetic on sizes: minimum, maximum and rounding up. */
#ifndef NITI_BASE_SIZE_H
#define NITI_BASE_SIZE_H

#include <stddef.h>

static inline size_t niti_least(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t niti_most(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t niti_divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
static inline size_t niti_round_up(size_t value, size_t multiple) { return niti_divide_up(value, multiple) * multiple; }

#endif
