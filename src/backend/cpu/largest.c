/* The largest magnitudes of gradients: an update needs its gradient's before it can begin, and to look for it afterwards is to
 * read memory once more. Drivers of convolutions look at what they have just stored. */
#include "backend/cpu/conv_plan.h"
#include "backend/cpu/loops.h"

static NitiLargest *find(NitiCpu *cpu, const void *gradient) {
  for (int i = 0; i < cpu->largest_count; ++i) {
    if (cpu->largest[i].gradient == gradient) return &cpu->largest[i];
  }
  return NULL;
}

void niti_cpu_forget_largest(NitiCpu *cpu, const NitiGradient *gradient) {
  NitiLargest *known = find(cpu, gradient->data);
  if (known) *known = cpu->largest[--cpu->largest_count];
}

void niti_cpu_keep_largest(NitiCpu *cpu, const NitiGradient *gradient, uint64_t magnitude) {
  niti_cpu_forget_largest(cpu, gradient);
  if (cpu->largest_count < NITI_UPDATES_MAX) cpu->largest[cpu->largest_count++] = (NitiLargest){gradient->data, magnitude};
}

bool niti_cpu_take_largest(NitiCpu *cpu, const NitiGradient *gradient, uint64_t *magnitude) {
  const NitiLargest *known = find(cpu, gradient->data);
  const bool whole = known && cpu->base.together.whole == 0; /* else it is of this rank's share alone */
  if (whole) *magnitude = known->magnitude;
  niti_cpu_forget_largest(cpu, gradient);
  return whole;
}

void niti_conv_look(_Atomic uint32_t *max, NitiIsa isa, const int32_t *row, size_t rows, size_t columns, size_t stride) {
  const NitiLoops *loops = niti_loops(isa);
  uint64_t most = 0;
  for (size_t i = 0; i < rows; ++i, row += stride) {
    const uint64_t largest = loops->largest32(row, columns);
    most = largest > most ? largest : most;
  }
  niti_max_raise(max, (uint32_t)most);
}
