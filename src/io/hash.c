/* SHA-256 over named tensors. */
#include "io/hash.h"

#include <sha256.h>
#include <stdlib.h>
#include <string.h>

#include "platform/bytes.h"

struct NitiHash {
  SHA256_CTX sha;
};

static void put_u32(NitiHash *hash, uint32_t v) {
  const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
  SHA256_Update(&hash->sha, bytes, sizeof bytes);
}

NitiStatus niti_hash_open(NitiHash **out) {
  *out = malloc(sizeof **out);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a hash");
  SHA256_Init(&(*out)->sha);
  return NITI_OK;
}

void niti_hash_tensor(NitiHash *hash, const char *name, int ndim, const uint32_t *dims, int32_t exponent, const void *data,
                      size_t size) {
  uint8_t buffer[NITI_BYTES_PIECE];
  size_t bytes = size;
  SHA256_Update(&hash->sha, (const uint8_t *)name, strlen(name) + 1);
  put_u32(hash, (uint32_t)ndim);
  for (int i = 0; i < ndim; ++i) {
    put_u32(hash, dims[i]);
    bytes *= dims[i];
  }
  put_u32(hash, (uint32_t)exponent);
  for (size_t at = 0, count = 0; at < bytes; at += count) {
    const uint8_t *piece = niti_bytes_piece(&count, buffer, data, at, bytes, size);
    SHA256_Update(&hash->sha, piece, count);
  }
}

void niti_hash_close(NitiHash *hash, char text[65]) {
  (void)SHA256_End(&hash->sha, text);
  free(hash);
}
