/* Copies a network's tensors to a checkpoint and back. */
#include "train/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_NAME_MAX = NITI_NAME_MAX + 8 };

/* Adds a tensor and takes `data`, also after a failure. */
static NitiStatus add_owned(NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim, const uint32_t *dims,
                            int32_t exponent, void *data) {
  const NitiStatus status = niti_checkpoint_add(checkpoint, name, dtype, ndim, dims, exponent, data);
  if (status == NITI_OK)
    checkpoint->tensors[checkpoint->tensor_count - 1].owned = true;
  else
    free(data);
  return status;
}

/* The checkpoint's tensor of that name, type and shape, or NULL. */
static const NitiCheckpointTensor *find_same(const NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim,
                                             const uint32_t *dims) {
  const NitiCheckpointTensor *tensor = niti_checkpoint_find(checkpoint, name);
  bool same = tensor && tensor->dtype == dtype && tensor->ndim == ndim;
  for (int d = 0; same && d < ndim; ++d) same = tensor->dims[d] == dims[d];
  return same ? tensor : NULL;
}

/* ---- an optimiser's state: I32 in the file, I64 where it is s64, so that the hash excludes it ---- */

static NitiFileDtype state_dtype(const NitiTensorDesc *t) { return t->dtype == NITI_DTYPE_S64 ? NITI_I64 : NITI_I32; }

static void widen(void *out, const void *in, size_t count, NitiDtype dtype) {
  for (size_t i = 0; i < count; ++i) {
    if (dtype == NITI_DTYPE_S8) ((int32_t *)out)[i] = ((const int8_t *)in)[i];
    if (dtype == NITI_DTYPE_S16) ((int32_t *)out)[i] = ((const int16_t *)in)[i];
  }
}

/* False where an element is out of the type's range. */
static bool narrow(void *out, const int32_t *in, size_t count, NitiDtype dtype) {
  const int32_t most = dtype == NITI_DTYPE_S8 ? INT8_MAX : INT16_MAX;
  for (size_t i = 0; i < count; ++i) {
    if (in[i] < -most - 1 || in[i] > most) return false;
    if (dtype == NITI_DTYPE_S8) ((int8_t *)out)[i] = (int8_t)in[i];
    if (dtype == NITI_DTYPE_S16) ((int16_t *)out)[i] = (int16_t)in[i];
  }
  return true;
}

static void dims_of(uint32_t dims[NITI_RANK_MAX], const NitiTensorDesc *t) {
  for (int d = 0; d < NITI_RANK_MAX; ++d) dims[d] = (uint32_t)t->dims[d];
}

static NitiStatus take_state(NitiCheckpoint *checkpoint, const NitiNetwork *net, int32_t i) {
  const NitiTensorDesc *t = &net->program->tensors[i];
  const size_t count = niti_tensor_count(t, 0), wide = t->dtype == NITI_DTYPE_S64 ? sizeof(int64_t) : sizeof(int32_t);
  const bool as_is = niti_dtype_bytes(t->dtype) == wide;
  uint32_t dims[NITI_RANK_MAX];
  int32_t exponent = 0;
  dims_of(dims, t);
  void *file = malloc(count * wide), *own = as_is ? file : malloc(count * wide);
  NitiStatus status = file && own ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu values", t->name, count);
  if (status == NITI_OK) status = niti_executable_read(net->main, i, 0, own, &exponent);
  if (status == NITI_OK && !as_is) widen(file, own, count, t->dtype);
  if (!as_is) free(own);
  if (status == NITI_OK) return add_owned(checkpoint, t->name, state_dtype(t), t->rank, dims, exponent, file);
  free(file);
  return status;
}

static NitiStatus restore_state(NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint, const char *source) {
  const NitiTensorDesc *t = &net->program->tensors[i];
  uint32_t dims[NITI_RANK_MAX];
  dims_of(dims, t);
  const NitiCheckpointTensor *tensor = find_same(checkpoint, t->name, state_dtype(t), t->rank, dims);
  if (!tensor)
    return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not of the optimiser's shape", source, t->name);
  if (t->dtype == NITI_DTYPE_S32 || t->dtype == NITI_DTYPE_S64)
    return niti_executable_write(net->main, i, 0, tensor->data, &tensor->exponent);
  void *own = malloc(niti_tensor_count(t, 0) * niti_dtype_bytes(t->dtype));
  if (!own) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", t->name);
  const NitiStatus status = narrow(own, (const int32_t *)tensor->data, niti_tensor_count(t, 0), t->dtype)
                                ? niti_executable_write(net->main, i, 0, own, &tensor->exponent)
                                : niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' has a value that does not fit in %s", source,
                                            t->name, niti_dtype_name(t->dtype));
  free(own);
  return status;
}

/* ---- weights ---- */

static void tensor_name(char name[TENSOR_NAME_MAX], const NitiWeight *weight) {
  (void)snprintf(name, TENSOR_NAME_MAX, "%s.weight", weight->layer);
}

NitiStatus niti_snapshot_take(NitiCheckpoint *checkpoint, const NitiNetwork *net) {
  const int32_t count = net->weight_count;
  NITI_TRY(niti_checkpoint_set(checkpoint, "arithmetic", NITI_ARITHMETIC));
  for (int32_t i = 0; i < count; ++i) {
    const NitiWeight weight = niti_network_weight(net, i);
    char name[TENSOR_NAME_MAX];
    int32_t exponent;
    tensor_name(name, &weight);
    int8_t *mantissas = malloc(weight.count);
    if (!mantissas) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu bytes", name, weight.count);
    niti_network_get_weight(net, i, mantissas, &exponent);
    NITI_TRY(add_owned(checkpoint, name, NITI_I8, weight.ndim, weight.dims, exponent, mantissas));
  }
  for (int32_t i = 0; i < net->program->tensor_count; ++i) {
    if (net->program->tensors[i].role == NITI_ROLE_STATE) NITI_TRY(take_state(checkpoint, net, i));
  }
  return net->backend->ops->synchronise(net->backend); /* after a device failure no download is valid */
}

bool niti_snapshot_restore_one(NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint) {
  const NitiWeight weight = niti_network_weight(net, i);
  char name[TENSOR_NAME_MAX];
  tensor_name(name, &weight);
  const NitiCheckpointTensor *tensor = find_same(checkpoint, name, NITI_I8, weight.ndim, weight.dims);
  if (!tensor) return false;
  niti_network_set_weight(net, i, tensor->data, tensor->exponent);
  return true;
}

NitiStatus niti_snapshot_restore(NitiNetwork *net, const NitiCheckpoint *checkpoint, const char *source) {
  const int32_t count = net->weight_count;
  for (int32_t i = 0; i < count; ++i) {
    if (!niti_snapshot_restore_one(net, i, checkpoint)) {
      return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s.weight' is missing or not of the model's shape", source,
                       niti_network_weight(net, i).layer);
    }
  }
  for (int32_t i = 0; i < net->program->tensor_count; ++i) {
    if (net->program->tensors[i].role == NITI_ROLE_STATE) NITI_TRY(restore_state(net, i, checkpoint, source));
  }
  return NITI_OK;
}

static bool has_tensor(const NitiNetwork *net, const char *wanted) {
  for (int32_t i = 0; i < net->weight_count; ++i) {
    const NitiWeight weight = niti_network_weight(net, i);
    char name[TENSOR_NAME_MAX];
    tensor_name(name, &weight);
    if (strcmp(name, wanted) == 0) return true;
  }
  const int32_t t = niti_program_find(net->program, wanted);
  return t != NITI_NONE && net->program->tensors[t].role == NITI_ROLE_STATE;
}

NitiStatus niti_snapshot_check(const NitiNetwork *net, const NitiCheckpoint *checkpoint) {
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    if (has_tensor(net, checkpoint->tensors[i].name)) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: unknown tensor '%.200s' (expected the run's weights and optimiser state)",
                     niti_checkpoint_source(checkpoint), checkpoint->tensors[i].name);
  }
  return NITI_OK;
}

NitiStatus niti_snapshot_hash(const NitiNetwork *net, char text[65]) {
  NitiCheckpoint *checkpoint;
  NITI_TRY(niti_checkpoint_open(&checkpoint));
  NitiStatus status = niti_snapshot_take(checkpoint, net);
  if (status == NITI_OK) status = niti_checkpoint_hash(checkpoint, text);
  niti_checkpoint_close(checkpoint);
  return status;
}
