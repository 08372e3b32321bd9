/* Initial weights: docs/arithmetic.md, "Input and initial weights". */
#include "base/random.h"
#include "base/round.h"

int niti_init_exponent(int64_t fan_in, int64_t fan_out) {
  if (fan_in < 0 || fan_out < 0 || fan_in > INT64_MAX - fan_out || fan_in + fan_out == 0) return 0;
  const int64_t fan = fan_in + fan_out;
  int k = 0;
  if (fan < 6) {
    while ((fan << (2 * k)) < 6) ++k;
  } else {
    /* fan >= 6 * 4^n exactly where fan / 6 >= 4^n */
    for (int64_t ratio = fan / 6; ratio >= 4; ratio /= 4) --k;
  }
  return k - NITI_MANTISSA_BITS;
}

int8_t niti_init_weight(uint64_t seed, uint32_t layer, uint64_t index) {
  if (index >> 34) return 0;
  const uint32_t word = niti_random(seed, NITI_DRAW_INIT, 0, layer, index);
  return (int8_t)((int32_t)niti_word_below(word, 2 * NITI_MANTISSA_MAX + 1) - NITI_MANTISSA_MAX);
}
