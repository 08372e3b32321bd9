/* Samples of one size, in memory or in files. */
#include <stdlib.h>

#include "data/format.h"

size_t niti_sample_bytes(const NitiDataset *dataset) {
  return niti_shape_image(dataset->shape) * (dataset->type == NITI_INT16 ? 2 : 1);
}

NitiStatus niti_split_sample(const void **out, void *room, const NitiDataset *dataset, const NitiDataSplit *split,
                             int64_t place) {
  *out = room;
  if (!split->values) return niti_records_read(room, split->records, place);
  *out = (const uint8_t *)split->values + (size_t)place * niti_sample_bytes(dataset);
  return NITI_OK;
}

static NitiStatus read_all(NitiDataset *dataset, NitiDataSplit *split) {
  const size_t bytes = niti_sample_bytes(dataset);
  uint8_t *to = split->memory = malloc((size_t)split->stored * bytes);
  if (!to) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %lld images", split->dir, (long long)split->stored);
  for (int64_t i = 0; i < split->stored; ++i, to += bytes) {
    NITI_TRY(niti_records_read(to, split->records, i));
    NITI_TRY(niti_dataset_watch(dataset, "reading images", i, split->stored));
  }
  return NITI_OK;
}

NitiStatus niti_dataset_load(NitiDataset *dataset) {
  for (int i = 0; i < NITI_SPLITS && dataset->type == NITI_UINT8; ++i) {
    NitiDataSplit *split = &dataset->split[i];
    if (!split->records || split->values || split->shared) continue;
    if (split->mapped == 0) NITI_TRY(read_all(dataset, split));
    split->images = split->values = (uint8_t *)split->memory + (split->mapped > 0 ? split->records->files[0].offset : 0);
  }
  NitiDataSplit *held = &dataset->split[NITI_VALIDATION];
  if (held->shared) held->images = held->values = dataset->split[NITI_TRAIN].values;
  return NITI_OK;
}
