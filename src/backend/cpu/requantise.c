/* Runs every requantising operation with its predicted shift, and helpers that its parts share. */
#include "backend/cpu/requantise.h"

#include "base/shift_prediction.h"

int niti_cpu_requantise(NitiCpu *cpu, const NitiRequantise *requantise, bool relu, const NitiTensor *mask, NitiRangeTask task,
                        void *context) {
  NitiRounder rounder = {
      .mode = requantise->mode,
      .shift = niti_shift_prediction_next(*requantise->prediction, NITI_PREDICTION_LOW),
      .clip = requantise->clip,
      .first = niti_cpu_first(cpu, requantise->image),
      .relu = relu,
      .mask = mask ? mask->data : NULL,
      .lowered = mask && mask->limit > 0 ? niti_lowered(mask->limit, *mask->exponent) : 0,
      .draw = {.seed = cpu->seed, .purpose = requantise->purpose, .time = cpu->step, .layer = requantise->layer},
  };
  const int shift = niti_clipped_shift(niti_cpu_largest(cpu, task(context, &rounder)), requantise->clip);
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

int niti_part_shift(const NitiRounder *r, const _Atomic uint32_t *max) {
  const int shift = niti_clipped_shift(__atomic_load_n((const uint32_t *)max, __ATOMIC_RELAXED), r->clip);
  return shift > r->shift ? shift : r->shift;
}

void niti_max_raise(_Atomic uint32_t *max, uint32_t value) {
  uint32_t seen = __atomic_load_n((uint32_t *)max, __ATOMIC_RELAXED);
  while (value > seen && !__atomic_compare_exchange_n((uint32_t *)max, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
