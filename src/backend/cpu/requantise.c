#include "backend/cpu/requantise.h"

#include "base/shift_prediction.h"

int niti_cpu_requantise(NitiCpu *cpu, const NitiRequantise *requantise, bool relu, const int8_t *mask, NitiRangeTask task,
                        void *context) {
  NitiRounder rounder = {
      .mode = requantise->mode,
      .shift = niti_shift_prediction_next(*requantise->prediction, NITI_PREDICTION_LOW),
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
  *requantise->prediction = niti_shift_prediction_update(*requantise->prediction, shift);
  return shift;
}
