/* Packed weights of a compiled program: where each convolution has them, and when they are packed. That is at the beginning of
 * every run, for all convolutions of its range, so that no run depends on what another has left, or on who has written weights
 * since. */
#include "backend/executable.h"
#include "base/size.h"

/* Whether an operation before i writes its weights, so that those at the beginning of a run are not the ones that it reads. */
static bool writes_before(const NitiProgram *p, int32_t i) {
  for (int32_t k = 0; k < i; ++k) {
    for (int j = 0; j < NITI_OPERANDS_MAX; ++j) {
      if (p->operations[k].outputs[j] == p->operations[i].inputs[1]) return true;
    }
  }
  return false;
}

static bool reads_weights(NitiOpcode opcode) { return opcode == NITI_OP_CONV_FORWARD || opcode == NITI_OP_CONV_BACKWARD; }

size_t niti_executable_place_packed(NitiExecutable *e) {
  const NitiKernels *k = e->backend->kernels;
  size_t all = 0;
  for (int32_t i = 0; i < e->fused->operation_count && k->conv_packed_bytes; ++i) {
    if (!reads_weights(e->fused->operations[i].opcode) || writes_before(e->fused, i)) continue;
    const NitiConvCall call = niti_executable_call(e, i);
    e->steps[i].packed = (NitiPackedPlace){all, k->conv_packed_bytes(e->backend, &call)};
    all += niti_round_up(e->steps[i].packed.bytes, NITI_ALIGN);
  }
  return all;
}

int8_t *niti_executable_packed(const NitiExecutable *e, int32_t i, const NitiConvCall *call) {
  const NitiPackedPlace *place = &e->steps[i].packed;
  const NitiExecutable *owner = e;
  while (owner && !owner->packed) owner = owner->shared;
  const bool fits = place->bytes > 0 && e->backend->kernels->conv_packed_bytes(e->backend, call) <= place->bytes;
  return owner && fits ? (int8_t *)owner->packed + place->offset : NULL;
}

void niti_executable_pack(NitiExecutable *e, int32_t first, int32_t end) {
  NitiPacking packings[NITI_UPDATES_MAX];
  int count = 0;
  for (int32_t i = first; i < end; ++i) {
    const NitiStep *step = &e->steps[i];
    const NitiConvCall *call = niti_executable_conv(e, step);
    if (!call->packed) continue;
    packings[count++] = (NitiPacking){call, &step->inputs[1]};
    if (count < NITI_UPDATES_MAX) continue;
    e->backend->kernels->conv_pack(e->backend, packings, count);
    count = 0;
  }
  if (count > 0) e->backend->kernels->conv_pack(e->backend, packings, count);
}

bool niti_executable_changes_weights(const NitiExecutable *e, int32_t first, int32_t end) {
  for (int32_t i = first; i < end; ++i) {
    if (e->fused->operations[i].phase == NITI_PHASE_UPDATE) return true;
  }
  return false;
}
