/* Dumps of a device's memory for `niti import`. Input: a byte, then the dump. What looks like the header of a saved state is
 * signed, if its bit of that byte is set: it then is of this network, and its checksum is right. Which state counts is found
 * again here, from docs/microcontrollers.md and the runtime's description of a slot. */
#include "export/import.h"
#include "export/source.h"
#include "fuzz.h"
#include "train/locate.h"

enum { HEADER = 64, UNIT = 32, MU_MAX = 30 };

static const char recipe[] =
    "name: fuzz\nmodel:\n  name: tiny\n  input: [4, 4, 1]\n  classes: 3\n  layers:\n    - flatten\n    - linear: {out: classes}\n"
    "data: {kind: idx, mean: [0.5], std: [0.25]}\nbatch: 2\nepochs: 1\nupdate: {kind: niti, mu: 3}\n";

static uint32_t network;
static size_t weight_bytes, slot;
static NitiCheckpoint *origin;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  NitiExport e = {.recipe = NULL};
  NitiRecipe *parsed;
  NitiLocation where;
  (void)argc;
  (void)argv;
  FUZZ_CHECK(niti_locate(&where, fuzz_put("tiny.yaml", recipe, sizeof recipe - 1)) == NITI_OK);
  FUZZ_CHECK(niti_location_weights(&origin, &where) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_set(origin, "recipe", recipe) == NITI_OK); /* as short as it may be: every case reads it */
  FUZZ_CHECK(niti_checkpoint_save(origin, fuzz_at("tiny.safetensors")) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_recipe(&parsed, origin, "tiny") == NITI_OK);
  e.recipe = parsed;
  FUZZ_CHECK(niti_export_weights_open(&e, origin) == NITI_OK);
  network = e.network;
  weight_bytes = (size_t)e.report.trained_weights;
  slot = (weight_bytes + UNIT - 1) / UNIT * UNIT + HEADER;
  free(e.weights);
  niti_recipe_close(parsed);
  niti_location_close(&where);
  return 0;
}

/* ---- slots ---- */

static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = (uint8_t)(v >> (8 * i));
}

/* CRC-32C (RFC 3720), by its polynomial with the first bit of a byte the lowest. */
static uint32_t crc(const uint8_t *p, size_t count) {
  static uint32_t table[256];
  uint32_t value = ~(uint32_t)0;
  for (uint32_t i = 0; i < 256 && !table[255]; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = (table[i] & 1 ? 0x82f63b78u : 0) ^ table[i] >> 1;
  }
  for (size_t i = 0; i < count; ++i) value = table[(value ^ p[i]) & 255] ^ value >> 8;
  return ~value;
}

static bool has_magic(const uint8_t *dump, size_t size, size_t at) { return at + 4 <= size && memcmp(dump + at, "NITI", 4) == 0; }

static void sign(uint8_t *dump, size_t size, unsigned which) {
  int number = 0;
  for (size_t at = slot - HEADER; at + HEADER <= size; ++at) {
    if (!has_magic(dump, size, at) || !(which >> number++ % 8 & 1)) continue;
    put32(dump + at + 4, 1);
    put32(dump + at + 8, network);
    put32(dump + at + 32, (uint32_t)weight_bytes);
    put32(dump + at + HEADER - 4, crc(dump + at + HEADER - slot, slot - 4));
  }
}

typedef struct Found {
  const uint8_t *state; /* the newest; NULL: none */
  size_t headers;       /* of this network, whole or not */
} Found;

static uint32_t sequence(const uint8_t *state) { return get32(state + slot - HEADER + 12); }

static Found look(const uint8_t *dump, size_t size) {
  Found found = {NULL, 0};
  for (size_t start = 0; start + slot <= size; ++start) {
    const uint8_t *header = dump + start + slot - HEADER;
    if (memcmp(header, "NITI", 4) != 0 || get32(header + 4) != 1 || get32(header + 8) != network ||
        get32(header + 32) != weight_bytes)
      continue;
    ++found.headers;
    if (crc(dump + start, slot - 4) != get32(header + HEADER - 4)) continue;
    if (!found.state || (uint32_t)(sequence(dump + start) - sequence(found.state)) < 0x80000000u) found.state = dump + start;
  }
  return found;
}

/* ---- what came of it ---- */

static void check_number(const NitiCheckpoint *checkpoint, const char *key, uint64_t wanted) {
  const char *text = niti_checkpoint_get(checkpoint, key);
  FUZZ_CHECK(text && strtoull(text, NULL, 10) == wanted);
}

/* The checkpoint has the state, and otherwise what the network's has. */
static void check_taken(const uint8_t *state, const NitiImportResult *result, const char *out) {
  const uint8_t *header = state + slot - HEADER;
  NitiCheckpoint *checkpoint;
  char hash[65];
  FUZZ_CHECK(result->steps == get32(header + 16) && (uint32_t)result->mu == get32(header + 28));
  FUZZ_CHECK(niti_checkpoint_load(&checkpoint, out) == NITI_OK);
  FUZZ_CHECK(checkpoint->tensor_count == origin->tensor_count && checkpoint->value_count == origin->value_count + 3);
  FUZZ_CHECK(strcmp(niti_checkpoint_get(checkpoint, "recipe"), niti_checkpoint_get(origin, "recipe")) == 0);
  size_t weights = 0;
  for (size_t i = 0; i < checkpoint->tensor_count; ++i) {
    const NitiCheckpointTensor *t = &checkpoint->tensors[i], *was = niti_checkpoint_find(origin, t->name);
    FUZZ_CHECK(was && was->dtype == t->dtype && was->exponent == t->exponent);
    weights += t->dtype == NITI_I8;
    if (t->dtype == NITI_I8) FUZZ_CHECK(memcmp(t->data, state, weight_bytes) == 0); /* there is one */
  }
  FUZZ_CHECK(weights == 1);
  check_number(checkpoint, NITI_DEVICE_STEP, get32(header + 16));
  check_number(checkpoint, NITI_DEVICE_SEED, get32(header + 20) | (uint64_t)get32(header + 24) << 32);
  check_number(checkpoint, NITI_DEVICE_MU, get32(header + 28));
  FUZZ_CHECK(niti_checkpoint_hash(checkpoint, hash) == NITI_OK && strcmp(hash, result->hash) == 0);
  niti_checkpoint_close(checkpoint);
}

/* Whether there is nothing to say against a dump in which a state was found. */
static bool is_good(const uint8_t *dump, size_t size, Found found) {
  bool good = size >= 2 * slot && found.headers <= 2 * (size / slot + 1) && get32(found.state + slot - HEADER + 28) <= MU_MAX;
  for (size_t at = size - HEADER + 1; good && at < size; ++at) good = !has_magic(dump, size, at); /* the dump is cut */
  return good && !memchr(found.state, 0x80, weight_bytes);                                        /* no mantissa is -128 */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  NitiImportResult result;
  struct stat facts;
  if (size < 1) return 0;
  const unsigned which = *data++;
  uint8_t *dump = (uint8_t *)fuzz_text(data, --size);
  sign(dump, size, which);
  const Found found = look(dump, size);
  const char *path = fuzz_put("dump", dump, size), *out = fuzz_at("out.safetensors");
  const NitiStatus status = fuzz_status(niti_import_dump(&result, path, fuzz_at("tiny.safetensors"), out));
  if (status == NITI_OK) {
    FUZZ_CHECK(found.state);
    check_taken(found.state, &result, out);
    (void)niti_system.unlink(out);
  } else {
    FUZZ_CHECK(status == NITI_ERROR_FORMAT && strncmp(niti_error(), path, strlen(path)) == 0);
    FUZZ_CHECK(!found.state || !is_good(dump, size, found));
    FUZZ_CHECK(niti_system.stat(out, &facts) != 0);
  }
  free(dump);
  (void)niti_system.unlink(path);
  return 0;
}
