/* A checkpoint: what loads is saved and loaded again as the same, and its hash stays. */
#include "forge.h"
#include "io/checkpoint.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  return forge_mutate(data, size, room, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_put("c.safetensors", data, size);
  NitiCheckpoint *checkpoint, *again;
  char before[65], after[65];
  bool intact = false;
  const NitiStatus status = fuzz_status(niti_checkpoint_load(&checkpoint, path));
  if (status == NITI_OK) {
    FUZZ_CHECK(niti_checkpoint_hash(checkpoint, before) == NITI_OK);
    FUZZ_CHECK(niti_checkpoint_save(checkpoint, fuzz_at("d.safetensors")) == NITI_OK);
    FUZZ_CHECK(niti_checkpoint_load(&again, fuzz_at("d.safetensors")) == NITI_OK);
    FUZZ_CHECK(niti_checkpoint_hash(again, after) == NITI_OK && strcmp(before, after) == 0);
    FUZZ_CHECK(again->tensor_count == checkpoint->tensor_count && again->value_count == checkpoint->value_count);
    niti_checkpoint_close(again);
    niti_checkpoint_close(checkpoint);
  }
  if (fuzz_status(niti_checkpoint_load_weights(&checkpoint, &intact, path)) == NITI_OK) {
    FUZZ_CHECK(intact == (status == NITI_OK));
    niti_checkpoint_close(checkpoint);
  }
  return 0;
}
