/* The guess at an operation's next shift, kept in one word of backend memory between steps. A tensor's largest magnitude wavers
 * from batch to batch, often about a power of two: the running mean of the shifts errs less often than the last of them.
 * Any word is a valid guess, and no guess changes a result. */
#ifndef NITI_BASE_GUESS_H
#define NITI_BASE_GUESS_H

#include "base/round.h"

/* Bits 0 .. 7: the shift used last; bits 8 .. 23: the mean, with 8 fraction bits. */
enum { NITI_GUESS_MOST = 25 }; /* B(2^32 - 1) - 7 */

/* A tensor whose shift is now and then one less than usual: from what share on, in 256ths, the lower one is guessed. Where a
 * guess too low costs less than one too high, that share is smaller. */
enum { NITI_GUESS_EVEN = 128, NITI_GUESS_LOW = 64 };

NITI_INLINE int32_t niti_guess_of(int shift) { return shift << 16 | shift; }
NITI_INLINE int niti_guess_last(int32_t word) { return word & 255; }
NITI_INLINE int niti_guess_next(int32_t word, int share) {
  const int next = ((word >> 8 & 0xffff) + share) >> 8;
  return next < NITI_GUESS_MOST ? next : NITI_GUESS_MOST;
}
/* The word after an operation whose shift was this. A shift far from the mean starts it afresh. */
NITI_INLINE int32_t niti_guess_update(int32_t word, int shift) {
  const int mean = word >> 8 & 0xffff, error = shift * 256 - mean;
  const bool far = error > 512 || error < -512;
  return (far ? shift * 256 : mean + error / 4) << 8 | shift;
}

#endif
