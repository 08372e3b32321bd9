/* What a compiled program is asked for besides running: its size, its kernels and their ways, and its tensors. */
#include "backend/executable.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/tuning.h"
#include "base/shift_prediction.h"

static void release_calls(NitiExecutable *e) {
  for (int32_t i = 0; e->steps && e->fused && e->backend->kernels->conv_release && i < e->fused->operation_count; ++i) {
    for (int v = 0; v < NITI_VARIANTS; ++v) e->backend->kernels->conv_release(e->backend, &e->steps[i].conv[v]);
  }
}

void niti_executable_close(NitiExecutable *e) {
  if (!e) return;
  const NitiBackendOps *ops = e->backend->ops;
  if (e->recordings) e->backend->kernels->close_recordings(e->backend, e->recordings);
  release_calls(e);
  uint8_t *owned[] = {e->arena, e->kept, e->words, e->inputs};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; ++i) {
    if (owned[i]) ops->release(e->backend, owned[i]);
  }
  niti_places_close(&e->places);
  niti_program_close(e->program);
  niti_program_close(e->fused);
  free(e->tensors);
  free(e->steps);
  free(e->nonnegative);
  free(e->limits);
  free(e->uses);
  free(e->temporaries);
  free(e->ends);
  free(e->staged);
  free(e);
}

const NitiProgram *niti_executable_program(const NitiExecutable *e) { return e->program; }

size_t niti_executable_bytes(const NitiExecutable *e) { return e->bytes; }

const char *niti_executable_kernel(const NitiExecutable *e, int32_t i) {
  const NitiOpcode opcode = e->fused->operations[i].opcode;
  if (opcode == NITI_OP_NONE) return "fused";
  return niti_is_conv(opcode) ? e->backend->kernels->conv_kernel(e->backend, &e->steps[i].conv[NITI_WHOLE]) : "";
}

/* ---- ways ---- */

int niti_executable_ways(const NitiExecutable *e, int32_t i, char convolution[NITI_CONVOLUTION_MAX],
                         NitiWay ways[NITI_WAYS_MAX]) {
  if (i < 0 || i >= e->fused->operation_count || !niti_is_conv(e->fused->operations[i].opcode)) return 0;
  const NitiConvCall *call = &e->steps[i].conv[NITI_WHOLE];
  niti_tuning_name(convolution, call);
  return e->backend->kernels->conv_ways(e->backend, call, ways);
}

NitiStatus niti_executable_choose(NitiExecutable *e, int32_t i, int number) {
  const NitiKernels *k = e->backend->kernels;
  if (i < 0 || i >= e->fused->operation_count || !niti_is_conv(e->fused->operations[i].opcode))
    return niti_fail(NITI_ERROR_ARGUMENT, "operation %d is not a convolution", i);
  NitiConvCall *call = &e->steps[i].conv[NITI_WHOLE];
  NITI_TRY(e->backend->ops->synchronise(e->backend));
  if (e->recordings) k->close_recordings(e->backend, e->recordings); /* they run the former way */
  e->recordings = NULL;
  if (k->conv_release) k->conv_release(e->backend, call);
  call->shape.n = e->fused->batch;
  call->way = number;
  call->tuned = false;
  return niti_executable_prepare_call(e, call);
}

bool niti_executable_tuned(const NitiExecutable *e, char text[NITI_TUNED_MAX]) {
  const NitiTuningFacts *facts = niti_backend_tuning(e->backend);
  int32_t convolutions = 0, tuned = 0;
  text[0] = 0;
  if (!facts || facts->entries == 0) return false;
  for (int32_t i = 0; i < e->fused->operation_count; ++i) {
    if (!niti_is_conv(e->fused->operations[i].opcode)) continue;
    ++convolutions;
    tuned += e->steps[i].conv[NITI_WHOLE].tuned;
  }
  (void)snprintf(text, NITI_TUNED_MAX, "%d of %d convolutions as measured in %s", tuned, convolutions, facts->path);
  return true;
}

/* ---- tensors ---- */

static NitiStatus find_memory(NitiTensor *out, const NitiExecutable *e, int32_t t, int32_t n, bool elements) {
  if (t < 0 || t >= e->fused->tensor_count)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %d: the program has %d", t, e->fused->tensor_count);
  if (n < 0 || n > e->fused->batch)
    return niti_fail(NITI_ERROR_ARGUMENT, "a batch of %d: expected at most %d", n, e->fused->batch);
  *out = e->tensors[t];
  if (elements && !out->data)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %s has no memory: only a fused operation used it", e->fused->tensors[t].name);
  return NITI_OK;
}

bool niti_executable_has(const NitiExecutable *e, int32_t t) {
  return t >= 0 && t < e->fused->tensor_count && e->tensors[t].data;
}

NitiStatus niti_executable_read(NitiExecutable *e, int32_t t, int32_t n, void *elements, int32_t *exponent) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, n, elements != NULL));
  if (elements && e->places.outlasted[t])
    e->backend->kernels->download_elements(e->backend, elements, &tensor, n);
  else if (elements)
    e->backend->ops->download(e->backend, elements, tensor.data, niti_executable_bytes_at(e, t, n));
  if (exponent && tensor.exponent) e->backend->ops->download(e->backend, exponent, tensor.exponent, sizeof *exponent);
  return NITI_OK;
}

NitiStatus niti_executable_write(NitiExecutable *e, int32_t t, int32_t n, const void *elements, const int32_t *exponent) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, n, elements != NULL));
  if (elements) {
    e->backend->ops->upload(e->backend, tensor.data, elements, niti_executable_bytes_at(e, t, n));
    tensor.shape.n = e->fused->tensors[t].batched ? n : tensor.shape.n;
    niti_executable_complete(e, &tensor);
  }
  if (exponent && tensor.exponent) e->backend->ops->upload(e->backend, tensor.exponent, exponent, sizeof *exponent);
  for (int32_t i = 0; i < e->fused->operation_count && e->backend->kernels->conv_forget; ++i) {
    if (e->fused->operations[i].opcode != NITI_OP_CONV_FORWARD || e->fused->operations[i].inputs[1] != t) continue;
    for (int v = 0; v < NITI_VARIANTS; ++v) e->backend->kernels->conv_forget(e->backend, &e->steps[i].conv[v]);
  }
  return NITI_OK;
}

bool niti_executable_is_idle(const NitiExecutable *e, int32_t operation) {
  if (operation < 0 || operation >= e->fused->operation_count) return true;
  const NitiOpcode opcode = e->fused->operations[operation].opcode;
  return opcode == NITI_OP_NONE || opcode == NITI_OP_RESHAPE;
}

NitiStatus niti_executable_shift(NitiExecutable *e, int32_t operation, int32_t *shift) {
  int32_t prediction = 0;
  if (operation < 0 || operation >= e->fused->operation_count)
    return niti_fail(NITI_ERROR_ARGUMENT, "operation %d: the program has %d", operation, e->fused->operation_count);
  e->backend->ops->download(e->backend, &prediction, e->steps[operation].rq.prediction, sizeof prediction);
  *shift = niti_shift_prediction_last(prediction);
  return NITI_OK;
}

NitiStatus niti_executable_stats(NitiExecutable *e, int32_t t, NitiTensorStats *out) {
  NitiTensor tensor = {0};
  NITI_TRY(find_memory(&tensor, e, t, 0, true));
  if (e->fused->tensors[t].dtype != NITI_DTYPE_S8)
    return niti_fail(NITI_ERROR_ARGUMENT, "tensor %s is not s8", e->fused->tensors[t].name);
  e->backend->kernels->stats(e->backend, out, &tensor);
  return NITI_OK;
}
