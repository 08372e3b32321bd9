/* What the convolutions of a compiled program need in the arena beside tensors: packed weights, from when they are packed to the
 * convolution that reads them, and on devices that take it from there, the workspace, while the convolution runs. Weights are
 * packed for many convolutions at a time, anew in every run, so that no run depends on what another has left, or on who has
 * written weights since. */
#include <stdint.h>
#include <stdlib.h>

#include "backend/executable.h"
#include "base/size.h"

enum {
  LATER_LAUNCHES = 2,   /* that pack backward's weights later than at the beginning of a run */
  LATER_WORTH = 1 << 20 /* bytes that each is to save at least */
};

static NitiTemporary *packed_of(const NitiExecutable *e, int32_t i) { return &e->temporaries[2 * i]; }

static NitiTemporary *workspace_of(const NitiExecutable *e, int32_t i) { return &e->temporaries[2 * i + 1]; }

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

static void find_temporaries_of(NitiExecutable *e, int32_t i) {
  const NitiKernels *k = e->backend->kernels;
  const NitiConvCall call = niti_executable_call(e, i);
  const bool packs = k->conv_packed_bytes && reads_weights(e->fused->operations[i].opcode) && !writes_before(e->fused, i);
  *packed_of(e, i) = (NitiTemporary){packs ? k->conv_packed_bytes(e->backend, &call) : 0, 0, i};
  *workspace_of(e, i) = (NitiTemporary){k->takes_workspace ? k->conv_workspace(e->backend, &call) : 0, i, i};
}

/* What runs beside other work until the same operation runs one after the other, in one workspace, the first one's. */
static int32_t workspace_holder(const NitiExecutable *e, int32_t i) {
  int32_t holder = i;
  for (int32_t k = i - 1; k >= 0 && niti_executable_is_beside(e, i); --k) {
    if (niti_executable_is_beside(e, k) && e->ends[k] == e->ends[i]) holder = k;
  }
  return holder;
}

static void share_workspaces(NitiExecutable *e) {
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    NitiTemporary *own = workspace_of(e, i), *held = workspace_of(e, workspace_holder(e, i));
    if (!niti_executable_is_beside(e, i)) continue;
    held->last = e->ends[i];
    if (own->bytes > held->bytes) held->bytes = own->bytes;
    if (own != held) own->bytes = 0;
  }
}

static bool packs_later(const NitiExecutable *e, int32_t i) {
  return e->fused->operations[i].opcode == NITI_OP_CONV_BACKWARD && packed_of(e, i)->bytes > 0;
}

/* The most bytes alive from operation `first` to `last` if backward's weights that are read there are packed before it. alive:
 * with weights that are packed just before each convolution. */
static size_t most_alive(const NitiExecutable *e, const size_t *alive, int32_t first, int32_t last) {
  size_t most = 0, waiting = 0;
  for (int32_t i = last; i >= first; --i) {
    if (alive[i] + waiting > most) most = alive[i] + waiting;
    if (packs_later(e, i)) waiting += niti_round_up(packed_of(e, i)->bytes, NITI_ALIGN);
  }
  return most;
}

/* Packs backward's weights at the beginning of a run and as seldom later on as keeps no more than `limit` bytes alive; returns
 * how often. */
static int pack_within(const NitiExecutable *e, const size_t *alive, size_t limit) {
  int launches = 0;
  for (int32_t i = 0, begins = 0; i < e->fused->operation_count; ++i) {
    if (!packs_later(e, i)) continue;
    if (most_alive(e, alive, begins, i) > limit) {
      begins = i;
      ++launches;
    }
    packed_of(e, i)->first = begins;
  }
  return launches;
}

/* The least limit within which so many later launches keep memory. low: what is alive in any case; high: enough. */
static size_t least_limit(const NitiExecutable *e, const size_t *alive, size_t low, size_t high, int launches) {
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (pack_within(e, alive, middle) <= launches)
      high = middle;
    else
      low = middle + 1;
  }
  return high;
}

/* Packs backward's weights so often, and when, that they take the least memory. later: their bytes. */
static void find_beginnings(const NitiExecutable *e, const size_t *alive, size_t later) {
  size_t low = 0, best = SIZE_MAX, limit = 0;
  for (int32_t i = 0; i < e->fused->operation_count; ++i) low = alive[i] > low ? alive[i] : low;
  for (int launches = 0; launches <= LATER_LAUNCHES; ++launches) {
    const size_t least = least_limit(e, alive, low, low + later, launches);
    if (least + (size_t)launches * LATER_WORTH >= best) continue;
    best = least + (size_t)launches * LATER_WORTH;
    limit = least;
  }
  (void)pack_within(e, alive, limit);
}

NitiStatus niti_executable_find_temporaries(NitiExecutable *e, NitiPlacing *placing) {
  const int32_t count = e->fused->operation_count;
  size_t later = 0;
  placing->temporary_count = 2 * (size_t)count;
  placing->temporaries = e->temporaries = calloc(placing->temporary_count + 1, sizeof *e->temporaries);
  if (!e->temporaries) return niti_fail(NITI_ERROR_MEMORY, "out of memory for compiling a program");
  for (int32_t i = 0; i < count; ++i) {
    if (niti_is_conv(e->fused->operations[i].opcode)) find_temporaries_of(e, i);
    if (packs_later(e, i)) later += niti_round_up(packed_of(e, i)->bytes, NITI_ALIGN);
  }
  share_workspaces(e);
  if (later <= LATER_WORTH) return NITI_OK;
  for (int32_t i = 0; i < count; ++i) {
    if (packs_later(e, i)) packed_of(e, i)->first = i;
  }
  NitiPlaces places;
  const NitiStatus status = niti_places_open(&places, e->fused, placing);
  if (status == NITI_OK) find_beginnings(e, places.alive, later);
  niti_places_close(&places);
  return status;
}

void niti_executable_locate_temporaries(const NitiExecutable *e, int32_t i, NitiConvCall *call) {
  const NitiKernels *k = e->backend->kernels;
  const size_t packed = packed_of(e, i)->bytes;
  uint8_t *arena = niti_executable_arena(e);
  const size_t wanted = packed > 0 ? k->conv_packed_bytes(e->backend, call) : 0;
  call->packed = wanted > 0 && wanted <= packed ? (int8_t *)arena + e->places.temporaries[2 * i] : NULL;
  const int32_t holder = workspace_holder(e, i);
  call->workspace = workspace_of(e, holder)->bytes > 0 ? arena + e->places.temporaries[2 * holder + 1] : NULL;
}

/* Whether weights of operation k are packed before operation i of a range that begins with `first`. */
static bool is_due(const NitiExecutable *e, int32_t k, int32_t i, int32_t first) {
  const NitiTemporary *t = packed_of(e, k);
  return t->bytes > 0 && (t->first == i || (i == first && t->first < i));
}

void niti_executable_pack(NitiExecutable *e, int32_t i, int32_t first, int32_t end) {
  NitiPacking packings[NITI_UPDATES_MAX];
  int count = 0;
  if (i > first && !is_due(e, i, i, first)) return; /* what begins with an operation, begins with its own */
  for (int32_t k = i; k < end; ++k) {
    const NitiStep *step = &e->steps[k];
    const NitiConvCall *call = niti_executable_conv(e, step);
    if (!is_due(e, k, i, first) || !call->packed) continue;
    packings[count++] = (NitiPacking){call, &step->inputs[1]};
    if (count < NITI_UPDATES_MAX) continue;
    e->backend->kernels->conv_pack(e->backend, packings, count);
    count = 0;
  }
  if (count > 0) e->backend->kernels->conv_pack(e->backend, packings, count);
}
