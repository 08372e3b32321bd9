/* Takes over the state that a device saved. */
#include "export/import.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/source.h"
#include "platform/file.h"
#include "train/locate.h"

/* The device's own code reads the slots. */
#define RT_TRAINING 0
#define RT_MODES 1
#define RT_CLIPS 0
#include "export/runtime/niti_rt_store.h"

typedef struct Dump {
  const char *bytes;
  size_t size, slot; /* slot: bytes of one */
} Dump;

static int read_slot(void *user, int slot, uint32_t offset, void *data, uint32_t size) {
  const Dump *d = user;
  const size_t at = (size_t)slot * d->slot + offset;
  if (at + size > d->size) return 1;
  memcpy(data, d->bytes + at, size);
  return 0;
}

static NitiStatus load(const NitiExport *e, const Dump *dump, const char *path, int8_t *weights, rt_state *state) {
  const uint32_t bytes = (uint32_t)e->report.trained_weights;
  Dump copy = *dump;
  if (dump->size != dump->slot && dump->size != 2 * dump->slot) {
    return niti_fail(NITI_ERROR_FORMAT, "%s: %zu bytes (expected one slot of %zu bytes, or two)", path, dump->size, dump->slot);
  }
  state->network = e->network;
  if (rt_load(state, weights, bytes, read_slot, &copy) == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: no whole state of this network (arithmetic %s, network %08x)", path, NITI_ARITHMETIC,
                   e->network);
}

/* The trained weights take the place of those that the checkpoint has. */
static void replace_weights(const NitiExport *e, const int8_t *weights) {
  for (int32_t i = 0; i < e->weight_count; ++i) {
    const NitiExportWeight *w = &e->weights[i];
    if (!w->frozen) memcpy(w->tensor->data, weights + w->offset, (size_t)w->bytes);
  }
}

static NitiStatus set_number(NitiCheckpoint *checkpoint, const char *key, uint64_t value) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRIu64, value);
  return niti_checkpoint_set(checkpoint, key, text);
}

NitiStatus niti_import_state(NitiCheckpoint *checkpoint, uint32_t step, int32_t mu, uint64_t seed) {
  NITI_TRY(set_number(checkpoint, NITI_DEVICE_STEP, step));
  NITI_TRY(set_number(checkpoint, NITI_DEVICE_MU, (uint64_t)mu));
  return set_number(checkpoint, NITI_DEVICE_SEED, seed);
}

static NitiStatus import(NitiExport *e, NitiCheckpoint *checkpoint, const char *path, NitiImportResult *result, const char *out) {
  Dump dump = {.slot = 0};
  char *bytes = NULL;
  rt_state state = {.network = 0};
  NITI_TRY(niti_export_weights_open(e, checkpoint));
  dump.slot = rt_header_at((uint32_t)e->report.trained_weights) + (size_t)RT_HEADER_BYTES;
  NITI_TRY(niti_file_read(&bytes, &dump.size, path, 2 * dump.slot));
  int8_t *weights = malloc(dump.slot);
  dump.bytes = bytes;
  NitiStatus status = weights ? load(e, &dump, path, weights, &state) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  if (status == NITI_OK) replace_weights(e, weights);
  free(weights);
  free(bytes);
  if (status != NITI_OK) return status;
  result->steps = state.step;
  result->mu = state.mu;
  NITI_TRY(niti_import_state(checkpoint, state.step, state.mu, state.seed));
  NITI_TRY(niti_checkpoint_hash(checkpoint, result->hash));
  return niti_checkpoint_save(checkpoint, out);
}

NitiStatus niti_import_dump(NitiImportResult *result, const char *dump, const char *network, const char *out) {
  NitiExport e = {.recipe = NULL};
  NitiRecipe *recipe = NULL;
  NitiCheckpoint *checkpoint = NULL;
  NitiLocation where;
  *result = (NitiImportResult){.steps = 0};
  NitiStatus status = niti_locate(&where, network);
  if (status == NITI_OK) status = niti_location_weights(&checkpoint, &where);
  if (status == NITI_OK) status = niti_checkpoint_recipe(&recipe, checkpoint, where.path);
  e.recipe = recipe;
  if (status == NITI_OK) status = import(&e, checkpoint, dump, result, out);
  free(e.weights);
  niti_recipe_close(recipe);
  niti_checkpoint_close(checkpoint);
  niti_location_close(&where);
  return status;
}
