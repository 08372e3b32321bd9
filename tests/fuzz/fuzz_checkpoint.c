/* A checkpoint: what loads is saved and loaded again as the same, and its hash stays. */
#include "forge.h"
#include "io/checkpoint.h"
#include "platform/file.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  return forge_mutate(data, size, room, seed);
}

/* Whether the file has these bytes. */
static bool has_bytes(const char *path, const uint8_t *data, size_t size) {
  char *bytes;
  size_t had;
  FUZZ_CHECK(niti_file_read(&bytes, &had, path, SIZE_MAX - 1) == NITI_OK);
  const bool same = had == size && memcmp(bytes, data, size) == 0;
  free(bytes);
  return same;
}

static void check_again(const NitiCheckpoint *checkpoint, const char *path) {
  NitiCheckpoint *again;
  char before[65], after[65];
  FUZZ_CHECK(niti_checkpoint_load(&again, path) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_hash(checkpoint, before) == NITI_OK);
  FUZZ_CHECK(niti_checkpoint_hash(again, after) == NITI_OK && strcmp(before, after) == 0);
  FUZZ_CHECK(again->tensor_count == checkpoint->tensor_count && again->value_count == checkpoint->value_count);
  niti_checkpoint_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_put("c.safetensors", data, size), *saved = fuzz_at("d.safetensors");
  NitiCheckpoint *checkpoint;
  bool intact = false;
  const NitiStatus status = fuzz_status(niti_checkpoint_load(&checkpoint, path));
  if (status == NITI_OK) {
    FUZZ_CHECK(niti_checkpoint_save(checkpoint, saved) == NITI_OK);
    if (!has_bytes(saved, data, size)) check_again(checkpoint, saved); /* the same bytes were loaded just now */
    niti_checkpoint_close(checkpoint);
  }
  if (fuzz_status(niti_checkpoint_load_weights(&checkpoint, &intact, path)) == NITI_OK) {
    FUZZ_CHECK(intact == (status == NITI_OK));
    niti_checkpoint_close(checkpoint);
  }
  return 0;
}
