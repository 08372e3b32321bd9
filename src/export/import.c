/* Takes over the state that a device saved. */
#include "export/import.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/update.h"
#include "export/source.h"
#include "platform/file.h"
#include "platform/path.h"
#include "train/locate.h"

/* The device's own code reads the slots. */
#define RT_TRAINING 0
#define RT_MODES 1
#define RT_CLIPS 0
#include "export/runtime/niti_rt_store.h"

enum { DUMP_MAX = 1 << 30 };

typedef struct Dump {
  const char *path, *bytes;
  size_t size, slot; /* slot: bytes of one */
  size_t start;      /* where the slot that is read begins */
} Dump;

static int read_slot(void *user, int slot, uint32_t offset, void *data, uint32_t size) {
  const Dump *d = user;
  const size_t at = d->start + offset;
  (void)slot;
  if (at + size > d->size) return 1;
  memcpy(data, d->bytes + at, size);
  return 0;
}

/* Whether flash is erased from a byte on, before another. */
static bool is_erased(const Dump *d, size_t from, size_t end) {
  const char value = from < end ? d->bytes[from] : 0;
  if (value != 0 && value != (char)0xff) return false;
  while (from < end && d->bytes[from] == value) ++from;
  return from == end;
}

static bool has_magic(const Dump *d, size_t at) {
  return at + sizeof(uint32_t) <= d->size && rt_load_u32((const uint8_t *)d->bytes + at) == RT_MAGIC;
}

/* Whether the slot that begins at d->start has the header of a state of this network; its checksum is not looked at. */
static bool has_header(const Dump *d, const NitiExport *e) {
  const size_t at = d->start + d->slot - RT_HEADER_BYTES;
  const uint8_t *header = (const uint8_t *)d->bytes + at;
  return has_magic(d, at) && rt_load_u32(header + 4) == RT_ARITHMETIC && rt_load_u32(header + 8) == e->network &&
         rt_load_u32(header + 32) == (uint32_t)e->report.trained_weights;
}

/* Of d->start onwards, the next slot with such a header. */
static bool find_header(Dump *d, const NitiExport *e) {
  while (d->start + d->slot <= d->size && !has_header(d, e)) ++d->start;
  return d->start + d->slot <= d->size;
}

/* The newest whole state, wherever in the dump its slot begins. *found: whether there is one. Headers are counted since each
 * costs a checksum over a whole slot; stale ones may be left of slots at other places. */
static NitiStatus find_newest(bool *found, rt_state *state, size_t *start, Dump *d, const NitiExport *e) {
  const size_t most = 2 * (d->size / d->slot + 1);
  size_t headers = 0;
  *found = false;
  for (d->start = 0; find_header(d, e); ++d->start) {
    rt_state here;
    if (headers++ == most)
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: byte %zu: more than %zu headers of this network (expected one per slot of %zu bytes)", d->path,
                       d->start + d->slot - RT_HEADER_BYTES, most, d->slot);
    if (rt_slot_whole(&here, read_slot, d, 0, e->network, (uint32_t)e->report.trained_weights) <= 0) continue;
    if (*found && (int32_t)(here.sequence - state->sequence) < 0) continue;
    *state = here;
    *start = d->start;
    *found = true;
  }
  return NITI_OK;
}

/* A dump that ends within its second slot would give the older state: what cannot be one must be erased. */
static bool is_cut(const Dump *d, size_t start) {
  for (size_t at = d->size < RT_HEADER_BYTES ? 0 : d->size - RT_HEADER_BYTES + 1; at < d->size; ++at) {
    if (has_magic(d, at)) return true;
  }
  return d->size < 2 * d->slot && !(is_erased(d, 0, start) && is_erased(d, start + d->slot, d->size));
}

static NitiStatus load(const NitiExport *e, Dump *d, int8_t *weights, rt_state *state) {
  size_t start = 0;
  bool found;
  NITI_TRY(find_newest(&found, state, &start, d, e));
  if (d->size < d->slot || (found && is_cut(d, start)))
    return niti_fail(NITI_ERROR_FORMAT, "%s: %zu bytes, which end within a slot (expected one slot of %zu bytes, or both)",
                     d->path, d->size, d->slot);
  if (!found)
    return niti_fail(NITI_ERROR_FORMAT, "%s: no whole state of this network (arithmetic %s, network %08x)", d->path,
                     NITI_ARITHMETIC, e->network);
  const size_t count = (size_t)e->report.trained_weights;
  const char *bad = memchr(d->bytes + start, 0x80, count);
  if (bad)
    return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: a weight of the newest state is -128 (expected -127 to 127)", d->path,
                     (size_t)(bad - d->bytes));
  memcpy(weights, d->bytes + start, count);
  return NITI_OK;
}

/* Firmware may set network.mu to anything, but no step trains with a rate out of range. */
static NitiStatus check_rate(const char *path, int32_t mu) {
  if (mu >= 0 && mu <= NITI_MU_MAX) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: the mu of the newest state is %" PRId32 " (expected a whole number from 0 to %d)",
                   path, mu, NITI_MU_MAX);
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
  Dump dump = {.path = path};
  char *bytes = NULL;
  rt_state state = {.network = 0};
  NITI_TRY(niti_export_weights_open(e, checkpoint));
  dump.slot = rt_header_at((uint32_t)e->report.trained_weights) + (size_t)RT_HEADER_BYTES;
  NITI_TRY(niti_file_read(&bytes, &dump.size, path, DUMP_MAX));
  int8_t *weights = malloc(dump.slot);
  dump.bytes = bytes;
  NitiStatus status = weights ? load(e, &dump, weights, &state) : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path);
  if (status == NITI_OK) status = check_rate(path, state.mu);
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

NitiStatus niti_import_check_out(const char *out, const char *network, const char *source) {
  if (!out) return NITI_OK;
  bool same;
  NITI_TRY(niti_path_same(&same, out, network));
  if (same)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: this is the network, from which the device started (expected another file)", out);
  NITI_TRY(niti_path_same(&same, out, source));
  if (same) return niti_fail(NITI_ERROR_ARGUMENT, "%s: this is what is read (expected another file)", out);
  return NITI_OK;
}

NitiStatus niti_import_dump(NitiImportResult *result, const char *dump, const char *network, const char *out) {
  NitiExport e = {.recipe = NULL};
  NitiRecipe *recipe = NULL;
  NitiCheckpoint *checkpoint = NULL;
  NitiLocation where;
  *result = (NitiImportResult){.steps = 0};
  NITI_TRY(niti_import_check_out(out, network, dump));
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
