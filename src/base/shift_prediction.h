/* The prediction of an operation's next shift, kept in one word of backend memory between steps, inline, shared by every backend
 * (C and CUDA). A tensor's largest magnitude varies from batch to batch, often around a power of two: the running mean of
 * the shifts is wrong less often than the latest shift. Any word is a valid prediction, and no prediction changes a result. */
#ifndef NITI_BASE_SHIFT_PREDICTION_H
#define NITI_BASE_SHIFT_PREDICTION_H

#include "base/round.h"

enum {
  NITI_SHIFT_MAX = 25, /* B(2^32 - 1) - 7 */
  /* For a tensor whose shift is now and then one less than usual: the share of steps, in 256ths, from which the lower one is
   * predicted. Where too low a prediction costs less than too high a one, that share is smaller. */
  NITI_PREDICTION_EVEN = 128,
  NITI_PREDICTION_LOW = 64,
};

/* A word's bits 0 .. 7: the shift used last; bits 8 .. 23: the mean, with 8 fraction bits; bits 24 .. 31: the rise. */
NITI_INLINE int32_t niti_shift_prediction_of(int shift) { return shift << 16 | shift; }
NITI_INLINE int niti_shift_prediction_last(int32_t word) { return word & 255; }
NITI_INLINE int niti_shift_prediction_next(int32_t word, int share) {
  const int next = ((word >> 8 & 0xffff) + share) >> 8;
  return next < NITI_SHIFT_MAX ? next : NITI_SHIFT_MAX;
}
/* The word after an operation whose shift was this. A shift far from the mean restarts it. */
NITI_INLINE int32_t niti_shift_prediction_update(int32_t word, int shift) {
  const int mean = word >> 8 & 0xffff, error = shift * 256 - mean;
  const bool far = error > 512 || error < -512;
  return (int32_t)((uint32_t)word & 0xff000000u) | (far ? shift * 256 : mean + error / 4) << 8 | shift;
}

/* The rise: by how many 128ths the largest magnitude of all exceeds that of a sample, in 24 operations of 25 at least. Where
 * a sample is known beforehand, it tells whether a larger shift than the sample's will be needed. To be wrong costs all of the
 * operation again, to find out on the way a part of it. */
enum { NITI_RISE_ONE = 128, NITI_RISE_MAX = 255, NITI_RISE_FALL = 24 };
NITI_INLINE int niti_shift_prediction_rise(int32_t word) { return (int)((uint32_t)word >> 24); }
/* What the largest of all is at least likely to be. sample: at most 2^31 - 1. */
NITI_INLINE uint32_t niti_shift_prediction_largest(int32_t word, uint32_t sample) {
  const uint64_t largest = (uint64_t)sample * (uint64_t)(NITI_RISE_ONE + niti_shift_prediction_rise(word)) / NITI_RISE_ONE;
  return largest < UINT32_MAX ? (uint32_t)largest : UINT32_MAX;
}
/* The word after an operation with such a sample, whose largest of all was this. */
NITI_INLINE int32_t niti_shift_prediction_risen(int32_t word, uint32_t sample, uint32_t largest) {
  const int rise = niti_shift_prediction_rise(word);
  const int up = rise < NITI_RISE_MAX ? rise + 1 : rise, down = rise > NITI_RISE_FALL ? rise - NITI_RISE_FALL : 0;
  const int next = largest > niti_shift_prediction_largest(word, sample) ? up : down;
  return (int32_t)((uint32_t)next << 24 | ((uint32_t)word & 0xffffffu));
}

#endif
