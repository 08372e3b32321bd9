/* The average of a 16-bit tensor over moments of a run, as exact sums: docs/arithmetic.md, "Averaged weights". */
#ifndef NITI_BASE_AVERAGE_H
#define NITI_BASE_AVERAGE_H

#include "niti.h"

enum {
  NITI_AVERAGE_FRACTION = 24,        /* a sum's fraction bits, below the largest exponent so far */
  NITI_AVERAGE_SAMPLES_MAX = 1 << 20 /* of one average */
};

/* The largest magnitude of a sum of so many samples: below 2^59. */
int64_t niti_average_most(int64_t samples);

#endif
