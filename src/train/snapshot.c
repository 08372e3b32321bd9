/* A network's tensors into a checkpoint and back. */
#include "train/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_NAME_MAX = NITI_NAME_MAX + 8 };

static void tensor_name(char name[TENSOR_NAME_MAX], const NitiWeight *weight) {
  (void)snprintf(name, TENSOR_NAME_MAX, "%s.weight", weight->layer);
}

NitiStatus niti_snapshot_take(NitiCheckpoint *checkpoint, const NitiNetwork *net) {
  const int32_t count = net->weight_count;
  for (int32_t i = 0; i < count; ++i) {
    const NitiWeight weight = niti_network_weight(net, i);
    char name[TENSOR_NAME_MAX];
    int32_t exponent;
    tensor_name(name, &weight);
    int8_t *mantissas = malloc(weight.count);
    if (!mantissas) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu bytes", name, weight.count);
    niti_network_get_weight(net, i, mantissas, &exponent);
    const NitiStatus status = niti_checkpoint_add(checkpoint, name, NITI_I8, weight.ndim, weight.dims, exponent, mantissas);
    if (status != NITI_OK) {
      free(mantissas);
      return status;
    }
    checkpoint->tensors[checkpoint->tensor_count - 1].owned = true;
  }
  return net->backend->ops->synchronise(net->backend); /* after a failure of the device nothing downloaded counts */
}

bool niti_snapshot_restore_one(NitiNetwork *net, int32_t i, const NitiCheckpoint *checkpoint) {
  const NitiWeight weight = niti_network_weight(net, i);
  char name[TENSOR_NAME_MAX];
  tensor_name(name, &weight);
  const NitiCheckpointTensor *tensor = niti_checkpoint_find(checkpoint, name);
  if (!tensor || tensor->dtype != NITI_I8 || tensor->ndim != weight.ndim) return false;
  for (int d = 0; d < weight.ndim; ++d) {
    if (tensor->dims[d] != weight.dims[d]) return false;
  }
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
  return NITI_OK;
}

static bool has_tensor(const NitiNetwork *net, const char *wanted) {
  for (int32_t i = 0; i < net->weight_count; ++i) {
    const NitiWeight weight = niti_network_weight(net, i);
    char name[TENSOR_NAME_MAX];
    tensor_name(name, &weight);
    if (strcmp(name, wanted) == 0) return true;
  }
  return false;
}

NitiStatus niti_snapshot_check(const NitiNetwork *net, const NitiCheckpoint *checkpoint) {
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    if (has_tensor(net, checkpoint->tensors[i].name)) continue;
    return niti_fail(NITI_ERROR_FORMAT, "%s: unknown tensor '%.200s' (expected the weights of the run's model)",
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
