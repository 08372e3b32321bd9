#include "backend/cpu/requantise.h"

#include "base/guess.h"

int niti_cpu_requantise(NitiCpu *cpu, const NitiRequantise *requantise, bool relu, const int8_t *mask, NitiRangeTask task,
                        void *context) {
  NitiRounder rounder = {
      .mode = requantise->mode,
      .shift = niti_guess_next(*requantise->guess, NITI_GUESS_LOW),
      .relu = relu,
      .mask = mask,
      .draw = {.seed = cpu->seed, .purpose = requantise->purpose, .time = cpu->step, .layer = requantise->layer},
  };
  const int shift = niti_shift_inline(task(context, &rounder));
  ++cpu->predicted;
  if (shift != rounder.shift) {
    ++cpu->mispredicted;
    rounder.shift = shift;
    rounder.again = true;
    task(context, &rounder);
  }
  *requantise->guess = niti_guess_update(*requantise->guess, shift);
  return shift;
}
