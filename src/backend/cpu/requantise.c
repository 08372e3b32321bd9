#include "backend/cpu/requantise.h"

#include "base/round.h"

enum { SHIFT_MAX = 25 }; /* B(2^32 - 1) - 7 */

int niti_cpu_requantise(NitiCpu *cpu, const NitiRequantise *requantise, bool relu, const int8_t *mask, NitiRangeTask task,
                        void *context) {
  const int32_t guess = *requantise->predicted;
  NitiRounder rounder = {
      .mode = requantise->mode,
      .shift = guess < 0           ? 0
               : guess > SHIFT_MAX ? SHIFT_MAX
                                   : (int)guess,
      .relu = relu,
      .mask = mask,
      .draw = {.seed = cpu->seed, .purpose = requantise->purpose, .time = cpu->step, .layer = requantise->layer},
  };
  const int shift = niti_shift_inline(task(context, &rounder));
  ++cpu->predicted;
  if (shift != rounder.shift) {
    ++cpu->mispredicted;
    rounder.shift = shift;
    task(context, &rounder);
  }
  *requantise->predicted = shift;
  return shift;
}
