/* Copies a network's tensors to a checkpoint and back. */
#include "train/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/norm.h"
#include "base/sgd.h"

/* Adds a tensor and takes `data`, also after a failure. */
static NitiStatus add_owned(NitiCheckpoint *checkpoint, const char *name, NitiFileDtype dtype, int ndim, const uint32_t *dims,
                            int32_t exponent, void *data) {
  const int32_t most = NITI_CHECKPOINT_EXPONENT_MAX;
  const NitiStatus status =
      exponent >= -most && exponent <= most
          ? niti_checkpoint_add(checkpoint, name, dtype, ndim, dims, exponent, data)
          : niti_fail(
                NITI_ERROR_FORMAT,
                "tensor '%s': exponent %d (expected -%d to %d): training has diverged; start again with a lower learning rate",
                name, (int)exponent, (int)most, (int)most);
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

/* ---- what training can have left (docs/arithmetic.md, "What a checkpoint holds"); a file may hold more ---- */

static int64_t element(const NitiCheckpointTensor *t, size_t i) {
  if (t->dtype == NITI_I64) return ((const int64_t *)t->data)[i];
  if (t->dtype == NITI_I32) return ((const int32_t *)t->data)[i];
  return t->dtype == NITI_I16 ? ((const int16_t *)t->data)[i] : ((const int8_t *)t->data)[i];
}

static NitiStatus check_range(const NitiCheckpointTensor *t, size_t from, size_t end, int64_t least, int64_t most,
                              const char *source) {
  for (size_t i = from; i < end; ++i) {
    const int64_t value = element(t, i);
    if (value < least || value > most)
      return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': element %zu is %" PRId64 " (expected %" PRId64 " to %" PRId64 ")",
                       source, t->name, i, value, least, most);
  }
  return NITI_OK;
}

static NitiStatus check_exponent(const NitiCheckpointTensor *t, int32_t expected, const char *source) {
  if (t->exponent == expected) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%.200s': exponent %d (expected %d)", source, t->name, (int)t->exponent,
                   (int)expected);
}

/* Of batch norm: [2][C], means and variances. */
static NitiStatus check_running(const NitiCheckpointTensor *t, size_t count, const char *source) {
  NITI_TRY(check_exponent(t, NITI_NORM_RUNNING_EXPONENT, source));
  NITI_TRY(check_range(t, 0, count / 2, -NITI_NORM_RUNNING_MAX, NITI_NORM_RUNNING_MAX, source));
  return check_range(t, count / 2, count, 0, NITI_NORM_RUNNING_MAX, source);
}

static NitiStatus check_weight(const NitiCheckpointTensor *t, const NitiTensorDesc *desc, const char *source) {
  const size_t count = niti_tensor_count(desc, 0);
  if (desc->initial == NITI_INITIAL_RUNNING) return check_running(t, count, source);
  const int32_t most = desc->dtype == NITI_DTYPE_S16 ? NITI_SGD_WEIGHT_MAX : NITI_MANTISSA_MAX;
  return check_range(t, 0, count, -most, most, source);
}

/* A master rounds to its operand. */
static NitiStatus check_master(const NitiCheckpointTensor *t, size_t count, const NitiCheckpointTensor *operand,
                               const char *source) {
  NITI_TRY(check_range(t, 0, count, -NITI_SGD_WEIGHT_MAX, NITI_SGD_WEIGHT_MAX, source));
  NITI_TRY(check_exponent(t, operand->exponent - NITI_SGD_OPERAND_SHIFT, source));
  for (size_t i = 0; i < count; ++i) {
    const int64_t value = element(t, i);
    if (niti_sgd_operand((int16_t)value) != element(operand, i))
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: tensor '%.200s': element %zu is %" PRId64 " (expected what rounds to %" PRId64 ", that of '%.200s')",
                       source, t->name, i, value, element(operand, i), operand->name);
  }
  return NITI_OK;
}

static NitiStatus check_state(const NitiCheckpoint *checkpoint, const NitiCheckpointTensor *t, const NitiProgram *p,
                              const NitiTensorDesc *desc, const char *source) {
  static const int32_t most[NITI_DTYPES] = {
      [NITI_DTYPE_S8] = INT8_MAX, [NITI_DTYPE_S16] = INT16_MAX, [NITI_DTYPE_S32] = INT32_MAX};
  const size_t count = niti_tensor_count(desc, 0);
  if (desc->initial != NITI_INITIAL_MASTER) return check_range(t, 0, count, -most[desc->dtype], most[desc->dtype], source);
  return check_master(t, count, niti_checkpoint_find(checkpoint, p->tensors[desc->weight].name), source);
}

/* ---- an optimiser's state: I32 in the file, so that the hash excludes it ---- */

static void widen(void *out, const void *in, size_t count, NitiDtype dtype) {
  for (size_t i = 0; i < count; ++i) {
    if (dtype == NITI_DTYPE_S8) ((int32_t *)out)[i] = ((const int8_t *)in)[i];
    if (dtype == NITI_DTYPE_S16) ((int32_t *)out)[i] = ((const int16_t *)in)[i];
  }
}

static void narrow(void *out, const int32_t *in, size_t count, NitiDtype dtype) {
  for (size_t i = 0; i < count; ++i) {
    if (dtype == NITI_DTYPE_S8) ((int8_t *)out)[i] = (int8_t)in[i];
    if (dtype == NITI_DTYPE_S16) ((int16_t *)out)[i] = (int16_t)in[i];
  }
}

static void dims_of(uint32_t dims[NITI_RANK_MAX], const NitiTensorDesc *t) {
  for (int d = 0; d < NITI_RANK_MAX; ++d) dims[d] = (uint32_t)t->dims[d];
}

static NitiStatus take_state(NitiCheckpoint *checkpoint, const NitiNetwork *net, int32_t i) {
  const NitiTensorDesc *t = &net->program->tensors[i];
  const size_t count = niti_tensor_count(t, 0);
  const bool as_is = t->dtype == NITI_DTYPE_S32;
  uint32_t dims[NITI_RANK_MAX];
  int32_t exponent = 0;
  dims_of(dims, t);
  int32_t *file = malloc(count * sizeof *file), *own = as_is ? file : malloc(count * sizeof *own);
  NitiStatus status = file && own ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu values", t->name, count);
  if (status == NITI_OK) status = niti_executable_read(net->main, i, 0, own, &exponent);
  if (status == NITI_OK && !as_is) widen(file, own, count, t->dtype);
  if (!as_is) free(own);
  if (status == NITI_OK) return add_owned(checkpoint, t->name, NITI_I32, t->rank, dims, exponent, file);
  free(file);
  return status;
}

static NitiStatus restore_state(NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint, const char *source) {
  const NitiTensorDesc *t = &net->program->tensors[i];
  uint32_t dims[NITI_RANK_MAX];
  dims_of(dims, t);
  const NitiCheckpointTensor *tensor = find_same(checkpoint, t->name, NITI_I32, t->rank, dims);
  if (!tensor) return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not of the optimiser's shape", source, t->name);
  NITI_TRY(check_state(checkpoint, tensor, net->program, t, source));
  if (t->dtype == NITI_DTYPE_S32) return niti_executable_write(net->main, i, 0, tensor->data, &tensor->exponent);
  void *own = malloc(niti_tensor_count(t, 0) * niti_dtype_bytes(t->dtype));
  if (!own) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", t->name);
  narrow(own, tensor->data, niti_tensor_count(t, 0), t->dtype);
  const NitiStatus status = niti_executable_write(net->main, i, 0, own, &tensor->exponent);
  free(own);
  return status;
}

/* ---- weights ---- */

static NitiFileDtype weight_dtype(const NitiWeight *weight) {
  if (weight->dtype == NITI_DTYPE_S64) return NITI_I64;
  return weight->dtype == NITI_DTYPE_S16 ? NITI_I16 : NITI_I8;
}

NitiStatus niti_snapshot_take_weights(NitiCheckpoint *checkpoint, const NitiNetwork *net) {
  const int32_t count = net->weight_count;
  NITI_TRY(niti_checkpoint_set(checkpoint, "arithmetic", NITI_ARITHMETIC));
  for (int32_t i = 0; i < count; ++i) {
    const NitiWeight weight = niti_network_weight(net, i);
    int32_t exponent;
    void *mantissas = malloc(weight.count * niti_dtype_bytes(weight.dtype));
    if (!mantissas) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu values", weight.name, weight.count);
    niti_network_get_weight(net, i, mantissas, &exponent);
    NITI_TRY(add_owned(checkpoint, weight.name, weight_dtype(&weight), weight.ndim, weight.dims, exponent, mantissas));
  }
  return net->backend->ops->synchronise(net->backend); /* after a device failure no download is valid */
}

NitiStatus niti_snapshot_take(NitiCheckpoint *checkpoint, const NitiNetwork *net) {
  NITI_TRY(niti_snapshot_take_weights(checkpoint, net));
  for (int32_t i = 0; i < net->program->tensor_count; ++i) {
    if (net->program->tensors[i].role == NITI_ROLE_STATE) NITI_TRY(take_state(checkpoint, net, i));
  }
  return net->backend->ops->synchronise(net->backend);
}

NitiStatus niti_snapshot_restore_one(bool *found, NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint,
                                     const char *source) {
  const NitiWeight weight = niti_network_weight(net, i);
  const NitiCheckpointTensor *tensor = find_same(checkpoint, weight.name, weight_dtype(&weight), weight.ndim, weight.dims);
  *found = tensor != NULL;
  if (!tensor) return NITI_OK;
  NITI_TRY(check_weight(tensor, &net->program->tensors[net->weights[i]], source));
  return niti_network_set_weight(net, i, tensor->data, tensor->exponent);
}

NitiStatus niti_snapshot_restore(NitiNetwork *net, const NitiCheckpoint *checkpoint, const char *source) {
  const int32_t count = net->weight_count;
  for (int32_t i = 0; i < count; ++i) {
    bool found = false;
    NITI_TRY(niti_snapshot_restore_one(&found, net, i, checkpoint, source));
    if (!found) {
      return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not of the model's shape", source,
                       niti_network_weight(net, i).name);
    }
  }
  for (int32_t i = 0; i < net->program->tensor_count; ++i) {
    if (net->program->tensors[i].role == NITI_ROLE_STATE) NITI_TRY(restore_state(net, i, checkpoint, source));
  }
  return NITI_OK;
}

static bool has_tensor(const NitiNetwork *net, const char *wanted) {
  for (int32_t i = 0; i < net->weight_count; ++i) {
    if (strcmp(niti_network_weight(net, i).name, wanted) == 0) return true;
  }
  const int32_t t = niti_program_find(net->program, wanted);
  return t != NITI_NONE && net->program->tensors[t].role == NITI_ROLE_STATE;
}

NitiStatus niti_snapshot_check(const NitiNetwork *net, const NitiAverage *average, const NitiCheckpoint *checkpoint) {
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    if (has_tensor(net, checkpoint->tensors[i].name) || niti_average_has(average, checkpoint->tensors[i].name)) continue;
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
