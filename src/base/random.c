/* Random words as a function, for niti.h. */
#include "base/random.h"

uint32_t niti_random(uint64_t seed, NitiPurpose purpose, uint32_t time, uint32_t layer, uint64_t index) {
  const NitiDraw draw = {.seed = seed, .purpose = (uint32_t)purpose, .time = time, .layer = layer};
  return index >> 34 ? 0 : niti_draw(&draw, index);
}

uint32_t niti_random_rounding(NitiRounding mode, uint64_t seed, NitiPurpose purpose, uint32_t time, uint32_t layer,
                              uint64_t index) {
  const NitiDraw draw = {.seed = seed, .purpose = (uint32_t)purpose, .time = time, .layer = layer};
  return index >> 34 ? 0 : niti_rounding_word(&draw, mode, index);
}
